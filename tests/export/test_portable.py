from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgepin._bundle.onnx_scan import check_self_contained
from edgepin_export._parity import compare, onnx_embed
from edgepin_export._portable import log_mel_feeds, pcm_feeds, plugin_voice, portable_voice
from edgepin_kernels import LogMelSpec

SPEC = LogMelSpec.preset("kaldi")


@pytest.fixture(scope="module")
def portable(models):
    return portable_voice(models["voice"], SPEC)


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(0)
    times = np.arange(20_000) / 16_000
    tones = [np.sin(2 * np.pi * pitch * times) for pitch in (140.0, 310.0, 900.0)]
    return [
        (3000 * tone + random.normal(0, 200, len(tone))).astype(np.int16)[: 12_000 + 3000 * number]
        for number, tone in enumerate(tones)
    ]


def test_pcm_gives_the_embeddings_of_kernel_and_encoder(models, portable, clips):
    expected = onnx_embed(models["voice"], log_mel_feeds(clips, SPEC))
    for mine, theirs in zip(expected, onnx_embed(portable, pcm_feeds(clips)), strict=True):
        assert compare(mine, theirs).min_cosine > 0.99999


def test_full_scale_is_one():
    (feed,) = pcm_feeds([np.array([-32768, 0, 16384], np.int16)])
    assert feed["pcm"].dtype == np.float32
    assert feed["pcm"].tolist() == [[-1.0, 0.0, 0.5]]


def test_names_types_and_free_axes_are_those_that_are_documented(portable):
    graph = onnx.load_model_from_string(portable).graph

    def describe(value):
        kind = value.type.tensor_type
        return value.name, kind.elem_type, [axis.dim_param or axis.dim_value for axis in kind.shape.dim]

    assert [describe(value) for value in graph.input] == [("pcm", onnx.TensorProto.FLOAT, ["N", "samples"])]
    assert [describe(value) for value in graph.output] == [
        ("identity", onnx.TensorProto.FLOAT, ["N", 256]),
        ("pin", onnx.TensorProto.FLOAT, ["N", 256]),
    ]


def test_it_is_standard_operators_only_self_contained_and_the_same_every_time(models, portable):
    model = onnx.load_model_from_string(portable)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    check_self_contained(portable, "voice.portable.onnx")
    assert portable_voice(models["voice"], SPEC) == portable


def test_the_plugin_form_has_one_node_in_the_front_end_s_place_and_no_body(models):
    model = onnx.load_model_from_string(plugin_voice(models["voice"], SPEC))
    own = [node for node in model.graph.node if node.domain]
    assert [(node.op_type, node.domain, list(node.input)) for node in own] == [("LogMel", "edgepin", ["pcm"])]
    assert not model.functions
    assert {value.name for value in model.graph.value_info} == {"log_mel"}


def test_an_encoder_of_another_front_end_is_refused(models):
    with pytest.raises(ValueError, match="80 mels"):
        portable_voice(models["voice"], LogMelSpec.preset("resemblyzer"))
