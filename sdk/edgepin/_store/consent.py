"""What a person agreed to."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from .. import _canonical_json
from .._errors import StoreError, UsageError

MAX_TEXT = 64 * 1024
_LAST = 253402300800.0  # the year 10000, where ISO 8601's four digits end


@dataclass(frozen=True)
class Consent:
    """A consent as it was given. Raises `UsageError` if a field cannot be right.

    Args:
        text: what was agreed to, or where it is written, in the integrator's words; at most 64 Ki characters.
        given_at: when, in Unix seconds; None if that is not on record (a store of schema 1 kept none).
        expires_at: when it runs out, in Unix seconds; None if it does not.
        recorded_by: who took it down.
    """

    text: str
    given_at: float | None
    expires_at: float | None = None
    recorded_by: str = ""

    def __post_init__(self) -> None:
        for name, text in (("consent", self.text), ("recorded_by", self.recorded_by)):
            if not isinstance(text, str) or len(text) > MAX_TEXT:
                raise UsageError(f"{name} must be text of at most {MAX_TEXT} characters")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UsageError(f"{name} has half a character in it") from None
        for name, when in (("given_at", self.given_at), ("expires_at", self.expires_at)):
            if when is None:
                continue
            if isinstance(when, bool) or not isinstance(when, (int, float)) or not 0 <= when < _LAST:
                raise UsageError(f"{name} is Unix seconds, not {when!r}")
        if self.given_at is not None and self.expires_at is not None and self.expires_at <= self.given_at:
            raise UsageError("a consent cannot run out before it is given")

    @classmethod
    def of(cls, consent: Consent | str | None, expires: float | None = None) -> Consent | None:
        """What `Store.put` takes, as a consent: text counts as given now."""
        if isinstance(consent, Consent):
            if expires is not None:
                raise UsageError("the consent says itself when it runs out")
            return consent
        if consent is None:
            if expires is not None:
                raise UsageError("without a consent there is nothing to run out")
            return None
        return cls(consent, given_at=float(math.floor(time.time())), expires_at=expires)

    def has_run_out(self, now: float) -> bool:
        """Whether it has at `now`, in Unix seconds."""
        return self.expires_at is not None and self.expires_at <= now

    def to_json(self) -> dict[str, Any]:
        """All fields, the times as ISO 8601 in UTC."""
        return {
            "text": self.text,
            "given_at": iso(self.given_at),
            "expires_at": iso(self.expires_at),
            "recorded_by": self.recorded_by,
        }

    def pack(self) -> bytes:
        return _canonical_json.encode(asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> Consent:
        try:
            return cls(**_canonical_json.decode(data))
        except (ValueError, TypeError, UsageError) as error:
            raise StoreError(f"a consent in the store cannot be read: {error}") from error


def iso(when: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the second."""
    return None if when is None else datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
