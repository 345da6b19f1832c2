"""Compiling the kernel once for exactly one GPU, and keeping it; nvcc is a stand-in that is a shell script."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from edgepin_kernels import _cuda_build
from edgepin_kernels._cuda import CudaUnavailableError

from .emulated_gpu import EmulatedGpu


@pytest.fixture
def nvcc(gpu: EmulatedGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of this test's own; its calls are the lines of ``nvcc.calls``."""
    target = tmp_path / "toolkit" / "nvcc"
    target.parent.mkdir()
    shutil.copy2(gpu.folder / "nvcc", target)
    monkeypatch.setenv("PATH", str(target.parent), prepend=":")
    return target


def compiled(nvcc: Path) -> list[str]:
    """The calls that were not about the version."""
    calls = Path(f"{nvcc}.calls")
    lines = calls.read_text().splitlines() if calls.exists() else []
    return [line for line in lines if "--version" not in line]


def test_a_kernel_is_compiled_once_for_exactly_this_gpu(nvcc: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = _cuda_build.build(512, "float32", (8, 7), cache)
    assert _cuda_build.build(512, "float32", (8, 7), cache) == first
    (command,) = compiled(nvcc)
    assert "-cubin -std=c++17 -O3 -arch=sm_87 -DEDGEPIN_FFT_LENGTH=512 -DEDGEPIN_STORE_HALF=0" in command
    assert "ptx" not in command
    for other in ((400, "float32", (8, 7)), (512, "float16", (8, 7)), (512, "float32", (9, 0))):
        _cuda_build.build(*other, cache)  # type: ignore[arg-type]
    assert len(compiled(nvcc)) == len(list(cache.iterdir())) == 4


def test_another_compiler_or_source_is_another_kernel(
    nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    _cuda_build.build(512, "float32", (8, 7), cache)
    nvcc.write_text(nvcc.read_text().replace("13.0", "13.2"))
    _cuda_build.build(512, "float32", (8, 7), cache)
    assert len(compiled(nvcc)) == 2
    sources = tmp_path / "sources"
    shutil.copytree(_cuda_build.SOURCE, sources)
    monkeypatch.setattr(_cuda_build, "SOURCE", sources)
    _cuda_build.build(512, "float32", (8, 7), cache)
    assert len(compiled(nvcc)) == 2
    with (sources / "log_mel_frame.cuh").open("a") as file:
        file.write("// changed\n")
    _cuda_build.build(512, "float32", (8, 7), cache)
    assert len(compiled(nvcc)) == 3


@pytest.mark.parametrize("damage", [b"", b"x" * 20, b"x" * 100], ids=len)
def test_a_damaged_entry_is_compiled_anew(nvcc: Path, tmp_path: Path, damage: bytes) -> None:
    cache = tmp_path / "cache"
    image = _cuda_build.build(512, "float32", (8, 7), cache)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    for content in (damage, whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        entry.write_bytes(content)
        assert _cuda_build.build(512, "float32", (8, 7), cache) == image
        assert entry.read_bytes() == whole
    assert len(compiled(nvcc)) == 4


def test_the_cache_is_private_and_nothing_is_left_beside_an_entry(nvcc: Path, tmp_path: Path) -> None:
    cache = tmp_path / "home" / "cache"
    _cuda_build.build(512, "float32", (8, 7), cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [path.suffix for path in cache.iterdir()] == [".cubin"]
    cache.chmod(0o770)
    with pytest.raises(CudaUnavailableError, match=r"others may write to .*chmod 700"):
        _cuda_build.build(512, "float32", (8, 7), cache)


def test_a_cache_that_cannot_be_made_or_written_to(
    nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CudaUnavailableError, match="EDGEPIN_HOME"):
        _cuda_build.build(512, "float32", (8, 7), tmp_path / "file" / "cache")

    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", full)
    assert _cuda_build.build(512, "float32", (8, 7), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("EDGEPIN_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _cuda_build.cache_folder() == tmp_path / ".cache" / "edgepin" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _cuda_build.cache_folder() == tmp_path / ".cache" / "edgepin" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _cuda_build.cache_folder() == tmp_path / "xdg" / "edgepin" / "kernels"
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "pin"))
    assert _cuda_build.cache_folder() == tmp_path / "pin" / "cache" / "kernels"


def test_nvcc_is_found_or_its_absence_says_how_to_get_it(
    nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _cuda_build.find_nvcc() == str(nvcc)
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    shutil.copy2(nvcc, home / "bin" / "nvcc")
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert _cuda_build.find_nvcc() == str(home / "bin" / "nvcc")
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(CudaUnavailableError, match=r"nvcc is not here.*apt install cuda-nvcc.*CUDA_HOME"):
        _cuda_build.find_nvcc()


def test_what_nvcc_says_is_in_the_error(nvcc: Path, tmp_path: Path) -> None:
    nvcc.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'no such architecture' >&2\nexit 2\n")
    with pytest.raises(CudaUnavailableError, match=r"-arch=sm_87.*failed with 2: no such architecture"):
        _cuda_build.build(512, "float32", (8, 7), tmp_path / "cache")
    nvcc.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(CudaUnavailableError, match="wrote nothing"):
        _cuda_build.build(512, "float32", (8, 7), tmp_path / "cache")
    nvcc.write_text("not a program")
    with pytest.raises(CudaUnavailableError, match=r"cannot be run.*CUDA_HOME"):
        _cuda_build.build(512, "float32", (8, 7), tmp_path / "cache")
