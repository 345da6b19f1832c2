"""Error rates of verification scores.

Throughout, `scores` is a real array `(n,)` in which higher means *the same person*, and `labels` `(n,)` is
true (or 1) for genuine trials and false (or 0) for impostor trials. A trial is accepted when its score is
at or above the threshold, so trials with the same score are accepted together. FMR is the share of impostor
trials accepted, FNMR the share of genuine trials rejected (ISO/IEC 19795-1). Rates are fractions.

Every function raises UsageError for scores that are NaN, shapes that differ, labels that are not 0 or 1,
and trials of one class only. Infinite scores are in order. Only numpy is used: a device calibrates too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._errors import UsageError
from ._intervals import binomial_interval, rule_of_three
from ._resampling import BOOTSTRAP_CELLS, BootstrapInterval, rate_by_subject

__all__ = [
    "BootstrapInterval",
    "DetCurve",
    "VerificationResult",
    "auc",
    "binomial_interval",
    "bootstrap_by_subject",
    "cllr",
    "det_curve",
    "eer",
    "min_cllr",
    "min_dcf",
    "rate_by_subject",
    "rule_of_three",
    "summarize",
]

Floats = npt.NDArray[np.float64]
Rates = Callable[[Floats, Floats], Floats]
_LN2 = float(np.log(2.0))


@dataclasses.dataclass(frozen=True, eq=False)
class DetCurve:
    """The steps of the detection error trade-off, from accepting all trials to accepting none.

    thresholds: float64 (k + 1,), rising: the k distinct scores, then +inf.
    fmr, fnmr: float64 (k + 1,), fractions: the false match and false non-match rate at each threshold.
    """

    thresholds: Floats
    fmr: Floats
    fnmr: Floats


@dataclasses.dataclass(frozen=True)
class VerificationResult:
    """What a set of verification trials shows.

    Rates and areas are fractions; cllr and min_cllr are in bits.
    min_dcf is at p_target = 0.01 with costs of 1; cllr is None unless the scores are log-likelihood ratios.
    genuine and impostor count trials; failed counts captures that were refused, whose trials count as
    non-matches.
    """

    eer: float
    auc: float
    min_dcf: float
    cllr: float | None
    min_cllr: float
    genuine: int
    impostor: int
    failed: int = 0

    def to_json(self) -> dict[str, Any]:
        """A JSON object with one key per field."""
        return dataclasses.asdict(self)


def eer(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The equal error rate, a fraction: where FMR and FNMR cross.

    The crossing is interpolated linearly between the two steps around it. The steps are those of
    `det_curve`, not of its convex hull; a tie that holds both classes is one slanted step.
    """
    return float(_eer(*_rates(_steps(scores, labels))))


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The area under the ROC curve, a fraction.

    It is P(genuine score > impostor score) with ties counted half (Mann-Whitney U).
    """
    return float(_auc(*_rates(_steps(scores, labels))))


def min_dcf(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """The lowest normalized detection cost over all thresholds, between 0 and 1.

    DCF = p_target c_miss FNMR + (1 - p_target) c_fa FMR, over that of the better constant answer,
    min(p_target c_miss, (1 - p_target) c_fa)
    (NIST 2016 Speaker Recognition Evaluation Plan). Raises UsageError unless 0 < p_target < 1 and both
    costs are above 0.
    """
    cost = _min_dcf_with(p_target, c_miss, c_fa)
    return float(cost(*_rates(_steps(scores, labels))))


def cllr(llr: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The cost of log-likelihood ratios, in bits: 0 is perfect, 1 is what knowing nothing (LLRs of 0) costs.

    The measure is C_llr of Brümmer and du Preez 2006 (Computer Speech and Language 20:230).

    llr: (n,) natural-log likelihood ratios of genuine against impostor. Infinite when one is infinitely
    wrong.
    """
    values, genuine = _checked(llr, labels)
    missed = np.logaddexp(0.0, -values[genuine]).mean()
    matched = np.logaddexp(0.0, values[~genuine]).mean()
    return float(0.5 * (missed + matched) / _LN2)


def min_cllr(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The least Cllr, in bits, that any rising map from these scores to LLRs reaches on these trials.

    That map is isotonic regression by pool-adjacent-violators (Brümmer and du Preez 2006).
    """
    return _min_cllr(_steps(scores, labels))


def det_curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> DetCurve:
    """FMR and FNMR at each distinct score as the threshold, and above all of them."""
    steps = _steps(scores, labels)
    fmr, fnmr = _rates(steps)
    return DetCurve(np.append(steps.scores, np.inf), fmr, fnmr)


def summarize(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, llr: bool = False, failed: int = 0
) -> VerificationResult:
    """All figures at once.

    llr: whether the scores are natural-log likelihood ratios, so that Cllr means something.
    failed: captures that were refused, handed through.
    """
    steps = _steps(scores, labels)
    fmr, fnmr = _rates(steps)
    return VerificationResult(
        eer=float(_eer(fmr, fnmr)),
        auc=float(_auc(fmr, fnmr)),
        min_dcf=float(_min_dcf_with(0.01, 1.0, 1.0)(fmr, fnmr)),
        cllr=cllr(scores, labels) if llr else None,
        min_cllr=_min_cllr(steps),
        genuine=int(steps.genuine.sum()),
        impostor=int(steps.impostor.sum()),
        failed=failed,
    )


def bootstrap_by_subject(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_subjects: npt.ArrayLike,
    test_subjects: npt.ArrayLike,
    metric: Literal["eer", "auc", "min_dcf"] | Rates = "eer",
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapInterval:
    """An interval for a metric by resampling subjects, because trials that share them are not independent.

    Each replicate draws as many subjects as there are, with replacement. An impostor trial then counts as
    often as the product of its two subjects' multiplicities, a genuine trial as often as its one subject
    (the vertex bootstrap of Snijders and Borgatti 1999, Connections 22:161). Intervals are percentiles of
    the replicates.

    enroll_subjects, test_subjects: (n,) ids of one sort (numbers or strings); equal in genuine trials,
    different in impostor trials.
    metric: a name, or a function of FMR and FNMR, both float64 (replicates, steps) ordered as in
    `det_curve`, that returns (replicates,). The same seed gives the same interval.

    Raises UsageError for labels that contradict the subjects, fewer than two subjects, and when most
    replicates lack a class.
    """
    steps = _steps(scores, labels)
    measure = _named_metric(metric)
    if not 0.0 < confidence < 1.0 or replicates < 1:
        raise UsageError("a bootstrap needs a confidence between 0 and 1 and at least one replicate")
    enroll, test = np.asarray(enroll_subjects), np.asarray(test_subjects)
    if enroll.shape != steps.order.shape or test.shape != steps.order.shape:
        raise UsageError(f"there are {steps.order.size} scores, so give as many subjects on each side")
    ids, subjects = np.unique(np.concatenate([enroll, test]), return_inverse=True)
    first, second = np.split(subjects.ravel(), 2)
    first, second = first[steps.order], second[steps.order]
    if np.any((first == second) != steps.labels):
        raise UsageError("a genuine trial has one subject, an impostor trial two; some labels say otherwise")
    if ids.size < 2:
        raise UsageError("a bootstrap by subject needs at least two subjects")

    genuine, impostor = steps.labels, ~steps.labels
    rng = np.random.default_rng(seed)
    chunk = max(1, BOOTSTRAP_CELLS // steps.order.size)
    kept: list[Floats] = []
    for start in range(0, replicates, chunk):
        drawn = min(chunk, replicates - start)
        times = rng.multinomial(ids.size, np.full(ids.size, 1.0 / ids.size), size=drawn).astype(np.float64)
        # Weighted counts below each step: sums over the sorted trials of one class, read where the steps
        # begin.
        missed = _running_sums(times[:, first[genuine]])[:, _starts(steps.genuine)]
        pairs = times[:, first[impostor]] * times[:, second[impostor]]
        passed = _running_sums(pairs)[:, _starts(steps.impostor)]
        usable = (missed[:, -1] > 0) & (passed[:, -1] > 0)
        missed, passed = missed[usable], passed[usable]
        if len(missed):
            kept.append(measure(1.0 - passed / passed[:, -1:], missed / missed[:, -1:]))
    values = np.concatenate(kept) if kept else np.empty(0)
    if 2 * values.size < replicates:
        raise UsageError("too few subjects: most resamples have no genuine or no impostor trial")
    edge = 0.5 * (1.0 - confidence)
    low, high = np.quantile(values, [edge, 1.0 - edge])
    fmr, fnmr = _rates(steps)
    estimate = measure(fmr[np.newaxis], fnmr[np.newaxis])[0]
    return BootstrapInterval(float(estimate), float(low), float(high), confidence, int(values.size))


@dataclasses.dataclass(frozen=True, eq=False)
class _Steps:
    """Trials in rising order of score, and how many of each class share each distinct score."""

    order: npt.NDArray[np.intp]  # (n,)
    labels: npt.NDArray[np.bool_]  # (n,), in that order
    scores: Floats  # (k,), distinct
    genuine: npt.NDArray[np.int64]  # (k,)
    impostor: npt.NDArray[np.int64]  # (k,)


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    given, classes = np.asarray(scores), np.asarray(labels)
    if given.dtype.kind not in "fiu" or classes.dtype.kind not in "bfiu":
        raise UsageError(
            f"scores must be real numbers and labels 0 or 1, not {given.dtype} and {classes.dtype}"
        )
    if given.ndim != 1 or given.shape != classes.shape:
        raise UsageError(f"scores and labels must be (n,) both, not {given.shape} and {classes.shape}")
    values = given.astype(np.float64, copy=False)
    if np.isnan(values).any():
        raise UsageError(f"{int(np.isnan(values).sum())} of {values.size} scores are NaN")
    genuine = classes.astype(np.bool_)
    if not np.array_equal(genuine, classes):
        raise UsageError("labels must be 1 (genuine) or 0 (impostor)")
    count = int(genuine.sum())
    if count in (0, genuine.size):
        raise UsageError(
            f"error rates need genuine and impostor trials; there are {count} and {genuine.size - count}"
        )
    return values, genuine


def _steps(scores: npt.ArrayLike, labels: npt.ArrayLike) -> _Steps:
    values, genuine = _checked(scores, labels)
    order = np.argsort(values)
    values, genuine = values[order], genuine[order]
    starts = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    total = np.diff(np.append(starts, values.size))
    matched = np.add.reduceat(genuine.astype(np.int64), starts)
    return _Steps(order, genuine, values[starts], matched, total - matched)


def _starts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts)))


def _running_sums(weights: Floats) -> Floats:
    return np.pad(np.cumsum(weights, axis=1), ((0, 0), (1, 0)))


def _rates(steps: _Steps) -> tuple[Floats, Floats]:
    """FMR falling from 1 to 0 and FNMR rising from 0 to 1, float64 (k + 1,)."""
    missed, passed = _starts(steps.genuine), _starts(steps.impostor)
    return (passed[-1] - passed) / passed[-1], missed / missed[-1]


def _eer(fmr: Floats, fnmr: Floats) -> Floats:
    # The difference rises from -1 to 1, so the first step at or past 0 is never the first of all.
    difference = fnmr - fmr
    after = np.argmax(difference >= 0.0, axis=-1)[..., np.newaxis]
    low = np.take_along_axis(difference, after - 1, axis=-1)
    high = np.take_along_axis(difference, after, axis=-1)
    left = np.take_along_axis(fmr, after - 1, axis=-1)
    right = np.take_along_axis(fmr, after, axis=-1)
    crossing: Floats = left + (right - left) * (low / (low - high))
    return crossing[..., 0]


def _auc(fmr: Floats, fnmr: Floats) -> Floats:
    # Trapezoids give a tie between classes its half.
    area: Floats = np.sum(-np.diff(fmr, axis=-1) * (1.0 - 0.5 * (fnmr[..., 1:] + fnmr[..., :-1])), axis=-1)
    return area


def _min_dcf_with(p_target: float, c_miss: float, c_fa: float) -> Rates:
    if not 0.0 < p_target < 1.0 or not 0.0 < c_miss < np.inf or not 0.0 < c_fa < np.inf:
        raise UsageError(
            f"need 0 < p_target < 1 and costs above 0, not p_target={p_target}, c_miss={c_miss}, c_fa={c_fa}"
        )
    miss, false_match = p_target * c_miss, (1.0 - p_target) * c_fa

    def measure(fmr: Floats, fnmr: Floats) -> Floats:
        lowest: Floats = np.min(miss * fnmr + false_match * fmr, axis=-1) / min(miss, false_match)
        return lowest

    return measure


def _named_metric(metric: str | Rates) -> Rates:
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise UsageError(f"no metric is called {metric!r}; there are {', '.join(METRICS)}")
    return METRICS[metric]


METRICS: dict[str, Rates] = {"eer": _eer, "auc": _auc, "min_dcf": _min_dcf_with(0.01, 1.0, 1.0)}
"""The metrics that a name stands for, as functions of FMR and FNMR (replicates, steps)."""


def _min_cllr(steps: _Steps) -> float:
    genuine, impostor = _pooled(steps.genuine, steps.impostor)
    genuine_total, impostor_total = float(genuine.sum()), float(impostor.sum())
    # A block's LLR is ln(genuine / impostor) less the prior log-odds. Blocks of one class cost nothing, so
    # only mixed ones enter and no infinity is formed.
    mixed = (genuine > 0) & (impostor > 0)
    ratio = (genuine[mixed] / genuine_total) / (impostor[mixed] / impostor_total)
    missed = np.dot(genuine[mixed], np.log1p(1.0 / ratio)) / genuine_total
    matched = np.dot(impostor[mixed], np.log1p(ratio)) / impostor_total
    # Never above what knowing nothing costs, but for rounding.
    return min(1.0, float(0.5 * (missed + matched) / _LN2))


def _pooled(
    genuine: npt.NDArray[np.int64], impostor: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pool adjacent violators: merge neighbors until the genuine share rises strictly.

    Neighbors that violate the order get one value in the isotonic fit, so whole runs of them may merge at
    once. A few such rounds do nearly all the work on real scores; a stack finishes, so that no order of
    trials is slow.
    """
    while True:
        # Shares are compared cross-multiplied, in whole numbers.
        rises = genuine[:-1] * impostor[1:] < genuine[1:] * impostor[:-1]
        starts = np.concatenate(([0], np.flatnonzero(rises) + 1))
        if starts.size == genuine.size:
            return genuine, impostor
        few = starts.size > 0.9 * genuine.size
        genuine, impostor = np.add.reduceat(genuine, starts), np.add.reduceat(impostor, starts)
        if few:
            break
    blocks: list[tuple[int, int]] = []
    for g, i in zip(genuine.tolist(), impostor.tolist(), strict=True):
        while blocks and blocks[-1][0] * i >= g * blocks[-1][1]:
            before = blocks.pop()
            g, i = g + before[0], i + before[1]
        blocks.append((g, i))
    merged = np.array(blocks, dtype=np.int64)
    return merged[:, 0], merged[:, 1]
