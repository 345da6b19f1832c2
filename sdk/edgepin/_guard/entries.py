"""One entry of the audit: what happened, to whom under a pseudonym, and nothing of face or voice.

Who it was, scores and whoever did something are sealed: scores shown to one who tries help to try better.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from .. import _canonical_json
from .._errors import IntegrityError, UsageError
from .._safe_text import unsafe_character
from .sealing import RESTORE, GuardKeys

GENESIS = bytes(32)
"""What stands before the first entry."""
_CODE = re.compile("[a-z][a-z0-9_]{0,39}")
_MAX_CODES = 16
_MAX_DETAILS = 1024
_FIELDS = frozenset({"at", "boot", "codes", "door", "kind", "of", "sealed", "subject"})


@dataclass(frozen=True)
class AuditEntry:
    """What `AuditLog.entries` gives. `details` is None where nothing can be revealed, {} where there is nothing."""

    sequence: int
    at: float
    """Unix seconds, as the wall clock said."""
    boot_id: str
    kind: str
    subject: str | None
    """Pseudonym, 16 hex digits; None where nobody is concerned."""
    door: str | None
    codes: tuple[str, ...]
    of: int | None
    """The attempt's sequence, for how it ended."""
    details: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "codes": list(self.codes)}


def check_code(code: str, what: str = "code") -> str:
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise UsageError(f"a {what} is 1 to 40 of a-z, 0-9 and _, a letter first, not {code!r}")
    return code


def check_codes(codes: Sequence[str]) -> list[str]:
    if isinstance(codes, str) or len(codes) > _MAX_CODES:
        raise UsageError(f"reasons are a list of at most {_MAX_CODES} codes")
    return [check_code(code) for code in codes]


def check_details(details: Mapping[str, Any] | None) -> dict[str, Any]:
    """`details` as they are kept: texts, truth values and numbers, those with a point to two places after it."""
    kept: dict[str, Any] = {}
    for name, value in (details or {}).items():
        check_code(name, "name")
        if isinstance(value, str):
            if unsafe_character(value) is not None:
                raise UsageError(f"{name} has a character that a terminal may not show")
        elif isinstance(value, Integral):  # of numpy too, and bool
            value = value if isinstance(value, bool) else int(value)
        elif isinstance(value, Real):
            value = round(float(value), 2) if math.isfinite(value) else None
        elif value is not None:
            # Whatever is an array may be an image, a sound or an embedding.
            raise UsageError(f"the audit takes texts and numbers, not {type(value).__name__} ({name})")
        kept[name] = value
    return kept


def encode(
    keys: GuardKeys,
    sequence: int,
    *,
    at: float,
    boot_id: str,
    kind: str,
    salt: bytes | None,
    door: str | None,
    codes: Sequence[str],
    of: int | None,
    details: Mapping[str, Any],
) -> bytes:
    """The bytes that are chained. `salt` is the person's, None where nobody is concerned."""
    sealed = None
    if details:
        try:
            plain = _canonical_json.encode(details)
        except ValueError as error:  # half a character, or an integer beyond JSON
            raise UsageError(f"the audit cannot hold these details: {error}") from None
        if len(plain) > _MAX_DETAILS:
            raise UsageError(
                f"the details of an audit entry are {len(plain)} bytes, and {_MAX_DETAILS} are let in"
            )
        box = keys.details(salt or b"")
        sealed = base64.b64encode(box.seal(plain, _place(sequence))).decode()
    values = {
        "at": round(at, 3), "boot": boot_id, "codes": list(codes), "door": door, "kind": kind, "of": of,
        "sealed": sealed, "subject": None if salt is None else keys.pseudonym(salt),
    }  # fmt: skip
    return _canonical_json.encode(values)


def decode(keys: GuardKeys, sequence: int, body: bytes, salts: Mapping[str, bytes]) -> AuditEntry:
    """The entry of chained bytes. `salts` are by pseudonym; who is not among them stays unknown."""
    try:
        values = _canonical_json.decode(body)
        if not isinstance(values, dict) or values.keys() != _FIELDS:
            raise ValueError("its fields are not an entry's")
        subject = values["subject"]
        salt = b"" if subject is None else salts.get(subject)
        details: dict[str, Any] | None = {}
        if values["sealed"] is not None:
            details = None
            if salt is not None:
                sealed = base64.b64decode(values["sealed"], validate=True)
                details = _canonical_json.decode(keys.details(salt).unseal(sealed, _place(sequence)))
        return AuditEntry(
            sequence, float(values["at"]), values["boot"], values["kind"], subject, values["door"],
            tuple(values["codes"]), values["of"], details,
        )  # fmt: skip
    except (ValueError, TypeError, IntegrityError) as error:
        raise IntegrityError(f"entry {sequence} of the audit was altered: {error}", hint=RESTORE) from None


def chain(previous: bytes, sequence: int, body: bytes) -> bytes:
    """SHA-256 over the entry before, the number and the bytes of this one."""
    return hashlib.sha256(b"edgepin audit entry\0" + previous + sequence.to_bytes(8, "big") + body).digest()


def _place(sequence: int) -> bytes:
    return b"edgepin audit details\0" + sequence.to_bytes(8, "big")
