"""How sure a counted rate is: the exact binomial interval and the rule of three.

Both suppose independent trials. Trials that share subjects are not: `edgepin.metrics.bootstrap_by_subject`
is for those.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ._errors import UsageError


def binomial_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided Clopper-Pearson interval of a rate: `k` events in `n` independent trials.

    Its ends `low`, `high` (fractions) solve P(X >= k | low) = P(X <= k | high) = (1 - confidence) / 2 for a
    binomial X (Clopper and Pearson 1934, Biometrika 26:404); the true rate lies outside with at most
    probability 1 - confidence. Its relative error stays under 1e-9 for n up to 1e7.

    Raises UsageError unless 0 <= k <= n, n >= 1 and 0 < confidence < 1.
    """
    k, n = _count("k", k), _count("n", n)
    if n < 1 or k > n:
        raise UsageError(f"{k} events in {n} trials is not a rate: give 0 <= k <= n and n >= 1")
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"confidence must lie between 0 and 1, not be {confidence}")
    tail = math.log1p(-confidence) - math.log(2.0)
    low = 0.0 if k == 0 else _from_logit(_lower_logit(k, n, tail))
    # P(X <= k | p) = P(n - X >= n - k | 1 - p), and 1 - p is -logit(p): one solver serves both ends,
    # without ever forming 1 - p, which would cost the small bounds their digits.
    high = 1.0 if k == n else _from_logit(-_lower_logit(n - k, n, tail))
    return low, high


def rule_of_three(n: int) -> float:
    """The rate (fraction) that `n` independent trials without one error exclude at 95 % confidence.

    It is 3 / n, at most 1: one-sided and rounds -ln 0.05 = 2.996 up (Hanley and Lippman-Hand 1983, JAMA
    249:1743). Raises UsageError when n < 1.
    """
    n = _count("n", n)
    if n < 1:
        raise UsageError(f"the rule of three needs at least one trial, not {n}")
    return min(1.0, 3.0 / n)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise UsageError(f"{name} must be a whole number of at least 0, not {value!r}")
    return int(value)


def _from_logit(theta: float) -> float:
    return 1.0 / (1.0 + math.exp(-theta)) if theta > -700.0 else math.exp(theta)


def _lower_logit(k: int, n: int, log_tail: float) -> float:
    """logit(p) where ln P(X >= k | n, p) = log_tail, for 1 <= k <= n; bisected, as the tail rises with p."""
    if k == n:  # P(X >= n) = p^n
        log_p = log_tail / n
        return log_p - math.log(-math.expm1(log_p))
    log_choose = _log_choose(n, min(k, n - k))
    # Relative to P(X = k), the terms k, k+1, … are exp(log_ratio[j] + j * logit p). At p <= k / n they fall
    # at least as fast as a Gaussian's, so ten standard deviations (and a hundred terms, for the Poisson
    # end) hold all of the sum.
    reach = min(n - k, 100 + math.ceil(10.0 * math.sqrt(k * (n - k) / n)))
    i = np.arange(k, k + reach, dtype=np.float64)
    log_ratio = np.concatenate(([0.0], np.cumsum(np.log((n - i) / (i + 1.0)))))
    j = np.arange(reach + 1, dtype=np.float64)

    def log_tail_at(theta: float) -> float:
        log_p, log_q = -float(np.logaddexp(0.0, -theta)), -float(np.logaddexp(0.0, theta))
        return log_choose + k * log_p + (n - k) * log_q + _log_sum(log_ratio + j * theta)

    # The median of a binomial with the whole mean k is k, so at p = k / n the tail is at least 1/2, above
    # any log_tail.
    high = math.log(k) - math.log(n - k)
    step = 1.0
    while log_tail_at(high - step) > log_tail:
        step *= 2.0
    low = high - step
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high or high - low < 1e-15:
            return middle
        if log_tail_at(middle) > log_tail:
            high = middle
        else:
            low = middle


def _log_choose(n: int, k: int) -> float:
    # lgamma(1e7) is 1.5e8, whose rounding alone would cost eight digits of the bound for a few events,
    # where the product is short. With many events the bound is that much less sensitive.
    if k > 100_000:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    i = np.arange(k, dtype=np.float64)
    return float(np.log((n - i) / (i + 1.0)).sum())


def _log_sum(terms: npt.NDArray[np.float64]) -> float:
    largest = float(terms.max())
    return largest + math.log(float(np.exp(terms - largest).sum()))
