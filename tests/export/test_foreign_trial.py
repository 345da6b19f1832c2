"""A foreign encoder that does not work is refused with a figure and a likely cause."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepin._errors import UsageError
from edgepin_export._foreign_graph import adapt
from edgepin_export._foreign_open import open_encoder
from edgepin_export._foreign_projection import Embedded
from edgepin_export._foreign_spec import ForeignFace, ForeignVoice
from edgepin_export._foreign_trial import (
    Tried,
    check_runs,
    check_tells_apart,
    embed,
    error_rate,
    try_faces,
    try_voices,
)
from edgepin_kernels import LogMel

from . import foreign_models as models

FACE = ForeignFace(size=32)


def quiet(*_):
    pass


def feeds(count=12):
    random = np.random.default_rng(0)
    return [{"face": random.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)} for _ in range(count)]


def run(data, spec=FACE):
    return check_runs(open_encoder("face", data, spec, "f"), feeds(), progress=quiet)


def after_embedding(nodes, constants=()):
    """A model whose embedding goes through more nodes: from `raw` to `fc1`."""

    def change(model):
        model.graph.node[-1].output[0] = "raw"
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(constants)

    return models.changed(models.face_model(), change)


def number(name, value):
    return numpy_helper.from_array(np.array(value), name)


def test_a_sound_encoder_runs_and_tells_its_dimensions():
    assert run(models.face_model(dim=64)) == 64
    assert run(models.face_model(batch=1, opset=11)) == 64


CONSTANT = after_embedding(
    [helper.make_node("Mul", ["raw", "tiny"], ["small"]), helper.make_node("Add", ["small", "one"], ["fc1"])],
    [number("tiny", np.float32(1e-6)), number("one", np.float32(1.0))],
)
INFINITE = after_embedding(
    [helper.make_node("Log", ["raw"], ["fc1"])],
)
ZERO = after_embedding(
    [helper.make_node("Mul", ["raw", "zero"], ["fc1"])],
    [number("zero", np.float32(0.0))],
)
RANDOM = after_embedding(
    [
        helper.make_node("RandomNormalLike", ["raw"], ["noise"], dtype=TensorProto.FLOAT, scale=10.0),
        helper.make_node("Add", ["raw", "noise"], ["fc1"]),
    ]
)
MIXED = after_embedding(
    [
        helper.make_node("ReduceMean", ["raw", "rows"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["raw", "mean"], ["fixed"]),
        helper.make_node("Add", ["fixed", "raw"], ["fc1"]),
    ],
    [number("rows", np.array([0], np.int64))],
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (CONSTANT, "the same embedding"),
        (INFINITE, "not finite"),
        (ZERO, "zeros"),
        (RANDOM, "another embedding each time"),
        (MIXED, "several captures at once"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused(data, message):
    with pytest.raises(UsageError, match=message) as caught:
        run(data)
    assert caught.value.hint


def test_a_graph_that_computes_something_else_than_its_file_is_refused():
    encoder = open_encoder("face", models.face_model(), FACE, "f")
    head = next(tensor for tensor in encoder.model.graph.initializer if list(tensor.dims) == [64, 128])
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head)[::-1].copy(), head.name))
    with pytest.raises(UsageError, match="lowest cosine to its own file"):
        check_runs(encoder, feeds(), progress=quiet)


def test_a_graph_that_fails_on_real_captures_is_refused():
    def free(model):
        for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dim.dim_param = "side"

    bad = models.changed(models.face_model(), free)
    with pytest.raises(UsageError, match="fails on"):
        run(bad, ForeignFace(size=48))  # a reshape in it takes 32 px only


def red_people(people=10, captures=5):
    """People who differ by their shade of red; blue is noise."""
    random = np.random.default_rng(1)
    owner = np.repeat(np.arange(people), captures)
    crops = random.integers(100, 156, (len(owner), 1, 32, 32, 3)).astype(np.uint8)
    shade = random.integers(0, 256, (people, 8, 8))
    for index, person in enumerate(owner):
        crops[index, 0, ..., 0] = np.kron(shade[person], np.ones((4, 4)))
        crops[index, 0, ..., 2] = np.kron(random.integers(0, 256, (8, 8)), np.ones((4, 4)))
    return list(crops), owner


def red_encoder():
    """Sees the first channel that it is given, at 8 x 8."""
    nodes = [
        helper.make_node("Gather", ["data", "first"], ["red"], axis=1),
        helper.make_node("AveragePool", ["red"], ["p"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p"], ["fc1"]),
    ]
    constants = {"first": np.array([0], np.int64)}
    return models.model(
        nodes,
        [("data", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [("fc1", TensorProto.FLOAT, ["n", 64])],
        constants,
    )


def rate(encoder, crops, owner):
    rows = embed(adapt(encoder), [{"face": crop} for crop in crops], label="", progress=quiet)
    return error_rate(Embedded(rows, owner))


def test_a_wrong_order_of_channels_is_refused_and_named():
    crops, owner = red_people()
    right = open_encoder("face", red_encoder(), FACE, "f")
    assert rate(right, crops, owner) < 0.01
    wrong = open_encoder("face", red_encoder(), ForeignFace(size=32, channels="bgr"), "f")
    found = rate(wrong, crops, owner)
    assert found >= 0.45
    tried = try_faces(wrong, crops, owner, quiet)
    with pytest.raises(UsageError, match="below 45 % is needed") as caught:
        check_tells_apart(wrong, found, tried)
    assert f"{100 * found:.1f} %" in str(caught.value)
    assert 'with channels = "rgb"' in caught.value.hint
    assert tried.given == pytest.approx(found)


def test_a_wrong_log_mel_is_named():
    """An encoder that knows the level of the samples' scale: only int16 energies are above its threshold."""
    random = np.random.default_rng(2)
    owner = np.repeat(np.arange(8), 4)
    tones = 300 + 400 * np.arange(8)
    seconds = np.arange(16_000) / 16_000
    clips = [
        (8000 * np.sin(2 * np.pi * tones[person] * seconds) + random.normal(0, 300, 16_000)).astype(np.int16)
        for person in owner
    ]
    nodes = [
        helper.make_node("ReduceMean", ["feats", "time"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "threshold"], ["above"]),
        helper.make_node("Relu", ["above"], ["loud"]),
        helper.make_node("Add", ["loud", "offset"], ["embs"]),
    ]
    constants = {
        "time": np.array([1], np.int64),
        "threshold": np.float32(15.0),
        "offset": np.full(80, 1e-3, np.float32),
    }
    data = models.model(
        nodes,
        [("feats", TensorProto.FLOAT, ["n", "t", 80])],
        [("embs", TensorProto.FLOAT, ["n", 80])],
        constants,
    )
    from edgepin_export._foreign_presets import voice_from_toml

    wrong = open_encoder(
        "voice", data, voice_from_toml('log_mel = {preset = "kaldi", amplitude = "unit"}'), "v"
    )
    log_mel = LogMel(wrong.spec.log_mel)
    rows = embed(adapt(wrong), [{"log_mel": log_mel(clip)[None]} for clip in clips], label="", progress=quiet)
    found = error_rate(Embedded(rows, owner))
    tried = try_voices(wrong, clips, owner, quiet)
    best = 'log_mel = "kaldi" with normalize = "none"'
    assert dict(tried.others)[best] < 0.05
    assert tried.given == pytest.approx(found)
    with pytest.raises(UsageError) as caught:
        check_tells_apart(wrong, found, tried)
    assert best in caught.value.hint


def test_an_encoder_that_does_well_gets_no_advice_and_one_that_could_do_better_does():
    encoder = open_encoder("face", models.face_model(), FACE, "f")
    assert check_tells_apart(encoder, 0.05, None) is None
    assert check_tells_apart(encoder, 0.05, Tried(0.05, (("x", 0.04), ("y", 0.2)))) is None
    assert (
        check_tells_apart(encoder, 0.3, Tried(0.2, (("x", 0.19), ("y", 0.15)))) is None
    )  # on the same captures
    advice = check_tells_apart(encoder, 0.2, Tried(0.2, (("x", 0.19), ("y", 0.1))))
    assert "with y it would be 10.0 % instead of 20.0 %" in advice
    with pytest.raises(UsageError, match=r"EER is 45\.0 %") as caught:
        check_tells_apart(encoder, 0.45, Tried(0.45, (("x", 0.44),)))
    assert "order of the channels" in caught.value.hint
    voice = open_encoder("voice", models.voice_model(), ForeignVoice(), "v")
    with pytest.raises(UsageError) as caught:
        check_tells_apart(voice, 0.5, None)
    assert "log-mel" in caught.value.hint


def test_the_error_rate_counts_pairs_of_captures():
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    assert error_rate(Embedded(rows, np.array([0, 0, 1, 1]))) == 0.0
    assert error_rate(Embedded(rows, np.array([0, 1, 0, 1]))) > 0.4
