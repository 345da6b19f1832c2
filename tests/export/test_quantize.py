from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgepin._onnx_scan import check_self_contained
from edgepin_export._onnx import serialize
from edgepin_export._parity import compare, onnx_embed
from edgepin_export._quantize import QuantizeSpec, quantizable_nodes, quantize

TARGETS = ("tensorrt", "onnxruntime")


@pytest.fixture(scope="module")
def calibration(feed):
    return {name: [feed(name, 2, 98, seed) for seed in range(3)] for name in ("face", "voice")}


@pytest.fixture(scope="module")
def quantized(models, calibration):
    return {
        (name, target): quantize(models[name], calibration[name], QuantizeSpec(target, "minmax", heads=True))
        for name in models
        for target in TARGETS
    }


class Graph:
    """A graph with its producers and constants at hand."""

    def __init__(self, model: bytes) -> None:
        graph = onnx.load_model_from_string(model).graph
        self.nodes = list(graph.node)
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def source(self, name: str) -> str:
        return self.producers[name].op_type if name in self.producers else "constant"

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in kinds]


@pytest.fixture(scope="module", params=["face", "voice"])
def for_tensorrt(request, quantized):
    return Graph(quantized[request.param, "tensorrt"])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("modality", ["face", "voice"])
def test_embeddings_stay_close_to_fp32(models, quantized, feed, modality, target):
    inputs = [feed(modality, 4, 120, seed=9)]
    expected, found = onnx_embed(models[modality], inputs), onnx_embed(quantized[modality, target], inputs)
    for mine, theirs in zip(expected, found, strict=True):
        assert compare(mine, theirs).mean_cosine > 0.98
        assert not np.array_equal(mine, theirs)


def test_tensorrt_weights_are_symmetric_int8_per_output_channel(for_tensorrt):
    nodes = for_tensorrt.of("Conv", "Gemm")
    assert len(nodes) > 10
    for node in nodes:
        dequantize = for_tensorrt.producers[node.input[1]]
        assert dequantize.op_type == "DequantizeLinear"
        weights, scale, zero = (for_tensorrt.constants[name] for name in dequantize.input)
        assert weights.dtype == np.int8
        assert scale.shape == weights.shape[:1]  # linear maps are stored (outputs, inputs)
        assert next(a.i for a in dequantize.attribute if a.name == "axis") == 0
        assert not zero.any()
        assert weights.min() >= -127


def test_tensorrt_activations_are_symmetric_int8_per_tensor(for_tensorrt):
    nodes = for_tensorrt.of("QuantizeLinear")
    assert nodes
    for node in nodes:
        scale, zero = (for_tensorrt.constants[name] for name in node.input[1:])
        assert scale.shape == ()
        assert zero.dtype == np.int8
        assert zero == 0


def test_tensorrt_finds_nothing_between_convolution_sum_and_relu(for_tensorrt):
    sums = for_tensorrt.of("Add")
    assert len(sums) >= 4
    for node in sums:
        assert sorted(for_tensorrt.source(name) for name in node.input) == ["Conv", "DequantizeLinear"]
    for node in for_tensorrt.of("Relu"):
        assert for_tensorrt.source(node.input[0]) in {"Conv", "Add"}


def test_tensorrt_biases_stay_in_floating_point(for_tensorrt):
    for node in for_tensorrt.of("Conv", "Gemm"):
        if len(node.input) > 2:
            assert for_tensorrt.constants[node.input[2]].dtype == np.float32


def test_no_constant_but_weights_is_quantized(for_tensorrt):
    """TensorRT's builder refuses a quantized constant that no weight is, which ONNX Runtime forgives."""
    assert all(for_tensorrt.source(node.input[0]) != "constant" for node in for_tensorrt.of("QuantizeLinear"))
    whose = {
        node.input[0]: node.output[0]
        for node in for_tensorrt.of("DequantizeLinear")
        if for_tensorrt.source(node.input[0]) == "constant"
    }
    weights = {node.input[1] for node in for_tensorrt.of("Conv", "Gemm")}
    assert set(whose.values()) == weights


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("modality", ["face", "voice"])
def test_pooling_and_normalization_stay_in_floating_point(quantized, modality, target):
    graph = Graph(quantized[modality, target])
    for node in graph.of("QuantizeLinear"):
        assert graph.source(node.input[0]) not in {"Softmax", "ReduceSum", "Sqrt", "Clip", "ReduceMean"}
    assert {graph.source(name) for name in ("identity", "pin")} == {"Div"}


def test_onnxruntime_gets_unsigned_activations_that_make_the_relus_free(quantized):
    graph = Graph(quantized["face", "onnxruntime"])
    zeros = [graph.constants[node.input[2]] for node in graph.of("QuantizeLinear")]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}
    assert not graph.of("Relu")


def test_heads_stay_in_floating_point_unless_asked_for(models, calibration):
    graph = Graph(quantize(models["face"], calibration["face"]))
    assert all(graph.source(node.input[1]) == "constant" for node in graph.of("Gemm"))
    assert all(graph.source(node.input[1]) == "DequantizeLinear" for node in graph.of("Conv"))


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_same_arguments_give_the_same_bytes_and_no_files(models, calibration, method, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = QuantizeSpec(method=method)
    first, second = (quantize(models["voice"], calibration["voice"], spec) for _ in range(2))
    assert first == second
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_tell_nothing_of_the_machine_that_made_them(quantized, target):
    model = quantized["voice", target]
    check_self_contained(model, "voice")
    assert not re.search(rb"/tmp|\.py\b|edgepin-|onnx\.quant|onnx\.infer", model)
    parsed = onnx.load_model_from_string(model)
    assert parsed.ir_version == 8
    assert [(opset.domain, opset.version) for opset in parsed.opset_import] == [("", 18)]


def test_a_sum_with_a_constant_is_no_residual():
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
        onnx.helper.make_node("Add", ["y", "epsilon"], ["z"], name="epsilon_sum"),
        onnx.helper.make_node("Sqrt", ["z"], ["r"], name="root"),
        onnx.helper.make_node("Add", ["r", "z"], ["q"], name="sum_without_convolution"),
        onnx.helper.make_node("Add", ["y", "r"], ["out"], name="residual"),
        onnx.helper.make_node("MatMul", ["r", "q"], ["product"], name="of_two_activations"),
    ]
    shape = [1, 1, 4, 4]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.helper.make_tensor_value_info(name, 1, shape) for name in ("out", "product")],
        [
            numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.float32(1e-5), "epsilon"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    serialize(model, "g")  # it is a valid model
    assert quantizable_nodes(model) == ["conv", "residual"]


def test_no_calibration_input_is_refused(models):
    with pytest.raises(ValueError, match="no calibration input"):
        quantize(models["face"], [])


def test_calibration_inputs_of_several_shapes_are_refused(models, feed):
    with pytest.raises(ValueError, match="differ in shape"):
        quantize(models["voice"], [feed("voice", 1, 98), feed("voice", 1, 99)])


@pytest.mark.parametrize(
    "options", [{"target": "dsp"}, {"method": "guess"}, {"percentile": 100.1}, {"percentile": 1.0}]
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        QuantizeSpec(**options)
