"""The log-mel as ONNX: equal to the reference in ONNX Runtime, in every form that runs, and made of plain operators."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin_kernels import LogMelSpec, log_mel_onnx, prepend_log_mel, reference_log_mel
from edgepin_kernels._presets import PRESETS
from edgepin_kernels._reference import mel_filters, window_function

from .parity import linear

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed (extra: export)")
helper, TensorProto = onnx.helper, onnx.TensorProto

LINEAR = 1e-5  # of the frame's largest mel energy
FINAL = 2e-3

KALDI = LogMelSpec()
ODD = {
    "no pre-emphasis": dataclasses.replace(KALDI, preemphasis=0.0),
    "weak pre-emphasis, unit": dataclasses.replace(KALDI, amplitude="unit", preemphasis=0.5, log_floor=1e-10),
    "no dc removal": dataclasses.replace(KALDI, remove_dc=False, low_hz=0.0),
    "whole pre-emphasis, reflected": dataclasses.replace(KALDI, preemphasis=1.0, padding="reflect"),
    "utterance pre-emphasis, dc removal": dataclasses.replace(
        KALDI, preemphasis_over="utterance", padding="zeros"
    ),
    "low mels of a high rate, no pre-emphasis": LogMelSpec(
        sample_rate=44_100,
        frame_length=447,
        fft_length=586,
        window="rectangular",
        preemphasis=0.0,
        num_mels=85,
        high_hz=4_000.0,
        mel_scale="slaney",
        triangles="hz",
        mel_norm="slaney",
    ),
    "some mels between two bins": LogMelSpec(num_mels=200, fft_length=400),
    "no mel over a bin": LogMelSpec(num_mels=1, low_hz=1_001.0, high_hz=1_002.0, padding="zeros"),
    "long transform": LogMelSpec(frame_length=1_001, fft_length=4_098, num_mels=20),
    "gaps between frames, last frame dropped": LogMelSpec(
        sample_rate=8_000,
        frame_length=201,
        hop_length=333,
        fft_length=300,
        padding="zeros",
        drop_last_frame=True,
        num_mels=23,
        high_hz=3_800.0,
        floor_mode="add",
        log="db",
        normalize="mean_std",
    ),
    "shortest frame": LogMelSpec(frame_length=2, hop_length=1, fft_length=2, num_mels=1),
}
SPECS = {**PRESETS, **ODD}

Samples = npt.NDArray[np.generic]


def speech(samples: int) -> npt.NDArray[np.int16]:
    """Voiced and speech-like: harmonics of a gliding pitch under four formants, in syllables, over faint noise."""
    time = np.arange(samples) / 16_000
    pitch = 120 + 20 * np.sin(2 * np.pi * 2.3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    sound = np.zeros(samples)
    for harmonic in range(1, 50):
        hz = harmonic * pitch
        gain = sum(
            height / (1 + ((hz - formant) / width) ** 2)
            for formant, width, height in (
                (500, 80, 1),
                (1_500, 120, 0.4),
                (2_600, 180, 0.15),
                (3_600, 250, 0.05),
            )
        )
        sound += np.where(hz < 8_000, gain / harmonic, 0) * np.sin(harmonic * phase)
    sound *= np.sqrt(np.clip(np.sin(2 * np.pi * 1.7 * time + 0.2), 0, 1))
    noise = np.random.default_rng(0).normal(0, 1, samples)
    return np.asarray(12_000 * sound / np.abs(sound).max() + noise).round().astype(np.int16)


def noise(samples: int, seed: int = 1) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).normal(0, 3_000, samples).astype(np.int16)


def square(samples: int) -> npt.NDArray[np.int16]:
    """Full scale, 20 Hz."""
    return np.where(np.arange(samples) // 400 % 2 == 0, 32_767, -32_768).astype(np.int16)


def impulse(samples: int) -> npt.NDArray[np.int16]:
    return np.where(np.arange(samples) == samples // 3, 32_767, 0).astype(np.int16)


SOUNDS = {"speech": speech, "noise": noise, "square": square, "impulse": impulse}


def as_float(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    return pcm.astype(np.float32) / np.float32(32_768)


def session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is expected to fail need not say so on stderr
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(spec: LogMelSpec, pcm: Samples, **options: Any) -> npt.NDArray[np.float32]:
    """`pcm` ``(N, samples)`` through a model made for it."""
    model = log_mel_onnx(spec, samples=pcm.dtype.name, **options)  # type: ignore[arg-type]
    return session(model).run(None, {"pcm": pcm})[0]


def assert_energies_equal(result: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> None:
    """Within `LINEAR` of each frame's largest energy, and exactly 0 in frames without any."""
    assert result.shape == expected.shape
    largest = expected.max(axis=-1, keepdims=True)
    assert (np.abs(result - expected) <= LINEAR * largest).all()


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("name", SPECS)
def test_mel_energies_equal_the_reference(name: str, sound: str) -> None:
    spec, pcm = linear(SPECS[name]), SOUNDS[sound](8_037)
    if "shortest" in name:
        pcm = pcm[:500]
    assert_energies_equal(run(spec, pcm[np.newaxis])[0], reference_log_mel(spec, pcm))


@pytest.mark.parametrize("form", ["function", "inlined"])
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_the_reference(name: str, sound: str, form: str) -> None:
    spec, pcm = SPECS[name], SOUNDS[sound](16_037)
    result, expected = run(spec, pcm[np.newaxis], form=form)[0], reference_log_mel(spec, pcm)
    assert result.shape == expected.shape
    wrong = np.abs(result - expected) > FINAL
    if (name, sound) == ("torchaudio", "square"):
        # Frames that are one large constant, which this preset does not remove: its high mels are far side lobes,
        # fainter than float32 can hold beside the constant.
        energies = reference_log_mel(linear(spec), pcm)
        wrong &= energies > 1e-8 * energies.max(axis=1, keepdims=True)
    assert not wrong.any()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("name", SPECS)
def test_a_batch_of_any_length_equals_the_reference(name: str, dtype: str) -> None:
    spec = SPECS[name]
    plan = session(log_mel_onnx(spec, samples=dtype))  # type: ignore[arg-type]
    for samples in (spec.min_samples, spec.min_samples + 1, 2 * spec.frame_length + spec.hop_length + 7):
        pcm: Samples = np.stack([noise(samples, seed) for seed in range(3)])
        pcm = pcm if dtype == "int16" else as_float(pcm)
        result = plan.run(None, {"pcm": pcm})[0]
        assert result.dtype == np.float32
        for row, utterance in zip(result, pcm, strict=True):
            expected = reference_log_mel(spec, utterance)
            assert row.shape == expected.shape
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=FINAL)


@st.composite
def specs(draw: st.DrawFn) -> LogMelSpec:
    frame_length = draw(st.integers(2, 600))
    fft_length = 2 * draw(st.integers((frame_length + 1) // 2, 450))
    padding = draw(st.sampled_from(["none", "zeros", "reflect"]))
    return LogMelSpec(
        sample_rate=draw(st.sampled_from([8_000, 16_000, 44_100])),
        amplitude=draw(st.sampled_from(["int16", "unit"])),
        frame_length=frame_length,
        hop_length=draw(st.integers(1, 500)),
        fft_length=fft_length,
        padding=padding,
        drop_last_frame=draw(st.booleans()) and padding != "none",
        window=draw(st.sampled_from(["povey", "hamming", "hann", "rectangular"])),
        window_periodic=draw(st.booleans()),
        remove_dc=draw(st.booleans()),
        preemphasis=draw(st.sampled_from([0.0, 0.5, 0.9, 0.97, 1.0])),
        preemphasis_over=draw(st.sampled_from(["frame", "utterance"])),
        num_mels=draw(st.integers(1, min(fft_length // 2, 90))),
        low_hz=draw(st.sampled_from([0.0, 20.0, 300.0])),
        high_hz=draw(st.sampled_from([3_000.0, 4_000.0])),
        mel_scale=draw(st.sampled_from(["htk", "slaney"])),
        triangles=draw(st.sampled_from(["mel", "hz", "hz_symmetric", "bins"])),
        mel_norm=draw(st.sampled_from(["none", "slaney"])),
        log="none",
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    spec=specs(), extra=st.integers(0, 2_000), offset=st.sampled_from([0, 1, 25_000]), seed=st.integers(0, 99)
)
def test_any_definition_equals_the_reference(spec: LogMelSpec, extra: int, offset: int, seed: int) -> None:
    pcm = noise(spec.min_samples + extra, seed) // 4
    # Where pre-emphasis is over the utterance or the mean stays, a large offset is the loudest there is.
    if spec.remove_dc and spec.preemphasis_over == "frame":
        pcm += np.int16(offset)
    assert_energies_equal(run(spec, pcm[np.newaxis])[0], reference_log_mel(spec, pcm))


FLOORS = {
    "ln": KALDI,
    "log10": dataclasses.replace(KALDI, log="log10", log_floor=1e-10),
    "db, unit": dataclasses.replace(KALDI, log="db", log_floor=1e-3, amplitude="unit"),
    "added": dataclasses.replace(KALDI, floor_mode="add", log_floor=2.0**-24),
    "added, db": dataclasses.replace(KALDI, floor_mode="add", log="db", log_floor=3e-7),
    "frames cut out": dataclasses.replace(KALDI, preemphasis=0.0, log_floor=1e-5),
    "no dc removal": dataclasses.replace(KALDI, remove_dc=False),
    "smallest": dataclasses.replace(KALDI, log_floor=1e-37),
}


def log_of_floor(spec: LogMelSpec) -> float:
    return (
        math.log(spec.log_floor)
        if spec.log == "ln"
        else math.log10(spec.log_floor) * (1 if spec.log == "log10" else 10)
    )


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("name", FLOORS)
def test_digital_silence_is_exactly_the_floor(name: str, dtype: type[np.generic]) -> None:
    spec = FLOORS[name]
    result = run(spec, np.zeros((2, 8_000), dtype))
    assert np.unique(result).tolist() == [float(np.float32(log_of_floor(spec)))]


@pytest.mark.parametrize("level", [1, -32_768, 32_767])
@pytest.mark.parametrize(
    "spec",
    [
        KALDI,
        dataclasses.replace(KALDI, preemphasis=0.0),
        # The sum of such a frame is no exact float32.
        dataclasses.replace(KALDI, preemphasis=0.0, frame_length=1_001, fft_length=1_024),
    ],
)
def test_a_constant_is_silence_once_its_mean_is_removed(spec: LogMelSpec, level: int) -> None:
    result = run(spec, np.full((1, 8_000), level, np.int16))
    assert np.unique(result).tolist() == [float(np.float32(log_of_floor(spec)))]


@pytest.mark.parametrize("name", ["wespeaker", "3d-speaker", "nemo"])
@pytest.mark.parametrize("samples", [500, 48_037])
def test_normalized_silence_is_nothing(name: str, samples: int) -> None:
    np.testing.assert_allclose(run(SPECS[name], np.zeros((1, samples), np.int16)), 0.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["kaldi", "whisper", "nemo"])
def test_too_few_samples_are_an_error_of_the_runtime(name: str) -> None:
    plan = session(log_mel_onnx(SPECS[name]))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        plan.run(None, {"pcm": np.zeros((1, SPECS[name].min_samples - 1), np.int16)})


@pytest.mark.parametrize("form", ["function", "inlined"])
@pytest.mark.parametrize("opset", [18, 20, 25])
def test_any_opset_computes_the_same(opset: int, form: str) -> None:
    pcm = speech(5_000)[np.newaxis]
    for name in ("kaldi", "whisper", "nemo"):
        expected = run(SPECS[name], pcm)
        np.testing.assert_allclose(run(SPECS[name], pcm, opset=opset, form=form), expected, atol=1e-5)


PLAIN = {
    "Add", "Cast", "Conv", "Div", "Equal", "Log", "MatMul", "Max", "Mul", "Pad", "ReduceMax", "ReduceMean", "ReduceSum",
    "Shape", "Slice", "Split", "Sqrt", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
TYPES = {TensorProto.FLOAT, TensorProto.INT64}


def tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        yield from (
            attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR
        )


@pytest.mark.parametrize("samples", ["int16", "float32"])
@pytest.mark.parametrize("name", SPECS)
def test_the_operators_are_plain(name: str, samples: Any) -> None:
    inlined = log_mel_onnx(SPECS[name], samples=samples, form="inlined")
    assert not inlined.functions
    assert {entry.domain for entry in inlined.opset_import} == {""}
    assert {node.domain for node in inlined.graph.node} == {""}
    assert {node.op_type for node in inlined.graph.node} <= PLAIN
    assert {tensor.data_type for tensor in tensors(inlined)} <= TYPES
    assert all(all(tensor.dims) for tensor in tensors(inlined))  # builders of engines take no empty constant

    (function,) = log_mel_onnx(SPECS[name], samples=samples).functions
    assert [node.op_type for node in function.node if node.op_type != "Constant"] == [
        node.op_type for node in inlined.graph.node
    ]


@pytest.mark.parametrize("form", ["function", "inlined", "node"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_model_is_clean_small_and_always_the_same(name: str, form: Any) -> None:
    model = log_mel_onnx(SPECS[name], form=form)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString(deterministic=True)
    assert data == log_mel_onnx(SPECS[name], form=form).SerializeToString(deterministic=True)
    assert len(data) < (10_000 if form == "node" else 1_000_000)


@pytest.mark.parametrize("form", ["function", "node"])
@pytest.mark.parametrize("name", SPECS)
def test_the_node_tells_a_plugin_everything(name: str, form: Any) -> None:
    (node,) = log_mel_onnx(SPECS[name], form=form).graph.node
    assert (node.domain, node.op_type) == ("edgepin", "LogMel")
    assert (list(node.input), list(node.output)) == (["pcm"], ["log_mel"])
    spec = SPECS[name]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert list(attributes) == [
        "mel_counts", "mel_firsts", "mel_weights", "plugin_namespace", "plugin_version", "spec", "window",
    ]  # fmt: skip
    assert (attributes["plugin_namespace"], attributes["plugin_version"]) == (b"edgepin", b"1")
    assert LogMelSpec.from_json(json.loads(attributes["spec"])) == spec
    assert attributes["spec"].decode() == json.dumps(spec.to_json(), sort_keys=True, separators=(",", ":"))
    np.testing.assert_allclose(attributes["window"], window_function(spec), rtol=2.0**-24, atol=0)
    filters, weights = np.zeros((spec.fft_length // 2 + 1, spec.num_mels)), list(attributes["mel_weights"])
    for mel, (first, count) in enumerate(
        zip(attributes["mel_firsts"], attributes["mel_counts"], strict=True)
    ):
        filters[first : first + count, mel] = [weights.pop(0) for _ in range(count)]
    assert weights == []
    np.testing.assert_allclose(filters, mel_filters(spec), rtol=2.0**-24, atol=0)


def test_the_node_alone_is_refused_by_a_runtime_without_its_plugin() -> None:
    model = log_mel_onnx(KALDI, form="node")
    assert not model.functions
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="LogMel"):
        session(model)


def encoder(*, mels: int = 80, opset: int = 18, batch: int | str = "batch", name: str = "log_mel") -> Any:
    """Mean over frames, scaled by a second input, and a projection."""
    nodes = [
        helper.make_node("ReduceMean", [name, "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["identity"]),
    ]
    weights = np.random.default_rng(0).normal(0, 1, (mels, 4)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "encoder",
        [
            helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, "T", mels]),
        ],
        [helper.make_tensor_value_info("identity", TensorProto.FLOAT, [batch, 4])],
        [
            onnx.numpy_helper.from_array(np.array([1]), "axes"),
            onnx.numpy_helper.from_array(weights, "weights"),
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize("form", ["function", "inlined"])
@pytest.mark.parametrize("opset", [18, 20])
def test_an_encoder_with_a_front_end_is_the_two_in_a_row(form: Any, opset: int) -> None:
    spec, plain, gain = SPECS["wespeaker"], encoder(opset=opset), np.array([2], np.float32)
    pcm = np.stack([speech(9_001), noise(9_001)])
    merged = session(prepend_log_mel(plain, spec, form=form))
    assert [value.name for value in merged.get_inputs()] == ["gain", "pcm"]
    log_mel = session(log_mel_onnx(spec)).run(None, {"pcm": pcm})[0]
    expected = session(plain).run(None, {"log_mel": log_mel, "gain": gain})[0]
    np.testing.assert_allclose(merged.run(None, {"pcm": pcm, "gain": gain})[0], expected, atol=1e-4)


@pytest.mark.parametrize("form", ["function", "inlined", "node"])
def test_the_encoder_itself_is_left_as_it_is(form: Any) -> None:
    plain = encoder(batch=3)
    before = plain.SerializeToString(deterministic=True)
    merged = prepend_log_mel(plain, KALDI, samples="float32", form=form)
    assert plain.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(merged, full_check=True)
    assert list(merged.graph.node)[-3:] == list(plain.graph.node)
    assert list(merged.graph.initializer)[:2] == list(plain.graph.initializer)
    assert list(merged.graph.output) == list(plain.graph.output)
    tensor = merged.graph.input[1].type.tensor_type
    assert (tensor.elem_type, tensor.shape.dim[0].dim_value) == (TensorProto.FLOAT, 3)
    assert merged.ir_version == plain.ir_version == 8
    assert list(merged.graph.value_info) == [plain.graph.input[1]]
    assert len(merged.functions) == (form == "function")


def with_function(model: Any) -> Any:
    body = [helper.make_node("Identity", ["pcm"], ["log_mel"])]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("edgepin", "LogMel", ["pcm"], ["log_mel"], body, opsets))
    return model


def with_type(model: Any, kind: int) -> Any:
    model.graph.input[1].type.tensor_type.elem_type = kind
    return model


def with_weights_named(model: Any, name: str) -> Any:
    model.graph.initializer[1].name = model.graph.node[2].input[1] = name
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (encoder(name="features"), "'log_mel'; it has: gain, features"),
        (encoder(mels=40), "40 mels, and the spec makes 80"),
        (encoder(opset=17), "opset must be 18 to 25, not 17"),
        (with_type(encoder(), TensorProto.FLOAT16), "float32"),
        (with_weights_named(encoder(), "pcm"), "'pcm'"),
        (with_weights_named(encoder(), "log_mel/ln"), "'log_mel/ln'"),
        (with_function(encoder()), "'edgepin.LogMel'"),
    ],
)
def test_an_encoder_that_it_does_not_fit_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepend_log_mel(model, KALDI)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spec": "kaldi"}, TypeError, "LogMelSpec"),
        ({"samples": "float64"}, ValueError, "samples must be one of int16, float32"),
        ({"form": "plugin"}, ValueError, "form must be one of function, inlined, node"),
        ({"opset": 17}, ValueError, "opset must be 18 to 25"),
        ({"spec": LogMelSpec(frame_length=65_536, fft_length=65_536)}, ValueError, "65536 samples"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        log_mel_onnx(**{"spec": KALDI, **arguments})


def test_without_the_onnx_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"edgepin\[export\]"):
        log_mel_onnx(KALDI)
