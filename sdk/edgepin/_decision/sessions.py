"""Several attempts of one person as one decision: accept, reject, or another attempt please.

A session of at most N attempts has one threshold, calibrated on whole sessions: how often does a person who is
not the enrolled one get accepted *within* N attempts? Attempts of one person are dependent, and the sessions
are drawn within pairs of people, so that dependence is in the figure. The sequential test of Wald (1945) is not
used: its bounds suppose independent attempts, and correlated ones exceed them several-fold.

After each attempt the statistic of all so far is held against the threshold. It is the mean of the two highest
LLRs, or the highest less `SINGLE_MARGIN`, whichever is more: two good attempts confirm each other, one very good
one is enough, and a bad capture does no harm. It never falls as attempts are added, so what is accepted within
N attempts is what the statistic of all N accepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import PolicyError, UsageError
from .evidence import MAX_SESSION_ATTEMPTS, SessionEvidence, SetEvidence
from .fusion import LLR_LIMIT, MODALITY_SETS, Fusion, Scores
from .policy import Policy, Reason, ResolvedSet, allowed_attempts, floor_reasons, resolve, resolve_set

__all__ = [
    "NOT_COUNTED",
    "SINGLE_MARGIN",
    "ResolvedSession",
    "SessionEvidence",
    "SessionVerdict",
    "attempt_llr",
    "decide",
    "decide_session",
    "draw_sessions",
    "resolve_session",
    "session_statistic",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Outcome = Literal["accept", "reject", "another"]

SINGLE_MARGIN = 2.0
"""Nats that a single attempt needs more than two that confirm each other. In simulations (benchmarks/sessions.py)
this is near the best of a range of statistics, whether attempts are correlated or not and whether captures fail
or not.
"""
_ORDERS = 4
"""How many times the attempts of a series are dealt into a session; each pair weighs the same however many."""
NOT_COUNTED = -LLR_LIMIT
"""The LLR of an attempt that brings its session nothing."""


def session_statistic(llrs: FloatArray) -> FloatArray:
    """(sessions, attempts) LLRs of the attempts so far -> (sessions,)."""
    if llrs.shape[1] == 1:
        return np.asarray(llrs[:, 0] - SINGLE_MARGIN, dtype=np.float64)
    ordered = np.partition(llrs, -2, axis=1)
    best, second = ordered[:, -1], ordered[:, -2]
    return np.asarray(np.maximum(best - SINGLE_MARGIN, 0.5 * (best + second)), dtype=np.float64)


def draw_sessions(series: IntArray, attempts: int, seed: int = 0) -> IntArray:
    """Sessions of `attempts` distinct trials, (sessions, attempts) indices, each within one series.

    `series` (trials,): trials of one number are attempts of one kind by one person on one enrollment. Series with
    fewer trials give none.
    """
    rng = np.random.default_rng(seed)
    _, numbers, counts = np.unique(series, return_inverse=True, return_counts=True)
    numbers = numbers.reshape(-1)
    starts = np.cumsum(counts) - counts
    orders = _ORDERS if bool(np.any(counts > attempts)) else 1
    drawn = []
    for _ in range(orders):
        order = np.lexsort((rng.random(len(series)), numbers))
        first = starts[counts >= attempts]
        drawn.append(order[first[:, None] + np.arange(attempts)])
    return np.concatenate(drawn).astype(np.int64)


@dataclass(frozen=True)
class ResolvedSession:
    """A policy for sessions of `attempts`: by modality set an operating point of whole sessions, or a refusal."""

    attempts: int
    sets: Mapping[str, ResolvedSet]
    floors: Mapping[str, float]


@dataclass(frozen=True)
class SessionVerdict:
    """The answer after the attempts so far.

    `outcome`: "accept" or "reject", which end the session, or "another": one more attempt, please. `attempt`: the
    number of the attempt that was just made, from 1. `statistic`: what is held against `threshold` (both LLRs);
    `fmr`: how often a session accepts an impostor at most. `reasons`: at least one; of an acceptance exactly one.
    """

    outcome: Outcome
    attempt: int
    attempts: int
    statistic: float
    threshold: float | None
    fmr: float | None
    reasons: tuple[Reason, ...]


def resolve_session(policy: Policy, fusion: Fusion, attempts: int | None = None) -> ResolvedSession:
    """Hold `policy` against the evidence for sessions of `attempts` (default: as many as the policy allows).

    Raises `PolicyError` for more attempts than the policy or the evidence allows, and for an FMR that face and voice
    do not carry in such a session; a modality alone that does not carry it is refused by itself.
    """
    most = allowed_attempts(policy, fusion)
    wanted = most if attempts is None else attempts
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= MAX_SESSION_ATTEMPTS:
        raise UsageError(f"a session has 1 to {MAX_SESSION_ATTEMPTS} attempts, not {wanted!r}")
    if wanted > most:
        raise PolicyError(
            f"the policy and the evidence allow sessions of {most} attempt{'s' if most > 1 else ''}, not {wanted}",
            hint="longer sessions take more captures of each calibration person: one more than the attempts",
        )
    if wanted == 1:
        one = resolve(policy, fusion)
        return ResolvedSession(1, one.sets, one.floors)
    return ResolvedSession(
        wanted,
        {name: resolve_set(policy, name, session_table(fusion, name, wanted)) for name in MODALITY_SETS},
        dict(fusion.evidence.floors),
    )


def session_table(fusion: Fusion, name: str, attempts: int) -> SetEvidence | None:
    """The evidence of one modality set for sessions of `attempts`; `None` if there is none."""
    if attempts == 1:
        return fusion.evidence.sets[name]
    evidence = fusion.evidence.sessions[name]
    return evidence.tables[attempts - 2] if attempts <= evidence.max_attempts else None


def attempt_llr(
    scores: Scores, fusion: Fusion, floors: Mapping[str, float]
) -> tuple[float, tuple[Reason, ...]]:
    """The LLR of one attempt, and why it counts for nothing in its session if it does.

    Whoever keeps the session enters an attempt with a reason as `NOT_COUNTED`, so that it neither is accepted nor
    helps a later one. Raises `UsageError` if there is neither face nor voice, or if both are there without the
    cross-modal scores that the fusion weighs.
    """
    if not scores.finite:
        reason = Reason("not_finite", "a score is not a finite number; nothing was decided on it")
        return NOT_COUNTED, (reason,)
    return fusion.llr(scores), floor_reasons(scores, fusion, floors)


def decide_session(
    llrs: Sequence[float],
    resolved: ResolvedSession,
    *,
    captured: str = "face+voice",
    reasons: Sequence[Reason] = (),
) -> SessionVerdict:
    """Decide after the attempts so far, whose LLRs `llrs` are, in order; all of one modality set, `captured`.

    Of those before the last, the ones that count for nothing are given as `NOT_COUNTED`. `reasons` is why the last one
    does; it is then held against the threshold only to say what else is wrong. The attempt that accepts must
    have none, and must reach the threshold together with those before it. A NaN is the lowest LLR. Raises
    `UsageError` without attempts, and for more than the session has.
    """
    number = len(llrs)
    if not 1 <= number <= resolved.attempts:
        raise UsageError(f"attempt {number} of a session of {resolved.attempts}")
    last: Outcome = "reject" if number == resolved.attempts else "another"
    held = [llr if llr >= NOT_COUNTED else NOT_COUNTED for llr in llrs]  # NaN is below everything
    statistic = held[0] if resolved.attempts == 1 else float(session_statistic(np.array([held]))[0])
    chosen = resolved.sets[captured]
    point = chosen.point
    if point is None:
        refusal = chosen.refusal or Reason("no_calibration", f"{captured} is not calibrated")
        return SessionVerdict("reject", number, resolved.attempts, statistic, None, None, (refusal,))
    found = list(reasons)
    # Written so that NaN rejects.
    if not statistic >= point.threshold:
        found.insert(
            0,
            Reason(
                "below_threshold",
                f"{_after(number, resolved.attempts)}LLR {statistic:.2f} is below {point.threshold:.2f}, "
                f"which FMR {point.fmr:g} needs",
            ),
        )
    outcome: Outcome = "accept"
    if found:
        outcome = last
        if last == "another":
            found.append(Reason("another_sample", f"{resolved.attempts - number} more attempts are left"))
    else:
        found.append(
            Reason(
                "accepted",
                f"LLR {statistic:.2f} reaches {point.threshold:.2f}, which FMR {point.fmr:g} needs",
            )
        )
    return SessionVerdict(
        outcome, number, resolved.attempts, statistic, point.threshold, point.fmr, tuple(found)
    )


def decide(scores: Scores, fusion: Fusion, resolved: ResolvedSession) -> SessionVerdict:
    """Decide the first attempt of a session, made for the same fusion; of one attempt, that is the whole of it.

    Accepted only if the LLR reaches the threshold and each captured modality its floor. Raises as `attempt_llr`.
    """
    llr, reasons = attempt_llr(scores, fusion, resolved.floors)
    return decide_session([llr], resolved, captured=scores.captured, reasons=reasons)


def _after(number: int, attempts: int) -> str:
    return "" if attempts == 1 else f"after {number} of {attempts} attempts: "
