"""python_speech_features, which no preset is named after, written as a spec: what the options no preset uses mean."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel

from .parity import IMPLEMENTATIONS, Mels, energy_error, largest_difference
from .sounds import SOUNDS, Pcm, real_speech

SAMPLES = 32_037

# Its defaults. It counts in int16, divides every energy by the points of the transform, and pads one more frame
# with zeros at the end.
SPEC = LogMelSpec(
    window="rectangular",
    remove_dc=False,
    preemphasis_over="utterance",
    num_mels=26,
    low_hz=0.0,
    triangles="bins",
    log="none",
)
WINDOWS = {"rectangular": np.ones, "hamming": np.hamming, "hann": np.hanning}
# It computes in float64; an energy of 0 counts as 2e-16 there.
ENERGY_BOUND = 1e-12


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip(
        "python_speech_features",
        reason="python_speech_features is not installed: parity with it is NOT tested (extra: dev)",
    )


def peer_energies(peer: Any, spec: LogMelSpec, pcm: Pcm) -> Mels:
    """In our frames and without its division."""
    energies, _ = peer.fbank(
        pcm,
        samplerate=spec.sample_rate,
        nfilt=spec.num_mels,
        nfft=spec.fft_length,
        lowfreq=spec.low_hz,
        highfreq=spec.high_hz,
        preemph=spec.preemphasis,
        winfunc=WINDOWS[spec.window],
    )
    frames = spec.num_frames(len(pcm))
    assert 0 <= len(energies) - frames <= 1
    return energies[:frames] * spec.fft_length


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"window": "hamming", "num_mels": 40},
        {"window": "hann", "fft_length": 400},
        {"num_mels": 80},  # so many that two feet fall on one bin, and a triangle has no weight
        {"low_hz": 133.3, "high_hz": 6_855.5, "fft_length": 1_024, "preemphasis": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_python_speech_features(
    peer: Any, implementation: str, change: dict[str, Any], sound: str
) -> None:
    spec, ours = dataclasses.replace(SPEC, **change), IMPLEMENTATIONS[implementation]
    pcm = SOUNDS[sound](SAMPLES)
    error = energy_error(ours.call(spec, pcm), peer_energies(peer, spec, pcm), floor=1.0)
    assert error <= ENERGY_BOUND + ours.energy_error


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_its_logarithm_is_ours_less_that_of_the_transforms_points(peer: Any, implementation: str) -> None:
    pcm = SOUNDS["voiced"](SAMPLES)
    ours = IMPLEMENTATIONS[implementation].call(dataclasses.replace(SPEC, log="ln"), pcm)
    theirs = peer.logfbank(pcm)[: len(ours)]
    assert largest_difference(ours - math.log(512), theirs) <= 1e-4


@pytest.mark.real_data
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_python_speech_features_on_real_speech(peer: Any, implementation: str) -> None:
    ours = IMPLEMENTATIONS[implementation]
    for pcm in real_speech():
        error = energy_error(ours.call(SPEC, pcm), peer_energies(peer, SPEC, pcm), floor=1.0)
        assert error <= ENERGY_BOUND + ours.energy_error


@pytest.mark.parametrize(
    "change",
    [{"triangles": "hz"}, {"preemphasis_over": "frame"}, {"window": "hann"}, {"remove_dc": True}],
    ids=str,
)
def test_another_definition_would_be_noticed(peer: Any, change: dict[str, Any]) -> None:
    pcm = SOUNDS["voiced"](SAMPLES)
    other = reference_log_mel(dataclasses.replace(SPEC, **change), pcm)
    assert energy_error(other, peer_energies(peer, SPEC, pcm), floor=1.0) > 1e-5
