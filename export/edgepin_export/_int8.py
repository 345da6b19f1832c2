"""The search for an INT8 encoder that passes its gate: ranges, then layers to spare, then fine-tuning.

Three sets of captures keep it honest: ranges come from one, the choice among ranges and the order of layers from a
second, and the gate looks at a third. Only how many layers are spared depends on the gate, which is asked until it
passes, fewest layers first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx

from ._gates import GateReport
from ._parity import batched, onnx_embed
from ._quantize import QuantizeSpec, observe, quantizable_nodes, quantize
from ._ranges import Feed, Histogram, Progress
from ._sensitivity import LayerLoss, cosine_loss, sensitivity, worst_first

Qat = Literal["auto", "never", "always"]

CANDIDATES = (
    QuantizeSpec(method="minmax"),
    QuantizeSpec(method="percentile", percentile=99.9),
    QuantizeSpec(method="percentile", percentile=99.99),
    QuantizeSpec(method="percentile", percentile=99.999),
    QuantizeSpec(method="entropy"),
    QuantizeSpec(method="mse"),
)
MAX_EXEMPT = 0.25
"""Share of the layers that may be spared: an INT8 encoder of floating-point layers is none."""
SENSITIVITY_CAPTURES = 16

Judge = Callable[[bytes], GateReport]
"""An encoder's ONNX bytes -> its gate: embeds the held-apart captures and compares them with FP32's."""
Tune = Callable[[bytes, Mapping[str, Histogram], QuantizeSpec], bytes]
"""FP32 ONNX, what was observed and how it will be quantized -> FP32 ONNX of the same names with tuned weights."""


@dataclass(frozen=True)
class Int8Encoder:
    """An INT8 encoder with all that led to it. It may be exported only if its gate passed."""

    model: bytes
    spec: QuantizeSpec  # ranges and exempt layers that were chosen
    range_losses: dict[str, float]  # way to ranges, in words -> cosine loss with all layers quantized
    layers: tuple[LayerLoss, ...]
    tuned: bool  # its weights were fine-tuned under quantization
    gate: GateReport

    @property
    def quantized_layers(self) -> int:
        return len(self.layers) - len(self.spec.exempt)

    def to_json(self) -> dict[str, Any]:
        """What the manifest keeps; `layers` are in the report only."""
        return {
            "ranges": self.spec.ranges,
            "range_losses": {name: round(loss, 8) for name, loss in self.range_losses.items()},
            "quantized_layers": self.quantized_layers,
            "exempt_layers": list(self.spec.exempt),
            "fine_tuned": self.tuned,
        }


def make_int8(
    model: bytes,
    range_feeds: Sequence[Feed],
    choice_feeds: Sequence[Feed],
    judge: Judge,
    *,
    tune: Tune | None = None,
    qat: Qat = "auto",
    candidates: Sequence[QuantizeSpec] = CANDIDATES,
    label: str = "encoder",
    progress: Progress | None = None,
) -> Int8Encoder:
    """Quantizes until the gate passes, or until there is nothing left to try; `gate` of the result tells which.

    Args:
        model: FP32 ONNX.
        range_feeds: captures that give the ranges.
        choice_feeds: others, on which ranges are compared and layers ranked.
        judge: the gate, on captures of its own.
        tune: fine-tuning under quantization, where the weights can be trained.
        qat: whether to `tune`: ``"auto"`` if sparing layers is not enough.
        candidates: ways to ranges that are compared.

    Raises:
        ValueError: the model has nothing to quantize, or there is no input.
    """
    if not quantizable_nodes(onnx.load_model_from_string(model), heads=False):
        # Without convolutions, as in an LSTM or a transformer, linear maps are all that INT8 can have.
        candidates = tuple(dataclasses.replace(spec, heads=True) for spec in candidates)
    graph = onnx.load_model_from_string(model)
    kinds = {node.name: node.op_type for node in graph.graph.node}
    if all(kinds[name] == "Add" for name in quantizable_nodes(graph, heads=candidates[0].heads)):
        raise ValueError("the model has nothing to quantize")  # sums alone gain no time
    observed = observe(model, range_feeds, label=f"{label}: observing ranges", progress=progress)
    batches = batched(choice_feeds)
    reference = onnx_embed(model, batches)
    losses = {}
    for done, spec in enumerate(candidates, start=1):
        losses[spec] = cosine_loss(reference, onnx_embed(quantize(model, observed, spec), batches))
        if progress:
            progress(f"{label}: comparing ranges", done, len(candidates))
    spec = min(losses, key=lambda candidate: losses[candidate])
    few = choice_feeds[:SENSITIVITY_CAPTURES]
    layers = sensitivity(model, observed, spec, few, label=f"{label}: layer sensitivity", progress=progress)

    def spare(weights: bytes) -> tuple[bytes, QuantizeSpec, GateReport]:
        """Quantized with as few exempt layers as pass; with none if not even the most are enough."""
        most = int(MAX_EXEMPT * len(layers))
        plain = None
        for count in range(most + 1):
            tried = dataclasses.replace(spec, exempt=tuple(worst_first(layers)[:count]))
            made = quantize(weights, observed, tried)
            gate = judge(made)
            if gate.passed:
                return made, tried, gate
            plain = plain or (made, tried, gate)
            if progress:
                progress(f"{label}: sparing layers", count, most)
        assert plain is not None
        return plain

    tuned = qat == "always" and tune is not None
    weights = tune(model, observed, spec) if tuned and tune is not None else model
    made, chosen, gate = spare(weights)
    if not gate.passed and qat == "auto" and tune is not None:
        made, chosen, gate = spare(tune(model, observed, spec))
        tuned = True
    named = {candidate.ranges: loss for candidate, loss in losses.items()}
    return Int8Encoder(made, chosen, named, layers, tuned, gate)
