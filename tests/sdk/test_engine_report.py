"""The layers of an engine, read from the two ways in which TensorRT tells them."""

from __future__ import annotations

import json

import pytest

from edgepin._errors import EdgePinError
from edgepin._runtime.engine_report import Layer, Tensor, counts, layers_from_inspector, layers_from_log

from .engine_fakes import LAYERS

IMAGE = (
    "{ Name: image, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Int8, "
    "Format: (NHWC) Channel major format }"
)
SUM = (
    "{ Name: sum, Dimensions: [-1,8,4,4], Strides: [128,1,32,8], StrideOrder: [3,0,2,1], Datatype: Float, "
    "Format: (Linear) Row major linear format }"
)


def line(name, kind, inputs="", outputs="", metadata=""):
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {SUM}], Outputs: [ {outputs}], "
        f"TacticName: tactic, StreamId: 0, Metadata: {metadata}"
    )


LOG = "\n".join(
    (
        "Layers:",
        "Name: __mye1_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , "
        "StreamId: 0, Metadata: ",
        line("__myl_MoveTran_myl0_1", "kgen", SUM, IMAGE, "[ONNX Layer: node_transpose]"),
        line(
            "conv, 2[a]+relu_myl0_2",
            "correlation",
            f"{IMAGE}, {SUM}",
            SUM,
            "[ONNX Layer: conv, 2[a]][ONNX Layer: relu]",
        ),
        line("__myl_MulAddRelu_myl0_3", "kgen", SUM, IMAGE),
        line("__myl_CorrMul_myl0_4", "runtime_fusion", SUM, SUM),
        line("linear_myl0_5", "gemm", SUM, SUM),
        "",
        "I/O Tensors:",
        " Name: image, IOMode: Input",
    )
)


def test_the_log_gives_every_layer_with_its_nodes_types_and_formats():
    layers = layers_from_log(LOG)
    assert [layer.kind for layer in layers] == [
        "shape_call",
        "kgen",
        "correlation",
        "kgen",
        "runtime_fusion",
        "gemm",
    ]
    convolution = layers[2]
    assert convolution.name == "conv, 2[a]+relu_myl0_2"
    assert convolution.nodes == ("conv, 2[a]", "relu")
    assert convolution.inputs[0] == Tensor("image", (-1, 4, 8, 8), "int8", "(NHWC) Channel major format")
    assert [tensor.dtype for tensor in (*convolution.inputs, *convolution.outputs)] == [
        "int8",
        "fp32",
        "fp32",
    ]
    assert layers[3].operations == ("Mul", "Add", "Relu")


def test_the_counts_are_of_kernels_reformats_and_convolutions():
    assert counts(layers_from_log(LOG)) == {
        "layers": 6,
        "kernels": 5,
        "reformats": 1,
        "convolutions": 2,
        "int8_convolutions": 1,
    }


def test_the_inspector_gives_the_same_in_both_spellings():
    told = layers_from_inspector(json.dumps({"Layers": LAYERS, "Bindings": []}))
    newer = json.loads(json.dumps(LAYERS))
    for layer in newer:
        for tensor in layer["Inputs"] + layer["Outputs"]:
            layout = tensor.pop("Format/Datatype")
            tensor["Datatype"] = "Int8" if "Int8" in layout else "Half" if "FP16" in layout else "Float"
            tensor["Format"] = layout
    assert layers_from_inspector(json.dumps({"Layers": newer, "I/O Tensors": []})) == told
    assert told[0].is_reformat
    assert counts(told)["int8_convolutions"] == 1


def test_a_move_without_input_is_no_reformat():
    layer = Layer("__myl_Move_myl0_1", "kgen", (), (), (Tensor("x", (1,), "int32", "linear"),))
    assert layer.is_kernel
    assert not layer.is_reformat


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Layers:",
        "Layers:\nsomething else",
        "Layers:\n" + line("a", "kgen", "{ Name: x, Dimensions: [?] }"),
        LOG.replace("Datatype: Int8, ", "", 1),
        "Something:\n" + line("a", "kgen"),
    ],
)
def test_a_log_that_is_not_understood_is_refused_and_not_half_read(text):
    with pytest.raises(EdgePinError, match="TensorRT's log"):
        layers_from_log(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Layers": ["only a name"]}',
        '{"Layers": [{"Name": "a"}]}',
        json.dumps({"Layers": LAYERS}).replace("Int8", "Secret"),
    ],
)
def test_an_inspector_that_tells_no_details_is_refused(text):
    with pytest.raises(EdgePinError, match="list of layers"):
        layers_from_inspector(text)
