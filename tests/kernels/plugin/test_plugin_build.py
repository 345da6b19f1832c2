"""The plugin as a device builds it: against every TensorRT whose headers are here, by nvcc, by CMake."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgepin_kernels._cuda_build import SOURCE

from ..cuda import test_cuda_compile
from ..cuda.emulated_gpu import compile_cpp
from .trt_harness import PLUGIN, VARIABLE, include_flags, tensorrt_headers, version

HEADERS = {version(folder): folder for folder in tensorrt_headers()} or {"none": None}
# On an H100 a thread of the 400-point transform wants one register more than it gets: a word is stored and loaded.
MOST_SPILLS = {"sm_90": 8}


@pytest.mark.parametrize("release", HEADERS)
def test_it_compiles_without_a_warning_against(tmp_path: Path, release: str) -> None:
    headers = HEADERS[release]
    if headers is None:
        pytest.skip(f"TensorRT's headers are not here; set {VARIABLE} to their folder, or to several")
    for source in sorted(PLUGIN.glob("*.cpp")):
        # -std comes last, and so counts: nvcc's host compilers on JetPack 6 know C++17.
        compile_cpp(tmp_path / "object.o", *include_flags(headers), "-std=c++17", "-c", str(source))


def test_the_float_kernels_stay_within_the_budget(tmp_path: Path) -> None:
    nvcc = test_cuda_compile.compiler()
    targets = [f"-gencode=arch=compute_{a}{b},code=sm_{a}{b}" for a, b in test_cuda_compile.CAPABILITIES]
    command = [
        nvcc,
        "-fatbin",
        *targets,
        "-std=c++17",
        "-O3",
        "-Xptxas=-v",
        "-Werror=all-warnings",
        f"-I{SOURCE}",
    ]
    command += ["-o", str(tmp_path / "plugin.fatbin"), str(PLUGIN / "log_mel_plugin.cu")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    found = test_cuda_compile.resources_in(result.stderr)
    assert len(found) == 4 * len(test_cuda_compile.CAPABILITIES)
    for architecture, numbers in found:
        assert numbers["spills"] <= MOST_SPILLS.get(architecture, 0), (architecture, numbers)
        assert numbers["registers"] <= test_cuda_compile.MOST_REGISTERS, (architecture, numbers)
        assert numbers["shared"] <= test_cuda_compile.MOST_SHARED, (architecture, numbers)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here")
    return found


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CUDAARCHS"}
    command = [tool("cmake"), "-S", str(PLUGIN), "-B", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_cmake_asks_which_gpu_it_is_for(tmp_path: Path) -> None:
    result = configure(tmp_path / "build")
    assert result.returncode != 0
    assert "-DCMAKE_CUDA_ARCHITECTURES=87 (Orin) or 110 (Thor)" in " ".join(result.stderr.split())


def test_cmake_says_how_to_get_tensorrt(tmp_path: Path) -> None:
    test_cuda_compile.compiler()
    # Empty counts as found nowhere, also where TensorRT is.
    options = ("-DCMAKE_CUDA_ARCHITECTURES=87", "-DTENSORRT_INCLUDE=", "-DTENSORRT_LIBRARY=")
    result = configure(tmp_path / "build", *options)
    assert result.returncode != 0
    assert "sudo apt install libnvinfer-dev" in " ".join(result.stderr.split())


def test_cmake_builds_a_library_that_has_only_what_tensorrt_looks_for(tmp_path: Path) -> None:
    test_cuda_compile.compiler()
    headers = next((folder for folder in HEADERS.values() if folder), None)
    if headers is None:
        pytest.skip(f"TensorRT's headers are not here; set {VARIABLE}")
    # In place of TensorRT's library, the one function that the plugin takes from it.
    (tmp_path / "nvinfer.cpp").write_text('extern "C" void* getLogger() noexcept { return nullptr; }\n')
    library = compile_cpp(tmp_path / "libnvinfer.so", "-shared", "-fPIC", str(tmp_path / "nvinfer.cpp"))
    build = tmp_path / "build"
    result = configure(
        build,
        "-DCMAKE_CUDA_ARCHITECTURES=87",
        f"-DTENSORRT_INCLUDE={headers}",
        f"-DTENSORRT_LIBRARY={library}",
    )
    assert result.returncode == 0, result.stderr
    result = subprocess.run([tool("cmake"), "--build", str(build)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    assert "warning" not in result.stdout + result.stderr
    listing = subprocess.run(
        [tool("nm"), "-D", "--defined-only", str(build / "libedgepin_tensorrt_plugin.so")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    # Besides templates of the C++ library, which are weak.
    assert {line.split()[2] for line in listing.splitlines() if line.split()[1] == "T"} == {
        "getCreators",
        "setLoggerFinder",
    }
