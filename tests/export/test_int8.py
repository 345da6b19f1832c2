from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest

from edgepin_export._gates import Gate, Limits
from edgepin_export._int8 import MAX_EXEMPT, make_int8
from edgepin_export._parity import Captured, batched, onnx_embed
from edgepin_export._quantize import QuantizeSpec, observe, quantizable_nodes, quantize
from edgepin_export._sensitivity import LayerLoss, cosine_loss, sensitivity, sensitivity_table, worst_first

QUICK = (QuantizeSpec(method="minmax"), QuantizeSpec(method="percentile", percentile=90.0))


@pytest.fixture(scope="module")
def feeds(feed):
    return {
        name: [feed("face", 1, 0, seed) for seed in seeds]
        for name, seeds in (("ranges", range(4)), ("choice", range(10, 14)), ("held", range(20, 28)))
    }


class Judge:
    """The gate on random captures, two of each person; it counts how often it was asked."""

    def __init__(self, model, feeds, limits):
        self.batches, self.owner = batched(feeds), np.arange(len(feeds)) // 2
        self.gate, self.limits, self.asked = Gate(self._embed(model)), limits, 0

    def _embed(self, model):
        return Captured(*onnx_embed(model, self.batches), self.owner)

    def __call__(self, model):
        self.asked += 1
        return self.gate.check(self._embed(model), self.limits)


@pytest.fixture(scope="module")
def losses(models, feeds):
    observed = observe(models["face"], feeds["ranges"])
    return observed, sensitivity(models["face"], observed, QUICK[1], feeds["choice"])


def test_every_layer_has_the_loss_of_quantizing_it_alone(models, feeds, losses):
    observed, layers = losses
    names = quantizable_nodes(onnx.load_model_from_string(models["face"]), heads=False)
    assert [layer.name for layer in layers] == names
    batches = batched(feeds["choice"])
    worst = worst_first(layers)[0]
    alone = quantize(
        models["face"],
        observed,
        dataclasses.replace(QUICK[1], exempt=tuple(name for name in names if name != worst)),
    )
    expected = cosine_loss(onnx_embed(models["face"], batches), onnx_embed(alone, batches))
    assert max(layer.loss for layer in layers) == pytest.approx(expected)


def test_sparing_the_worst_layers_helps_more_than_sparing_the_best(models, feeds, losses):
    observed, layers = losses
    batches = batched(feeds["choice"])
    reference = onnx_embed(models["face"], batches)

    def loss(exempt):
        spec = dataclasses.replace(QUICK[1], exempt=tuple(exempt))
        return cosine_loss(reference, onnx_embed(quantize(models["face"], observed, spec), batches))

    order = worst_first(layers)
    assert loss(order[:3]) < loss(order[-3:])


def test_the_table_has_the_worst_layer_first_and_marks_what_is_spared():
    layers = (LayerLoss("a", "Conv", 0.001), LayerLoss("b", "Add", 0.5))
    lines = sensitivity_table(layers, ["b"]).splitlines()
    assert lines[1].split() == ["b", "Add", "0.500000", "stays", "in", "floating", "point"]
    assert lines[2].split() == ["a", "Conv", "0.001000"]


def test_the_ranges_of_the_least_loss_are_chosen_and_all_are_reported(models, feeds):
    judge = Judge(models["face"], feeds["held"], Limits(0.5, 1.0, 9.0))
    made = make_int8(models["face"], feeds["ranges"], feeds["choice"], judge, candidates=QUICK)
    assert made.spec.method == "minmax"
    assert list(made.range_losses) == ["minmax", "percentile 90"]
    assert made.range_losses["minmax"] < made.range_losses["percentile 90"]
    assert made.gate.passed
    assert judge.asked == 1
    assert made.spec.exempt == ()


def test_layers_are_spared_until_the_gate_passes_and_no_longer(models, feeds):
    bad = QUICK[1:]
    lenient = Judge(models["face"], feeds["held"], Limits(0.5, 1.0, 9.0))
    plain = make_int8(models["face"], feeds["ranges"], feeds["choice"], lenient, candidates=bad)
    reached = []
    for count in range(4):
        spec = dataclasses.replace(bad[0], exempt=tuple(worst_first(plain.layers)[:count]))
        model = quantize(models["face"], observe(models["face"], feeds["ranges"]), spec)
        gate = lenient(model)
        reached.append(min(gate.identity.mean_cosine, gate.pin.mean_cosine))
    count = next(number for number in range(1, 4) if reached[number] > max(reached[:number]))
    strict = Judge(models["face"], feeds["held"], Limits(reached[count], 1.0, 9.0))
    made = make_int8(models["face"], feeds["ranges"], feeds["choice"], strict, candidates=bad)
    assert made.gate.passed
    assert list(made.spec.exempt) == worst_first(made.layers)[:count]
    assert made.quantized_layers == len(made.layers) - count


def test_a_gate_that_nothing_passes_is_said_so_after_a_bounded_search(models, feeds):
    judge = Judge(models["face"], feeds["held"], Limits(1.0, 0.0, 0.0))
    made = make_int8(models["face"], feeds["ranges"], feeds["choice"], judge, candidates=QUICK)
    assert not made.gate.passed
    assert made.gate.failures
    assert judge.asked == int(MAX_EXEMPT * len(made.layers)) + 1
    assert made.spec.exempt == ()


@pytest.mark.parametrize(
    ("qat", "cosine", "calls"), [("auto", 0.5, 0), ("auto", 1.0, 1), ("never", 1.0, 0), ("always", 0.5, 1)]
)
def test_fine_tuning_runs_when_it_is_asked_for_or_needed(models, feeds, qat, cosine, calls):
    asked = []

    def tune(model, observed, spec):
        asked.append(spec)
        return model

    judge = Judge(models["face"], feeds["held"], Limits(cosine, 1.0, 9.0))
    made = make_int8(
        models["face"], feeds["ranges"], feeds["choice"], judge, candidates=QUICK, tune=tune, qat=qat
    )
    assert len(asked) == calls
    assert made.tuned == bool(calls)


def test_what_the_manifest_keeps_is_plain_json(models, feeds):
    judge = Judge(models["face"], feeds["held"], Limits(0.5, 1.0, 9.0))
    made = make_int8(models["face"], feeds["ranges"], feeds["choice"], judge, candidates=QUICK)
    assert json.loads(json.dumps(made.to_json())) == {
        "ranges": "minmax",
        "range_losses": {name: round(loss, 8) for name, loss in made.range_losses.items()},
        "quantized_layers": 17,
        "exempt_layers": [],
        "fine_tuned": False,
    }
