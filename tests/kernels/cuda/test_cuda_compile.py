"""What nvcc makes of the kernel: nothing in local memory, and registers and shared memory as recorded.

``python tests/kernels/cuda/test_cuda_compile.py`` records them anew, in ``resources.json``, after a look at what grew.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from edgepin_kernels import _cuda_params
from edgepin_kernels._cuda_build import KERNEL, SOURCE, build, find_nvcc, nvcc_options
from edgepin_kernels._cuda_driver import CudaUnavailableError
from edgepin_kernels._presets import PRESETS

RECORD = Path(__file__).resolve().parent / "resources.json"
CAPABILITIES = [(8, 0), (8, 7), (9, 0), (11, 0)]
VARIANTS = [(512, "float32"), (512, "float16"), (400, "float32"), (400, "float16")]
# 10 blocks of 128 threads a multiprocessor, of 65,536 registers; the least shared memory of one is 100 KiB.
MOST_REGISTERS = 48
MOST_SHARED = 10 * 1024


def compiler() -> str:
    try:
        nvcc = find_nvcc()
    except CudaUnavailableError as error:
        pytest.skip(f"the kernel cannot be compiled: {error}")
    # A wrapper may be on PATH where the toolkit is not.
    if shutil.which(nvcc) is None:
        pytest.skip(f"{nvcc} cannot be run")
    return nvcc


def release(nvcc: str) -> str:
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release ([\d.]+)", said)
    assert found, said
    return found[1]


def resources(nvcc: str, fft_length: int, store: str) -> dict[str, dict[str, int]]:
    """By architecture, of one variant."""
    options = [o for o in nvcc_options(fft_length, store, (8, 0)) if not o.startswith(("-arch", "-cubin"))]
    targets = [f"-gencode=arch=compute_{a}{b},code=sm_{a}{b}" for a, b in CAPABILITIES]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-fatbin", *targets, *options, "-Xptxas=-v,-warn-spills", "-Werror=all-warnings"]
        command += ["-o", str(Path(folder) / "log_mel.fatbin"), str(SOURCE / "log_mel.cu")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(resources_in(result.stderr))


def resources_in(said: str) -> list[tuple[str, dict[str, int]]]:
    """What ptxas said of each kernel, with its architecture."""
    found = []
    for part in said.split("Compiling entry function")[1:]:
        architecture = re.search(r"for 'sm_(\d+)a?'", part)
        assert architecture, part
        numbers = {
            "registers": _number(r"Used (\d+) registers", part),
            "stack": _number(r"(\d+) bytes stack frame", part),
            "spills": _number(r"(\d+) bytes spill stores", part) + _number(r"(\d+) bytes spill loads", part),
            "shared": _number(r"(\d+) bytes smem", part),
        }
        found.append((f"sm_{architecture[1]}", numbers))
    return found


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, (pattern, text)
    return int(found[1])


def dynamic_shared() -> dict[str, int]:
    """Of each preset, besides what the compiler counts."""
    return {name: _cuda_params.shared_bytes(spec) for name, spec in PRESETS.items()}


def record(nvcc: str) -> dict[str, Any]:
    kernels = {f"{fft_length}-{store}": resources(nvcc, fft_length, store) for fft_length, store in VARIANTS}
    return {"nvcc": release(nvcc), "kernels": kernels, "dynamic_shared": dynamic_shared()}


@pytest.mark.parametrize(("fft_length", "store"), VARIANTS)
def test_nothing_spills_and_nothing_grows(fft_length: int, store: str) -> None:
    nvcc, kept = compiler(), json.loads(RECORD.read_text("utf-8"))
    found = resources(nvcc, fft_length, store)
    assert set(found) == {f"sm_{a}{b}" for a, b in CAPABILITIES}
    for architecture, numbers in found.items():
        assert (numbers["stack"], numbers["spills"]) == (0, 0), architecture
        assert numbers["registers"] <= MOST_REGISTERS, architecture
        assert numbers["shared"] <= MOST_SHARED, architecture
    if release(nvcc) == kept["nvcc"]:  # another release allocates otherwise, within the same bounds
        assert found == kept["kernels"][f"{fft_length}-{store}"]


def test_dynamic_shared_memory_is_as_recorded() -> None:
    assert dynamic_shared() == json.loads(RECORD.read_text("utf-8"))["dynamic_shared"]


def test_the_launcher_makes_a_cubin_with_the_kernel(tmp_path: Path) -> None:
    compiler()
    image = build(512, "float32", (8, 7), tmp_path / "kernels")
    assert image.startswith(b"\x7fELF")
    assert KERNEL.encode() in image


def test_no_atomic_operation_is_on_floats(tmp_path: Path) -> None:
    nvcc = compiler()
    options = [o for o in nvcc_options(512, "float32", (8, 0)) if o != "-cubin"]
    target = tmp_path / "log_mel.ptx"
    command = [nvcc, "-ptx", *options, "-o", str(target), str(SOURCE / "log_mel.cu")]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    atomics = re.findall(
        r"^\s*(?:@\S+\s+)?((?:atom|red)\.\S+)", target.read_text("utf-8"), flags=re.MULTILINE
    )
    assert len(atomics) >= 5
    assert [name for name in atomics if not name.endswith((".u32", ".u64", ".s32", ".s64"))] == []


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(find_nvcc()), indent=2) + "\n", "utf-8")
    sys.stdout.write(RECORD.read_text("utf-8"))
