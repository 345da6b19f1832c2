"""How sure a rate is that was counted among people: people are resampled, as trials that share one are not independent.

The vertex bootstrap of Snijders and Borgatti (1999, Connections 22:161): as many subjects as there are, with
replacement; trials of one subject weigh by its multiplicity, trials of two by the product.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ._errors import UsageError
from ._intervals import binomial_interval

Floats = npt.NDArray[np.float64]
# Weights held at once: 32 MB of float64.
BOOTSTRAP_CELLS = 4_000_000


@dataclasses.dataclass(frozen=True)
class BootstrapInterval:
    """A percentile interval: the estimate on the trials as they are, and its bounds at `confidence`.

    replicates: how many resamples count (those that drew no genuine or no impostor trial do not).
    """

    estimate: float
    low: float
    high: float
    confidence: float
    replicates: int


def rate_by_subject(
    events: npt.ArrayLike,
    enroll_subjects: npt.ArrayLike,
    test_subjects: npt.ArrayLike,
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapInterval:
    """An interval for how often something happened in trials, such as an error at one threshold, by resampling
    subjects as `bootstrap_by_subject` does.

    events: bool, or real numbers, (n,): what happened in each trial; the estimate is their mean.
    enroll_subjects, test_subjects: (n,) ids of one sort. Trials of one subject weigh by its multiplicity, trials
    of two by the product.

    Where events are bool and all of them agree, no resample tells how far off the rate may be: the bound is then
    that of Clopper and Pearson, with the distinct pairs of subjects (or single subjects) as trials.

    Raises UsageError without trials, for values that are NaN or infinite, and for shapes that differ.
    """
    given, enroll, test = np.asarray(events), np.asarray(enroll_subjects), np.asarray(test_subjects)
    if given.ndim != 1 or not given.size or enroll.shape != given.shape or test.shape != given.shape:
        raise UsageError(
            f"events and subjects must be (n,) each, not {given.shape}, {enroll.shape}, {test.shape}"
        )
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise UsageError("events must be finite")
    if not 0.0 < confidence < 1.0 or replicates < 1:
        raise UsageError("a bootstrap needs a confidence between 0 and 1 and at least one replicate")
    ids, numbers = np.unique(np.concatenate([enroll, test]), return_inverse=True)
    one, other = np.split(numbers.ravel(), 2)
    times = (
        np.random.default_rng(seed)
        .multinomial(ids.size, np.full(ids.size, 1.0 / ids.size), size=replicates)
        .astype(np.float64)
    )
    happened, total = (_resampled_sums(each, one, other, times) for each in (values, np.ones_like(values)))
    means = happened[total > 0] / total[total > 0]
    if 2 * means.size < replicates:
        raise UsageError("too few subjects: most resamples have no trial")
    edge = 0.5 * (1.0 - confidence)
    low, high = (float(bound) for bound in np.quantile(means, [edge, 1.0 - edge]))
    rate = float(values.mean())
    if given.dtype == np.bool_ and rate in (0.0, 1.0):
        pairs = np.unique(np.minimum(one, other) * ids.size + np.maximum(one, other)).size
        low, high = binomial_interval(int(rate) * pairs, pairs, confidence)
    return BootstrapInterval(rate, low, high, confidence, int(means.size))


def _resampled_sums(
    values: Floats, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64], times: Floats
) -> Floats:
    """(replicates,) sums of the trials' values, each as often as its subjects were drawn.

    times: (replicates, subjects). The sum over trials of two subjects is a quadratic form in a row of it; the matrix
    between is formed some rows at a time, so that many subjects need no more memory.
    """
    count = times.shape[1]
    own = one == other
    sums: Floats = times @ np.bincount(one[own], values[own], count)
    order = np.argsort(one[~own], kind="stable")
    first, second, between = one[~own][order], other[~own][order], values[~own][order]
    rows = max(1, BOOTSTRAP_CELLS // count)
    for start in range(0, count, rows):
        stop = min(count, start + rows)
        part = slice(*np.searchsorted(first, (start, stop)))
        block = np.bincount(
            (first[part] - start) * count + second[part], between[part], (stop - start) * count
        ).reshape(stop - start, count)
        sums += np.einsum("rs,rs->r", times[:, start:stop], times @ block.T)
    return sums
