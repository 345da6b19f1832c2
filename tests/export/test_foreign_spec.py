"""Specs of foreign encoders: presets, TOML, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from edgepin._errors import UsageError
from edgepin_export._foreign_presets import (
    FACE_PRESETS,
    VOICE_PRESETS,
    face_from_toml,
    read_face_spec,
    read_voice_spec,
    voice_from_toml,
)
from edgepin_export._foreign_spec import ForeignFace, ForeignVoice
from edgepin_kernels import LogMelSpec

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "foreign-encoders.md").read_text("utf-8")
GEOMETRY = "size = 96\nleft_eye = [0.3, 0.4]\nright_eye = [0.7, 0.4]\n"


def test_defaults_of_a_face_are_those_of_arcface():
    spec = ForeignFace()
    assert (spec.size, spec.channels, spec.layout, spec.dtype) == (112, "rgb", "nchw", "float32")
    assert spec.mean == spec.std == (127.5, 127.5, 127.5)
    assert (spec.input, spec.output) == (None, None)
    # the template of 112 px, from the center of the first pixel
    eyes = [coordinate * 112 - 0.5 for point in (spec.left_eye, spec.right_eye) for coordinate in point]
    assert eyes == pytest.approx([38.2946, 51.6963, 73.5318, 51.5014], abs=2e-3)


def test_defaults_of_a_voice_are_those_of_wespeaker():
    spec = ForeignVoice()
    assert spec.log_mel == LogMelSpec.preset("wespeaker")
    assert (spec.layout, spec.frames, spec.hop, spec.least_mean, spec.lengths) == (
        "ntm",
        None,
        None,
        None,
        None,
    )
    assert (spec.mean, spec.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize("name", FACE_PRESETS)
def test_a_face_preset_is_read_by_its_name_alone_and_from_toml(name):
    assert read_face_spec(name) == FACE_PRESETS[name] == face_from_toml(f'preset = "{name}"')


@pytest.mark.parametrize("name", VOICE_PRESETS)
def test_a_voice_preset_is_read_by_its_name_alone_and_from_toml(name):
    assert read_voice_spec(name) == VOICE_PRESETS[name] == voice_from_toml(f'preset = "{name}"')


@pytest.mark.parametrize("name", [*FACE_PRESETS, *VOICE_PRESETS])
def test_every_preset_is_in_the_table_of_the_docs(name):
    assert re.search(rf"^\| `{re.escape(name)}` \|", PAGE, flags=re.MULTILINE)


def test_the_docs_show_tomls_that_are_read():
    blocks = re.findall(r"^```toml\n# (face|voice)-\S+\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert {what for what, _ in blocks} == {"face", "voice"}
    for what, text in blocks:
        (face_from_toml if what == "face" else voice_from_toml)(text)


@pytest.mark.parametrize("kind", [ForeignFace, ForeignVoice])
def test_every_field_is_in_the_docs(kind):
    section = PAGE.split("## The spec of a face" if kind is ForeignFace else "## The spec of a voice")[1]
    section = section.split("\n## ")[0]
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in section, field.name


def test_fields_beside_a_preset_override_it():
    spec = face_from_toml('preset = "arcface-112"\nchannels = "bgr"\nstd = 128\ninput = "data"')
    assert spec == ForeignFace(channels="bgr", std=(128.0, 128.0, 128.0), input="data")
    voice = voice_from_toml('preset = "wespeaker"\nframes = 200\n[log_mel]\nwindow = "povey"')
    assert voice.log_mel == dataclasses.replace(LogMelSpec.preset("wespeaker"), window="povey")
    assert (voice.frames, voice.window_hop) == (200, 100)
    based = voice_from_toml('[log_mel]\npreset = "kaldi"\nnum_mels = 24')
    assert based.log_mel == dataclasses.replace(LogMelSpec(), num_mels=24)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("size = 10\nleft_eye = [0.3, 0.4]\nright_eye = [0.7, 0.4]", "size"),
        ("size = 96\nleft_eye = [0.9, 0.4]\nright_eye = [0.3, 0.4]", "right_eye"),
        (GEOMETRY + 'channels = "gbr"', "channels"),
        (GEOMETRY + 'layout = "chw"', "layout"),
        (GEOMETRY + 'dtype = "int8"', "dtype"),
        (GEOMETRY + 'dtype = "uint8"', "mean and std"),
        (GEOMETRY + "mean = [1, 2]", "mean"),
        (GEOMETRY + "mean = [1, 2, nan]", "mean"),
        (GEOMETRY + "std = 0", "std"),
        (GEOMETRY + "std = true", "std"),
        (GEOMETRY + 'input = ""', "input"),
        (GEOMETRY + "output = 3", "output"),
        (GEOMETRY + "gamma = 2.2", "gamma"),
        ("channels = 'bgr'", "size, left_eye, right_eye"),
        ('preset = "arcface"', "preset"),
        ("preset = 3", "preset"),
        ("size = ", "TOML"),
    ],
)
def test_a_wrong_face_spec_is_refused_by_its_field(text, named):
    with pytest.raises(UsageError, match=re.escape(named)):
        face_from_toml(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "log_mel"),
        ('log_mel = "whale"', "log_mel"),
        ("log_mel = 80", "log_mel"),
        ("log_mel = {num_mels = 80}", "log_mel"),
        ('log_mel = {preset = "kaldi", mels = 80}', "log_mel.mels"),
        ('log_mel = {preset = "kaldi", num_mels = 0}', "num_mels"),
        ('log_mel = {preset = "kaldi", sample_rate = 8000, high_hz = 4000}', "sample_rate"),
        ('log_mel = "kaldi"\nlayout = "tnm"', "layout"),
        ('log_mel = "kaldi"\nframes = 0', "frames"),
        ('log_mel = "kaldi"\nframes = 2.5', "frames"),
        ('log_mel = "kaldi"\nhop = 10', "hop"),
        ('log_mel = "kaldi"\nframes = 100\nhop = 101', "hop"),
        ('log_mel = "kaldi"\nmean = [1, 2]', "mean"),
        ('log_mel = "kaldi"\nstd = -1', "std"),
        ('log_mel = "kaldi"\nleast_mean = 0.01', "least_mean"),
        ('log_mel = "resemblyzer"\nleast_mean = 0', "least_mean"),
        ('log_mel = "kaldi"\nlengths = 3', "lengths"),
        ('log_mel = "kaldi"\nmels = 80', "mels"),
        ('preset = "kaldi"', "preset"),
    ],
)
def test_a_wrong_voice_spec_is_refused_by_its_field(text, named):
    with pytest.raises(UsageError, match=re.escape(named)):
        voice_from_toml(text)


def test_what_is_no_preset_and_no_spec_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no preset and no file") as caught:
        read_face_spec("arcface")
    assert "arcface-112" in str(caught.value.hint)
    long = tmp_path / "long.toml"
    long.write_text("#" * 70_000)
    with pytest.raises(UsageError, match="larger"):
        read_voice_spec(str(long))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not TOML"):
        read_face_spec(str(binary))


def test_a_spec_is_plain_json_for_the_manifest():
    import json

    for spec in (*FACE_PRESETS.values(), *VOICE_PRESETS.values()):
        assert json.loads(json.dumps(spec.to_json())) == spec.to_json()
