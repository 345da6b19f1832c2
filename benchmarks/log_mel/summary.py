"""From the times of rounds to the figures that are reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """One method in one case, in nanoseconds of a call."""

    median: float
    """Of the rounds. A round's time is the mean of its calls: all methods have rounds of about the same length, so that what
    interrupts a round adds the same share to each, and does not count for long calls alone."""
    p10: float
    p90: float
    best: float
    """The fastest call of all: what the processor does when nothing disturbs it."""

    def to_json(self) -> dict[str, float]:
        """In milliseconds."""
        return {f"{name}_ms": value / 1e6 for name, value in dataclasses.asdict(self).items()}


def summarize(rounds: Sequence[Sequence[float]]) -> Timing:
    """From the nanoseconds of every call, round by round.

    Raises:
        ValueError: there are no rounds, or one without calls.
    """
    if not rounds or not all(rounds):
        raise ValueError("every method needs a round, and every round a call")
    means = [float(np.mean(calls)) for calls in rounds]
    p10, median, p90 = np.percentile(means, (10, 50, 90))
    return Timing(float(median), float(p10), float(p90), min(min(calls) for calls in rounds))


def disturbance(timings: Sequence[Timing]) -> float:
    """How much longer than its fastest call a method takes, by the median of all: near 1 on a quiet machine.

    Raises:
        ValueError: there are no timings.
    """
    if not timings:
        raise ValueError("there are no timings")
    return float(np.median([timing.median / timing.best for timing in timings]))


def ratio(timing: Timing, ours: Timing) -> float:
    """How many times as long as ours, by the medians of rounds that took turns."""
    return timing.median / ours.median


def best_ratio(timing: Timing, ours: Timing) -> float:
    """The same by the fastest calls: the ratio in a quiet window."""
    return timing.best / ours.best
