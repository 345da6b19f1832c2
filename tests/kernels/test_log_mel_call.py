"""What a call of LogMel takes, what it fills, and the clear error for everything else."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from .log_mel_cases import PLANS, as_float, each_implementation, noise


@each_implementation
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_strided_and_read_only_samples_are_taken_and_left_as_they_are(
    implementation: str, dtype: type[np.generic]
) -> None:
    pcm = noise(4, 12_000) if dtype == np.int16 else as_float(noise(4, 12_000))
    before = pcm.copy()
    pcm.flags.writeable = False
    view = pcm[::2, ::-3]
    np.testing.assert_array_equal(
        PLANS["kaldi", implementation](view), PLANS["kaldi", implementation](view.copy())
    )
    np.testing.assert_array_equal(pcm, before)


@each_implementation
@pytest.mark.parametrize("shape", [(9_000,), (3, 9_000), (100, 400)])
@pytest.mark.parametrize("name", ["kaldi", "wespeaker"])
def test_out_is_filled_and_returned(implementation: str, name: str, shape: tuple[int, ...]) -> None:
    pcm = noise(*shape)
    expected = PLANS[name, implementation](pcm)
    out = np.full(expected.shape, np.nan, np.float32)
    assert PLANS[name, implementation](pcm, out=out) is out
    np.testing.assert_array_equal(out, expected)


@each_implementation
def test_out_may_be_a_strided_view(implementation: str) -> None:
    pcm = noise(3, 9_000)
    wide = np.full((3, 54, 160), 7.0, np.float32)
    PLANS["wespeaker", implementation](pcm, out=wide[:, :, ::2])
    np.testing.assert_array_equal(wide[:, :, ::2], PLANS["wespeaker", implementation](pcm))
    assert (wide[:, :, 1::2] == 7.0).all()


def bad_float(value: float) -> npt.NDArray[np.float32]:
    pcm = np.zeros((2, 800), np.float32)
    pcm[1, 700] = value
    return pcm


@each_implementation
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
        (np.zeros(0, np.int16), ValueError, "too few"),
        (np.zeros(399, np.int16), ValueError, "399 samples are too few"),
        (np.zeros((4, 399), np.float32), ValueError, "too few"),
        (np.zeros((800, 2), np.int16), ValueError, "too few"),
        (bad_float(math.nan), ValueError, "finite"),
        (bad_float(math.inf), ValueError, "finite"),
        (bad_float(-math.inf), ValueError, "finite"),
        (bad_float(-12_000.0), ValueError, "full scale 1"),
        (bad_float(1e30), ValueError, "full scale 1"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(
    implementation: str, pcm: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PLANS["kaldi", implementation](pcm)  # type: ignore[arg-type]


def read_only(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    out = np.zeros(shape, np.float32)
    out.flags.writeable = False
    return out


@each_implementation
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
def test_an_out_that_cannot_be_filled_is_refused(
    implementation: str, out: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PLANS["kaldi", implementation](np.zeros(400, np.int16), out=out)  # type: ignore[call-overload]


@each_implementation
def test_an_out_over_the_samples_is_refused(implementation: str) -> None:
    memory = np.zeros(400, np.float32)
    with pytest.raises(ValueError, match="share memory"):
        PLANS["kaldi", implementation](memory, out=memory[:80].reshape(1, 80))
