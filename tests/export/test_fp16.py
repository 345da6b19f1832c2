from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepin._bundle.onnx_scan import check_self_contained
from edgepin_export._fp16 import LARGEST, rounded, to_fp16
from edgepin_export._onnx import serialize
from edgepin_export._parity import compare, onnx_embed

MODALITIES = ("face", "voice")
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module")
def halves(models):
    return {modality: to_fp16(models[modality]) for modality in MODALITIES}


def types(model: bytes) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model), strict_mode=True).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    values = (*graph.input, *graph.output, *graph.value_info)
    return found | {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("modality", MODALITIES)
def test_layers_compute_in_half_and_statistics_in_float(halves, modality):
    graph = onnx.load_model_from_string(halves[modality].model).graph
    kinds = types(halves[modality].model)
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert {kinds[name] for name in (*node.input, *node.output)} == {HALF}
        if node.op_type in ("Softmax", "ReduceSum", "ReduceMean", "Sqrt", "Clip", "Div", "Sub", "Mul"):
            assert HALF not in {kinds[name] for name in (*node.input, *node.output)}


@pytest.mark.parametrize("modality", MODALITIES)
def test_inputs_and_outputs_keep_names_and_types(models, halves, modality):
    def ends(model):
        graph = onnx.load_model_from_string(model).graph
        return [(value.name, value.type) for value in (*graph.input, *graph.output)]

    assert ends(halves[modality].model) == ends(models[modality])


def test_casts_stand_only_where_values_change_type(halves):
    counts = {
        modality: sum(node.op_type == "Cast" for node in onnx.load_model_from_string(half.model).graph.node)
        for modality, half in halves.items()
    }
    # Face: pixels to float, to half, and the two linear maps back. Voice: in, attention, features, to the linear maps,
    # and back.
    assert counts == {"face": 4, "voice": 6}


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_half_loses_is_small_and_shows_in_the_rounded_graph(models, halves, feed, modality):
    inputs = [feed(modality, 4, 120, seed=3)]
    expected = onnx_embed(models[modality], inputs)
    for model in (halves[modality].model, rounded(halves[modality].model)):
        for mine, theirs in zip(expected, onnx_embed(model, inputs), strict=True):
            assert compare(mine, theirs).min_cosine > 0.9999
            assert np.linalg.norm(theirs, axis=1) == pytest.approx(1.0, abs=1e-6)
    plain, honest = (
        compare(expected[0], onnx_embed(model, inputs)[0]).mean_cosine
        for model in (halves[modality].model, rounded(halves[modality].model))
    )
    assert honest < plain < 1


def test_rounded_values_are_those_that_half_can_hold(halves, feed):
    model = onnx.load_model_from_string(rounded(halves["face"].model))
    name = next(
        node.output[0] for node in model.graph.node if node.op_type == "Cast" and node.name.endswith("/back")
    )
    model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run([name], feed("face", 1, 0))
    assert np.array_equal(values, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_model_is_smaller_self_contained_and_the_same_every_time(models, halves, modality):
    model = halves[modality].model
    assert len(model) < 0.6 * len(models[modality])
    check_self_contained(model, modality)
    assert to_fp16(models[modality]).model == model


def small(weight: float, output: str = "y") -> bytes:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "w2"], [output], name="second"),
    ]
    weights = [
        numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), name)
        for name, value in (("w1", weight), ("w2", 1.0))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 1, 2, 2])],
        [helper.make_tensor_value_info(output, FLOAT, ["N", 1, 2, 2])],
        weights,
    )
    return serialize(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), "g")


def test_a_layer_whose_weights_half_cannot_hold_stays_in_float():
    made = to_fp16(small(1e6))
    assert (made.half, made.kept) == (("second",), ("first",))


def test_a_layer_whose_activations_come_near_the_largest_half_stays_in_float():
    model = small(100.0)
    assert to_fp16(model).kept == ()
    loud = {"x": np.full((1, 1, 2, 2), LARGEST / 50, np.float32)}
    quiet = {"x": np.full((1, 1, 2, 2), LARGEST / 500, np.float32)}
    assert to_fp16(model, [quiet]).kept == ()
    with pytest.raises(ValueError, match="no layer for FP16"):
        to_fp16(model, [loud])


def test_an_output_that_is_a_layer_s_own_is_cast_back(feed):
    made = to_fp16(small(2.0)).model
    graph = onnx.load_model_from_string(made).graph
    assert graph.node[-1].op_type == "Cast"
    assert types(made)["y"] == FLOAT


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "b",
        [],
        [helper.make_tensor_value_info("b", FLOAT, None)],
    )
    model = onnx.load_model_from_string(small(1.0))
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    with pytest.raises(ValueError, match="control flow"):
        to_fp16(model.SerializeToString())
