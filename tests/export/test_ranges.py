from __future__ import annotations

import numpy as np
import pytest

from edgepin_export._ranges import BINS, Histogram, _Growing, collect

METHODS = ("minmax", "percentile", "entropy", "mse")


def histogram(*parts: np.ndarray) -> Histogram:
    growing = _Growing()
    for part in parts:
        growing.add("x", part.astype(np.float32))
    return growing.freeze()


@pytest.fixture(scope="module")
def bell():
    return np.random.default_rng(0).normal(size=200_000)


def squared_error(values, clip):
    step = clip / 127
    return float(np.mean((values - np.clip(np.round(values / step), -127, 127) * step) ** 2))


def test_every_value_is_counted_once_however_the_bins_grow():
    seen = histogram(np.array([0.0, 0.1, -0.2]), np.array([50.0]), np.array([-3.0, 1e-9]))
    assert seen.counts.sum() == 6
    assert seen.counts.shape == (BINS,)
    assert (seen.lowest, seen.highest) == (-3.0, 50.0)
    assert seen.width * BINS > 50


def test_growing_gives_what_was_seen_at_once(bell):
    # The same bins, since the largest value is there from the start.
    order = np.argsort(-np.abs(bell))
    at_once, in_parts = histogram(bell[order]), histogram(*np.array_split(bell[order], 7))
    assert np.array_equal(at_once.counts, in_parts.counts)


@pytest.mark.parametrize("method", METHODS)
def test_a_clip_lies_within_what_was_seen(bell, method):
    seen = histogram(bell)
    assert 0 < seen.clip(method) <= seen.largest


def test_minmax_is_the_largest_magnitude(bell):
    assert histogram(bell).clip("minmax") == pytest.approx(np.abs(bell).max(), rel=1e-6)


@pytest.mark.parametrize("share", [90.0, 99.0, 99.99])
def test_percentile_leaves_the_share_below(bell, share):
    clip = histogram(bell).clip("percentile", share)
    assert clip == pytest.approx(np.percentile(np.abs(bell), share), rel=0.01)


def test_mse_finds_the_clip_of_the_least_error(bell):
    values = bell.astype(np.float32)
    found = squared_error(values, histogram(values).clip("mse"))
    others = [squared_error(values, clip) for clip in np.linspace(0.3, np.abs(values).max(), 300)]
    assert found <= min(others) * 1.02


def test_entropy_and_mse_cut_off_a_lonely_outlier_that_minmax_keeps(bell):
    seen = histogram(np.append(bell, 60.0))
    assert seen.clip("minmax") == pytest.approx(60.0)
    for method in ("entropy", "mse"):
        assert 2.0 < seen.clip(method) < 0.6 * 60.0


def test_entropy_is_not_minmax_on_a_long_tail():
    seen = histogram(np.random.default_rng(1).laplace(size=100_000))
    assert seen.clip("entropy") < 0.9 * seen.clip("minmax")


@pytest.mark.parametrize(
    "method", ["minmax", "entropy", "mse"]
)  # a percentile is of all values, zeros included
def test_zeros_that_a_relu_made_do_not_move_the_clip(bell, method):
    positive = np.abs(bell)
    without, with_zeros = histogram(positive), histogram(np.append(positive, np.zeros(len(bell))))
    assert with_zeros.clip(method) == pytest.approx(without.clip(method), rel=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_a_clip_all_the_same(method):
    assert histogram(np.zeros(10)).clip(method) > 0


def test_values_that_are_not_finite_are_refused_by_name():
    with pytest.raises(ValueError, match="x is not finite"):
        histogram(np.array([1.0, np.nan]))


def test_inputs_and_inner_tensors_can_be_seen(models, feed):
    given = feed("voice", 2, 50)
    seen = collect(models["voice"], [given], ["log_mel", "identity"])
    assert seen["log_mel"].highest == pytest.approx(given["log_mel"].max())
    assert seen["identity"].counts.sum() == 2 * 256
