"""How many failures are let pass, and what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._errors import UsageError


@dataclass(frozen=True)
class GuardLimits:
    """Limits on failures, and on what the guard keeps. docs/decisions/009 says why these numbers.

    The first three are NIST SP 800-63B-4, 3.2.3: at most 5 consecutive failures (10 with presentation attack
    detection), then at least 30 s before each further attempt, disabled at 50 (100 with detection). They may be
    set stricter, and no looser than with detection.
    """

    free_failures: int = 5
    """Consecutive failures without a wait, in 0-10."""
    wait_seconds: float = 30.0
    """Seconds from a failure to the next attempt after that, at least 30."""
    disable_after: int = 50
    """Consecutive failures at which face and voice are off until unlocked, above `free_failures` and at most 100."""
    door_failures: int = 60
    """Failures of any ids at one door before it has to wait, at least 1."""
    door_seconds: float = 60.0
    """Seconds in which a door is forgiven one failure, at least 1."""
    alarm_after: int = 20
    """Failures of one id over all doors, since it was last accepted, per alarm in the audit; at least 1."""
    max_rows: int = 65_536
    """Counters kept (of ids, of ids at doors, of doors), at least 64; those longest unused go first."""
    max_entries: int = 100_000
    """Audit entries kept, at least 1,024; the oldest go first."""
    max_remembered: int = 16_384
    """Subjects of whom earlier samples are remembered, at least 16; those longest unused go first."""
    head_every: int = 64
    """Audit entries per signed head, at least 1."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("free_failures", 0, 10), ("disable_after", 1, 100), ("door_failures", 1, None),
            ("alarm_after", 1, None), ("max_rows", 64, 1_048_576), ("max_entries", 1024, 10_000_000),
            ("max_remembered", 16, 1_048_576), ("head_every", 1, 65_536),
        ):  # fmt: skip
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or value < low
                or (high and value > high)
            ):
                allowed = f"from {low} to {high}" if high else f"of at least {low}"
                raise UsageError(f"{name} is an integer {allowed}, not {value!r}")
        for name, least in (("wait_seconds", 30.0), ("door_seconds", 1.0)):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not least <= value < math.inf
            ):
                raise UsageError(f"{name} is a number of at least {least:g}, not {value!r}")
        if self.disable_after <= self.free_failures:
            raise UsageError("disable_after lies above free_failures: who has to wait is not disabled yet")
