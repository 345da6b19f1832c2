from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgepin._bundle.onnx_scan import check_self_contained
from edgepin_export._onnx import serialize
from edgepin_export._parity import compare, onnx_embed
from edgepin_export._quantize import QuantizeSpec, observe, quantizable_nodes, quantize

TARGETS = ("tensorrt", "onnxruntime")
METHODS = ("minmax", "percentile", "entropy", "mse")


@pytest.fixture(scope="module")
def calibration(feed):
    return {name: [feed(name, 2, 98, seed) for seed in range(3)] for name in ("face", "voice")}


@pytest.fixture(scope="module")
def observed(models, calibration):
    return {name: observe(models[name], calibration[name]) for name in models}


@pytest.fixture(scope="module")
def quantized(models, observed):
    return {
        (name, target): quantize(models[name], observed[name], QuantizeSpec(target, "minmax", heads=True))
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


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_what_is_not_quantized_reads_exact_values(models, observed, modality):
    graph = Graph(quantize(models[modality], observed[modality]))
    quantized = set(quantizable_nodes(onnx.load_model_from_string(models[modality]), heads=False))
    for node in graph.nodes:
        if node.name not in quantized and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            assert "DequantizeLinear" not in {graph.source(name) for name in node.input}


def test_heads_stay_in_floating_point_unless_asked_for(models, observed):
    graph = Graph(quantize(models["face"], observed["face"]))
    assert all(graph.source(node.input[1]) == "constant" for node in graph.of("Gemm"))
    assert all(graph.source(node.input[1]) == "DequantizeLinear" for node in graph.of("Conv"))


@pytest.mark.parametrize("method", METHODS)
def test_same_arguments_give_the_same_bytes(models, calibration, method):
    spec = QuantizeSpec(method=method)
    first, second = (
        quantize(models["voice"], observe(models["voice"], calibration["voice"]), spec) for _ in "ab"
    )
    assert first == second


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_those_of_the_chosen_clip(models, observed, method):
    graph = Graph(quantize(models["face"], observed["face"], QuantizeSpec(method=method, percentile=99.0)))
    for node in graph.of("QuantizeLinear"):
        clip = observed["face"][node.input[0]].clip(method, 99.0)
        assert graph.constants[node.input[1]] == pytest.approx(clip / 127, rel=1e-6)


def test_exempt_layers_stay_in_floating_point_and_no_other(models, observed):
    layers = quantizable_nodes(onnx.load_model_from_string(models["face"]), heads=False)
    convolutions = [name for name in layers if "onv" in name]
    spared = convolutions[3]
    graph = Graph(quantize(models["face"], observed["face"], QuantizeSpec(exempt=(spared,))))
    floating = {node.name for node in graph.of("Conv") if graph.source(node.input[1]) == "constant"}
    assert floating == {spared}
    conv = next(node for node in graph.of("Conv") if node.name == spared)
    assert graph.source(conv.input[0]) == "Relu"


def test_nothing_left_to_quantize_is_refused(models, observed):
    every = tuple(quantizable_nodes(onnx.load_model_from_string(models["face"])))
    with pytest.raises(ValueError, match="nothing to quantize"):
        quantize(models["face"], observed["face"], QuantizeSpec(exempt=every))


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
        observe(models["face"], [])


def test_calibration_inputs_may_differ_in_shape(models, feed):
    both = observe(models["voice"], [feed("voice", 1, 98), feed("voice", 1, 60, seed=1)])
    alone = observe(models["voice"], [feed("voice", 1, 98)])
    assert all(both[name].largest >= alone[name].largest for name in alone)


@pytest.mark.parametrize(
    "options", [{"target": "dsp"}, {"method": "guess"}, {"percentile": 100.1}, {"percentile": 1.0}]
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        QuantizeSpec(**options)
