"""FP32 ONNX to FP16 with the types written into the graph, as a strongly typed builder wants them.

Half precision is for the layers that take the time: convolutions and linear maps of constant weights, and the
activations and residual sums between them. Everything else (what removes a mean, the softmax and the sums of the
statistics pooling, the unit norm) stays in FP32, and a `Cast` stands wherever a value goes from one to the other. Inputs
and outputs keep their types.

ONNX Runtime's CPU provider, which has no arithmetic in FP16, runs such a graph, but it computes in FP32 throughout and
drops even the casts, so that nothing of what FP16 loses shows there, except in the weights. `rounded` makes the loss
visible: the same graph in FP32, with every value that would be FP16 rounded to it.

A layer also stays in FP32 if its weights or, where captures are given, its activations come near the largest number
that FP16 has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ._onnx import serialize
from ._ranges import Feed, Progress, collect

_WEIGHTED = ("Conv", "Gemm", "MatMul")
# Computed in the type of what they get, if that is FP16 already; alone they are not worth a cast.
_FOLLOWERS = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Add",
    "MaxPool",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
)
# Operands that are shapes or axes, not values.
_INTEGER_OPERANDS = {"Reshape": (1,), "Squeeze": (1,), "Unsqueeze": (1,)}

LARGEST = 65504.0 / 4
"""What a value may reach. The largest FP16 is 65504; a quarter leaves room for captures louder than those given."""


@dataclass(frozen=True)
class Fp16Encoder:
    """`kept` are the layers that stay in FP32 because FP16 would overflow."""

    model: bytes
    half: tuple[str, ...]
    kept: tuple[str, ...]


def to_fp16(
    model: bytes,
    feeds: Sequence[Feed] = (),
    *,
    label: str = "half precision",
    progress: Progress | None = None,
) -> Fp16Encoder:
    """A copy of an FP32 ONNX model that computes its layers in FP16. The same arguments give the same bytes.

    Args:
        model: FP32 ONNX.
        feeds: captures on which the size of activations is seen. Without them only weights are checked.

    Raises:
        ValueError: the model has no layer for FP16, or has control flow.
    """
    source = onnx.load_model_from_string(model)
    graph = source.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        # A branch sees the values around it by name, so that their types could not change.
        raise ValueError(
            "the model has control flow (If, Loop or Scan), which FP16 conversion does not follow"
        )
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if _is_layer(node, constants)]
    kept = [node.name for node in layers if not _fits(node, constants)]
    if feeds:
        values = [name for node in layers for name in (node.input[0], node.output[0])]
        seen = collect(model, feeds, values, label=label, progress=progress)
        kept += [
            node.name
            for node in layers
            if node.name not in kept
            and max(seen[node.input[0]].largest, seen[node.output[0]].largest) > LARGEST
        ]
    half = [node.name for node in layers if node.name not in kept]
    if not half:
        raise ValueError("the model has no layer for FP16")
    _rewrite(graph, constants, half)
    return Fp16Encoder(serialize(source, f"{graph.name}_fp16"), tuple(half), tuple(kept))


def rounded(model: bytes) -> bytes:
    """An FP32 graph that computes what hardware does with `model`, a graph of `to_fp16`: FP16 values, FP32 sums.

    It rounds once per operator, and an engine that fuses several rounds less often.
    """
    source = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    graph = source.graph
    halves = {
        value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in halves:
            nodes.append(helper.make_node("Identity", node.input, node.output, node.name))
            continue
        raw = onnx.NodeProto.FromString(node.SerializeToString())
        nodes.append(raw)
        is_cast = node.op_type == "Cast"
        for place, name in enumerate(node.output):
            if name not in halves:
                continue
            raw.output[place] = half = f"{name}/rounded"
            if not is_cast:  # that of an input rounds already
                raw.output[place] = f"{name}/exact"
                nodes.append(
                    helper.make_node("Cast", [f"{name}/exact"], [half], half, to=TensorProto.FLOAT16)
                )
            nodes.append(helper.make_node("Cast", [half], [name], f"{name}/back", to=TensorProto.FLOAT))
    tensors = [
        numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        if tensor.data_type == TensorProto.FLOAT16
        else onnx.TensorProto.FromString(tensor.SerializeToString())
        for tensor in graph.initializer
    ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    return serialize(source, f"{graph.name}_rounded")


def _is_layer(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
    return node.op_type in _WEIGHTED and constants.get(node.input[1], np.empty(0)).dtype == np.float32


def _fits(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
    given = [constants[name] for name in node.input[1:] if name in constants]
    return all(np.abs(values).max(initial=0.0) <= LARGEST for values in given)


def _rewrite(graph: onnx.GraphProto, constants: dict[str, np.ndarray], half: list[str]) -> None:
    """Types flow with the graph's order: each value is FP32 or FP16, and gets its other form when one is asked for."""
    halves: set[str] = set()  # values that are FP16
    casts: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    new_constants: dict[str, np.ndarray] = {}

    def as_type(name: str, wanted: int) -> str:
        suffix = "half" if wanted == TensorProto.FLOAT16 else "float"
        other = f"{name}/{suffix}"
        if name in constants:
            if wanted != TensorProto.FLOAT16:
                return name
            new_constants[other] = constants[name].astype(np.float16)
            return other
        if (name in halves) == (wanted == TensorProto.FLOAT16):
            return name
        if (name, wanted) not in casts:
            nodes.append(helper.make_node("Cast", [name], [other], other, to=wanted))
            casts[name, wanted] = other
        return casts[name, wanted]

    for node in graph.node:
        integers = _INTEGER_OPERANDS.get(node.op_type, ())
        follows = (
            node.op_type in _FOLLOWERS
            and all(
                name in halves or (name in constants and _fits(node, constants))
                for place, name in enumerate(node.input)
                if place not in integers
            )
            and any(name in halves for name in node.input)
        )
        in_half = node.name in half or follows
        for place, name in enumerate(node.input):
            if not name or place in integers:
                continue
            if in_half:
                node.input[place] = as_type(name, TensorProto.FLOAT16)
            elif name in halves:
                node.input[place] = as_type(name, TensorProto.FLOAT)
        nodes.append(node)
        if in_half:
            halves.update(node.output)
    for value in graph.output:  # outputs keep name and type
        if value.name in halves:
            last = next(node for node in nodes if value.name in node.output)
            inner = f"{value.name}/half"
            last.output[list(last.output).index(value.name)] = inner
            for node in nodes:
                node.input[:] = [inner if name == value.name else name for name in node.input]
            nodes.append(
                helper.make_node("Cast", [inner], [value.name], f"{value.name}/float", to=TensorProto.FLOAT)
            )
    kept_nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept_nodes)
    used = {name for node in kept_nodes for name in node.input}
    kept_tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    kept_tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept_tensors]
    del graph.initializer[:]
    graph.initializer.extend(kept_tensors)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in new_constants.items())
