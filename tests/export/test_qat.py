from __future__ import annotations

import numpy as np
import pytest
import torch

from edgepin_export._onnx import fold, to_onnx
from edgepin_export._parity import batched, onnx_embed
from edgepin_export._qat import QatOptions, _insert_rounding, fine_tune
from edgepin_export._quantize import QuantizeSpec, observe, quantize
from edgepin_export._sensitivity import cosine_loss

# Ranges so narrow that quantizing loses something to win back.
SPEC = QuantizeSpec(method="percentile", percentile=90.0)


@pytest.fixture(scope="module")
def feeds(feed):
    return {
        (modality, name): [feed(modality, 1, 16, seed) for seed in seeds]
        for modality in ("face", "voice")
        for name, seeds in (("train", range(16)), ("test", range(100, 116)))
    }


@pytest.fixture(scope="module")
def observed(models, feeds):
    return {modality: observe(models[modality], feeds[modality, "train"]) for modality in models}


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_rounding_in_training_is_that_of_the_int8_encoder(encoders, models, observed, feeds, modality):
    spec = QuantizeSpec(method="minmax")
    student = fold(encoders[modality])
    _insert_rounding(student, models[modality], observed[modality], spec)
    inputs = batched(feeds[modality, "test"])
    with torch.no_grad():
        mine = [rows.numpy() for rows in student(torch.from_numpy(next(iter(inputs[0].values()))))]
    exact = onnx_embed(models[modality], inputs)
    theirs = onnx_embed(quantize(models[modality], observed[modality], spec), inputs)
    # Not to the last bit: a sum in another order may round to the next code.
    assert cosine_loss(mine, theirs) < 0.3 * cosine_loss(exact, theirs)


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_it_raises_the_cosine_on_captures_that_it_did_not_see(encoders, models, observed, feeds, modality):
    options = QatOptions(steps=12, batch_size=8, learning_rate=1e-3)
    tuned = fine_tune(
        encoders[modality], models[modality], observed[modality], SPEC, feeds[modality, "train"], options
    )
    inputs = batched(feeds[modality, "test"])
    wanted = onnx_embed(models[modality], inputs)
    before = cosine_loss(wanted, onnx_embed(quantize(models[modality], observed[modality], SPEC), inputs))
    weights = to_onnx(tuned, modality, size=32)
    after = cosine_loss(wanted, onnx_embed(quantize(weights, observed[modality], SPEC), inputs))
    assert after < 0.7 * before


def test_the_same_seed_gives_the_same_weights_and_the_encoder_is_left_as_it_was(
    encoders, models, observed, feeds
):
    before = {name: value.clone() for name, value in encoders["face"].state_dict().items()}

    def tuned(seed):
        options = QatOptions(steps=2, batch_size=4, seed=seed)
        arguments = (
            encoders["face"],
            models["face"],
            observed["face"],
            SPEC,
            feeds["face", "train"],
            options,
        )
        return fine_tune(*arguments).state_dict()

    first, second, other = tuned(0), tuned(0), tuned(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in encoders["face"].state_dict().items())


def test_progress_counts_the_steps(encoders, models, observed, feeds):
    seen = []
    fine_tune(
        encoders["face"],
        models["face"],
        observed["face"],
        SPEC,
        feeds["face", "train"],
        QatOptions(steps=2, batch_size=4),
        progress=lambda label, done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]


def test_captures_of_several_shapes_and_none_are_refused(encoders, models, observed, feed):
    arguments = (encoders["voice"], models["voice"], observed["voice"], SPEC)
    with pytest.raises(ValueError, match="differ in shape"):
        fine_tune(*arguments, [feed("voice", 1, 16), feed("voice", 1, 20)])
    with pytest.raises(ValueError, match="no capture"):
        fine_tune(*arguments, [])


def test_defaults_are_those_that_the_docs_state():
    assert QatOptions() == QatOptions(steps=200, batch_size=16, learning_rate=2e-4, seed=0)


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": np.nan}, {"seed": -1}],
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        QatOptions(**options)
