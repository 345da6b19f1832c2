"""Every barrier of the kernel is there for a reason: ThreadSanitizer is silent on the kernel, and without any one of them
it or a permuted schedule objects."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec
from edgepin_kernels import _cuda_params as cuda
from edgepin_kernels._cuda_build import SOURCE
from edgepin_kernels._cuda_driver import CudaError
from edgepin_kernels._presets import PRESETS

from .emulated_gpu import EmulatedGpu, compile_cpp
from .sounds import noise

_ENUM = re.search(
    r"enum class Barrier : int \{(.*?)\}", (SOURCE / "log_mel_device.cuh").read_text("utf-8"), re.DOTALL
)
assert _ENUM
BARRIERS = [name for name in re.findall(r"k\w+", _ENUM[1]) if name != "kCount"]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A launch that is small enough for hundreds of host threads."""

    spec: LogMelSpec
    blocks: int
    samples: int
    half: bool = False


SCENARIOS = {
    # 5 frames on 4 warps, so that one warp uses its memory again; the last frames are padded.
    "512 points": Scenario(PRESETS["librosa"], blocks=1, samples=700),
    "400 points": Scenario(dataclasses.replace(PRESETS["resemblyzer"], remove_dc=True), blocks=1, samples=700),
    "direct frames": Scenario(PRESETS["kaldi"], blocks=1, samples=1_040),
    "exact sums": Scenario(PRESETS["nemo"], blocks=2, samples=1_440),
    "a range": Scenario(dataclasses.replace(PRESETS["whisper"], dynamic_range=1.0), blocks=2, samples=1_440, half=True),
    "a range and sums": Scenario(
        dataclasses.replace(PRESETS["speechbrain"], dynamic_range=5.0, normalize="mean"), blocks=2, samples=1_440
    ),
    "sums of one block": Scenario(PRESETS["wespeaker"], blocks=1, samples=1_040),
    "energies": Scenario(
        dataclasses.replace(PRESETS["librosa"], log="none", dynamic_range=1.0, normalize="mean_std"), blocks=1, samples=700
    ),
}  # fmt: skip
# Where each barrier's absence shows.
WHERE = {
    "kSamplesWritten": "512 points",
    "kSamplesRead": "exact sums",
    "kFirstStageWritten": "direct frames",
    "kFirstStageRead": "400 points",
    "kSecondStageWritten": "512 points",
    "kSecondStageRead": "400 points",
    "kPowerWritten": "direct frames",
    "kPowerRead": "512 points",
    "kMaximaWritten": "a range",
    "kSumsWritten": "sums of one block",
    "kStatisticsWritten": "sums of one block",
    "kEnergySumsWritten": "energies",
    "kEnergyStatisticsWritten": "energies",
    "kArrived": "exact sums",
    "kReleased": "exact sums",
    "kWorkspaceRead": "a range",
    "kLastKnown": "a range",
}
# What these order is read and written by atomic operations alone, which are no race to ThreadSanitizer.
ATOMIC = {"kArrived", "kReleased", "kWorkspaceRead"}


def record(scenario: Scenario, path: Path, scale: float | None = None) -> Path:
    """The launch as a file for ``replay``; all memory that the kernel is to write is poisoned but for the workspace.
    With a ``scale`` the samples are floats of it."""
    spec, frames = scenario.spec, scenario.spec.num_frames(scenario.samples)
    where = cuda.tables(spec)
    memory = bytearray()

    def place(data: bytes) -> int:
        memory.extend(b"\xff" * (-len(memory) % 256))
        memory.extend(data)
        return len(memory) - len(data) + 1

    params = cuda.params(spec, place(where.data), where)
    pcm = noise(scenario.samples) if scale is None else np.float32(scale) * noise(scenario.samples)
    params.pcm, params.pcm_stride = place(pcm.tobytes()), scenario.samples
    params.samples, params.out_frames = scenario.samples, frames
    values = frames * spec.num_mels
    params.out = place(b"\xff" * values * (2 if scenario.half else 4))
    params.staging = place(b"\xff" * values * 4) if scenario.half else params.out
    params.workspace = place(bytes(4 * cuda.workspace_words(spec)))
    together = scenario.blocks > 1
    header = struct.pack(
        "7i",
        spec.fft_length,
        scenario.half,
        scenario.blocks,
        1,
        cuda.shared_bytes(spec),
        together,
        len(memory),
    )
    path.write_bytes(header + bytes(params) + bytes(memory))
    assert ctypes.sizeof(params) == len(bytes(params))
    return path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thread build under ThreadSanitizer, if it starts here at all."""
    return watched_build(tmp_path_factory.mktemp("watched"), "int16_t")


@pytest.fixture(scope="module")
def watched_float(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for the kernel that takes floats."""
    return watched_build(tmp_path_factory.mktemp("watched-float"), "float")


def watched_build(folder: Path, sample: str) -> Path:
    flags = ("-O1", "-g", "-fsanitize=thread", "-pthread", f"-DEDGEPIN_SAMPLE={sample}")
    program = compile_cpp(folder / "replay", *flags, "replay.cpp", "emulation_threads.cpp")
    nothing = subprocess.run([program], capture_output=True, text=True)
    if nothing.returncode != 2:
        pytest.skip(f"ThreadSanitizer does not start on this machine: {nothing.stderr.strip()[:200]}")
    return program


def replay(program: Path, launch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = {"TSAN_OPTIONS": "halt_on_error=1 exitcode=66 atexit_sleep_ms=0"}
    return subprocess.run(
        [program, launch, *arguments],
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_thread_sanitizer_is_silent_on_the_kernel(watched: Path, tmp_path: Path, name: str) -> None:
    result = replay(watched, record(SCENARIOS[name], tmp_path / "launch"))
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", SCENARIOS)
def test_thread_sanitizer_is_silent_on_float_samples(watched_float: Path, tmp_path: Path, name: str) -> None:
    result = replay(watched_float, record(SCENARIOS[name], tmp_path / "launch", scale=2.0**-15))
    assert (result.returncode, result.stderr) == (0, "")


def test_every_barrier_has_a_scenario(gpu: EmulatedGpu) -> None:
    assert list(WHERE) == BARRIERS
    assert gpu.library.emu_barriers() == len(BARRIERS)
    assert set(WHERE.values()) <= set(SCENARIOS)


@pytest.mark.parametrize("barrier", [name for name in BARRIERS if name not in ATOMIC])
def test_thread_sanitizer_sees_that_a_barrier_is_missing(watched: Path, tmp_path: Path, barrier: str) -> None:
    launch = record(SCENARIOS[WHERE[barrier]], tmp_path / "launch")
    result = replay(watched, launch, str(BARRIERS.index(barrier)))
    assert result.returncode == 66, result.stderr
    assert "data race" in result.stderr


@pytest.mark.parametrize("barrier", BARRIERS)
def test_permuted_schedules_see_that_a_barrier_is_missing(gpu: EmulatedGpu, barrier: str) -> None:
    spec = SCENARIOS[WHERE[barrier]].spec
    pcm = noise(1, 6_000, level=300.0)  # more frames than the 8 blocks of one resident have warps
    pcm[:, 1_000:1_040] *= 50  # the loudest frame is not one of the first warp's
    expected = gpu.log_mel(spec, pcm)
    gpu.resident(SCENARIOS[WHERE[barrier]].blocks)
    plan = gpu.plan(spec)
    samples, out = gpu.array(pcm), gpu.array(np.zeros_like(expected))

    def differs(seed: int, dropped: int) -> bool:
        with gpu.schedule(seed, dropped):
            try:
                plan(samples, out)
            except CudaError:  # threads wait for others that never come
                return True
        return not np.array_equal(out.values, expected)

    assert not any(differs(seed, -1) for seed in range(1, 5))
    assert any(differs(seed, BARRIERS.index(barrier)) for seed in range(1, 17))
