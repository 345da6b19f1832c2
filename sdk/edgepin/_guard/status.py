"""What is counted of a subject, and what a refusal says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._errors import LockedOutError
from .clock import Epoch
from .counters import Door, Failures
from .limits import GuardLimits

_NOT_BLOCKED = "the other factor is not blocked; use it"


@dataclass(frozen=True)
class DoorStatus:
    """One place where a subject's failures are counted."""

    door: str | None
    """None: all doors where the subject has not been accepted yet, together."""
    failures: int
    """Consecutive ones."""
    retry_after: float | None
    """Seconds to wait before the next attempt, 0.0 if none; None where waiting does not help."""
    disabled: bool

    @classmethod
    def of(cls, door: str | None, failures: Failures, epoch: Epoch, limits: GuardLimits) -> DoorStatus:
        disabled = failures.disabled(limits)
        return cls(door, failures.count, None if disabled else failures.wait(epoch, limits), disabled)


@dataclass(frozen=True)
class GuardStatus:
    """What is counted of a subject. An id that was never tried looks like one that never failed."""

    subject: str
    failures_everywhere: int
    """Over all doors, since the subject was last accepted anywhere."""
    doors: tuple[DoorStatus, ...]
    """The first is that of all doors where the subject has not been accepted yet."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "doors": [vars(door) for door in self.doors]}


def refusal(
    failures: Failures, door: Door, epoch: Epoch, limits: GuardLimits
) -> tuple[str, LockedOutError] | None:
    """Why an attempt may not be made now, as a code and as the error to raise; None if it may."""
    if failures.disabled(limits):
        return "disabled", LockedOutError(
            f"face and voice are disabled for this id here after {failures.count} failures; {_NOT_BLOCKED}",
            hint="an operator enables them again: edgepin unlock ID",
            disabled=True,
        )
    for code, wait, why in (
        ("wait", failures.wait(epoch, limits), "too many failures for this id"),
        ("door_wait", door.wait(limits), "too many failures at this door"),
    ):
        if wait > 0.0:
            return code, _wait(why, wait)
    return None


def no_room(limits: GuardLimits) -> tuple[str, LockedOutError]:
    """For someone new, where nothing that is kept may be dropped."""
    return "no_room", _wait("so many ids are disabled that no other can be counted", limits.wait_seconds)


def _wait(why: str, seconds: float) -> LockedOutError:
    return LockedOutError(
        f"{why}: wait {seconds:.0f} s before the next attempt; {_NOT_BLOCKED}", retry_after=seconds
    )
