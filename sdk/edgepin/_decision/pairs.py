"""Pairs of people as the unit of evidence, and how many of them the dependent ones are worth.

Two pairs that share a person are not independent: someone whom everybody resembles falsely matches in all of
their pairs. The variance of a rate over pairs is estimated with every such covariance in it (dyadic-robust
variance: Fafchamps and Gubert 2007, Journal of Development Economics 83:326; Aronow, Samii and Assenova 2015,
Political Analysis 23:564). Its ratio to that of independent pairs divides their number, and the exact binomial
bound is taken with what is left (Korn and Graubard 1998, Survey Methodology 24:193).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which unordered pair of people each trial is of.

    `index` (trials,): the trial's pair, from 0. `first`, `second` (pairs,): the two people of each pair, from 0
    among those that occur; the same person twice in genuine trials. `people`: how many people there are.
    """

    index: IntArray
    first: IntArray
    second: IntArray
    people: int

    @classmethod
    def of(cls, subject_a: IntArray, subject_b: IntArray) -> Pairs:
        """The pairs of trials between `subject_a` and `subject_b`, (trials,) numbers of people."""
        people, numbers = np.unique(np.concatenate([subject_a, subject_b]), return_inverse=True)
        a, b = np.split(numbers.reshape(-1).astype(np.int64), 2)
        count = max(1, len(people))
        keys, index = np.unique(np.minimum(a, b) * count + np.maximum(a, b), return_inverse=True)
        return cls(index.reshape(-1).astype(np.int64), keys // count, keys % count, len(people))

    def __len__(self) -> int:
        return len(self.first)

    @property
    def weights(self) -> FloatArray:
        """(trials,) weights with which each pair's trials sum to 1."""
        return np.asarray(1.0 / np.bincount(self.index)[self.index], dtype=np.float64)

    def means(self, values: FloatArray | NDArray[np.bool_]) -> FloatArray:
        """(trials,) values -> (pairs,) means over each pair's trials."""
        return np.bincount(self.index, values) / np.bincount(self.index)

    def effective(self, passed: NDArray[np.bool_]) -> float:
        """How many independent pairs would tell as much of the rate of `passed` (trials,): at most `len(self)`."""
        means = self.means(passed)
        rate = float(means.mean())
        if not 0.0 < rate < 1.0:
            return float(len(self))
        deviation = means - rate
        by_person = np.bincount(self.first, deviation, self.people) + np.bincount(
            self.second, deviation, self.people
        )
        # Each pair stands in the sums of both its people, and so twice in the sum of squares.
        spread = float(by_person @ by_person - deviation @ deviation)
        if spread <= 0.0:
            return float(len(self))
        return min(float(len(self)), len(self) ** 2 * rate * (1.0 - rate) / spread)
