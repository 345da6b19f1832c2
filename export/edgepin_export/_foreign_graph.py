"""The adapter: a foreign encoder as a graph of our bundle's form, with its preprocessing and our projections inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from edgepin._bundle.manifest import EMBEDDING_DIM
from edgepin._runtime.runtime import INPUT_NAMES, OUTPUT_NAMES

from ._foreign_open import ForeignEncoder
from ._foreign_projection import Projection
from ._foreign_spec import ForeignFace, ForeignVoice
from ._onnx import serialize

EMBEDDING = "embedding"

_MIN_NORM = 1e-12
_MOVES = ("Transpose", "Reshape", "Gather", "Slice", "Squeeze", "Unsqueeze", "Identity")


def adapt(encoder: ForeignEncoder, projection: Projection | None = None) -> bytes:
    """The encoder with its preprocessing in front, as self-contained ONNX. The same arguments give the same bytes.

    Input `face`, uint8 ``(N, S, S, 3)`` RGB, or `log_mel`, float32 ``(N, T, M)``. Without a projection the output is
    `embedding`, float32 ``(N, D)``, of unit length; with one, `identity` and `pin`, float32 ``(N, 256)``, of unit length.
    """
    graph = _Graph()
    if isinstance(encoder.spec, ForeignFace):
        x = _pixels(graph, encoder.spec)
        shape: list[int | str] = ["N", encoder.spec.size, encoder.spec.size, 3]
        kind = TensorProto.UINT8
    else:
        x = _frames(graph, encoder.spec)
        shape = ["N", "T", encoder.spec.log_mel.num_mels]
        kind = TensorProto.FLOAT
    raw = _call(graph, encoder, x)
    embedding = graph.unit(graph.add("Cast", graph.add("Flatten", raw, axis=1), to=TensorProto.FLOAT))
    if isinstance(encoder.spec, ForeignVoice) and encoder.spec.frames is not None:
        embedding = graph.unit(_mean_of_windows(graph, embedding))
    if projection is None:
        outputs, width = {EMBEDDING: embedding}, None
    else:
        outputs, width = _project(graph, embedding, projection), EMBEDDING_DIM
    for name, value in outputs.items():
        graph.nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "adapter",
            [helper.make_tensor_value_info(INPUT_NAMES[encoder.modality], kind, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in outputs],
            graph.constants,
        ),
        opset_imports=list(encoder.model.opset_import),
    )
    return serialize(model, f"edgepin_{encoder.modality}")


class _Graph:
    """Nodes and constants as they are added, each under a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"adapter/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"adapter/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def unit(self, x: str) -> str:
        """Rows (N, D) at unit length, in the operators of our own encoders."""
        square = self.add("ReduceSum", self.add("Mul", x, x), self.ints(1), keepdims=1)
        norm = self.add("Clip", self.add("Sqrt", square), self.constant(np.array(_MIN_NORM, np.float32)))
        return self.add("Div", x, norm)

    def normalized(self, x: str, mean: Sequence[float], std: Sequence[float]) -> str:
        """(x - mean) / std over the last axis, leaving out what does nothing."""
        if any(mean):
            x = self.add("Sub", x, self.constant(np.array(mean, np.float32)))
        if any(value != 1.0 for value in std):
            x = self.add("Div", x, self.constant(np.array(std, np.float32)))
        return x


def _pixels(graph: _Graph, spec: ForeignFace) -> str:
    x = graph.add("Cast", INPUT_NAMES["face"], to=TensorProto.FLOAT)
    if spec.channels == "bgr":
        x = graph.add("Gather", x, graph.ints(2, 1, 0), axis=3)
    x = graph.normalized(x, spec.mean, spec.std)
    return graph.add("Transpose", x, perm=[0, 3, 1, 2]) if spec.layout == "nchw" else x


def _frames(graph: _Graph, spec: ForeignVoice) -> str:
    x = INPUT_NAMES["voice"]
    if spec.least_mean is not None:
        mean = graph.add("ReduceMean", x, graph.ints(1, 2), keepdims=1)
        wanted, tiny, one = (
            graph.constant(np.array(value, np.float32)) for value in (spec.least_mean, 1e-20, 1.0)
        )
        gain = graph.add("Max", graph.add("Div", wanted, graph.add("Max", mean, tiny)), one)
        x = graph.add("Mul", x, gain)
    x = graph.normalized(x, spec.mean, spec.std)
    if spec.frames is not None:
        x = _windows(graph, x, spec.frames, spec.window_hop, spec.log_mel.num_mels)
    return x


def _laid_out(graph: _Graph, x: str, layout: str) -> str:
    if layout in ("nmt", "n1mt"):
        x = graph.add("Transpose", x, perm=[0, 2, 1])
    return graph.add("Unsqueeze", x, graph.ints(1)) if layout.startswith("n1") else x


def _windows(graph: _Graph, x: str, frames: int, hop: int, mels: int) -> str:
    """(N, T, M) -> (N·W, frames, M): windows `hop` apart, the last one at the end; a short capture is repeated."""
    length = graph.add("Shape", x, start=1, end=2)
    beyond = graph.add("Max", graph.add("Sub", length, graph.ints(frames)), graph.ints(0))
    steps = graph.add("Div", graph.add("Add", beyond, graph.ints(hop - 1)), graph.ints(hop))
    count = graph.add("Squeeze", graph.add("Add", steps, graph.ints(1)), graph.ints(0))
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    starts = graph.add("Mul", graph.add("Range", zero, count, one), graph.ints(hop))
    starts = graph.add("Unsqueeze", graph.add("Min", starts, beyond), graph.ints(1))
    places = graph.add("Add", starts, graph.constant(np.arange(frames, dtype=np.int64)[None]))
    taken = graph.add("Gather", x, graph.add("Mod", places, length), axis=1)
    return graph.add("Reshape", taken, graph.ints(-1, frames, mels))


def _mean_of_windows(graph: _Graph, embedding: str) -> str:
    """(N·W, D) -> (N, D)."""
    rows = graph.add("Shape", INPUT_NAMES["voice"], start=0, end=1)
    width = graph.add("Shape", embedding, start=1, end=2)
    shape = graph.add("Concat", rows, graph.ints(-1), width, axis=0)
    return graph.add("ReduceMean", graph.add("Reshape", embedding, shape), graph.ints(1), keepdims=0)


def _call(graph: _Graph, encoder: ForeignEncoder, x: str) -> str:
    """The encoder's own nodes, under names that cannot meet ours."""
    feeds = {}
    if isinstance(encoder.spec, ForeignVoice):
        if encoder.lengths is not None:
            feeds[encoder.lengths[0]] = _lengths(graph, x, encoder.lengths[1])
        x = _laid_out(graph, x, encoder.spec.layout)
    # TensorRT knows uint8 at a network's edge only. What the encoder would cast at once stays float, with the same values.
    if encoder.input_type != TensorProto.FLOAT and not casts_at_once(encoder):
        x = graph.add("Cast", x, to=encoder.input_type)
    feeds[encoder.input] = x
    prefix = "encoder/"
    inner = compose.add_prefix_graph(encoder.model.graph, prefix)
    for name, value in feeds.items():
        graph.nodes.append(helper.make_node("Identity", [value], [prefix + name], name=f"input/{name}"))
    graph.nodes.extend(inner.node)
    graph.constants.extend(inner.initializer)
    return prefix + encoder.output


def casts_at_once(encoder: ForeignEncoder) -> bool:
    """Whether an encoder of uint8 does nothing with its input but move it and cast it."""
    if encoder.input_type != TensorProto.UINT8:
        return False
    moved = {encoder.input}
    for node in encoder.model.graph.node:
        if moved & set(node.input) and node.op_type != "Cast":
            if node.op_type not in _MOVES or node.input[0] not in moved:
                return False
            moved.add(node.output[0])
    return True


def _lengths(graph: _Graph, x: str, kind: int) -> str:
    """(N,): the number of frames, or 1.0 where lengths are relative. `x` is (N, T, M)."""
    rows = graph.add("Shape", x, start=0, end=1)
    if kind == TensorProto.FLOAT:
        return graph.add("Expand", graph.constant(np.ones(1, np.float32)), rows)
    return graph.add("Cast", graph.add("Expand", graph.add("Shape", x, start=1, end=2), rows), to=kind)


def _project(graph: _Graph, embedding: str, projection: Projection) -> dict[str, str]:
    if projection.identity is not None:
        weight = graph.constant(projection.identity)
        identity = graph.unit(graph.add("Gemm", embedding, weight, transB=1))
    elif projection.dim < EMBEDDING_DIM:
        # Zeros change no cosine; a constant matrix would do the same, and could be quantized.
        identity = graph.add("Pad", embedding, graph.ints(0, 0, 0, EMBEDDING_DIM - projection.dim))
    else:
        identity = embedding
    pin = identity
    if projection.pin is not None:
        weight, offset = (graph.constant(part) for part in projection.pin)
        pin = graph.unit(graph.add("Gemm", embedding, weight, offset, transB=1))
    return dict(zip(OUTPUT_NAMES, (identity, pin), strict=True))
