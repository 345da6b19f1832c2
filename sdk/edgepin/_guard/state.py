"""The one sealed row that binds the guard's file together."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .clock import Epoch
from .entries import GENESIS

STATE_PLACE = b"edgepin guard state"
_NUMBERS = struct.Struct("<IdddQ32sQ32sII32sHqQ")
_NO_COUNTER = -1


@dataclass
class State:
    """What binds the file together. A transaction changes one of its own, and commits it."""

    epoch: Epoch
    sequence: int = 0
    """The last audit entry."""
    chain: bytes = GENESIS
    """The chain's value there."""
    first: int = 1
    """The first audit entry that is kept."""
    base: bytes = GENESIS
    """The chain's value before it."""
    rows: int = 0
    remembered: int = 0
    set: int = 0
    """The exclusive or over all rows, see `GuardKeys.member`."""
    start: int = 0
    """Failures that an id begins with of which nothing is known."""
    counter: int | None = None
    """What the counter outside the file stands at."""
    signed: int = 0
    """The entry of the last signed head."""

    def pack(self) -> bytes:
        epoch = self.epoch
        return (
            _NUMBERS.pack(
                epoch.number, epoch.began, epoch.latest, epoch.ahead,
                self.sequence, self.chain, self.first, self.base,
                self.rows, self.remembered, self.set.to_bytes(32, "big"), self.start,
                _NO_COUNTER if self.counter is None else self.counter, self.signed,
            )
            + epoch.boot_id.encode()
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> State:
        (
            number, began, latest, ahead, sequence, chain, first, base, rows, remembered, members, start, counter,
            signed,
        ) = _NUMBERS.unpack_from(data)  # fmt: skip
        return cls(
            Epoch(number, data[_NUMBERS.size :].decode(), began, latest, ahead),
            sequence, chain, first, base, rows, remembered, int.from_bytes(members, "big"), start,
            None if counter == _NO_COUNTER else counter, signed,
        )  # fmt: skip
