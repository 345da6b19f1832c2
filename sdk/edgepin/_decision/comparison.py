"""How a fusion decides on a site's own trials: error rates with intervals by subject, and DET points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import BootstrapInterval, bootstrap_by_subject, cllr, min_cllr, rate_by_subject
from .calibration import Alone, modality_trials
from .evidence import KINDS, OperatingPoint
from .fusion import FACE, FACE_AND_VOICE, MODALITIES, VOICE, Fusion
from .measure import MeasuredSet
from .trial_set import GENUINE, TrialSet

FloatArray = NDArray[np.float64]

DET_POINTS = 200
REPLICATES = 500
MAX_BOOTSTRAPPED = 60_000
"""EER and minDCF are resampled on at most so many trials: sorting them takes the time."""


def apply_fusion(fusion: Fusion, trials: TrialSet, alone: Alone | None = None) -> dict[str, MeasuredSet]:
    """By modality set the trials with the LLRs of a fusion that was fitted on none of their people."""
    measured = {}
    model, floors = fusion.model, fusion.evidence.floors
    cleared = np.ones(len(trials), np.bool_)
    for modality, calibration in ((FACE, model.face), (VOICE, model.voice)):
        part = modality_trials(trials, modality, alone)
        llr = calibration.llr(part.score)
        own = llr >= floors[modality]
        cleared &= calibration.llr(getattr(trials, modality)) >= floors[modality]
        kind = np.where(part.genuine, GENUINE, KINDS[modality][0])
        measured[modality] = MeasuredSet(llr, part.subject_a, part.subject_b, kind, own, part.enrollment)
    measured[FACE_AND_VOICE] = MeasuredSet(
        model.joint_llr(trials.face, trials.voice, trials.face_voice, trials.voice_face),
        trials.subject_a, trials.subject_b, trials.kind, cleared, trials.enrollment,
    )  # fmt: skip
    return measured


def describe(fusion: Fusion, measured: Mapping[str, MeasuredSet]) -> dict[str, Any]:
    """By modality set: `point` (the default policy's), `fnmr`, `fmr` by kind of impostor
    at it, `eer`, `min_dcf`, `cllr`, `min_cllr`, and `det`, rows of threshold, FMR of the worst kind, FNMR.

    FNMR and FMR count the floors. Intervals are `rate`, `low`, `high`: 95 %, by subject bootstrap.
    """
    return {name: _describe(name, fusion, measured[name]) for name in MODALITIES}


def det_points(measured: MeasuredSet, points: int = DET_POINTS) -> list[tuple[float, float, float]]:
    """Rows of threshold, FMR of the worst kind of impostor there, FNMR: steps at quantiles of the LLRs."""
    genuine = np.sort(measured.llr[measured.kind == GENUINE])
    impostors = [
        np.sort(measured.llr[measured.kind == kind]) for kind in np.unique(measured.kind) if kind != GENUINE
    ]
    # Half of the steps where genuine trials fall, half by order of magnitude of the FMR.
    tail = 1.0 - np.logspace(0.0, -np.log10(max(len(scores) for scores in impostors)), points // 2)
    steps = np.unique(
        np.concatenate(
            [np.quantile(genuine, np.linspace(0.0, 1.0, points // 2))]
            + [np.quantile(scores, tail) for scores in impostors]
        )
    )
    fnmr = np.searchsorted(genuine, steps, side="left") / len(genuine)
    fmr = np.max(
        [1.0 - np.searchsorted(scores, steps, side="left") / len(scores) for scores in impostors], axis=0
    )
    rows = zip(steps.tolist(), fmr.tolist(), fnmr.tolist(), strict=True)
    return [(round(step, 4), rate, missed) for step, rate, missed in rows]


def _describe(name: str, fusion: Fusion, measured: MeasuredSet) -> dict[str, Any]:
    genuine = measured.kind == GENUINE
    point = fusion.evidence.sets[name].usual
    used = _thinned(len(genuine))
    sides = (measured.subject_a[used], measured.subject_b[used])

    def resampled(metric: Any) -> dict[str, float]:
        return interval(
            bootstrap_by_subject(measured.llr[used], genuine[used], *sides, metric, replicates=REPLICATES)
        )

    return {
        "people": len(np.unique(measured.subject_a[genuine])),
        "genuine": int(genuine.sum()),
        "impostor": int((~genuine).sum()),
        "point": None if point is None else {"fmr": point.fmr, "threshold": point.threshold},
        "fnmr": None if point is None else _fnmr(measured, point),
        "fmr": {kind: None if point is None else _fmr(measured, kind, point) for kind in KINDS[name]},
        "eer": resampled("eer"),
        "min_dcf": resampled("min_dcf"),
        "cllr": _cllr(measured),
        "min_cllr": min_cllr(measured.llr, genuine),
        "det": det_points(measured),
    }


def interval(value: BootstrapInterval) -> dict[str, float]:
    """As JSON."""
    return {"rate": value.estimate, "low": value.low, "high": value.high}


def _fmr(measured: MeasuredSet, kind: str, point: OperatingPoint) -> dict[str, float]:
    mask = measured.kind == kind
    passed = (measured.llr >= point.threshold) & measured.cleared
    return interval(
        rate_by_subject(
            passed[mask], measured.subject_a[mask], measured.subject_b[mask], replicates=REPLICATES
        )
    )


def _fnmr(measured: MeasuredSet, point: OperatingPoint) -> dict[str, float]:
    mask = measured.kind == GENUINE
    missed = ~((measured.llr >= point.threshold) & measured.cleared)
    return interval(
        rate_by_subject(
            missed[mask], measured.subject_a[mask], measured.subject_a[mask], replicates=REPLICATES
        )
    )


def _cllr(measured: MeasuredSet) -> dict[str, float]:
    """Cllr in bits: half the mean cost of genuine trials and half that of impostors, resampled each by subject."""
    genuine = measured.kind == GENUINE
    cost = np.logaddexp(0.0, np.where(genuine, -measured.llr, measured.llr)) / np.log(2.0)
    halves = [
        rate_by_subject(cost[mask], measured.subject_a[mask], measured.subject_b[mask], replicates=REPLICATES)
        for mask in (genuine, ~genuine)
    ]
    value = cllr(measured.llr, genuine)
    # The two halves share people, so their errors are added, not squared and added: never too narrow.
    return {
        "rate": value,
        "low": 0.5 * sum(half.low for half in halves),
        "high": 0.5 * sum(half.high for half in halves),
    }


def _thinned(count: int) -> NDArray[np.int64]:
    """Every k-th trial, so that there are at most `MAX_BOOTSTRAPPED`."""
    return np.arange(0, count, -(-count // MAX_BOOTSTRAPPED), dtype=np.int64)
