from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from edgepin_export._parity import batched, calibration_inputs, compare, onnx_embed
from edgepin_training.corpus import Modality


def test_cosines_are_mean_and_worst_over_rows():
    parity = compare(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 1.0]]))
    assert parity.mean_cosine == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert parity.min_cosine == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(
    "other", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.ones((2, 3)), np.ones((1, 2))]
)
def test_embeddings_that_cannot_be_compared_are_refused(other):
    with pytest.raises(ValueError):
        compare(np.ones((2, 2)), other)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError):
        compare(np.ones((0, 2)), np.ones((0, 2)))


def test_a_report_is_plain_json():
    assert json.loads(json.dumps(compare(np.eye(2), np.eye(2)).to_json())) == {
        "mean_cosine": 1.0,
        "min_cosine": 1.0,
    }


def test_batches_join_equal_shapes_in_order_and_change_no_embedding(models, feed):
    feeds = [feed("voice", 1, frames, seed) for seed, frames in enumerate((50, 50, 50, 60, 50))]
    batches = batched(feeds, 2)
    assert [batch["log_mel"].shape[:2] for batch in batches] == [(2, 50), (1, 50), (1, 60), (1, 50)]
    for mine, theirs in zip(
        onnx_embed(models["voice"], feeds), onnx_embed(models["voice"], batches), strict=True
    ):
        assert compare(mine, theirs).min_cosine > 1 - 1e-6


def test_embeddings_of_several_feeds_are_stacked(models, feed):
    identity, pin = onnx_embed(models["voice"], [feed("voice", 1, 98), feed("voice", 2, 150)])
    assert identity.shape == pin.shape == (3, 256)


@pytest.fixture
def corpus():
    random = np.random.default_rng(0)
    faces = Modality(
        ("a", "b", "c"),
        np.array([0, 0, 0, 1, 1, 2]),
        [np.full((32, 32, 3), value, np.uint8) for value in range(6)],
        {},
    )
    voices = Modality(
        ("a", "b"),
        np.array([0, 1, 1]),
        [random.integers(-999, 999, size, np.int16) for size in (20_000, 80_000, 90_000)],
        {},
    )
    return SimpleNamespace(config=SimpleNamespace(log_mel="kaldi")), faces, voices


def test_calibration_inputs_are_what_the_models_take(corpus):
    inputs = calibration_inputs(*corpus, count=10)
    assert {feed["face"].shape for feed in inputs["face"]} == {(1, 32, 32, 3)}
    assert {feed["face"].dtype for feed in inputs["face"]} == {np.dtype(np.uint8)}
    assert [feed["log_mel"].shape for feed in inputs["voice"]] == 3 * [(1, 298, 80)]  # one clip is shorter
    assert {feed["log_mel"].dtype for feed in inputs["voice"]} == {np.dtype(np.float32)}


def test_calibration_takes_everybody_once_before_anybody_twice(corpus):
    _, faces, _ = corpus
    for seed in range(5):
        inputs = calibration_inputs(*corpus, count=3, seed=seed)
        assert {int(faces.labels[feed["face"].flat[0]]) for feed in inputs["face"]} == {0, 1, 2}


def test_calibration_inputs_follow_the_seed(corpus):
    def draw(seed):
        feeds = calibration_inputs(*corpus, count=2, seed=seed)["voice"]
        return np.concatenate([feed["log_mel"].ravel() for feed in feeds])

    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_a_count_below_one_is_refused(corpus):
    with pytest.raises(ValueError, match="count"):
        calibration_inputs(*corpus, count=0)
