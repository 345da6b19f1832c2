"""LogMelSpec: what the presets say, what is refused, and that JSON brings back the same spec."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec

KALDI = {
    "sample_rate": 16_000,
    "frame_length": 400,
    "hop_length": 160,
    "fft_length": 512,
    "window": "povey",
    "remove_dc": True,
    "preemphasis": 0.97,
    "num_mels": 80,
    "low_hz": 20.0,
    "high_hz": 8_000.0,
    "amplitude": "int16",
    "log_floor": 2.0**-23,
    "mean_normalize": False,
}


@pytest.mark.parametrize(
    ("name", "fields"),
    [("kaldi", KALDI), ("wespeaker", {**KALDI, "window": "hamming", "mean_normalize": True})],
)
def test_every_field_of_a_preset(name: str, fields: dict[str, object]) -> None:
    assert dataclasses.asdict(LogMelSpec.preset(name)) == fields


def test_the_defaults_are_the_kaldi_preset() -> None:
    assert LogMelSpec() == LogMelSpec.preset("kaldi")


@pytest.mark.parametrize("name", ["", "Kaldi", "whisper", None, ["kaldi"]])
def test_an_unknown_preset_is_refused_with_the_known_names(name: object) -> None:
    with pytest.raises(ValueError, match="kaldi, wespeaker"):
        LogMelSpec.preset(name)  # type: ignore[arg-type]


REFUSED = [
    ("sample_rate", 0),
    ("sample_rate", -16_000),
    ("sample_rate", 2_000_000),
    ("sample_rate", 16_000.0),
    ("sample_rate", True),
    ("sample_rate", "16000"),
    ("sample_rate", None),
    ("frame_length", 1),
    ("frame_length", 65_537),
    ("hop_length", 0),
    ("hop_length", 2**40),
    ("fft_length", 399),
    ("fft_length", 513),
    ("fft_length", 2**40),
    ("window", "hanning"),
    ("window", ""),
    ("window", None),
    ("remove_dc", 1),
    ("remove_dc", "yes"),
    ("preemphasis", -0.1),
    ("preemphasis", 1.1),
    ("preemphasis", math.nan),
    ("preemphasis", "0.97"),
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
    ("amplitude", "int8"),
    ("amplitude", 32_768),
    ("log_floor", 0.0),
    ("log_floor", -1.0),
    ("log_floor", 1e-40),
    ("log_floor", 2.0),
    ("log_floor", True),
    ("mean_normalize", 0),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must "):
        dataclasses.replace(LogMelSpec(), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{field} must "):
        LogMelSpec.from_json({**KALDI, field: value})


def test_every_field_has_a_refused_value() -> None:
    assert {field for field, _ in REFUSED} == set(KALDI)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LogMelSpec().num_mels = 40  # type: ignore[misc]


@pytest.mark.parametrize(
    "spec",
    [
        LogMelSpec.preset("kaldi"),
        LogMelSpec.preset("wespeaker"),
        LogMelSpec(
            sample_rate=8_000,
            frame_length=200,
            hop_length=80,
            fft_length=256,
            window="hann",
            remove_dc=False,
            preemphasis=0.0,
            num_mels=40,
            low_hz=0.0,
            high_hz=3_700.0,
            amplitude="unit",
            log_floor=1e-10,
            mean_normalize=True,
        ),
    ],
)
def test_json_text_brings_back_the_same_spec(spec: LogMelSpec) -> None:
    assert LogMelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_equal_specs_have_equal_json_text() -> None:
    loose = LogMelSpec(sample_rate=np.int64(16_000), low_hz=20, high_hz=np.float32(8_000))  # type: ignore[arg-type]
    assert json.dumps(loose.to_json()) == json.dumps(LogMelSpec().to_json())


@pytest.mark.parametrize("field", sorted(KALDI))
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


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98), (48_000, 298)],
)
def test_only_whole_frames_count(samples: int, frames: int) -> None:
    assert LogMelSpec().num_frames(samples) == frames
