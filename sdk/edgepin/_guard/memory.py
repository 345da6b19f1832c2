"""Fingerprints of a subject's earlier samples, so that one that is played again can be refused.

They are made from biometric samples: sealed at rest, few, and dropped with the person. Those of accepted samples, the
ones worth replaying, have places of their own, so that whoever fails often does not push them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._errors import UsageError

MAX_ACCEPTED = 48
MAX_OTHERS = 16
_MAX_BYTES = 255


@dataclass(frozen=True)
class Memory:
    """Fingerprints of accepted samples and of others, each oldest first; 64 in all."""

    accepted: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()

    def with_more(self, fingerprints: Sequence[bytes], *, accepted: bool) -> Memory:
        if accepted:
            return Memory((*self.accepted, *fingerprints)[-MAX_ACCEPTED:], self.others)
        return Memory(self.accepted, (*self.others, *fingerprints)[-MAX_OTHERS:])

    def pack(self) -> bytes:
        both = (*self.accepted, *self.others)
        return bytes([len(self.accepted)]) + b"".join(bytes([len(one)]) + one for one in both)

    @classmethod
    def unpack(cls, data: bytes | None) -> Memory:
        if data is None:
            return cls()
        found, at = [], 1
        while at < len(data):
            end = at + 1 + data[at]
            found.append(data[at + 1 : end])
            at = end
        return cls(tuple(found[: data[0]]), tuple(found[data[0] :]))


def check_fingerprints(fingerprints: Sequence[bytes]) -> tuple[bytes, ...]:
    for one in fingerprints:
        if not isinstance(one, bytes) or not 1 <= len(one) <= _MAX_BYTES:
            raise UsageError(f"a fingerprint is 1 to {_MAX_BYTES} bytes")
    return tuple(fingerprints)
