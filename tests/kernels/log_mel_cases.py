"""What the tests of `LogMel` share: specs, a plan for each of them and each implementation, and sounds."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMel, LogMelSpec
from edgepin_kernels._compiled import available_kernels
from edgepin_kernels._presets import PRESETS

from .parity import linear

KERNELS = available_kernels()
IMPLEMENTATIONS = [*KERNELS, "numpy"]
# Of the energies of a frame, as a part of its largest, before the logarithm.
ENERGY_TOLERANCE = 1e-5
# In logarithms, on sounds whose quietest mels are far above what float32 leaves of the loudest.
LOG_TOLERANCE = 2e-3

SPECS = {
    **PRESETS,
    "unit": LogMelSpec(amplitude="unit"),
    "plain hann": LogMelSpec(window="hann", remove_dc=False, preemphasis=0.0),
    "no dc removal": LogMelSpec(remove_dc=False),
    "dc of emphasized samples": LogMelSpec(preemphasis_over="utterance", padding="reflect"),
    "many mels, some between two bins": LogMelSpec(num_mels=200, fft_length=400),
    "long transform": LogMelSpec(frame_length=1_000, fft_length=4_096, num_mels=20),
    "a transform far longer than the frame": LogMelSpec(frame_length=20, hop_length=50, num_mels=30),
    "odd frame, prime factors": LogMelSpec(frame_length=401, fft_length=2 * 7 * 37, num_mels=33),
    "prime transform": LogMelSpec(frame_length=55, hop_length=31, fft_length=2 * 31, num_mels=12),
    "smallest transform": LogMelSpec(
        frame_length=2, hop_length=7, fft_length=4, num_mels=1, window="rectangular"
    ),
    "three points": LogMelSpec(frame_length=5, hop_length=3, fft_length=6, num_mels=3, window="rectangular"),
    "8 kHz, gaps between frames": LogMelSpec(
        sample_rate=8_000, frame_length=200, hop_length=333, fft_length=300, num_mels=23, high_hz=3_800.0
    ),
    "everything over the utterance": LogMelSpec(
        padding="zeros",
        log="db",
        dynamic_range=30.0,
        output_offset=-3.0,
        output_scale=0.5,
        normalize="mean_std",
    ),
}


PLANS = {
    (name, implementation): LogMel(spec, implementation=implementation)  # type: ignore[arg-type]
    for (name, spec), implementation in itertools.product(SPECS.items(), IMPLEMENTATIONS)
}
LINEAR = {
    (name, implementation): LogMel(linear(spec), implementation=implementation)  # type: ignore[arg-type]
    for (name, spec), implementation in itertools.product(SPECS.items(), IMPLEMENTATIONS)
}
each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
each_spec = pytest.mark.parametrize("name", sorted(SPECS))

Samples = npt.NDArray[np.generic]


def noise(*shape: int, seed: int = 0, level: float = 3_000.0) -> npt.NDArray[np.int16]:
    return np.clip(np.random.default_rng(seed).normal(0.0, level, shape), -32768, 32767).astype(np.int16)


def as_float(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    return pcm.astype(np.float32) / np.float32(32768)
