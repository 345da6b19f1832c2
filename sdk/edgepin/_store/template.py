"""The values that a store keeps, and their plain bytes."""

from __future__ import annotations

import base64
import struct
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._bundle.manifest import EMBEDDING_DIM, MODALITIES
from .._errors import UsageError

Embeddings = npt.NDArray[np.float32]

MAX_CAPTURES = 256
_COUNT = struct.Struct("<I")


@dataclass(frozen=True, eq=False)
class Template:
    """What one modality of one subject is known by: row i of both arrays comes from capture i."""

    identity: Embeddings
    """float32 `(captures, 256)`, unit rows."""
    pin: Embeddings
    """float32 `(captures, 256)`, unit rows."""

    def equals(self, other: Template) -> bool:
        """Whether it is made of the same captures."""
        return np.array_equal(self.identity, other.identity) and np.array_equal(self.pin, other.pin)

    def with_captures(self, more: Template) -> Template:
        """These captures and then those of `more`."""
        return Template(np.concatenate([self.identity, more.identity]), np.concatenate([self.pin, more.pin]))

    def to_json(self) -> dict[str, Any]:
        """Both arrays as Base64 of little-endian float32, row by row."""
        return {
            "captures": len(self.identity),
            "dimension": EMBEDDING_DIM,
            "encoding": "base64 of float32, little-endian, row by row",
            "identity": base64.b64encode(self.identity.astype("<f4").tobytes()).decode(),
            "pin": base64.b64encode(self.pin.astype("<f4").tobytes()).decode(),
        }


def check_subject(subject: str) -> str:
    """`subject`, if it can be an id: 1-128 printable characters in NFC, no blank at either end.

    Raises `UsageError` otherwise.
    """
    if not isinstance(subject, str) or not 1 <= len(subject) <= 128:
        raise UsageError("a subject id has 1 to 128 characters")
    if not subject.isprintable():
        raise UsageError(f"the subject id {subject!r} has a character that does not print")
    if subject != unicodedata.normalize("NFC", subject):
        raise UsageError(
            f"the subject id {subject!r} is not in Unicode's NFC",
            hint="normalize ids where they come from, so that equal ids are equal",
        )
    if subject != subject.strip():
        raise UsageError(f"the subject id {subject!r} begins or ends with a blank")
    return subject


def pack_template(modality: str, template: Template) -> bytes:
    if modality not in MODALITIES:
        raise UsageError(f"there is no modality {modality!r}", hint=f"choose {' or '.join(MODALITIES)}")
    rows = len(template.identity) if np.ndim(template.identity) else 0
    for name, array in (("identity", template.identity), ("pin", template.pin)):
        if (
            not isinstance(array, np.ndarray)
            or array.dtype != np.float32
            or array.shape != (rows, EMBEDDING_DIM)
        ):
            raise UsageError(
                f"{name} must be float32 of shape (captures, {EMBEDDING_DIM}), the same for identity and pin"
            )
        if not np.isfinite(array).all():
            raise UsageError(f"{name} has values that are not finite")
    if not 1 <= rows <= MAX_CAPTURES:
        raise UsageError(f"a template has 1 to {MAX_CAPTURES} captures, not {rows}")
    return _COUNT.pack(rows) + b"".join(
        array.astype("<f4").tobytes() for array in (template.identity, template.pin)
    )


def unpack_template(data: bytes) -> Template:
    values = _values(data)
    values.setflags(write=False)
    return Template(identity=values[0], pin=values[1])


def unpack_means(data: bytes) -> Embeddings:
    """The means of a template's rows, float32 `(2, 256)`: identity and pin."""
    values = _values(data)
    means: Embeddings = np.add.reduce(values, axis=1) / np.float32(values.shape[1])
    return means


def _values(data: bytes) -> Embeddings:
    (rows,) = _COUNT.unpack_from(data)
    return np.frombuffer(data, "<f4", offset=_COUNT.size).astype(np.float32).reshape(2, rows, EMBEDDING_DIM)
