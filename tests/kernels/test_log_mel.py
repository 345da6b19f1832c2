"""LogMel: equal to the reference for any input that it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin_kernels import LogMel, LogMelSpec, reference_log_mel

from .log_mel_cases import (
    ENERGY_TOLERANCE,
    IMPLEMENTATIONS,
    KERNELS,
    LINEAR,
    LOG_TOLERANCE,
    PLANS,
    SPECS,
    Samples,
    as_float,
    each_implementation,
    each_spec,
    linear,
    noise,
)


@st.composite
def sounds(draw: st.DrawFn, least: int) -> npt.NDArray[np.int16]:
    """A batch of any size and length: noise at any level on any offset, with a stretch held constant."""
    batch, samples = draw(st.integers(1, 5)), draw(st.integers(least, 14_000))
    level, offset = (
        draw(st.sampled_from([0.0, 0.3, 30.0, 3_000.0, 60_000.0])),
        draw(st.integers(-32768, 32767)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pcm = np.clip(rng.normal(offset, level, (batch, samples)), -32768, 32767).astype(np.int16)
    start = draw(st.integers(0, samples - 1))
    pcm[:, start : start + draw(st.integers(0, 2_000))] = draw(st.sampled_from([0, 1, -32768, 32767]))
    return pcm


def energy_error(name: str, implementation: str, samples: Samples) -> float:
    """The largest error of an energy as a part of its frame's largest, in frames above the floor."""
    expected = reference_log_mel(linear(SPECS[name]), samples)
    result = LINEAR[name, implementation](samples)
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    peak = expected.max(axis=1, keepdims=True)
    heard = peak[:, 0] > SPECS[name].log_floor
    return float((np.abs(result - expected)[heard] / peak[heard]).max(initial=0.0))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(SPECS)), data=st.data(), floating=st.booleans())
def test_any_length_and_batch_equals_the_reference(name: str, data: st.DataObject, floating: bool) -> None:
    pcm = data.draw(sounds(SPECS[name].min_samples))
    given_samples: Samples = as_float(pcm) if floating else pcm
    for implementation in IMPLEMENTATIONS:
        for samples in given_samples:
            assert energy_error(name, implementation, samples) <= ENERGY_TOLERANCE, implementation
        whole = LINEAR[name, implementation](given_samples)
        rows = [LINEAR[name, implementation](samples) for samples in given_samples]
        np.testing.assert_allclose(whole, np.stack(rows), rtol=0, atol=ENERGY_TOLERANCE * whole.max())


def speech_like() -> npt.NDArray[np.int16]:
    """Harmonics of a gliding pitch in syllables, with pauses of one bit of noise."""
    rng, time = np.random.default_rng(3), np.arange(32_000) / 16_000
    phase = 2 * math.pi * np.cumsum(110 + 40 * np.sin(4 * time)) / 16_000
    voiced = sum(np.sin(k * phase) / k for k in range(1, 30)) * np.clip(np.sin(9 * time), 0, 1)
    return np.round(9_000 * voiced + rng.uniform(-1, 1, len(time))).clip(-32768, 32767).astype(np.int16)


SOUNDS = {
    "speech-like": speech_like(),
    "noise": noise(32_000),
    "full-scale square of 20 Hz": np.where(np.arange(32_000) // 400 % 2 == 0, 32767, -32768).astype(np.int16),
    "impulse": (np.arange(32_000) == 8_000).astype(np.int16) * np.int16(32767),
    "impulse inside a frame": (np.arange(32_000) == 8_077).astype(np.int16) * np.int16(-32768),
    "one bit on a large offset": np.random.default_rng(5).integers(29_999, 30_002, 32_000).astype(np.int16),
}


@each_implementation
@each_spec
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("floating", [False, True], ids=["int16", "float32"])
def test_energies_are_within_a_hundred_thousandth_of_the_frames_largest(
    name: str, implementation: str, sound: str, floating: bool
) -> None:
    samples: Samples = as_float(SOUNDS[sound]) if floating else SOUNDS[sound]
    assert energy_error(name, implementation, samples) <= ENERGY_TOLERANCE


@each_implementation
@each_spec
@pytest.mark.parametrize("batch", [1, 3])
def test_the_whole_way_to_the_output_equals_the_reference(name: str, implementation: str, batch: int) -> None:
    for samples in (16_001, 32_000):
        pcm = noise(batch, samples)
        result = PLANS[name, implementation](pcm)
        for row, one in zip(result, pcm, strict=True):
            expected = reference_log_mel(SPECS[name], one)
            scale = expected.max() if SPECS[name].log == "none" else 1.0
            np.testing.assert_allclose(row / scale, expected / scale, rtol=0, atol=LOG_TOLERANCE)


@each_spec
def test_float_and_int16_of_the_same_sound_agree(name: str) -> None:
    pcm = noise(9_000)
    np.testing.assert_array_equal(PLANS[name, "numpy"](pcm), PLANS[name, "numpy"](as_float(pcm)))
    for kernel in KERNELS:
        ours, floats = LINEAR[name, kernel](pcm), LINEAR[name, kernel](as_float(pcm))
        np.testing.assert_allclose(floats / ours.max(), ours / ours.max(), rtol=0, atol=ENERGY_TOLERANCE)


@each_spec
def test_every_frame_is_the_same_in_any_kernel_lane_and_thread(name: str) -> None:
    pcm = noise(5, 20_000)
    for kernel in KERNELS:
        expected = PLANS[name, kernel](pcm)
        for threads in (2, 3):
            plan = LogMel(SPECS[name], threads=threads, implementation=kernel)  # type: ignore[arg-type]
            np.testing.assert_array_equal(plan(pcm), expected)
            np.testing.assert_array_equal(plan(pcm[1]), expected[1])


def decibels(energy: float) -> float:
    return 10.0 * math.log10(energy)


@pytest.mark.parametrize("amplitude", ["int16", "unit"])
@pytest.mark.parametrize("floor", [2.0**-23, 1e-10, 1e-3])
@pytest.mark.parametrize("mode", ["clamp", "add"])
@pytest.mark.parametrize(("log", "function"), [("ln", math.log), ("log10", math.log10), ("db", decibels)])
@each_implementation
def test_digital_silence_is_exactly_the_floor(
    implementation: str, amplitude: str, floor: float, mode: str, log: str, function: Callable[[float], float]
) -> None:
    spec = LogMelSpec(amplitude=amplitude, log_floor=floor, floor_mode=mode, log=log)  # type: ignore[arg-type]
    plan = LogMel(spec, implementation=implementation)  # type: ignore[arg-type]
    for dtype in (np.int16, np.float32):
        silence = np.zeros(8_000, dtype)
        assert np.unique(plan(silence)).tolist() == [float(np.float32(function(floor)))]
        assert np.unique(reference_log_mel(spec, silence)).tolist() == [function(floor)]


@each_implementation
@each_spec
def test_what_never_changes_is_zero_once_it_is_normalized(name: str, implementation: str) -> None:
    spec = dataclasses.replace(SPECS[name], normalize="mean_std")
    silence = np.zeros(spec.min_samples + 5_000, np.int16)
    result = LogMel(spec, implementation=implementation)(silence)  # type: ignore[arg-type]
    assert np.unique(result).tolist() == [0.0]


@each_implementation
@pytest.mark.parametrize("level", [1, -32768, 32767])
def test_a_constant_is_silence_once_its_mean_is_removed(implementation: str, level: int) -> None:
    constant = np.full(16_000, level, np.int16)
    for samples in (constant, as_float(constant)):
        result = PLANS["kaldi", implementation](samples)
        assert np.unique(result).tolist() == [float(np.float32(math.log(2.0**-23)))]


def test_a_tone_is_loudest_in_the_triangle_around_it() -> None:
    tone = (10_000 * np.sin(2 * math.pi * 1_000 * np.arange(16_000) / 16_000)).astype(np.int16)
    feet = np.linspace(1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 8_000 / 700), 82)
    nearest = int(np.abs(feet[1:-1] - 1127 * math.log(1 + 1_000 / 700)).argmin())
    assert set(PLANS["kaldi", KERNELS[0]](tone).argmax(axis=1).tolist()) == {nearest}


@each_implementation
def test_twice_the_amplitude_is_ln_4_more(implementation: str) -> None:
    pcm = noise(16_000)
    np.testing.assert_allclose(
        PLANS["kaldi", implementation](2 * pcm) - PLANS["kaldi", implementation](pcm), math.log(4), atol=1e-5
    )


@each_implementation
def test_the_two_amplitudes_are_the_int16_scale_apart(implementation: str) -> None:
    pcm = noise(16_000, level=8_000.0)
    expected = 2 * math.log(32768)
    np.testing.assert_allclose(
        PLANS["kaldi", implementation](pcm) - PLANS["unit", implementation](pcm), expected, atol=1e-4
    )


@each_implementation
def test_mean_normalized_mels_have_mean_zero_in_each_utterance(implementation: str) -> None:
    result = PLANS["wespeaker", implementation](noise(3, 40_000))
    np.testing.assert_allclose(result.mean(axis=1), 0.0, atol=1e-5)


def test_a_batch_is_its_utterances() -> None:
    pcm = noise(7, 5_000)
    for (name, implementation), plan in PLANS.items():
        rows, loudest = np.stack([plan(row) for row in pcm]), 1.0
        if SPECS[name].log == "none":
            loudest = rows.max()
        tolerance = 1e-5 if implementation == "numpy" else 0.0
        np.testing.assert_allclose(plan(pcm) / loudest, rows / loudest, atol=tolerance, err_msg=name)


@each_implementation
def test_an_empty_batch_gives_an_empty_result(implementation: str) -> None:
    assert PLANS["wespeaker", implementation](np.zeros((0, 560), np.int16)).shape == (0, 2, 80)
    assert PLANS["wespeaker", implementation](np.zeros((0, 560), np.float32)).shape == (0, 2, 80)
