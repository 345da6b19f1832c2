"""LogMelSpec: what the presets say, what is refused, how many frames there are, and that JSON brings back the spec."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel

KALDI = {
    "sample_rate": 16_000,
    "amplitude": "int16",
    "frame_length": 400,
    "hop_length": 160,
    "fft_length": 512,
    "padding": "none",
    "drop_last_frame": False,
    "window": "povey",
    "window_periodic": False,
    "remove_dc": True,
    "preemphasis": 0.97,
    "preemphasis_over": "frame",
    "num_mels": 80,
    "low_hz": 20.0,
    "high_hz": 8_000.0,
    "mel_scale": "htk",
    "triangles": "mel",
    "mel_norm": "none",
    "log": "ln",
    "log_floor": 2.0**-23,
    "floor_mode": "clamp",
    "dynamic_range": None,
    "output_offset": 0.0,
    "output_scale": 1.0,
    "normalize": "none",
}
LIBROSA = {
    "sample_rate": 16_000,
    "amplitude": "unit",
    "frame_length": 400,
    "hop_length": 160,
    "fft_length": 512,
    "padding": "zeros",
    "drop_last_frame": False,
    "window": "hann",
    "window_periodic": True,
    "remove_dc": False,
    "preemphasis": 0.0,
    "preemphasis_over": "frame",
    "num_mels": 80,
    "low_hz": 0.0,
    "high_hz": 8_000.0,
    "mel_scale": "slaney",
    "triangles": "hz",
    "mel_norm": "slaney",
    "log": "ln",
    "log_floor": 1e-10,
    "floor_mode": "clamp",
    "dynamic_range": None,
    "output_offset": 0.0,
    "output_scale": 1.0,
    "normalize": "none",
}
PRESETS: dict[str, dict[str, object]] = {
    "kaldi": KALDI,
    "wespeaker": {**KALDI, "window": "hamming", "normalize": "mean"},
    "3d-speaker": {**KALDI, "amplitude": "unit", "normalize": "mean"},
    "librosa": LIBROSA,
    "torchaudio": {**LIBROSA, "padding": "reflect", "mel_scale": "htk", "mel_norm": "none"},
    "whisper": {
        **LIBROSA,
        "fft_length": 400,
        "padding": "reflect",
        "drop_last_frame": True,
        "log": "log10",
        "dynamic_range": 8.0,
        "output_offset": 4.0,
        "output_scale": 0.25,
    },
    "nemo": {
        **LIBROSA,
        "drop_last_frame": True,
        "window_periodic": False,
        "preemphasis": 0.97,
        "preemphasis_over": "utterance",
        "log_floor": 2.0**-24,
        "floor_mode": "add",
        "normalize": "mean_std",
    },
    "speechbrain": {
        **LIBROSA,
        "fft_length": 400,
        "window": "hamming",
        "mel_scale": "htk",
        "triangles": "hz_symmetric",
        "mel_norm": "none",
        "log": "db",
        "dynamic_range": 80.0,
    },
    "resemblyzer": {**LIBROSA, "fft_length": 400, "num_mels": 40, "log": "none"},
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_field_of_a_preset(name: str) -> None:
    assert dataclasses.asdict(LogMelSpec.preset(name)) == PRESETS[name]


def test_the_defaults_are_the_kaldi_preset() -> None:
    assert LogMelSpec() == LogMelSpec.preset("kaldi")


@pytest.mark.parametrize("name", ["", "Kaldi", "mfcc", None, ["kaldi"]])
def test_an_unknown_preset_is_refused_with_all_the_known_names(name: object) -> None:
    with pytest.raises(ValueError, match=", ".join(PRESETS)):
        LogMelSpec.preset(name)  # type: ignore[arg-type]


def test_the_table_in_the_docs_says_what_the_presets_say() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "log-mel.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 1 + len(PRESETS)}
    assert table.pop("option") == list(PRESETS)
    del table["---"]
    assert set(table) == {field for field in KALDI if len({preset[field] for preset in PRESETS.values()}) > 1}
    assert table == {field: [_shown(preset[field]) for preset in PRESETS.values()] for field in table}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return {2.0**-23: "2⁻²³", 2.0**-24: "2⁻²⁴"}.get(value, f"{value:g}")
    return str(value)


REFUSED = [
    ("sample_rate", 0),
    ("sample_rate", -16_000),
    ("sample_rate", 2_000_000),
    ("sample_rate", 16_000.0),
    ("sample_rate", True),
    ("sample_rate", "16000"),
    ("sample_rate", None),
    ("amplitude", "int8"),
    ("amplitude", 32_768),
    ("frame_length", 1),
    ("frame_length", 65_537),
    ("hop_length", 0),
    ("hop_length", 2**40),
    ("fft_length", 399),
    ("fft_length", 513),
    ("fft_length", 2**40),
    ("padding", "constant"),
    ("padding", None),
    ("padding", True),
    ("drop_last_frame", True),  # without padding there is none to leave out
    ("drop_last_frame", 0),
    ("drop_last_frame", None),
    ("window", "hanning"),
    ("window", ""),
    ("window", None),
    ("window_periodic", 1),
    ("window_periodic", "periodic"),
    ("remove_dc", 1),
    ("remove_dc", "yes"),
    ("preemphasis", -0.1),
    ("preemphasis", 1.1),
    ("preemphasis", math.nan),
    ("preemphasis", "0.97"),
    ("preemphasis_over", "signal"),
    ("preemphasis_over", False),
    ("num_mels", 0),
    ("num_mels", 257),
    ("num_mels", 80.5),
    ("low_hz", -1.0),
    ("low_hz", 8_000.0),
    ("low_hz", math.nan),
    ("low_hz", 10**400),
    ("high_hz", 20.0),
    ("high_hz", 8_000.5),
    ("high_hz", math.inf),
    ("mel_scale", "bark"),
    ("mel_scale", None),
    ("triangles", "linear"),
    ("triangles", 3),
    ("mel_norm", "area"),
    ("mel_norm", None),
    ("log", "log2"),
    ("log", None),
    ("log", True),
    ("log_floor", 0.0),
    ("log_floor", -1.0),
    ("log_floor", 1e-40),
    ("log_floor", 2.0),
    ("log_floor", True),
    ("floor_mode", "max"),
    ("floor_mode", None),
    ("dynamic_range", 0.0),
    ("dynamic_range", -8.0),
    ("dynamic_range", 1_001.0),
    ("dynamic_range", math.inf),
    ("dynamic_range", math.nan),
    ("dynamic_range", "8"),
    ("dynamic_range", True),
    ("output_offset", math.nan),
    ("output_offset", -1e7),
    ("output_offset", None),
    ("output_scale", 0.0),
    ("output_scale", 1e-7),
    ("output_scale", -1e7),
    ("output_scale", math.inf),
    ("normalize", "std"),
    ("normalize", None),
    ("normalize", True),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must "):
        dataclasses.replace(LogMelSpec(), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{field} must "):
        LogMelSpec.from_json({**KALDI, field: value})


def test_every_field_has_a_refused_value() -> None:
    assert {field for field, _ in REFUSED} == {field.name for field in dataclasses.fields(LogMelSpec)}


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LogMelSpec().num_mels = 40  # type: ignore[misc]


# Of every field a value that no preset has, where it has one.
UNUSUAL = LogMelSpec(
    sample_rate=8_000,
    amplitude="unit",
    frame_length=200,
    hop_length=80,
    fft_length=256,
    padding="reflect",
    drop_last_frame=True,
    window="rectangular",
    window_periodic=True,
    remove_dc=False,
    preemphasis=1.0,
    preemphasis_over="utterance",
    num_mels=23,
    low_hz=64.0,
    high_hz=3_700.5,
    mel_scale="slaney",
    triangles="bins",
    mel_norm="slaney",
    log="log10",
    log_floor=1e-30,
    floor_mode="add",
    dynamic_range=3.5,
    output_offset=-1.5,
    output_scale=-0.125,
    normalize="mean_std",
)


@pytest.mark.parametrize("spec", [*map(LogMelSpec.preset, PRESETS), UNUSUAL], ids=[*PRESETS, "unusual"])
def test_json_text_brings_back_the_same_spec(spec: LogMelSpec) -> None:
    assert LogMelSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec


def test_json_has_every_field_under_its_name() -> None:
    assert LogMelSpec().to_json() == KALDI


def test_equal_specs_have_equal_json_text() -> None:
    loose = LogMelSpec(sample_rate=np.int64(16_000), low_hz=20, high_hz=np.float32(8_000))  # type: ignore[arg-type]
    assert json.dumps(loose.to_json()) == json.dumps(LogMelSpec().to_json())


@pytest.mark.parametrize("field", KALDI)
def test_json_without_a_key_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        LogMelSpec.from_json({key: value for key, value in KALDI.items() if key != field})


def test_json_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="dither"):
        LogMelSpec.from_json({**KALDI, "dither": 0.0})


@pytest.mark.parametrize("data", [None, [], "kaldi", 1])
def test_json_that_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="object"):
        LogMelSpec.from_json(data)  # type: ignore[arg-type]


# (changes of the librosa preset, the first frame's start before the first sample, fewest samples, (samples, frames) …)
FRAMES: dict[str, tuple[dict[str, Any], int, int, dict[int, int]]] = {
    "none": (
        {"padding": "none"},
        0,
        400,
        {0: 0, 399: 0, 400: 1, 559: 1, 560: 2, 16_000: 98, 48_000: 298},
    ),
    "zeros": ({}, 200, 1, {0: 0, 1: 1, 159: 1, 160: 2, 319: 2, 320: 3, 48_000: 301, 48_159: 301}),
    "zeros, last dropped": (
        {"drop_last_frame": True},
        200,
        160,
        {0: 0, 159: 0, 160: 1, 319: 1, 320: 2, 48_000: 300, 48_159: 300},
    ),
    "reflect": ({"padding": "reflect"}, 200, 201, {0: 0, 200: 0, 201: 2, 319: 2, 320: 3, 48_000: 301}),
    "reflect, last dropped": (
        {"padding": "reflect", "drop_last_frame": True},
        200,
        201,
        {0: 0, 200: 0, 201: 1, 319: 1, 320: 2, 48_000: 300},
    ),
    "reflect, long hop, last dropped": (
        {"padding": "reflect", "drop_last_frame": True, "hop_length": 500},
        200,
        500,
        {499: 0, 500: 1, 999: 1, 1_000: 2},
    ),
    "reflect, as long a transform": (
        {"padding": "reflect", "fft_length": 400},
        200,
        201,
        {200: 0, 201: 2, 320: 3},
    ),
    # The window's extra sample lies right of the middle in an even transform.
    "reflect, odd frame": (
        {"padding": "reflect", "frame_length": 401, "fft_length": 512},
        201,
        202,
        {201: 0, 202: 2, 320: 3},
    ),
    "zeros, shortest frame": (
        {"frame_length": 2, "fft_length": 512, "hop_length": 1},
        1,
        1,
        {0: 0, 1: 2, 2: 3, 100: 101},
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_how_many_frames_there_are(name: str) -> None:
    changes, lead, least, frames = FRAMES[name]
    spec = dataclasses.replace(LogMelSpec.preset("librosa"), **changes)
    assert (spec.frame_lead, spec.min_samples) == (lead, least)
    assert {samples: spec.num_frames(samples) for samples in frames} == frames


@pytest.mark.parametrize("name", FRAMES)
def test_the_fewest_samples_make_a_frame_and_one_less_is_refused(name: str) -> None:
    spec = dataclasses.replace(LogMelSpec.preset("librosa"), **FRAMES[name][0])
    least = spec.min_samples
    assert len(reference_log_mel(spec, np.ones(least, np.int16))) == spec.num_frames(least) >= 1
    assert spec.num_frames(least - 1) == 0
    with pytest.raises(ValueError, match=f"at least {least}"):
        reference_log_mel(spec, np.ones(least - 1, np.int16))
