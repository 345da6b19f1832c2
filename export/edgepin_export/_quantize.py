"""FP32 ONNX to INT8: Q/DQ nodes placed where the runtime that will read them wants them.

Weights are symmetric INT8 per output channel everywhere. Activations are per tensor, and runtimes disagree on
them:

* ``"tensorrt"``: symmetric INT8 with zero point 0, on the inputs of convolutions and linear maps and on the
  shortcut of a residual sum. Nothing stands between a convolution, the sum and the ReLU behind it, so that
  the three can be one INT8 kernel (TensorRT developer guide, "Q/DQ Layer-Placement Recommendations"). Biases
  stay in floating point.
* ``"onnxruntime"``: UINT8, on every edge between quantized nodes. Where nothing below zero has a code,
  quantizing is the ReLU, so integer kernels follow each other; with signed codes most layers there run in
  floating point.

The statistics pooling, its softmax and the normalizations stay in floating point in both.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx

from ._onnx import serialize
from ._ranges import Feed, Histogram, Method, Progress, collect

Target = Literal["tensorrt", "onnxruntime"]


@dataclass(frozen=True)
class QuantizeSpec:
    """How to quantize.

    Raises:
        ValueError: an option is not allowed.
    """

    target: Target = "tensorrt"
    method: Method = "percentile"  # how an activation's range follows from what was seen
    percentile: float = 99.99  # of the magnitudes; for "percentile"
    # Also the last linear maps. They take a mean, a deviation or a channel of small spread at one scale, which is where
    # most of the loss came from, and they are too few operations to gain time.
    heads: bool = False
    exempt: tuple[str, ...] = ()  # names of layers that stay in floating point

    def __post_init__(self) -> None:
        for name, allowed in (("target", Target), ("method", Method)):
            if getattr(self, name) not in get_args(allowed):
                known = ", ".join(get_args(allowed))
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")
        if not 50.0 < self.percentile <= 100.0:
            raise ValueError(f"percentile must be above 50 and at most 100, not {self.percentile!r}")

    @property
    def ranges(self) -> str:
        """The way to ranges, in words: `minmax`, `percentile 99.99`, …"""
        return f"percentile {self.percentile:g}" if self.method == "percentile" else self.method


def observe(
    model: bytes, calibration: Sequence[Feed], *, label: str = "observing", progress: Progress | None = None
) -> dict[str, Histogram]:
    """What passes through the layers that may be quantized, by tensor name: what `quantize` takes ranges from.

    Args:
        model: FP32 ONNX.
        calibration: inputs by name, each of the model's shape with a batch axis: captures like those that will
            come, from training data. Shapes may differ.

    Raises:
        ValueError: there is no calibration input, or an activation is not finite.
    """
    source = onnx.load_model_from_string(model)
    chosen = quantizable_nodes(source)
    chosen += relus_after(source, chosen)
    constants = {tensor.name for tensor in source.graph.initializer}
    tensors = [
        name
        for node in source.graph.node
        if node.name in chosen
        for name in (*node.input, *node.output)
        if name and name not in constants
    ]
    return collect(model, calibration, tensors, label=label, progress=progress)


def quantize(model: bytes, observed: Mapping[str, Histogram], spec: QuantizeSpec | None = None) -> bytes:
    """A quantized copy of an FP32 ONNX model. The same arguments give the same bytes.

    Args:
        model: FP32 ONNX.
        observed: from `observe`, of this model.
        spec: how; the defaults without it.

    Raises:
        ValueError: the model has nothing to quantize, or all of it is exempt.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    spec = spec or QuantizeSpec()
    source = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    chosen = [name for name in quantizable_nodes(source, heads=spec.heads) if name not in spec.exempt]
    if not chosen:
        raise ValueError("the model has nothing to quantize")
    tensorrt = spec.target == "tensorrt"
    options: dict[str, Any] = {"WeightSymmetric": True, "ActivationSymmetric": tensorrt}
    if tensorrt:
        options["OpTypesToExcludeOutputQuantization"] = ["Conv", "Gemm", "MatMul", "Add"]
        options["QuantizeBias"] = False
    else:
        chosen += relus_after(source, chosen)
    ranges = {}
    for name, histogram in observed.items():
        clip = histogram.clip(spec.method, spec.percentile)
        low, high = (
            (-clip, clip) if tensorrt else (max(histogram.lowest, -clip), min(histogram.highest, clip))
        )
        ranges[name] = TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
    with _quiet():
        quantizer = QDQQuantizer(
            source,
            True,  # weights per channel
            False,  # all 8 bits
            QuantType.QInt8,
            QuantType.QInt8 if tensorrt else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, ranges),
            chosen,
            [],
            ["Conv", "Gemm", "MatMul", "Add", "Relu"],
            options,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantized = quantizer.model.model
    if tensorrt:
        free_summed_convolutions(quantized)
        free_bystanders(quantized, chosen)
    return serialize(quantized, f"{source.graph.name}_int8")


def quantizable_nodes(model: onnx.ModelProto, *, heads: bool = True) -> list[str]:
    """Names of the convolutions, the linear maps of constant weights, and the residual sums.

    A residual sum adds another activation to a convolution's output. Every other sum, such as an epsilon
    under a square root, is arithmetic that INT8 breaks and TensorRT refuses.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            wanted = node.input[1] in constants
        elif node.op_type in ("Gemm", "MatMul"):
            wanted = heads and node.input[1] in constants
        elif node.op_type == "Add":
            kinds = [producers[name].op_type for name in node.input if name in producers]
            wanted = len(kinds) == 2 and "Conv" in kinds
        else:
            wanted = False
        if wanted:
            found.append(node.name)
    return found


def relus_after(model: onnx.ModelProto, names: list[str]) -> list[str]:
    outputs = {output for node in model.graph.node if node.name in names for output in node.output}
    return [node.name for node in model.graph.node if node.op_type == "Relu" and node.input[0] in outputs]


def free_summed_convolutions(model: onnx.ModelProto) -> None:
    """Takes the Q/DQ between a convolution and a residual sum away, so that the two can be one kernel."""
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    gone = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for place, name in enumerate(node.input):
            dequantize = producers.get(name)
            quantize_node = producers.get(dequantize.input[0]) if dequantize is not None else None
            if dequantize is None or dequantize.op_type != "DequantizeLinear" or quantize_node is None:
                continue
            origin = producers.get(quantize_node.input[0])
            if origin is not None and origin.op_type == "Conv":
                node.input[place] = quantize_node.input[0]
                gone += [quantize_node, dequantize]
    for node in gone:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def free_bystanders(model: onnx.ModelProto, chosen: Sequence[str]) -> None:
    """Gives layers that are not quantized the exact value where a neighbour takes it quantized.

    The quantizer rounds a value for everybody who reads it. The statistics pooling would then sum up what the last
    convolution before it was given, and a spared layer would be spared nothing but its weights.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name in chosen or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for place, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize_node = producers.get(dequantize.input[0])
            if quantize_node is not None:  # a weight's has none
                node.input[place] = quantize_node.input[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's calibration logs to the root logger and prints its progress."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        logging.disable(disabled)
