"""The presets of Kaldi's family against kaldi-native-fbank, an independent implementation of the same definition."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel

from .parity import IMPLEMENTATIONS, RESULT_TOLERANCE, Mels, energy_error, largest_difference, linear
from .sounds import RATE, SOUNDS, Pcm, as_float, real_speech

SAMPLES = 3 * RATE

# The peer computes its triangles in float32, where a step at the highest mels is 2.4e-4 and a triangle's half
# is 35 mels wide: each step of rounding moves a weight by 7e-6. This is three such steps; 1.3e-5 was seen.
ENERGY_BOUND = 2e-5

PRESETS = ("kaldi", "wespeaker", "3d-speaker")


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip(
        "kaldi_native_fbank",
        reason="kaldi-native-fbank is not installed: parity with it is NOT tested (extra: dev)",
    )


def peer_log_mel(peer: Any, spec: LogMelSpec, pcm: npt.NDArray[np.generic]) -> Mels:
    """Before the mean is removed, which the peer leaves to its users."""
    options = peer.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = True
    options.frame_opts.samp_freq = spec.sample_rate
    options.frame_opts.window_type = spec.window
    options.mel_opts.num_bins = spec.num_mels
    options.mel_opts.low_freq = spec.low_hz
    options.mel_opts.high_freq = spec.high_hz
    fbank = peer.OnlineFbank(options)
    in_unit = as_float(pcm) if pcm.dtype == np.int16 else pcm
    fbank.accept_waveform(spec.sample_rate, (in_unit * (32768 if spec.amplitude == "int16" else 1)).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)]).astype(np.float64)


def floored_energy_error(spec: LogMelSpec, ours: Mels, theirs: Mels) -> float:
    """Of linear energies and the peer's logarithms, which know no energy below the floor."""
    return energy_error(np.maximum(ours, np.float32(spec.log_floor)), np.exp(theirs), spec.log_floor)


def hold(peer: Any, implementation: str, preset: str, samples: npt.NDArray[np.generic]) -> None:
    spec, ours = LogMelSpec.preset(preset), IMPLEMENTATIONS[implementation]
    theirs = peer_log_mel(peer, spec, samples)
    energies = ours.call(linear(spec), samples)
    assert floored_energy_error(spec, energies, theirs) <= ENERGY_BOUND + ours.energy_error
    if spec.normalize == "mean":
        theirs = theirs - theirs.mean(axis=0)
    assert largest_difference(ours.call(spec, samples), theirs) <= RESULT_TOLERANCE


@pytest.mark.parametrize("floating", [False, True], ids=["int16", "float32"])
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_kaldi_native_fbank(
    peer: Any, implementation: str, preset: str, sound: str, floating: bool
) -> None:
    pcm = SOUNDS[sound](SAMPLES)
    hold(peer, implementation, preset, as_float(pcm) if floating else pcm)


@pytest.mark.real_data
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_kaldi_native_fbank_on_real_speech(peer: Any, implementation: str, preset: str) -> None:
    for pcm in real_speech():
        hold(peer, implementation, preset, pcm)


def test_silence_is_the_same_floor(peer: Any) -> None:
    spec, pcm = LogMelSpec.preset("kaldi"), SOUNDS["silence"](SAMPLES)
    theirs = peer_log_mel(peer, spec, pcm).astype(np.float32)
    np.testing.assert_array_equal(IMPLEMENTATIONS["numpy"].call(spec, pcm), theirs)


@pytest.mark.parametrize(
    "change",
    [
        {"window": "hamming"},
        {"window": "hann"},
        {"window_periodic": True},
        {"remove_dc": False},
        {"preemphasis": 0.96},
        {"preemphasis_over": "utterance"},
        {"low_hz": 0.0},
        {"high_hz": 7_600.0},
        {"fft_length": 400},
        {"mel_scale": "slaney"},
        {"triangles": "hz"},
        {"mel_norm": "slaney"},
        {"amplitude": "unit"},
    ],
    ids=str,
)
def test_another_definition_would_be_noticed(peer: Any, change: dict[str, Any]) -> None:
    kaldi, voiced = LogMelSpec.preset("kaldi"), SOUNDS["voiced"](SAMPLES)
    offset: Pcm = np.clip(voiced.astype(np.int32) + 4_000, -32768, 32767).astype(np.int16)
    other = reference_log_mel(dataclasses.replace(linear(kaldi), **change), offset)
    assert floored_energy_error(kaldi, other, peer_log_mel(peer, kaldi, offset)) > 5 * ENERGY_BOUND
