"""The adapter computes what the encoder's own file computes with its preprocessing in numpy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from edgepin._bundle.onnx_scan import check_self_contained
from edgepin_export._foreign_graph import EMBEDDING, adapt
from edgepin_export._foreign_open import open_encoder
from edgepin_export._foreign_projection import Projection
from edgepin_export._foreign_reference import OriginalEncoder, OriginalRuntime
from edgepin_export._foreign_run import encoder_of_run
from edgepin_export._foreign_spec import ForeignFace, ForeignVoice
from edgepin_export._parity import onnx_embed
from edgepin_kernels import LogMelSpec
from edgepin_training.config import TrainConfig

from . import foreign_models as models

ENERGIES = LogMelSpec.preset("resemblyzer")


def crops(rows=3, size=32):
    return np.random.default_rng(5).integers(0, 256, (rows, size, size, 3), dtype=np.uint8)


def log_mels(rows=3, frames=77, mels=80):
    return np.random.default_rng(6).normal(9.0, 3.0, (rows, frames, mels)).astype(np.float32)


def run(model: bytes, **feeds):
    return onnxruntime.InferenceSession(model).run([EMBEDDING], feeds)[0]


def original(encoder, captures):
    alone = OriginalEncoder(encoder)
    return np.concatenate([alone.embed(capture[None]) for capture in captures])


FACES = {
    "arcface": (models.face_model(), ForeignFace(size=32)),
    "bgr": (models.face_model(), ForeignFace(size=32, channels="bgr", mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0))),
    "raw": (models.face_model(), ForeignFace(size=32, mean=(0.0,) * 3, std=(1.0,) * 3)),
    "nhwc": (models.face_model(layout="nhwc"), ForeignFace(size=32, layout="nhwc")),
    "batch of 1": (models.face_model(batch=1), ForeignFace(size=32)),
    "batch of 4": (models.face_model(batch=4), ForeignFace(size=32)),
    "half": (
        models.face_model(kind=TensorProto.FLOAT16),
        ForeignFace(size=32, dtype="float16"),
    ),
    "bytes": (
        models.face_model(kind=TensorProto.UINT8),
        ForeignFace(size=32, channels="bgr", dtype="uint8", mean=(0.0,) * 3, std=(1.0,) * 3),
    ),
}  # fmt: skip

VOICES = {
    "ntm": (models.voice_model(), ForeignVoice()),
    "nmt": (models.voice_model(layout="nmt"), ForeignVoice(layout="nmt")),
    "n1tm": (models.voice_model(layout="n1tm"), ForeignVoice(layout="n1tm")),
    "n1mt": (models.voice_model(layout="n1mt"), ForeignVoice(layout="n1mt")),
    "global": (models.voice_model(), ForeignVoice(mean=9.0, std=tuple(range(1, 81)))),
    "windows": (models.voice_model(frames=20), ForeignVoice(frames=20, hop=7)),
    "half windows": (models.voice_model(), ForeignVoice(frames=30)),
    "one window": (models.voice_model(frames=77), ForeignVoice(frames=77)),
    "too short": (models.voice_model(frames=100), ForeignVoice(frames=100)),
}


@pytest.mark.parametrize("case", FACES)
def test_faces_are_embedded_as_by_the_file_itself(case):
    encoder = open_encoder("face", *FACES[case], case)
    embedded = run(adapt(encoder), face=crops())
    assert (embedded.shape, embedded.dtype) == ((3, 64), np.float32)
    np.testing.assert_allclose(embedded, original(encoder, crops()), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("case", VOICES)
def test_voices_are_embedded_as_by_the_file_itself(case):
    encoder = open_encoder("voice", *VOICES[case], case)
    embedded = run(adapt(encoder), log_mel=log_mels())
    assert (embedded.shape, embedded.dtype) == ((3, 48), np.float32)
    np.testing.assert_allclose(embedded, original(encoder, log_mels()), atol=1e-5)


@pytest.mark.parametrize("case", ["bgr", "raw", "bytes"])
def test_the_specs_of_the_face_cases_make_a_difference(case):
    """Else a field that does nothing would pass."""
    first, second = (
        run(adapt(open_encoder("face", *FACES[name], name)), face=crops()) for name in ("arcface", case)
    )
    assert not np.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("case", ["global", "windows", "half windows", "too short"])
def test_the_specs_of_the_voice_cases_make_a_difference(case):
    first, second = (
        run(adapt(open_encoder("voice", *VOICES[name], name)), log_mel=log_mels()) for name in ("ntm", case)
    )
    assert not np.allclose(first, second, atol=1e-4)


def test_no_uint8_is_inside_where_the_encoder_casts_its_input_itself():
    """TensorRT refuses uint8 between nodes."""
    for layout in ("nchw", "nhwc"):
        data = models.face_model(kind=TensorProto.UINT8, layout=layout)
        spec = ForeignFace(size=32, layout=layout, dtype="uint8", mean=(0.0,) * 3, std=(1.0,) * 3)
        encoder = open_encoder("face", data, spec, "f")
        graph = adapt(encoder)
        assert casts_to(graph) == {TensorProto.FLOAT}
        np.testing.assert_allclose(run(graph, face=crops()), original(encoder, crops()), atol=1e-5)

    def pool_first(model):
        model.graph.node[0].input[0] = "pooled"
        model.graph.node.insert(
            0, helper.make_node("MaxPool", ["data"], ["pooled"], "bytes", kernel_shape=[1, 1])
        )

    spec = ForeignFace(size=32, dtype="uint8", mean=(0.0,) * 3, std=(1.0,) * 3)
    data = models.changed(models.face_model(kind=TensorProto.UINT8), pool_first)
    assert TensorProto.UINT8 in casts_to(adapt(open_encoder("face", data, spec, "f")))


def casts_to(model: bytes) -> set[int]:
    nodes = onnx.load_model_from_string(model).graph.node
    return {node.attribute[0].i for node in nodes if node.op_type == "Cast"}


def test_the_last_window_ends_where_the_capture_ends():
    """40 frames in windows of 16, 10 apart: at 0, 10, 20 and 24."""
    encoder = open_encoder("voice", models.voice_model(frames=16), ForeignVoice(frames=16, hop=10), "v")
    capture = log_mels(1, 40)
    alone = open_encoder("voice", models.voice_model(frames=16), ForeignVoice(frames=16), "v")
    windows = [run(adapt(alone), log_mel=capture[:, start : start + 16])[0] for start in (0, 10, 20, 24)]
    mean = np.mean(windows, axis=0)
    np.testing.assert_allclose(
        run(adapt(encoder), log_mel=capture)[0], mean / np.linalg.norm(mean), atol=1e-5
    )


def test_quiet_energies_are_raised_to_the_least_mean_and_loud_ones_left():
    data = models.lstm_model()
    encoder = open_encoder("voice", data, ForeignVoice(log_mel=ENERGIES, frames=20, least_mean=0.5), "v")
    graph, plain = (
        adapt(encoder),
        adapt(open_encoder("voice", data, ForeignVoice(log_mel=ENERGIES, frames=20), "v")),
    )
    loud = np.abs(log_mels(2, 50, 40)) / 9
    np.testing.assert_allclose(run(graph, log_mel=loud), run(plain, log_mel=loud), atol=1e-6)
    least = loud / loud.mean(axis=(1, 2), keepdims=True) * np.float32(0.5)
    for gain in (1e-1, 1e-2, 1e-4):
        quiet = least * np.float32(gain)
        assert not np.allclose(run(plain, log_mel=quiet), run(plain, log_mel=least), atol=1e-2)
        np.testing.assert_allclose(run(graph, log_mel=quiet), run(plain, log_mel=least), atol=1e-4)
        np.testing.assert_allclose(run(graph, log_mel=quiet), original(encoder, quiet), atol=1e-5)
    assert np.isfinite(run(graph, log_mel=np.zeros((1, 50, 40), np.float32))).all()


@pytest.mark.parametrize(
    ("kind", "expected"), [(TensorProto.INT64, 77.0), (TensorProto.INT32, 77.0), (TensorProto.FLOAT, 1.0)]
)
def test_lengths_are_frames_for_integers_and_relative_for_floats(kind, expected):
    def with_lengths(model):
        graph = model.graph
        graph.input.append(helper.make_tensor_value_info("length", kind, ["n"]))
        graph.node[-1].output[0] = "plain"
        graph.node.append(
            helper.make_node("Cast", ["length"], ["float"], "cast_length", to=TensorProto.FLOAT)
        )
        graph.node.append(helper.make_node("Unsqueeze", ["float", "one"], ["column"], "column"))
        graph.node.append(helper.make_node("Concat", ["plain", "column"], ["embs"], "join", axis=1))
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 49

    data = models.changed(models.voice_model(layout="nmt"), with_lengths)
    encoder = open_encoder("voice", data, ForeignVoice(layout="nmt", lengths="length"), "v")
    plain = open_encoder("voice", models.voice_model(layout="nmt"), ForeignVoice(layout="nmt"), "v")
    rows = run(adapt(encoder), log_mel=log_mels())
    # The part before the length has unit length: the ratio of the two parts gives the length away.
    scale = np.linalg.norm(rows[:, :48], axis=1)
    unscaled = run(adapt(plain), log_mel=log_mels())
    np.testing.assert_allclose(rows[:, :48] / scale[:, None], unscaled, atol=1e-4)
    np.testing.assert_allclose(rows, original(encoder, log_mels()), atol=1e-5)
    raw = onnxruntime.InferenceSession(models.voice_model(layout="nmt")).run(
        None, {"feats": log_mels().transpose(0, 2, 1)}
    )[0]
    np.testing.assert_allclose(rows[:, 48] / scale * np.linalg.norm(raw, axis=1), expected, rtol=1e-3)


@pytest.fixture(scope="module")
def projections():
    random = np.random.default_rng(3)
    pin = random.standard_normal((256, 48)).astype(np.float32), random.standard_normal(256).astype(np.float32)
    wide = np.linalg.qr(random.standard_normal((300, 256)))[0].T.astype(np.float32)
    return {
        "zeros": Projection(48, None, None),
        "pins": Projection(48, None, pin),
        "same": Projection(256, None, None),
        "wide": Projection(300, wide, (random.standard_normal((256, 300)).astype(np.float32), pin[1])),
    }


@pytest.mark.parametrize("case", ["zeros", "pins", "same", "wide"])
def test_the_graph_projects_as_the_projection_does(projections, case):
    projection = projections[case]
    encoder = open_encoder("voice", models.voice_model(projection.dim), ForeignVoice(), "v")
    model = adapt(encoder, projection)
    found = onnx_embed(model, [{"log_mel": log_mels()}])
    wanted = OriginalRuntime({"voice": OriginalEncoder(encoder)}, {"voice": projection}).encode(
        "voice", log_mels()
    )
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == (3, 256)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(mine, axis=1), 1.0, atol=1e-5)
    check_self_contained(model, "voice")
    parsed = onnx.load_model_from_string(model)
    assert [value.name for value in parsed.graph.output] == ["identity", "pin"]
    assert [dim.dim_param or dim.dim_value for dim in parsed.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        "T",
        80,
    ]
    assert {node.domain for node in parsed.graph.node} == {""}


def test_the_same_encoder_gives_the_same_bytes(projections):
    first, second = (
        adapt(open_encoder("voice", models.voice_model(), ForeignVoice(), "v"), projections["pins"])
        for _ in range(2)
    )
    assert first == second


def test_an_encoder_may_use_the_names_of_ours():
    def rename(model):
        for node in model.graph.node:
            node.input[:] = ["face" if name == "data" else name for name in node.input]
            node.output[:] = ["identity" if name == "c" else name for name in node.output]
            node.input[:] = ["identity" if name == "c" else name for name in node.input]
        model.graph.input[0].name = "face"

    encoder = open_encoder("face", models.changed(models.face_model(), rename), ForeignFace(size=32), "f")
    found = onnx_embed(adapt(encoder, Projection(64, None, None)), [{"face": crops()}])[0]
    np.testing.assert_allclose(found[:, :64], original(encoder, crops()), atol=1e-5)


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_a_run_gives_its_identity_as_the_embedding(encoders, modality):
    config = TrainConfig(face_size=32)
    run_ = SimpleNamespace(config=config, face=encoders["face"], voice=encoders["voice"])
    encoder = encoder_of_run(run_, modality)
    assert encoder.ours
    feed = {"face": crops()} if modality == "face" else {"log_mel": log_mels()}
    (batch,) = feed.values()
    with torch.inference_mode():
        identity = encoders[modality](torch.from_numpy(batch))[0].numpy()
    found = onnx_embed(adapt(encoder, Projection(256, None, None)), [feed])
    np.testing.assert_allclose(found[0], identity, atol=1e-5)
    assert np.array_equal(*found)  # its own pins are left out
