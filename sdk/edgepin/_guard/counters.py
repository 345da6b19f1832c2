"""What is counted: of a person, of a person at a door, of a door. Values, and their plain bytes.

A person's failures count in one of two places: at a door where the person has been accepted, for that door alone; at
all other doors together. So no number of doors gives more guesses, and what happens at a strange door does not
disable the badge at the person's own.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from .clock import LONG_AGO, Epoch, Moment
from .limits import GuardLimits

SALT_BYTES = 16
_MOMENT = "Id"
_PERSON = struct.Struct(f"<HI?{_MOMENT}{SALT_BYTES}s")
_PAIR = struct.Struct(f"<H{_MOMENT}")
_DOOR = struct.Struct(f"<d{_MOMENT}{_MOMENT}")


@dataclass(frozen=True)
class Failures:
    """Consecutive failures in one place, and when the last one was."""

    count: int = 0
    last: Moment = LONG_AGO

    def wait(self, epoch: Epoch, limits: GuardLimits) -> float:
        """Seconds until the next attempt may be made; 0.0 if it may now."""
        if self.count < limits.free_failures:
            return 0.0
        return max(0.0, limits.wait_seconds - epoch.since(self.last))

    def disabled(self, limits: GuardLimits) -> bool:
        return self.count >= limits.disable_after

    def one_more(self, epoch: Epoch) -> Failures:
        return Failures(min(self.count + 1, 0xFFFF), epoch.moment())


@dataclass(frozen=True)
class Person:
    """A person at all doors where they have not been accepted yet. Kept for every id that was tried, known or not."""

    elsewhere: Failures = Failures()
    everywhere: int = 0
    """Failures over all doors since the last acceptance."""
    accepted: bool = False
    salt: bytes = field(default_factory=lambda: os.urandom(SALT_BYTES), repr=False)
    """Names and unlocks the person's entries in the audit; who loses it is nobody there."""

    def pack(self) -> bytes:
        last = self.elsewhere.last
        return _PERSON.pack(
            self.elsewhere.count,
            min(self.everywhere, 0xFFFFFFFF),
            self.accepted,
            last.epoch,
            last.grown,
            self.salt,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Person:
        count, everywhere, accepted, epoch, grown, salt = _PERSON.unpack(data)
        return cls(Failures(count, Moment(epoch, grown)), everywhere, accepted, salt)


@dataclass(frozen=True)
class Pair:
    """A person at a door where they have been accepted."""

    door: str
    failures: Failures = Failures()

    def pack(self) -> bytes:
        last = self.failures.last
        return _PAIR.pack(self.failures.count, last.epoch, last.grown) + self.door.encode()

    @classmethod
    def unpack(cls, data: bytes) -> Pair:
        count, epoch, grown = _PAIR.unpack_from(data)
        return cls(data[_PAIR.size :].decode(), Failures(count, Moment(epoch, grown)))


@dataclass(frozen=True)
class Door:
    """A door: a bucket that every failure fills by one, and time empties."""

    door: str
    level: float = 0.0
    at: Moment = LONG_AGO
    noted: Moment = LONG_AGO
    """When a refusal here was last written into the audit."""

    def drained(self, epoch: Epoch, limits: GuardLimits) -> Door:
        """The bucket at this moment."""
        level = max(0.0, self.level - epoch.since(self.at) / limits.door_seconds)
        return Door(self.door, level, epoch.moment(), self.noted)

    def wait(self, limits: GuardLimits) -> float:
        """Seconds until one more failure fits into the drained bucket."""
        return max(0.0, self.level + 1.0 - limits.door_failures) * limits.door_seconds

    def pack(self) -> bytes:
        return (
            _DOOR.pack(self.level, self.at.epoch, self.at.grown, self.noted.epoch, self.noted.grown)
            + self.door.encode()
        )

    @classmethod
    def unpack(cls, data: bytes) -> Door:
        level, epoch, grown, noted_epoch, noted_grown = _DOOR.unpack_from(data)
        return cls(data[_DOOR.size :].decode(), level, Moment(epoch, grown), Moment(noted_epoch, noted_grown))
