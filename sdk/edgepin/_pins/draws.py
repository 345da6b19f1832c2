"""Intervals by resampling identities: items of one person are not independent, people are."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Figure:
    """An estimate, and the bounds between which 95 % of the resamples lie."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Resampling:
    """How often identities are drawn anew, and by which seed."""

    replicates: int = 500
    seed: int = 0

    def times(self, people: int) -> Floats:
        """float64 (replicates, people): how often each person comes in each resample of as many people."""
        rng = np.random.default_rng(self.seed)
        drawn = rng.multinomial(people, np.full(people, 1.0 / people), size=self.replicates)
        return drawn.astype(np.float64)


def weighted_mean(values: Floats, people: Indices, resampling: Resampling) -> Figure:
    """The mean of `values` (n,), of people (n,) numbered from 0, every value counted as often as its person is drawn."""
    count = int(people.max()) + 1
    sums = np.bincount(people, weights=values, minlength=count)
    sizes = np.bincount(people, minlength=count).astype(np.float64)
    times = resampling.times(count)
    totals = times @ sizes
    means = (times @ sums)[totals > 0] / totals[totals > 0]
    return Figure(float(values.mean()), *interval(means))


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def numbered(names: list[str]) -> tuple[list[str], Indices]:
    """The distinct names, sorted, and the number of each."""
    unique, index = np.unique(np.array(names), return_inverse=True)
    return unique.tolist(), index.ravel().astype(np.int64)
