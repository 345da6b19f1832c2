"""What is refused of a foreign encoder before it runs, and how it is brought into our form."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepin._errors import UsageError
from edgepin_export._foreign_open import open_encoder, open_face
from edgepin_export._foreign_spec import ForeignFace, ForeignVoice

from . import foreign_models as models

FACE = ForeignFace(size=32)
VOICE = ForeignVoice()


def kinds(encoder) -> list[str]:
    return [node.op_type for node in encoder.model.graph.node]


def run(model: onnx.ModelProto, **feeds):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


def pixels(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize(("opset", "becomes"), [(11, 18), (13, 18), (17, 18), (18, 18), (20, 20), (21, 20)])
def test_opsets_become_ones_that_onnx_runtime_1_17_reads(opset, becomes):
    data = models.face_model(opset=opset)
    encoder = open_encoder("face", data, FACE, "f.onnx")
    assert [(entry.domain, entry.version) for entry in encoder.model.opset_import] == [("", becomes)]
    assert encoder.model.ir_version <= 9
    assert (f"its opset {opset} was converted to {becomes}" in encoder.notes) == (opset != becomes)
    x = pixels(2)
    expected = onnxruntime.InferenceSession(data).run(None, {"data": x})[0]
    np.testing.assert_allclose(run(encoder.model, data=x), expected, atol=1e-4)


def test_a_newer_ir_version_is_lowered():
    encoder = open_encoder("face", models.changed(models.face_model(), set_ir), FACE, "f.onnx")
    assert encoder.model.ir_version <= 9
    assert encoder.notes == ("its IR version 10 was lowered to 9",)


def set_ir(model):
    model.ir_version = 10


def test_batch_normalization_is_folded_into_the_convolution_before_it():
    assert "BatchNormalization" not in kinds(open_encoder("face", models.face_model(), FACE, "f.onnx"))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_made_free(batch):
    data = models.face_model(batch=batch)
    encoder = open_encoder("face", data, FACE, "f.onnx")
    assert encoder.batch == batch
    assert f"its batch of {batch} was made free" in encoder.notes
    x = pixels(5)
    fixed = onnxruntime.InferenceSession(data)
    expected = [fixed.run(None, {"data": np.repeat(row[None], batch, axis=0)})[0][:1] for row in x]
    np.testing.assert_allclose(run(encoder.model, data=x), np.concatenate(expected), atol=1e-4)


def test_nodes_get_names_of_their_own():
    def unname(model):
        for node in model.graph.node:
            node.name = "same" if node.op_type == "Conv" else ""

    names = [
        node.name
        for node in open_encoder(
            "face", models.changed(models.face_model(), unname), FACE, "f"
        ).model.graph.node
    ]
    assert all(names)
    assert len(set(names)) == len(names)


def test_only_what_the_embedding_needs_is_kept():
    def classify(model):
        model.graph.node.append(helper.make_node("MatMul", ["fc1", "classes"], ["logits"], "classifier"))
        model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 9), np.float32), "classes"))
        model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 9]))

    data = models.changed(models.face_model(), classify)
    with pytest.raises(UsageError, match=r"2 outputs: fc1.*logits") as caught:
        open_encoder("face", data, FACE, "f.onnx")
    assert "output" in str(caught.value.hint)
    encoder = open_encoder("face", data, ForeignFace(size=32, output="fc1"), "f.onnx")
    assert "MatMul" not in kinds(encoder)
    assert [value.name for value in encoder.model.graph.output] == ["fc1"]
    assert "classes" not in [tensor.name for tensor in encoder.model.graph.initializer]


def test_functions_are_inlined():
    def wrap(model):
        body = [helper.make_node("Identity", ["a"], ["b"])]
        opsets = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("mine", "Same", ["a"], ["b"], body, opsets))
        model.opset_import.append(helper.make_opsetid("mine", 1))
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Same", ["before"], ["fc1"], "call", domain="mine"))

    encoder = open_encoder("face", models.changed(models.face_model(), wrap), FACE, "f.onnx")
    assert not encoder.model.functions
    assert "Same" not in kinds(encoder)


def external(model):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.ClearField("raw_data")


def foreign_operator(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[3].domain = "com.microsoft"


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1]))


def integer_output(model):
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32


def unused_input(model):
    model.graph.node[0].input[0] = "w"


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        (b"", FACE, "not ONNX"),
        (b"\x08\x09no", FACE, "not ONNX"),
        (models.face_model()[:-40], FACE, "ONNX"),
        (models.changed(models.face_model(), external), FACE, "external data"),
        (models.changed(models.face_model(), foreign_operator), FACE, "com.microsoft.Relu"),
        (
            models.changed(models.face_model(), second_input),
            FACE,
            "2 inputs: data float (n, 3, 32, 32); mask",
        ),
        (
            models.changed(models.face_model(), second_input),
            ForeignFace(size=32, input="data"),
            "nothing can be given to: mask",
        ),
        (models.changed(models.face_model(), integer_output), FACE, "not floating point"),
        (models.face_model(), ForeignFace(size=32, input="image"), "no input image"),
        (models.face_model(), ForeignFace(size=32, output="embedding"), "no output embedding"),
        (models.face_model(), ForeignFace(), "size gives 112 where it has 32"),
        (models.face_model(), ForeignFace(size=32, layout="nhwc"), "does not fit the spec"),
        (models.face_model(), ForeignFace(size=32, dtype="float16"), "not of type float16"),
        (models.face_model(kind=TensorProto.UINT8), FACE, "not of type float"),
        (models.voice_model(mels=40), VOICE, "log_mel.num_mels gives 80 where it has 40"),
        (models.voice_model(layout="nmt"), VOICE, "takes 80 frames only"),
        (models.voice_model(layout="n1mt"), VOICE, "4 axes, and layout ntm has 3"),
        (models.voice_model(frames=200), VOICE, "takes 200 frames only"),
        (models.voice_model(frames=200), ForeignVoice(frames=160), "frames gives 160 where it has 200"),
        (models.voice_model(), ForeignVoice(lengths="length"), "no input length"),
    ],
)
def test_what_cannot_be_right_is_refused_with_what_is_there(data, spec, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        open_encoder("face" if isinstance(spec, ForeignFace) else "voice", data, spec, "given.onnx")


def test_a_missing_file_and_one_that_fits_no_bundle_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        open_face(tmp_path / "none.onnx", FACE)
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(UsageError, match="larger than a bundle"):
        open_face(huge, FACE)
