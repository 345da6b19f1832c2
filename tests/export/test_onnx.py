from __future__ import annotations

import copy
import re
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from edgepin._bundle.onnx_scan import check_self_contained
from edgepin_export._onnx import fold, to_onnx
from edgepin_export._parity import compare, onnx_embed

MODALITIES = ("face", "voice")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("frames", [98, 298, 501])
def test_onnx_runtime_equals_torch(encoders, models, feed, modality, batch, frames):
    inputs = feed(modality, batch, frames)
    with torch.no_grad():
        expected = encoders[modality](torch.from_numpy(next(iter(inputs.values()))))
    for mine, theirs in zip(expected, onnx_embed(models[modality], [inputs]), strict=True):
        assert theirs.shape == (batch, 256)
        assert theirs.dtype == np.float32
        assert compare(mine.numpy(), theirs).min_cosine >= 1 - 1e-5
        assert np.linalg.norm(theirs, axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_types_and_free_axes_are_those_that_runtimes_rely_on(models, modality):
    graph = onnx.load_model_from_string(models[modality]).graph

    def describe(value):
        kind = value.type.tensor_type
        return value.name, kind.elem_type, [axis.dim_param or axis.dim_value for axis in kind.shape.dim]

    assert [describe(value) for value in graph.input] == {
        "face": [("face", onnx.TensorProto.UINT8, ["N", 32, 32, 3])],
        "voice": [("log_mel", onnx.TensorProto.FLOAT, ["N", "T", 80])],
    }[modality]
    assert [describe(value) for value in graph.output] == [
        ("identity", onnx.TensorProto.FLOAT, ["N", 256]),
        ("pin", onnx.TensorProto.FLOAT, ["N", 256]),
    ]


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_oldest_supported_onnx_runtime_reads_it(models, modality):
    model = onnx.load_model_from_string(models[modality])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert model.ir_version == 8  # ONNX Runtime 1.17 reads up to 9
    assert not model.functions


@pytest.mark.parametrize("modality", MODALITIES)
def test_normalization_and_shape_arithmetic_are_folded_away(models, modality):
    kinds = Counter(node.op_type for node in onnx.load_model_from_string(models[modality]).graph.node)
    assert not {"BatchNormalization", "Shape", "Expand", "Identity", "Dropout"} & set(kinds)
    assert kinds["Gemm"] == 2


@pytest.mark.parametrize("modality", MODALITIES)
def test_bytes_tell_nothing_of_the_machine_that_made_them(models, modality):
    check_self_contained(models[modality], modality)
    tells = rb"\.py\b|stack_trace|edgepin_training|fx_node|site-packages|pytorch"
    assert not re.search(tells, models[modality])
    model = onnx.load_model_from_string(models[modality])
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert (model.producer_name, model.producer_version) == ("edgepin", "")


def test_same_weights_give_the_same_bytes(encoders, models):
    assert to_onnx(copy.deepcopy(encoders["face"]), "face", size=32) == models["face"]


def test_the_encoder_given_is_left_as_it_was(encoders):
    before = {name: value.clone() for name, value in encoders["voice"].state_dict().items()}
    fold(encoders["voice"])
    after = encoders["voice"].state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_encoder_in_training_mode_is_refused(encoders):
    with pytest.raises(ValueError, match="training mode"):
        to_onnx(copy.deepcopy(encoders["face"]).train(), "face", size=32)


def test_an_unknown_modality_is_refused(encoders):
    with pytest.raises(ValueError, match="modality"):
        to_onnx(encoders["face"], "gait")


def test_a_normalization_that_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match="follows no convolution: 0"):
        fold(torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 1)).eval())
