"""What an encoder of a bundle takes and gives is held against the manifest before it is run."""

from __future__ import annotations

import dataclasses

import pytest

from edgepin import BundleError
from edgepin._bundle.onnx_scan import DeclaredModel, DeclaredValue
from edgepin._runtime.encoder_io import check_encoder
from edgepin._runtime.runtime import INPUT_NAMES, OUTPUT_NAMES

from .golden.make_golden import manifest

FLOAT, UINT8, INT16 = 1, 2, 5
MANIFEST = manifest("encoders")
FACE = DeclaredValue("face", UINT8, (None, 16, 16, 3))
VOICE = DeclaredValue("log_mel", FLOAT, (None, None, 80))
PCM = DeclaredValue("pcm", FLOAT, (None, None))
GIVEN = (DeclaredValue("identity", FLOAT, (None, 256)), DeclaredValue("pin", FLOAT, (None, 256)))


def check(member: str, *inputs: DeclaredValue, outputs: tuple[DeclaredValue, ...] = GIVEN) -> None:
    check_encoder(DeclaredModel(inputs, outputs), member, MANIFEST)


def test_the_names_are_those_that_the_runtime_uses() -> None:
    assert {"face": FACE.name, "voice": VOICE.name} == INPUT_NAMES
    assert tuple(output.name for output in GIVEN) == OUTPUT_NAMES


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_takes_and_gives_the_same(precision: str) -> None:
    check(f"face.{precision}.onnx", FACE)
    check(f"voice.{precision}.onnx", VOICE)


def test_a_batch_may_be_fixed_at_one() -> None:
    check("face.fp32.onnx", dataclasses.replace(FACE, shape=(1, 16, 16, 3)))
    check("voice.portable.onnx", PCM)


def test_an_output_may_leave_out_what_only_a_run_tells() -> None:
    for shape in (None, (None, None), (1, 256)):
        outputs = tuple(dataclasses.replace(output, shape=shape) for output in reversed(GIVEN))
        check("face.fp32.onnx", FACE, outputs=outputs)


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("face.fp32.onnx", {"name": "image"}),
        ("face.fp32.onnx", {"element_type": FLOAT}),
        ("face.fp32.onnx", {"element_type": 0}),
        ("face.fp32.onnx", {"shape": None}),
        ("face.fp32.onnx", {"shape": (None, 16, 16)}),
        ("face.fp32.onnx", {"shape": (None, 3, 16, 16)}),
        ("face.fp32.onnx", {"shape": (None, None, None, 3)}),
        ("face.fp32.onnx", {"shape": (2, 16, 16, 3)}),
        ("face.fp32.onnx", {"shape": (-1, 16, 16, 3)}),
        ("voice.int8.onnx", {"shape": (None, 298, 80)}),
        ("voice.int8.onnx", {"shape": (None, None, 40)}),
        ("voice.int8.onnx", {"shape": (None, 80, None)}),
        ("voice.portable.onnx", {"shape": (None, 48000)}),
        ("voice.portable.onnx", {"element_type": INT16}),
    ],
)
def test_another_input_is_refused(member: str, wrong: dict[str, object]) -> None:
    right = {"face": FACE, "voice": VOICE}[member.split(".")[0]] if "portable" not in member else PCM
    with pytest.raises(BundleError, match=f"^{member} takes .*; it must take {right.name}, "):
        check(member, dataclasses.replace(right, **wrong))


def test_no_input_and_more_than_one_are_refused() -> None:
    with pytest.raises(BundleError, match="takes nothing;"):
        check("face.fp32.onnx")
    with pytest.raises(BundleError, match=r"takes face, .* and face, "):
        check("face.fp32.onnx", FACE, FACE)
    with pytest.raises(BundleError, match=" and more;"):
        check("face.fp32.onnx", *[FACE] * 9)


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        GIVEN[:1],
        (*GIVEN, DeclaredValue("logits", FLOAT, (None, 10))),
        (GIVEN[0], GIVEN[0]),
        (GIVEN[0], dataclasses.replace(GIVEN[1], shape=(None, 512))),
        (GIVEN[0], dataclasses.replace(GIVEN[1], shape=(256,))),
        (GIVEN[0], dataclasses.replace(GIVEN[1], element_type=10)),
    ],
)
def test_other_outputs_are_refused(outputs: tuple[DeclaredValue, ...]) -> None:
    with pytest.raises(BundleError, match=r"must give identity, float32 .* and pin, float32"):
        check("face.fp32.onnx", FACE, outputs=outputs)


def test_names_from_a_model_are_shown_harmless_and_short() -> None:
    with pytest.raises(BundleError) as caught:
        check("face.fp32.onnx", DeclaredValue("\x1b[2J" + "x" * 500, UINT8, tuple(range(100))))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 250
