"""From LLRs of trials among known people to the evidence of one modality set, for attempts and for sessions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._json_fields import rounded
from .evidence import (
    FMR_LADDER,
    MAX_SESSION_ATTEMPTS,
    KindEvidence,
    OperatingPoint,
    SessionEvidence,
    SetEvidence,
    allowed_errors,
    threshold_for_errors,
    worst_thresholds,
)
from .fusion import LLR_LIMIT
from .pairs import Pairs
from .sessions import draw_sessions, session_statistic
from .trial_set import GENUINE

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bools = NDArray[np.bool_]

MIN_EVENTS = 5
"""How dependent pairs are is measured where at least this many are falsely matched: fewer tell nothing of it,
and at a looser threshold pairs are, if anything, more dependent.
"""


@dataclass(frozen=True, eq=False)
class MeasuredSet:
    """Trials of one modality set with their LLRs; all arrays are (trials,).

    `kind`: "genuine", or the kind of impostor. `cleared`: every captured modality reached its floor; no
    threshold leans on it. `enrollment`: as in `TrialSet`.
    """

    llr: FloatArray
    subject_a: IntArray
    subject_b: IntArray
    kind: NDArray[np.str_]
    cleared: Bools
    enrollment: IntArray | None = None

    def evidence(self, kinds: tuple[str, ...]) -> SetEvidence:
        """Thresholds for each kind of impostor, and what they cost."""
        tables = {kind: self._of_kind(kind) for kind in kinds}
        genuine = self.kind == GENUINE
        llr, cleared = self.llr[genuine], self.cleared[genuine]
        people = Pairs.of(self.subject_a[genuine], self.subject_a[genuine])
        points = tuple(
            OperatingPoint(
                fmr, threshold, rounded(float(people.means(~(cleared & (llr >= threshold))).mean()))
            )
            for fmr, threshold in worst_thresholds(tables)
        )
        return SetEvidence(len(people), len(llr), tables, points)

    def session_evidence(self, kinds: tuple[str, ...], max_attempts: int) -> SessionEvidence:
        """The same on sessions of 2, 3, … attempts, as far as every kind has some and they carry an FMR."""
        # A genuine attempt that a floor refuses counts for nothing. An impostor's is left in: no threshold leans
        # on the floors.
        counted = np.where(self.cleared | (self.kind != GENUINE), self.llr, -LLR_LIMIT)
        tables: list[SetEvidence] = []
        for attempts in range(2, min(max_attempts, MAX_SESSION_ATTEMPTS) + 1):
            sessions = replace(self, llr=counted).sessions(kinds, attempts)
            table = None if sessions is None else sessions.evidence(kinds)
            if table is None or not table.points:
                break
            tables.append(table)
        return SessionEvidence(tuple(tables))

    def sessions(self, kinds: tuple[str, ...], attempts: int) -> MeasuredSet | None:
        """Whole sessions as trials, with the statistic of all their attempts as LLR; `None` if a kind has none."""
        if self.enrollment is None:
            return None
        drawn = []
        series = _numbered(self.enrollment, self.subject_b, self.subject_a)
        for kind in (GENUINE, *kinds):
            of_kind = np.flatnonzero(self.kind == kind)
            drawn.append(of_kind[draw_sessions(series[of_kind], attempts)])
            if not len(drawn[-1]):
                return None
        trials = np.concatenate(drawn)
        first = trials[:, 0]
        return MeasuredSet(
            session_statistic(self.llr[trials]),
            self.subject_a[first],
            self.subject_b[first],
            self.kind[first],
            np.ones(len(trials), np.bool_),
        )

    def _of_kind(self, kind: str) -> KindEvidence:
        mask = self.kind == kind
        return kind_evidence(self.llr[mask], Pairs.of(self.subject_a[mask], self.subject_b[mask]))


def kind_evidence(llr: FloatArray, pairs: Pairs) -> KindEvidence:
    """Thresholds for the LLRs (trials,) of one kind of impostor, as far down the ladder as the pairs carry."""
    weights = pairs.weights
    order = np.sort(llr)
    thresholds: list[tuple[float, float]] = []
    counted: list[int] = []
    for fmr in FMR_LADDER:
        # Where about this many pairs pass: the dependence that matters for this FMR.
        events = min(max(fmr * len(pairs), float(MIN_EVENTS)), 0.5 * len(pairs))
        near = threshold_for_errors(llr, weights, events)
        effective = pairs.effective(llr >= (order[0] if near is None else near))
        errors = allowed_errors(fmr, int(effective))
        if errors is None:
            break
        # Of pairs that count for fewer, as much more may pass. Every pair's mean false-match frequency is the sum
        # of its trials' weights; the sum over pairs, rounded up, must not exceed a whole number: so the sum itself.
        threshold = threshold_for_errors(llr, weights, errors * len(pairs) / int(effective))
        if threshold is None or threshold > LLR_LIMIT:
            break  # impostors at the limit of the LLR: no threshold could tell them from genuine attempts
        if thresholds:
            threshold = max(threshold, thresholds[-1][1])
        thresholds.append((fmr, threshold))
        counted.append(int(effective))
    return KindEvidence(len(pairs), pairs.people, len(llr), tuple(thresholds), tuple(counted))


def _numbered(*columns: IntArray) -> IntArray:
    """One number for each distinct row."""
    number = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        own = np.unique(column, return_inverse=True)[1].reshape(-1)
        number = np.unique(number * (int(own.max(initial=0)) + 1) + own, return_inverse=True)[1].reshape(-1)
    return number.astype(np.int64)
