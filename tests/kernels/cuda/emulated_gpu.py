"""A GPU that is not there: the emulated driver, its memory as arrays, and a stand-in for nvcc."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec
from edgepin_kernels._cuda import CudaLogMel
from edgepin_kernels._cuda_build import SOURCE
from edgepin_kernels._cuda_driver import Driver

HERE = Path(__file__).resolve().parent
# Contraction into fused operations is the machine's choice; without it the emulated bits are the same everywhere.
_FLAGS = (
    "-std=c++20",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    f"-I{SOURCE}",
)

NVCC = """#!/bin/sh
echo "$@" >> "$0.calls"
case "$1" in --version) echo "stand-in for nvcc, release {release}"; exit 0;; esac
for word in "$@"; do
  case "$word" in -D*) defined="$defined $word";; esac
  [ "$previous" = -o ] && out=$word
  previous=$word
done
echo "$defined" > "$out"
"""


def compile_cpp(target: Path, *arguments: str) -> Path:
    """Raises pytest's skip if there is no C++ compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not here, and the kernel is emulated in C++")
    command = [compiler, *_FLAGS, f"-I{HERE}", *arguments, "-o", str(target)]
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return target


def emulated_driver(folder: Path) -> EmulatedGpu:
    """Undefined behavior, such as a read that is not aligned, ends the process with a message."""
    library = compile_cpp(
        folder / "libcuda_emulated.so",
        "-O1",
        "-shared",
        "-fPIC",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
        "emulated_libcuda.cpp",
        "emulation_fibers.cpp",
    )
    nvcc = folder / "nvcc"
    nvcc.write_text(NVCC.format(release="13.0"))
    nvcc.chmod(0o755)
    return EmulatedGpu(library, folder)


class Array:
    """Memory of the emulated GPU, with numpy's view of it."""

    def __init__(self, gpu: EmulatedGpu, values: npt.NDArray[Any], at_end: bool) -> None:
        address = gpu.library.emu_allocate(max(values.nbytes, 1), at_end)
        weakref.finalize(self, gpu.library.emu_free, address)
        buffer = (ctypes.c_char * max(values.nbytes, 1)).from_address(address)
        self.values = np.frombuffer(buffer, values.dtype, values.size).reshape(values.shape)
        self.values[...] = values
        self.address = address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.values.__array_interface__


@dataclasses.dataclass(frozen=True)
class EmulatedGpu:
    library_path: Path
    folder: Path
    library: Any = dataclasses.field(init=False, repr=False)
    driver: Driver = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        library = ctypes.CDLL(str(self.library_path))
        library.emu_allocate.restype = ctypes.c_uint64
        library.emu_allocate.argtypes = [ctypes.c_size_t, ctypes.c_int]
        library.emu_free.argtypes = [ctypes.c_uint64]
        library.emu_log.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        library.emu_log.restype = ctypes.c_size_t
        library.emu_fail.argtypes = [ctypes.c_char_p, ctypes.c_int]
        object.__setattr__(self, "library", library)
        object.__setattr__(self, "driver", Driver(str(self.library_path)))

    def plan(self, spec: LogMelSpec, dtype: Any = "float32", **options: Any) -> CudaLogMel:
        return CudaLogMel(spec, dtype=dtype, cache=self.folder / "kernels", _driver=self.driver, **options)

    def array(self, values: npt.NDArray[Any], *, at_end: bool = False) -> Array:
        """``at_end``: the byte behind the last one cannot be read; without it, the one before the first."""
        return Array(self, values, at_end)

    def reset(self) -> None:
        self.library.emu_reset()

    def resident(self, blocks: int) -> None:
        """How many blocks run at the same time, in plans built from here on."""
        self.library.emu_set_device(1, blocks, 1, 1, 0)

    def device(
        self, count: int = 1, blocks: int = 12, cooperative: bool = True, capturing: bool = False
    ) -> None:
        self.library.emu_set_device(count, blocks, 1, int(cooperative), int(capturing))

    @contextmanager
    def schedule(self, seed: int = 0, dropped_barrier: int = -1) -> Iterator[None]:
        self.library.emu_set_options(seed, dropped_barrier)
        try:
            yield
        finally:
            self.library.emu_set_options(0, -1)

    def fail(self, function: str, code: int) -> None:
        """The next call of the function returns the code."""
        self.library.emu_fail(function.encode(), code)

    def calls(self) -> list[str]:
        """What the driver was called since the last time."""
        text = ctypes.create_string_buffer(1 << 20)
        assert self.library.emu_log(text, len(text)) < len(text)
        return text.value.decode().splitlines()

    def log_mel(
        self,
        spec: LogMelSpec,
        pcm: npt.NDArray[np.int16],
        *,
        lengths: list[int] | None = None,
        dtype: Any = "float32",
        resident: int = 12,
        at_end: bool = False,
    ) -> npt.NDArray[Any]:
        """One call on new arrays; ``out`` starts out as NaN."""
        self.resident(resident)
        plan = self.plan(spec, dtype)
        out = self.array(np.full(plan.out_shape(pcm.shape), np.nan, dtype))
        given = None if lengths is None else self.array(np.array(lengths, np.int32))
        plan(self.array(pcm, at_end=at_end), out, lengths=given)
        plan.close()
        return out.values.copy()
