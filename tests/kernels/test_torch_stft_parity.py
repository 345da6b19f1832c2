"""Frames, padding and windows against torch.stft in float64, for lengths and shapes that no preset has."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgepin_kernels import LogMelSpec
from edgepin_kernels._reference import mel_filters

from .parity import IMPLEMENTATIONS, Mels, energy_error
from .sounds import SOUNDS, Pcm

SHAPES: dict[str, dict[str, Any]] = {
    "400 in 512": {},
    "400 in 400": {"fft_length": 400},
    "odd frame": {"frame_length": 401, "fft_length": 512},
    "odd frame, odd hop": {"frame_length": 315, "hop_length": 77, "fft_length": 320},
    "gaps between frames": {"frame_length": 200, "hop_length": 333, "fft_length": 256},
    "long transform": {"frame_length": 480, "fft_length": 2_048},
}
# Whole hops and their neighbors, and what the longest transform above still takes as reflected.
LENGTHS = (1_025, 1_599, 1_600, 1_601, 4_999)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip(
        "torch", reason="torch is not installed: parity with torch.stft is NOT tested (extra: train)"
    )


def stft_energies(torch: Any, spec: LogMelSpec, pcm: Pcm) -> Mels:
    make = {"hann": torch.hann_window, "hamming": torch.hamming_window}[spec.window]
    spectrum = torch.stft(
        torch.from_numpy(pcm / 32768),
        spec.fft_length,
        spec.hop_length,
        spec.frame_length,
        make(spec.frame_length, periodic=spec.window_periodic, dtype=torch.float64),
        center=True,
        pad_mode={"zeros": "constant", "reflect": "reflect"}[spec.padding],
        return_complex=True,
    )
    energies = (spectrum.abs() ** 2).numpy().T @ mel_filters(spec)
    return energies[:-1] if spec.drop_last_frame else energies


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("preset", ["librosa", "speechbrain", "nemo"])
@pytest.mark.parametrize("shape", SHAPES)
def test_frames_and_windows_equal_torch_stft(torch: Any, shape: str, preset: str, padding: Any) -> None:
    # The periodic Hann, the periodic Hamming and the symmetric Hann; nemo's leaves out the last frame.
    spec = dataclasses.replace(
        LogMelSpec.preset(preset), padding=padding, preemphasis=0.0, log="none", dynamic_range=None,
        normalize="none", **SHAPES[shape],
    )  # fmt: skip
    for samples in LENGTHS:
        pcm = SOUNDS["noise"](samples)
        theirs = stft_energies(torch, spec, pcm)
        for ours in IMPLEMENTATIONS.values():
            error = energy_error(ours.call(spec, pcm), theirs, spec.log_floor)
            assert error <= 1e-10 + ours.energy_error, samples
