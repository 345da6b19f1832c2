"""Fingerprints of a subject's earlier samples, so that one that is played again can be refused.

They are made from biometric samples: sealed at rest, few, and dropped with the person. Kept are those of the enrollment, for as
long as it stands, and the last accepted ones of each kind. Rejected samples are not kept: a copy of one is rejected for what
it is, and whether it is called a copy must not tell who is enrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .._errors import UsageError

MAX_ENROLLED = 32
MAX_ACCEPTED = 16
"""Of each kind, which a fingerprint's first byte tells."""
_MAX_BYTES = 255

Same = Callable[[bytes, bytes], bool]
"""Whether two fingerprints are of one sample."""


@dataclass(frozen=True)
class Memory:
    """Fingerprints of the enrollment and of accepted samples, each oldest first."""

    enrolled: tuple[bytes, ...] = ()
    accepted: tuple[bytes, ...] = ()

    def with_enrolled(self, fingerprints: Sequence[bytes]) -> Memory:
        """The same with those of another enrollment, or of a part of it: the first ones stay."""
        return Memory((*self.enrolled, *fingerprints)[:MAX_ENROLLED], self.accepted)

    def with_accepted(self, fingerprints: Sequence[bytes]) -> Memory:
        kept: list[bytes] = []
        room: dict[bytes, int] = {}
        for one in reversed((*self.accepted, *fingerprints)):
            room[one[:1]] = room.get(one[:1], MAX_ACCEPTED) - 1
            if room[one[:1]] >= 0:
                kept.insert(0, one)
        return Memory(self.enrolled, tuple(kept))

    def holds(self, fingerprints: Sequence[bytes], same: Same) -> bool:
        """Whether one of `fingerprints` is of a sample that is remembered."""
        return any(same(one, known) for known in (*self.enrolled, *self.accepted) for one in fingerprints)

    def pack(self) -> bytes:
        both = (*self.enrolled, *self.accepted)
        return bytes([len(self.enrolled)]) + b"".join(bytes([len(one)]) + one for one in both)

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
