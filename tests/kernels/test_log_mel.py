"""LogMel: equal to the reference for any input it takes, and a clear error for any that it does not."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin_kernels import LogMel, LogMelSpec, reference_log_mel

TOLERANCE = 2e-3

SPECS = {
    "kaldi": LogMelSpec.preset("kaldi"),
    "wespeaker": LogMelSpec.preset("wespeaker"),
    "unit": LogMelSpec(amplitude="unit"),
    "plain hann": LogMelSpec(window="hann", remove_dc=False, preemphasis=0.0),
    "no dc removal": LogMelSpec(remove_dc=False),
    "many mels, some between two bins": LogMelSpec(num_mels=200, fft_length=400),
    "long transform": LogMelSpec(frame_length=1_000, fft_length=4_096, num_mels=20),
    "8 kHz, gaps between frames": LogMelSpec(
        sample_rate=8_000, frame_length=200, hop_length=333, fft_length=300, num_mels=23, high_hz=3_800.0
    ),
}
PLANS = {name: LogMel(spec) for name, spec in SPECS.items()}

Samples = npt.NDArray[np.generic]


def noise(*shape: int, seed: int = 0, level: float = 3_000.0) -> npt.NDArray[np.int16]:
    return np.clip(np.random.default_rng(seed).normal(0.0, level, shape), -32768, 32767).astype(np.int16)


def as_float(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    return pcm.astype(np.float32) / np.float32(32768)


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


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(SPECS)), data=st.data(), floating=st.booleans())
def test_any_length_and_batch_equals_the_reference(name: str, data: st.DataObject, floating: bool) -> None:
    pcm = data.draw(sounds(SPECS[name].frame_length))
    given_samples: Samples = as_float(pcm) if floating else pcm
    result = PLANS[name](given_samples)
    assert result.dtype == np.float32
    for row, samples in zip(result, given_samples, strict=True):
        expected = reference_log_mel(SPECS[name], samples)
        assert row.shape == expected.shape
        np.testing.assert_allclose(row, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_float_and_int16_of_the_same_sound_agree(name: str) -> None:
    pcm = noise(9_000)
    np.testing.assert_array_equal(PLANS[name](pcm), PLANS[name](as_float(pcm)))


@pytest.mark.parametrize("amplitude", ["int16", "unit"])
@pytest.mark.parametrize("floor", [2.0**-23, 1e-10, 1e-3])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_digital_silence_is_exactly_the_floor(amplitude: str, floor: float, dtype: type[np.generic]) -> None:
    spec = dataclasses.replace(LogMelSpec(), amplitude=amplitude, log_floor=floor)  # type: ignore[arg-type]
    silence = np.zeros(48_000, dtype)
    assert np.unique(LogMel(spec)(silence)).tolist() == [float(np.float32(math.log(floor)))]
    assert np.unique(reference_log_mel(spec, silence)).tolist() == [math.log(floor)]


@pytest.mark.parametrize("level", [1, -32768, 32767])
def test_a_constant_is_silence_once_its_mean_is_removed(level: int) -> None:
    result = PLANS["kaldi"](np.full(16_000, level, np.int16))
    assert np.unique(result).tolist() == [float(np.float32(math.log(2.0**-23)))]


def test_a_tone_is_loudest_in_the_triangle_around_it() -> None:
    tone = (10_000 * np.sin(2 * math.pi * 1_000 * np.arange(16_000) / 16_000)).astype(np.int16)
    feet = np.linspace(1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 8_000 / 700), 82)
    nearest = int(np.abs(feet[1:-1] - 1127 * math.log(1 + 1_000 / 700)).argmin())
    assert set(PLANS["kaldi"](tone).argmax(axis=1).tolist()) == {nearest}


def test_twice_the_amplitude_is_ln_4_more() -> None:
    pcm = noise(16_000)
    np.testing.assert_allclose(PLANS["kaldi"](2 * pcm) - PLANS["kaldi"](pcm), math.log(4), atol=1e-5)


def test_the_two_amplitudes_are_the_int16_scale_apart() -> None:
    pcm = noise(16_000, level=8_000.0)
    expected = 2 * math.log(32768)
    np.testing.assert_allclose(PLANS["kaldi"](pcm) - PLANS["unit"](pcm), expected, atol=1e-4)


def test_mean_normalized_mels_have_mean_zero_in_each_utterance() -> None:
    result = PLANS["wespeaker"](noise(3, 40_000))
    np.testing.assert_allclose(result.mean(axis=1), 0.0, atol=1e-5)


def test_a_batch_is_its_utterances() -> None:
    pcm = noise(7, 5_000)
    for name, plan in PLANS.items():
        np.testing.assert_allclose(plan(pcm), np.stack([plan(row) for row in pcm]), atol=1e-5, err_msg=name)


def test_an_empty_batch_gives_an_empty_result() -> None:
    assert PLANS["wespeaker"](np.zeros((0, 560), np.int16)).shape == (0, 2, 80)
    assert PLANS["wespeaker"](np.zeros((0, 560), np.float32)).shape == (0, 2, 80)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_strided_and_read_only_samples_are_taken_and_left_as_they_are(dtype: type[np.generic]) -> None:
    pcm = noise(4, 12_000) if dtype == np.int16 else as_float(noise(4, 12_000))
    before = pcm.copy()
    pcm.flags.writeable = False
    view = pcm[::2, ::-3]
    np.testing.assert_array_equal(PLANS["kaldi"](view), PLANS["kaldi"](view.copy()))
    np.testing.assert_array_equal(pcm, before)


@pytest.mark.parametrize("shape", [(9_000,), (3, 9_000), (100, 400)])
@pytest.mark.parametrize("name", ["kaldi", "wespeaker"])
def test_out_is_filled_and_returned(name: str, shape: tuple[int, ...]) -> None:
    pcm = noise(*shape)
    expected = PLANS[name](pcm)
    out = np.full(expected.shape, np.nan, np.float32)
    assert PLANS[name](pcm, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_out_may_be_a_strided_view() -> None:
    pcm = noise(3, 9_000)
    wide = np.full((3, 54, 160), 7.0, np.float32)
    PLANS["wespeaker"](pcm, out=wide[:, :, ::2])
    np.testing.assert_array_equal(wide[:, :, ::2], PLANS["wespeaker"](pcm))
    assert (wide[:, :, 1::2] == 7.0).all()


def bad_float(value: float) -> npt.NDArray[np.float32]:
    pcm = np.zeros((2, 800), np.float32)
    pcm[1, 700] = value
    return pcm


@pytest.mark.parametrize(
    ("pcm", "error", "message"),
    [
        ([0] * 800, TypeError, "numpy array"),
        (None, TypeError, "numpy array"),
        (np.zeros(800, np.float64), TypeError, "float64"),
        (np.zeros(800, np.int32), TypeError, "int32"),
        (np.zeros(800, np.uint8), TypeError, "uint8"),
        (np.zeros(800, np.dtype(np.int16).newbyteorder("S")), TypeError, "i2"),
        (np.zeros(800, object), TypeError, "object"),
        (np.int16(3), TypeError, "numpy array"),
        (np.array(3, np.int16), ValueError, "shape"),
        (np.zeros((1, 1, 800), np.int16), ValueError, "shape"),
        (np.zeros(0, np.int16), ValueError, "too short"),
        (np.zeros(399, np.int16), ValueError, "399 samples are too short"),
        (np.zeros((4, 399), np.float32), ValueError, "too short"),
        (np.zeros((800, 2), np.int16), ValueError, "too short"),
        (bad_float(math.nan), ValueError, "finite"),
        (bad_float(math.inf), ValueError, "finite"),
        (bad_float(-math.inf), ValueError, "finite"),
        (bad_float(-12_000.0), ValueError, "full scale 1"),
        (bad_float(1e30), ValueError, "full scale 1"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(pcm: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PLANS["kaldi"](pcm)  # type: ignore[arg-type]


def read_only(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    out = np.zeros(shape, np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[0.0] * 80], TypeError, "list"),
        (np.zeros((1, 80)), TypeError, "float64"),
        (np.zeros((2, 80), np.float32), ValueError, r"\(1, 80\)"),
        (np.zeros((80, 1), np.float32), ValueError, r"\(1, 80\)"),
        (np.zeros((1, 1, 80), np.float32), ValueError, r"\(1, 80\)"),
        (read_only((1, 80)), ValueError, "read-only"),
    ],
)
def test_an_out_that_cannot_be_filled_is_refused(out: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PLANS["kaldi"](np.zeros(400, np.int16), out=out)  # type: ignore[call-overload]


def test_an_out_over_the_samples_is_refused() -> None:
    memory = np.zeros(400, np.float32)
    with pytest.raises(ValueError, match="share memory"):
        PLANS["kaldi"](memory, out=memory[:80].reshape(1, 80))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spec": "kaldi"}, TypeError, "LogMelSpec"),
        ({"threads": 0}, ValueError, "threads"),
        ({"threads": 1.0}, ValueError, "threads"),
        ({"threads": True}, ValueError, "threads"),
        ({"implementation": "fast"}, ValueError, "auto, numpy"),
        ({"implementation": None}, ValueError, "auto, numpy"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LogMel(**{"spec": LogMelSpec(), **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("implementation", ["auto", "numpy"])
def test_a_plan_says_what_runs(implementation: str) -> None:
    plan = LogMel(LogMelSpec(), threads=2, implementation=implementation)  # type: ignore[arg-type]
    assert (plan.implementation, plan.threads, plan.spec) == ("numpy", 2, LogMelSpec())


def test_one_thread_is_one_thread() -> None:
    # In a process of its own, as the number of threads of the matrix library is set when it loads.
    code = (
        "import time, numpy as np; from edgepin_kernels import LogMel, LogMelSpec\n"
        "plan, pcm = LogMel(LogMelSpec(), threads=1), np.ones(480_000, np.int16)\n"
        "plan(pcm); whole, own = time.process_time(), time.thread_time()\n"
        "for _ in range(30): plan(pcm)\n"
        "print((time.process_time() - whole) / (time.thread_time() - own))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) < 1.15


def test_a_plan_survives_the_way_to_another_process() -> None:
    pcm = noise(5_000)
    again = pickle.loads(pickle.dumps(PLANS["wespeaker"]))
    np.testing.assert_array_equal(again(pcm), PLANS["wespeaker"](pcm))
