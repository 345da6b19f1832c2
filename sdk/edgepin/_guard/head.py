"""The signed head: a statement, to be kept elsewhere, of how far the audit reached and what its last entry was."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _canonical_json, _paths
from .._bundle.signing import PublicKey, SigningKey
from .._errors import IntegrityError

_CONTEXT = b"edgepin audit head\0"
_FIELDS = {"at": int, "chain": str, "guard_id": str, "key_id": str, "sequence": int}
_MAX_BYTES = 4096
_HINT = "take the file that `edgepin audit head --json` wrote"


def audit_key_path() -> Path:
    """The private key with which this device signs heads; `audit.pub` beside it is for who checks them."""
    return _paths.config_dir() / "audit.key"


@dataclass(frozen=True)
class SignedHead:
    """Ed25519 over the canonical JSON of all other fields. `chain` is the last entry's, 64 hex digits."""

    guard_id: str
    sequence: int
    chain: str
    at: int
    """Unix seconds, as the wall clock said."""
    key_id: str
    signature: bytes

    @classmethod
    def sign(cls, key: SigningKey, *, guard_id: str, sequence: int, chain: str, at: float) -> SignedHead:
        values = {
            "guard_id": guard_id,
            "sequence": sequence,
            "chain": chain,
            "at": int(at),
            "key_id": key.key_id,
        }
        return cls(**values, signature=key.sign(_CONTEXT + _canonical_json.encode(values)))  # type: ignore[arg-type]

    def signed_by(self, key: PublicKey) -> bool:
        values = {name: getattr(self, name) for name in _FIELDS}
        return key.key_id == self.key_id and key.verifies(
            self.signature, _CONTEXT + _canonical_json.encode(values)
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "signature": base64.b64encode(self.signature).decode()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SignedHead:
        """The inverse of `to_json`; a `schema` beside the fields is let pass. Raises `IntegrityError`."""
        try:
            found = {name: kind(values[name]) for name, kind in _FIELDS.items() if type(values[name]) is kind}
            signature = base64.b64decode(values["signature"], validate=True)
            if len(found) != len(_FIELDS) or set(values) - {*_FIELDS, "signature", "schema"}:
                raise ValueError
            return cls(**found, signature=signature)
        except (KeyError, TypeError, ValueError):
            raise IntegrityError("this is not a signed head of an audit", hint=_HINT) from None

    @classmethod
    def read(cls, data: bytes) -> SignedHead:
        """A head from a file's bytes. Raises `IntegrityError` if there is none in them."""
        import json

        try:
            if len(data) > _MAX_BYTES:
                raise ValueError
            values = json.loads(data)
            if not isinstance(values, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise IntegrityError("this is not a signed head of an audit", hint=_HINT) from None
        return cls.from_json(values)
