"""Time that nobody can shorten: waits are measured by a clock that only grows, within one stretch of trusted time.

The wall clock can be set, and the growing clock begins anew with every boot. So a stretch of time, an `Epoch`, lasts
while the boot is the same, the growing clock has not gone back, and both clocks move alike. When that ends, every
wait starts again at the beginning of the next epoch: it may become longer, never shorter.
"""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .._errors import EnvironmentFault

# More than the two clocks drift apart by themselves (the kernel slews both alike, a leap second is 1 s), and less
# than a wait is worth.
_TOLERANCE = 2.0


class Clock(Protocol):
    """What tells the time. Most users need only `SystemClock`."""

    def now(self) -> float:
        """Unix time in seconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow within one boot, alike in all processes, sleep of the machine included."""
        ...

    def boot_id(self) -> str:
        """A text that is another one after every boot."""
        ...


class SystemClock:
    """Linux's own clocks: `CLOCK_REALTIME`, `CLOCK_BOOTTIME`, and the kernel's boot id.

    Where the kernel tells no boot id, each object has one of its own, so that every start counts as a boot.
    """

    def __init__(self) -> None:
        try:
            self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        except (OSError, ValueError):
            self._boot_id = ""
        self._boot_id = self._boot_id or secrets.token_hex(16)

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return self._boot_id


@dataclass(frozen=True)
class Epoch:
    """One stretch of trusted time. `began` and `latest` are seconds of the growing clock."""

    number: int
    boot_id: str
    began: float
    latest: float
    ahead: float
    """Wall clock minus growing clock, seconds, when it began."""

    @classmethod
    def begin(cls, clock: Clock, number: int = 1) -> Epoch:
        now, grown = _read(clock)
        return cls(number, clock.boot_id(), grown, grown, now - grown)

    def at(self, clock: Clock) -> tuple[Epoch, str | None]:
        """The epoch of this moment, and why it is another one: `reboot`, `clock_went_back` or `clock_jumped`."""
        now, grown = _read(clock)
        if clock.boot_id() != self.boot_id:
            why = "reboot"
        elif grown < self.latest:
            why = "clock_went_back"
        elif abs(now - grown - self.ahead) > _TOLERANCE:
            why = "clock_jumped"
        else:
            return Epoch(self.number, self.boot_id, self.began, grown, self.ahead), None
        return Epoch.begin(clock, self.number + 1), why

    def since(self, moment: Moment) -> float:
        """Seconds that have surely passed since `moment`: those of this epoch, where it lies in an earlier one."""
        return self.latest - (moment.grown if moment.epoch == self.number else self.began)

    def moment(self) -> Moment:
        return Moment(self.number, self.latest)


@dataclass(frozen=True)
class Moment:
    """A time, as the growing clock of an epoch tells it."""

    epoch: int
    grown: float


LONG_AGO = Moment(0, 0.0)
"""Before the first epoch: what has passed since is what has passed since the present one began."""


def _read(clock: Clock) -> tuple[float, float]:
    now, grown = clock.now(), clock.monotonic()
    if not (math.isfinite(now) and math.isfinite(grown)):
        raise EnvironmentFault("the clock tells no time", hint="check the clock that was put in")
    return now, grown
