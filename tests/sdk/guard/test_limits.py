"""The limits: their defaults are the standard's, and they cannot be set looser than it allows."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from edgepin._errors import UsageError
from edgepin._guard.limits import GuardLimits


def test_the_defaults() -> None:
    assert asdict(GuardLimits()) == {
        "free_failures": 5,
        "wait_seconds": 30.0,
        "disable_after": 50,
        "door_failures": 60,
        "door_seconds": 60.0,
        "alarm_after": 20,
        "max_rows": 65_536,
        "max_entries": 100_000,
        "max_remembered": 16_384,
        "head_every": 64,
    }


@pytest.mark.parametrize(
    "values",
    [
        {"free_failures": 11},
        {"free_failures": -1},
        {"free_failures": 2.0},
        {"free_failures": True},
        {"free_failures": "5"},
        {"wait_seconds": 29.9},
        {"wait_seconds": float("nan")},
        {"wait_seconds": float("inf")},
        {"wait_seconds": None},
        {"disable_after": 101},
        {"disable_after": 5},
        {"door_failures": 0},
        {"door_seconds": 0.5},
        {"alarm_after": 0},
        {"max_rows": 63},
        {"max_entries": 10},
        {"max_remembered": 0},
        {"head_every": 0},
    ],
)
def test_limits_that_cannot_be_are_a_usage_error(values: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        GuardLimits(**values)  # type: ignore[arg-type]


def test_stricter_ones_may_be_set() -> None:
    GuardLimits(free_failures=0, wait_seconds=120, disable_after=3, door_failures=10, door_seconds=600)
