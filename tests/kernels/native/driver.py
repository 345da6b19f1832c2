"""Builds of the compiled kernel without Python, for another processor or with a sanitizer, and cases for them to run."""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec
from edgepin_kernels._compiled import plan_arguments

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[2] / "kernels"

# In the order in which the driver reads them.
SCALARS = (
    "frame_length", "hop_length", "fft_length", "frame_lead", "padding", "remove_dc", "preemphasis",
    "preemphasis_over_utterance", "int16_scale", "float_scale", "log", "add_floor", "floor", "log_of_floor",
    "dynamic_range", "output_offset", "output_scale", "normalize", "std_guard",
)  # fmt: skip
ARRAYS = ("window", "mel_firsts", "mel_counts", "mel_weights")
CHOICES = {
    "padding": ("none", "zeros", "reflect"),
    "log": ("none", "ln", "log10", "db"),
    "normalize": ("none", "mean", "mean_std"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What one plan computes of ``pcm`` ``(batch, samples)``; ``callers`` threads ask for it at once."""

    spec: LogMelSpec
    pcm: npt.NDArray[Any]
    kernel: str
    threads: int = 1
    callers: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.pcm), self.spec.num_frames(self.pcm.shape[1]), self.spec.num_mels

    def to_bytes(self) -> bytes:
        arguments = plan_arguments(self.spec)
        scalars = [
            CHOICES[name].index(arguments[name]) if name in CHOICES else arguments[name] for name in SCALARS
        ]
        return b"".join(
            [
                _array(np.frombuffer(self.kernel.encode(), np.uint8)),
                _numbers(self.threads, self.callers, *scalars),
                *(_array(arguments[name]) for name in ARRAYS),
                _numbers(self.pcm.dtype == np.float32, *self.shape[:2]),
                _array(self.pcm),
            ]
        )


def _numbers(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _array(values: npt.NDArray[Any]) -> bytes:
    return _numbers(values.size) + values.tobytes()


@dataclasses.dataclass(frozen=True)
class Driver:
    """A built driver and the command that runs it."""

    command: tuple[str, ...]

    def kernels(self) -> list[str]:
        return self._run(b"", "--kernels").decode().split()

    def run(self, cases: list[Case], timeout: float = 300) -> list[npt.NDArray[np.float32]]:
        data = self._run(_numbers(len(cases)) + b"".join(case.to_bytes() for case in cases), timeout=timeout)
        results, at = [], 0
        for case in cases:
            count = int(np.prod(case.shape))
            results.append(np.frombuffer(data, np.float32, count, at).reshape(case.shape))
            at += 4 * count
        assert at == len(data)
        return results

    def _run(self, data: bytes, *arguments: str, timeout: float = 60) -> bytes:
        done = subprocess.run(
            [*self.command, *arguments], input=data, capture_output=True, check=False, timeout=timeout
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        assert not done.stderr, done.stderr.decode()[-4000:]
        return done.stdout


def build(folder: Path, *options: str, run_with: tuple[str, ...] = ()) -> Driver:
    """Configure and build the driver in ``folder`` with CMake; skips where CMake or the compiler is missing."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not here: the kernel without Python is NOT tested")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    environment = {name: value for name, value in os.environ.items() if name not in ("CXXFLAGS", "LDFLAGS")}
    for command in (
        [
            "cmake",
            "-S",
            KERNELS,
            "-B",
            folder,
            *generator,
            f"-DEDGEPIN_DRIVER={HERE / 'driver.cpp'}",
            *options,
        ],
        ["cmake", "--build", folder, "--target", "log_mel_driver"],
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=600
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return Driver((*run_with, str(folder / "log_mel_driver")))
