"""Parity with kaldi-native-fbank, an independent implementation of the same definition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMel, LogMelSpec, reference_log_mel

RATE = 16_000
SAMPLES = 3 * RATE

# The peer computes its triangles in float32, where a step at the highest mels is 2.4e-4 and a triangle's half
# is 35 mels wide: each step of rounding moves a weight by 7e-6. The bound on energies, as a fraction of the
# frame's loudest, is four such steps.
RELATIVE_TO_PEAK = 3e-5
# In logarithms a weight near a triangle's foot counts for more, and so does the peer's float32 transform.
LOG_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip(
        "kaldi_native_fbank",
        reason="kaldi-native-fbank is not installed: parity with it is NOT tested (extra: dev)",
    )


def voiced() -> npt.NDArray[np.int16]:
    """Like speech: a gliding pitch through three moving formants, in syllables, with breath noise."""
    rng = np.random.default_rng(7)
    time = np.arange(SAMPLES) / RATE
    pitch = 120.0 + 30.0 * np.sin(2 * math.pi * 0.7 * time)
    phase = 2 * math.pi * np.cumsum(pitch) / RATE
    formants = [
        500 + 200 * np.sin(5 * time),
        1_500 + 500 * np.sin(3 * time + 1),
        2_600 + 200 * np.sin(7 * time),
    ]
    sound = np.zeros(SAMPLES)
    for harmonic in range(1, 40):
        gain = sum(1.0 / (1.0 + ((harmonic * pitch - formant) / 120.0) ** 2) for formant in formants)
        sound += gain * np.sin(harmonic * phase) / math.sqrt(harmonic)
    syllables = np.clip(np.sin(2 * math.pi * 2.5 * time), 0.0, None) ** 2
    sound = syllables * (sound + 0.05 * rng.standard_normal(SAMPLES)) + 1e-4 * rng.standard_normal(SAMPLES)
    return np.asarray(20_000 * sound / np.abs(sound).max()).astype(np.int16)


def white() -> npt.NDArray[np.int16]:
    return np.clip(np.random.default_rng(8).normal(0, 6_000, SAMPLES), -32768, 32767).astype(np.int16)


def square() -> npt.NDArray[np.int16]:
    return np.where(np.arange(SAMPLES) // 37 % 2 == 0, 12_000, -12_000).astype(np.int16)


def silence() -> npt.NDArray[np.int16]:
    return np.zeros(SAMPLES, np.int16)


SOUNDS = {"voiced": voiced, "white": white, "square": square, "silence": silence}
SPECS = {
    "povey": LogMelSpec.preset("kaldi"),
    "hamming": LogMelSpec(window="hamming"),
    "unit": LogMelSpec(amplitude="unit"),
}


def numpy_log_mel(spec: LogMelSpec, pcm: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
    return LogMel(spec, implementation="numpy")(pcm)


IMPLEMENTATIONS: dict[str, Callable[..., npt.NDArray[Any]]] = {
    "numpy": numpy_log_mel,
    "reference": reference_log_mel,
}


def peer_log_mel(peer: Any, spec: LogMelSpec, pcm: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    options = peer.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = True
    options.frame_opts.samp_freq = spec.sample_rate
    options.frame_opts.window_type = spec.window
    options.mel_opts.num_bins = spec.num_mels
    options.mel_opts.low_freq = spec.low_hz
    options.mel_opts.high_freq = spec.high_hz
    fbank = peer.OnlineFbank(options)
    in_unit = pcm.astype(np.float32) / (np.float32(32768) if pcm.dtype == np.int16 else np.float32(1))
    fbank.accept_waveform(spec.sample_rate, (in_unit * (32768 if spec.amplitude == "int16" else 1)).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)]).astype(np.float64)


def errors(ours: npt.NDArray[Any], theirs: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The largest difference of energies as a fraction of the frame's loudest, and of logarithms."""
    energy, peer_energy = np.exp(ours.astype(np.float64)), np.exp(theirs)
    peak = peer_energy.max(axis=1, keepdims=True)
    return float((np.abs(energy - peer_energy) / peak).max()), float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("floating", [False, True], ids=["int16", "float32"])
@pytest.mark.parametrize("sound", sorted(SOUNDS))
@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize("implementation", sorted(IMPLEMENTATIONS))
def test_equals_kaldi_native_fbank(
    peer: Any, implementation: str, name: str, sound: str, floating: bool
) -> None:
    spec, pcm = SPECS[name], SOUNDS[sound]()
    samples: npt.NDArray[np.generic] = pcm.astype(np.float32) / np.float32(32768) if floating else pcm
    theirs = peer_log_mel(peer, spec, samples)
    ours = IMPLEMENTATIONS[implementation](spec, samples)
    assert ours.shape == theirs.shape == (298, 80)
    relative, logarithmic = errors(ours, theirs)
    assert relative <= RELATIVE_TO_PEAK
    assert logarithmic <= LOG_TOLERANCE


def test_silence_is_the_same_floor(peer: Any) -> None:
    theirs = peer_log_mel(peer, SPECS["povey"], silence()).astype(np.float32)
    np.testing.assert_array_equal(numpy_log_mel(SPECS["povey"], silence()), theirs)


def test_wespeaker_is_kaldi_with_hamming_less_its_mean(peer: Any) -> None:
    theirs = peer_log_mel(peer, SPECS["hamming"], white())
    ours = numpy_log_mel(LogMelSpec.preset("wespeaker"), white())
    np.testing.assert_allclose(ours, theirs - theirs.mean(axis=0), rtol=0, atol=LOG_TOLERANCE)


@pytest.mark.parametrize(
    "change",
    [
        {"window": "hamming"},
        {"window": "hann"},
        {"remove_dc": False},
        {"preemphasis": 0.96},
        {"low_hz": 0.0},
        {"high_hz": 7_600.0},
        {"fft_length": 400},
        {"amplitude": "unit"},
    ],
    ids=str,
)
def test_another_definition_would_be_noticed(peer: Any, change: dict[str, Any]) -> None:
    offset = np.clip(voiced().astype(np.int32) + 4_000, -32768, 32767).astype(np.int16)
    theirs = peer_log_mel(peer, SPECS["povey"], offset)
    relative, logarithmic = errors(
        numpy_log_mel(dataclasses.replace(SPECS["povey"], **change), offset), theirs
    )
    assert max(relative / RELATIVE_TO_PEAK, logarithmic / LOG_TOLERANCE) > 5
