"""What a bundle says about itself. The signature is over the bytes of this."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from edgepin_kernels import LogMelSpec

from .. import _canonical_json
from .._capture.crop import FaceSpec
from .._errors import BundleError
from .._safe_text import unsafe_character

FORMAT_VERSION = 1
EMBEDDING_DIM = 256
MAX_MANIFEST_BYTES = 1 << 20
MAX_DEPTH = 16
"""Levels of objects and arrays below the manifest's own. Whoever reads on may recurse without a check."""

MODALITIES = ("face", "voice")
PRECISIONS = ("fp32", "fp16", "int8")
"""The highest first."""
CARD = "card.md"
PORTABLE_VOICE = "voice.portable.onnx"

CONTENT_ORDER = (
    CARD,
    *(f"{modality}.{precision}.onnx" for modality in MODALITIES for precision in PRECISIONS),
    PORTABLE_VOICE,
)
"""Every member that a manifest may list, in the order of the archive."""

_SHA256 = re.compile("[0-9a-f]{64}")
_OBJECTS = ("fusion", "evidence", "accuracy", "training", "usage")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The manifest. The dictionaries are JSON objects, opaque here; do not change them.

    Raises `BundleError`, naming the field, if one is of the wrong type or out of its range.
    """

    name: str
    """What people call the bundle: 1-128 printable characters."""
    created_by: str
    """The version of EdgePIN that wrote it. No time: the same inputs give the same bytes."""
    log_mel: LogMelSpec
    """The front-end of the voice encoder."""
    face: FaceSpec
    """The crop of the face encoder."""
    cross_modal: bool
    """Whether a face and a voice may be compared in the shared (pin) space."""
    fusion: Mapping[str, Any]
    """The fitted fusion and its calibration."""
    evidence: Mapping[str, Any]
    """Distinct subject pairs behind each kind of trial."""
    accuracy: Mapping[str, Any]
    """Per precision."""
    training: Mapping[str, Any]
    """How the encoders came to be."""
    usage: Mapping[str, Any]
    """`purpose` and `restrictions`, and what else the maker says of use. A `notice` is said before the first decision."""
    members: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 in hex of every other member but the signature; `write_bundle` fills it."""
    embedding_dim: int = EMBEDDING_DIM
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        for name in ("name", "created_by"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 1 <= len(text) <= 128 or not text.isprintable():
                raise _wrong(name, "1 to 128 printable characters", text)
        if not isinstance(self.log_mel, LogMelSpec):
            raise _wrong("log_mel", "a LogMelSpec", self.log_mel)
        if not isinstance(self.face, FaceSpec):
            raise _wrong("face", "a FaceSpec", self.face)
        if not isinstance(self.cross_modal, bool):
            raise _wrong("cross_modal", "true or false", self.cross_modal)
        if type(self.embedding_dim) is not int or self.embedding_dim != EMBEDDING_DIM:
            raise _wrong("embedding_dim", str(EMBEDDING_DIM), self.embedding_dim)
        for name in _OBJECTS:
            if not isinstance(getattr(self, name), Mapping):
                raise _wrong(name, "an object", getattr(self, name))
            _check_plain(getattr(self, name), name, MAX_DEPTH)
        missing = {"purpose", "restrictions"} - set(self.usage)
        if missing:
            raise BundleError(f"the manifest's usage lacks {', '.join(sorted(missing))}")
        notice = self.usage.get("notice", "none")
        if not isinstance(notice, str) or not 1 <= len(notice) <= 500:
            raise _wrong("usage.notice", "a text of 1 to 500 characters", notice)
        if not isinstance(self.members, Mapping):
            raise _wrong("members", "an object", self.members)
        for member, digest in self.members.items():
            if member not in CONTENT_ORDER:
                raise BundleError(f"the manifest lists a member that bundles do not have: {member!r}")
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise _wrong(f"members[{member!r}]", "a SHA-256 in hex", digest)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, under the fields' names."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: dict(values[name]) for name in (*_OBJECTS, "members")}
        return {**values, **plain, "log_mel": self.log_mel.to_json(), "face": self.face.to_json()}

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """The inverse of `to_json`; a missing or unknown key, or a wrong value, raises `BundleError`."""
        if not isinstance(value, dict):
            raise BundleError(f"the manifest is not a JSON object but {type(value).__name__}")
        # Before the keys: another version has other keys, and its number is the better message.
        _check_version(value.get("format_version"))
        names = {field.name for field in dataclasses.fields(cls)}
        if names - value.keys():
            raise BundleError(f"the manifest lacks: {', '.join(sorted(names - value.keys()))}")
        if value.keys() - names:
            raise BundleError(
                f"the manifest has unknown keys: {ascii(', '.join(sorted(value.keys() - names)))[1:-1]:.200}"
            )
        try:
            log_mel, face = LogMelSpec.from_json(value["log_mel"]), FaceSpec.from_json(value["face"])
        except ValueError as error:
            raise BundleError(f"the manifest describes an impossible capture: {error}") from None
        return cls(**{**value, "log_mel": log_mel, "face": face})

    def to_bytes(self) -> bytes:
        """Canonical JSON: the bytes that are stored, hashed and signed."""
        try:
            data = _canonical_json.encode(self.to_json())
        except ValueError as error:
            raise BundleError(f"the manifest cannot be written: {error}") from None
        if len(data) > MAX_MANIFEST_BYTES:
            raise _too_large()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The inverse of `to_bytes`; any other spelling of the same JSON raises `BundleError`."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise _too_large()
        try:
            value = _canonical_json.decode(data)
        except ValueError as error:
            raise BundleError(f"the manifest is not canonical JSON: {error}") from None
        manifest = cls.from_json(value)
        # A whole number where a fraction belongs is read as the same value, but it is a second spelling.
        if manifest.to_bytes() != data:
            raise BundleError("the manifest is not canonical: a number is written in another way")
        return manifest


def _check_version(version: object) -> None:
    if type(version) is not int:
        raise BundleError("the manifest says no format version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"the bundle has format {version}; this version of EdgePIN reads format {FORMAT_VERSION}",
            hint="update EdgePIN" if version > FORMAT_VERSION else "export the bundle again",
        )


def _check_plain(value: object, where: str, levels: int) -> None:
    """No nesting deeper than `levels`, and no character that does something else than be shown."""
    if levels < 0:
        raise BundleError(f"the manifest's {where} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(key, where, levels)
            _check_plain(item, where, levels - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(item, where, levels - 1)
    elif isinstance(value, str):
        character = unsafe_character(value)
        if character is not None:
            raise BundleError(f"the manifest's {where} has the character {character} in a text")


def _wrong(field: str, expected: str, value: object) -> BundleError:
    return BundleError(f"the manifest's {field} must be {expected}, not {value!r:.80}")


def _too_large() -> BundleError:
    return BundleError(f"the manifest is larger than {MAX_MANIFEST_BYTES >> 20} MiB")
