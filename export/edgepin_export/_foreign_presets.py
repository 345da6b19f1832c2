"""Specs of foreign encoders by name, and from TOML files."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from edgepin._errors import UsageError
from edgepin_kernels import LogMelSpec

from ._foreign_spec import ForeignFace, ForeignVoice, wrong

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_SPEC_BYTES = 1 << 16

S = TypeVar("S", ForeignFace, ForeignVoice)

FACE_PRESETS: dict[str, ForeignFace] = {
    # InsightFace's recognition models, EdgeFace and most others that were trained on 112x112 crops.
    "arcface-112": ForeignFace(),
    # AdaFace takes blue first.
    "adaface-112": ForeignFace(channels="bgr"),
    # OpenCV's FaceRecognizerSF: raw pixels, red first.
    "sface-112": ForeignFace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}

VOICE_PRESETS: dict[str, ForeignVoice] = {
    "wespeaker": ForeignVoice(),
    # WeSpeaker's command takes the Povey window for CAM++ and ERes2Net.
    "wespeaker-povey": ForeignVoice(
        log_mel=dataclasses.replace(LogMelSpec.preset("wespeaker"), window="povey")
    ),
    "3d-speaker": ForeignVoice(log_mel=LogMelSpec.preset("3d-speaker")),
    # ECAPA-TDNN: its InputNormalization removes the mean of the sentence and leaves the spread alone.
    "speechbrain": ForeignVoice(
        log_mel=dataclasses.replace(LogMelSpec.preset("speechbrain"), normalize="mean")
    ),
    # TitaNet and other NeMo speaker models; those exported with a length name it in `lengths`.
    "nemo": ForeignVoice(log_mel=LogMelSpec.preset("nemo"), layout="nmt"),
    # Partial utterances of 1.6 s, 1.3 of them a second (100 / 1.3 = 77 frames). It raises quiet sound to -30 dBFS, which
    # is a mean energy of 0.0095: in speech that mean is 9.5 times the power (median of 131 clips of LibriSpeech).
    "resemblyzer": ForeignVoice(
        log_mel=LogMelSpec.preset("resemblyzer"), frames=160, hop=77, least_mean=0.0095
    ),
}


def read_face_spec(name: str) -> ForeignFace:
    """A preset by its name, or a TOML file by its path (docs/foreign-encoders.md).

    Raises:
        UsageError: it is neither, or a field is missing, unknown or not allowed; the message names it.
    """
    return _read("face", name, FACE_PRESETS, face_from_toml)


def read_voice_spec(name: str) -> ForeignVoice:
    """A preset by its name, or a TOML file by its path; as `read_face_spec`."""
    return _read("voice", name, VOICE_PRESETS, voice_from_toml)


def face_from_toml(text: str) -> ForeignFace:
    """A face spec of a TOML text: a `preset`, and fields that differ from it; without one, all but the names."""
    values = _parse("face", text)
    return _build("face", values, FACE_PRESETS, ForeignFace, required=("size", "left_eye", "right_eye"))


def voice_from_toml(text: str) -> ForeignVoice:
    """A voice spec of a TOML text: a `preset`, and fields that differ from it; without one, `log_mel` at least."""
    values = _parse("voice", text)
    base = _preset("voice", values.get("preset"), VOICE_PRESETS)
    if "log_mel" in values:
        values["log_mel"] = _log_mel(values["log_mel"], None if base is None else base.log_mel)
    return _build("voice", values, VOICE_PRESETS, ForeignVoice, required=("log_mel",))


def _read(what: str, name: str, presets: dict[str, S], parse: Any) -> S:
    if name in presets:
        return presets[name]
    path = Path(name)
    if not os.path.isfile(path):
        raise UsageError(
            f"{what} spec: {name} is no preset and no file", hint=f"presets: {', '.join(presets)}"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SPEC_BYTES + 1)
        if len(data) > MAX_SPEC_BYTES:
            raise UsageError(f"{what} spec: {name} is larger than {MAX_SPEC_BYTES >> 10} KiB")
        made: S = parse(data.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{what} spec: {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} spec: {name} is not TOML: {error}") from error
    return made


def _parse(what: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # more digits or brackets than the parser takes, too
        raise UsageError(f"{what} spec: this is not TOML: {error}") from error


def _preset(what: str, name: object, presets: dict[str, S]) -> S | None:
    if name is None:
        return None
    if not isinstance(name, str) or name not in presets:
        raise wrong(what, "preset", f"one of {', '.join(presets)}", name)
    return presets[name]


def _build(
    what: str, values: dict[str, Any], presets: dict[str, S], kind: type[S], required: tuple[str, ...]
) -> S:
    base = _preset(what, values.pop("preset", None), presets)
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(
            f"{what} spec: unknown key {ascii(', '.join(unknown))[1:-1]:.200}",
            hint=f"known are: preset, {', '.join(known)}",
        )
    if base is not None:
        return dataclasses.replace(base, **values)
    missing = [name for name in required if name not in values]
    if missing:
        raise UsageError(
            f"{what} spec: {', '.join(missing)} is missing",
            hint=f"or start from a preset: {', '.join(presets)}",
        )
    return kind(**values)


def _log_mel(value: object, base: LogMelSpec | None) -> LogMelSpec:
    """A preset's name, or a table: a `preset` or the base, and the fields that differ."""
    try:
        if isinstance(value, str):
            return LogMelSpec.preset(value)
        if not isinstance(value, dict):
            raise wrong("voice", "log_mel", "a preset's name or a table of its fields", value)
        fields = dict(value)
        if "preset" in fields:
            base = LogMelSpec.preset(fields.pop("preset"))
        if base is None:
            return LogMelSpec.from_json(fields)  # which lists what is missing
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(LogMelSpec)})
        if unknown:
            raise UsageError(f"voice spec: unknown key log_mel.{ascii(unknown[0])[1:-1]:.200}")
        return dataclasses.replace(base, **fields)
    except ValueError as error:
        raise UsageError(f"voice spec: log_mel: {error}") from None
