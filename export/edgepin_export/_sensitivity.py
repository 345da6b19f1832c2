"""How much each layer loses when it alone is quantized: which layers to spare, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ._parity import batched, compare, onnx_embed
from ._quantize import QuantizeSpec, quantizable_nodes, quantize
from ._ranges import Feed, Histogram, Progress


@dataclass(frozen=True)
class LayerLoss:
    """One layer: `loss` is 1 minus the mean cosine to FP32, over identity and pin, if only it is quantized."""

    name: str
    kind: str  # its operator
    loss: float

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "loss": round(self.loss, 8)}


def cosine_loss(reference: tuple[Any, Any], other: tuple[Any, Any]) -> float:
    """1 minus the mean cosine, over identity and pin."""
    cosines = [compare(mine, theirs).mean_cosine for mine, theirs in zip(reference, other, strict=True)]
    return 1.0 - sum(cosines) / len(cosines)


def sensitivity(
    model: bytes,
    observed: Mapping[str, Histogram],
    spec: QuantizeSpec,
    feeds: Sequence[Feed],
    *,
    label: str = "layer sensitivity",
    progress: Progress | None = None,
) -> tuple[LayerLoss, ...]:
    """The loss of every layer that `spec` would quantize, in the order of the graph.

    Args:
        model: FP32 ONNX.
        observed: from `observe`, of this model.
        spec: how layers are quantized; those that it exempts are left out.
        feeds: captures other than those that were observed. The work is one pass over them per layer.

    Raises:
        ValueError: there is no feed, or nothing to quantize.
    """
    graph = onnx.load_model_from_string(model)
    kinds = {node.name: node.op_type for node in graph.graph.node}
    layers = [name for name in quantizable_nodes(graph, heads=spec.heads) if name not in spec.exempt]
    batches = batched(feeds)
    reference = onnx_embed(model, batches)
    found = []
    for done, layer in enumerate(layers, start=1):
        others = tuple(name for name in layers if name != layer)
        alone = quantize(model, observed, dataclasses.replace(spec, exempt=spec.exempt + others))
        loss = cosine_loss(reference, onnx_embed(alone, batches))
        found.append(LayerLoss(layer, kinds[layer], loss))
        if progress:
            progress(label, done, len(layers))
    return tuple(found)


def worst_first(layers: Sequence[LayerLoss]) -> list[str]:
    """Names by falling loss; equal losses keep the order of the graph."""
    return [layer.name for layer in sorted(layers, key=lambda layer: -layer.loss)]


def sensitivity_table(layers: Sequence[LayerLoss], exempt: Sequence[str] = ()) -> str:
    """The layers, worst first, as text for people."""
    if not layers:
        return "no layer was quantized"
    width = max(len(layer.name) for layer in layers)
    ranked = {layer.name: layer for layer in layers}
    rows = [f"{'layer':{width}}  {'kind':6}  cosine loss"]
    for name in worst_first(layers):
        layer = ranked[name]
        note = "  stays in floating point" if name in exempt else ""
        rows.append(f"{name:{width}}  {layer.kind:6}  {layer.loss:.6f}{note}")
    return "\n".join(rows)
