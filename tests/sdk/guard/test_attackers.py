"""Simulated attackers: how much the limits let through, against the bounds in docs/decisions/009."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edgepin._errors import LockedOutError
from edgepin._guard.guard import Guard
from edgepin._guard.limits import GuardLimits

from .guards import FakeClock, opened

DAY = 86_400.0
# A quarter of the shipped limits, so that a day takes seconds to simulate; the bounds are in the limits' own terms.
LIMITS = GuardLimits(free_failures=3, disable_after=12, door_failures=15, door_seconds=240.0)
rng = np.random.default_rng(9)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(tmp_path: Path, clock: FakeClock) -> Guard:
    return opened(tmp_path / "g", clock, LIMITS)


def guesses(guard: Guard, clock: FakeClock, seconds: float, *, accomplice: bool = False) -> int:
    """How many attempts at random ids are compared at one door, by one who waits exactly as long as told."""
    made, until = 0, clock.grown + seconds
    while clock.grown < until and made < 5000:
        try:
            guard.begin(f"id-{rng.integers(10**9)}", "north").reject(["below_threshold"])
            made += 1
            clock.advance(1.0)
            if accomplice:
                guard.begin("accomplice", "north").accept()
        except LockedOutError as error:
            clock.advance((error.retry_after or 0.0) + 0.01)
    return made


def test_one_id_is_guessed_at_no_more_often_through_many_doors(guard: Guard, clock: FakeClock) -> None:
    doors = [f"door-{number}" for number in range(20)]
    for own in doors[:2]:
        guard.begin("victim", own).accept()
    made, disabled = 0, set()
    while len(disabled) < len(doors):
        for door in doors:
            try:
                guard.begin("victim", door).reject(["below_threshold"])
                made += 1
            except LockedOutError as error:
                if error.disabled:
                    disabled.add(door)
        clock.advance(30.0)
    # Two own doors, and all the others together.
    assert made == LIMITS.disable_after * (2 + 1)


def test_between_attempts_at_one_id_lie_thirty_seconds_after_the_first_few(
    guard: Guard, clock: FakeClock
) -> None:
    made = []
    while len(made) < LIMITS.disable_after:
        try:
            guard.begin("victim", f"door-{rng.integers(100)}").reject(["below_threshold"])
            made.append(clock.grown)
        except LockedOutError:
            pass
        clock.advance(0.5)
    assert np.diff(made)[LIMITS.free_failures - 1 :].min() >= 30.0


@pytest.mark.parametrize("accomplice", [False, True], ids=["alone", "with one who is let in between"])
def test_spraying_ids_at_one_door_is_held_to_the_doors_rate(
    guard: Guard, clock: FakeClock, accomplice: bool
) -> None:
    made = guesses(guard, clock, DAY, accomplice=accomplice)
    bound = LIMITS.door_failures + DAY / LIMITS.door_seconds
    assert 0.95 * bound <= made <= bound + 1
    # What the decision page computes from it, for the shipped limits: 1,500 on the first day, 1,440 on the next ones.
    shipped = GuardLimits()
    assert (shipped.door_failures + DAY / shipped.door_seconds, DAY / shipped.door_seconds) == (
        1500.0,
        1440.0,
    )


def test_somebody_at_a_strange_door_cannot_keep_the_victim_out(guard: Guard, clock: FakeClock) -> None:
    """Every second a failure under the victim's id elsewhere; the victim comes home four times."""
    guard.begin("victim", "home").accept()
    let_in = 0
    for second in range(1200):
        with suppress(LockedOutError):
            guard.begin("victim", "strange").reject(["below_threshold"])
        if second % 300 == 299:
            guard.begin("victim", "home").reject(["below_threshold"])
            guard.begin("victim", "home").accept()
            let_in += 1
        clock.advance(1.0)
    assert let_in == 4


def test_a_crowd_with_its_usual_false_rejections_does_not_wait(tmp_path: Path, clock: FakeClock) -> None:
    """With the shipped limits: 1,000 people in an hour at one door, one in twenty rejected and trying again."""
    guard = opened(tmp_path / "crowd", clock)
    for number in range(1000):
        while rng.random() < 0.05:
            guard.begin(f"p{number}", "north").reject(["below_threshold"])
            clock.advance(3.6)
        guard.begin(f"p{number}", "north").accept()
        clock.advance(3.6)
