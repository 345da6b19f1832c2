"""A clock that tests set, and guards on it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from edgepin._bundle.signing import SigningKey
from edgepin._guard.guard import Guard
from edgepin._guard.limits import GuardLimits

KEY = bytes(range(32))
SIGNER = SigningKey.generate()


class FakeClock:
    """Both clocks as told; `advance` moves both."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 100.0, boot: str = "boot-1") -> None:
        self.wall, self.grown, self.boot = now, monotonic, boot

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.grown

    def boot_id(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.grown += seconds

    def reboot(self, off: float = 20.0) -> None:
        """Switched off for `off` seconds; the growing clock begins anew."""
        self.wall += off
        self.grown, self.boot = 5.0, f"{self.boot}+"


class FakeCounter:
    """A counter that nothing makes smaller."""

    def __init__(self, value: int = 1) -> None:
        self.value = value

    def read(self) -> int:
        return self.value

    def increment(self) -> int:
        self.value += 1
        return self.value


def opened(
    path: Path, clock: FakeClock | None = None, limits: GuardLimits | None = None, **options: Any
) -> Guard:
    options = {"signing_key": SIGNER, "timeout": 0.2, **options}
    return Guard.open(path, options.pop("store", KEY), clock=clock or FakeClock(), limits=limits, **options)


def fail(guard: Guard, subject: str, door: str = "", times: int = 1) -> None:
    for _ in range(times):
        guard.begin(subject, door).reject(["below_threshold"])


def succeed(guard: Guard, subject: str, door: str = "") -> None:
    guard.begin(subject, door).accept(["accepted"])


def failures(guard: Guard, subject: str, door: str | None = None) -> int:
    return next(one.failures for one in guard.status(subject).doors if one.door == door)


def kinds(guard: Guard) -> list[str]:
    return [entry.kind for entry in guard.audit.entries()]


def altered(path: Path, *statements: str) -> None:
    """Changes the file with SQLite's own means, as someone with access to it would."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
