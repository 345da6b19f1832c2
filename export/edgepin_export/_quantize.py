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
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from ._onnx import serialize

Target = Literal["tensorrt", "onnxruntime"]
# ONNX Runtime's entropy calibration is not here: with its 128 bins it gives the very bytes of "minmax".
Method = Literal["minmax", "percentile"]
Feed = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class QuantizeSpec:
    """How to quantize. Of what was tried, the defaults kept both modalities' embeddings closest to FP32.

    Raises:
        ValueError: an option is not allowed.
    """

    target: Target = "tensorrt"
    method: Method = "percentile"  # how an activation's range follows from what was seen
    percentile: float = 99.99  # of the absolute values; for "percentile"
    # Also the last linear maps. They take a mean, a deviation or a channel of small spread at one scale, which is where
    # most of the loss came from, and they are too few operations to gain time.
    heads: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("target", Target), ("method", Method)):
            if getattr(self, name) not in get_args(allowed):
                known = ", ".join(get_args(allowed))
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")
        if not 50.0 < self.percentile <= 100.0:
            raise ValueError(f"percentile must be above 50 and at most 100, not {self.percentile!r}")


def quantize(model: bytes, calibration: Iterable[Feed], spec: QuantizeSpec | None = None) -> bytes:
    """A quantized copy of a model from `to_onnx`. The same arguments give the same bytes.

    Args:
        model: FP32 ONNX.
        calibration: inputs by name, each of the model's shape with a batch axis: captures like those
            that will come, from training data. All of one shape.
        spec: how; the defaults without it.

    Raises:
        ValueError: there is no calibration input, they differ in shape, or the model has nothing to quantize.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    spec = spec or QuantizeSpec()
    feeds = list(calibration)
    if not feeds:
        raise ValueError("there is no calibration input")
    if len({tuple((name, value.shape) for name, value in sorted(feed.items())) for feed in feeds}) > 1:
        raise ValueError("the calibration inputs differ in shape")  # histograms are collected over one array
    source = onnx.load_model_from_string(model)
    chosen = quantizable_nodes(source, heads=spec.heads)
    if not chosen:
        raise ValueError("the model has nothing to quantize")
    # Says that folding and shape inference are done, which they are; without it a warning asks for them.
    add_pre_process_metadata(source)

    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    tensorrt = spec.target == "tensorrt"
    options: dict[str, Any] = {"WeightSymmetric": True, "ActivationSymmetric": tensorrt}
    if spec.method == "percentile":
        options["CalibPercentile"] = spec.percentile
    if tensorrt:
        options["OpTypesToExcludeOutputQuantization"] = ["Conv", "Gemm", "MatMul", "Add"]
        options["QuantizeBias"] = False
    else:
        chosen += relus_after(source, chosen)
    with tempfile.TemporaryDirectory(prefix="edgepin-") as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            source,
            path,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Relu"],
            nodes_to_quantize=chosen,
            activation_type=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[spec.method],
            calibration_providers=["CPUExecutionProvider"],
            extra_options=options,
        )
        quantized = onnx.load_model(path)
    if tensorrt:
        free_summed_convolutions(quantized)
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


class _Reader:
    """What ONNX Runtime's calibration asks for: the next inputs, then None."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[Feed]:
        return self._feeds


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
