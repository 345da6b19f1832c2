"""Fitting the fusion, and choosing its thresholds, from the scores of trials among known people.

Thresholds and error rates are cross-fitted: the people are split into five folds, and the LLR of a trial
between two people comes from a fusion that was fitted without any trial of either of their folds (so without
either person). With five folds that takes 15 fits: one per pair of folds, and one per fold for pairs within
it. The fusion that is kept is fitted on everyone.

Every threshold ignores the floors, which can only reject more: the promised FMR does not lean on them. The
FNMR does count the genuine attempts that a floor rejects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._errors import UsageError
from .._json_fields import rounded
from .evidence import KINDS, Evidence, threshold_for_errors
from .fusion import (
    FACE,
    FACE_AND_VOICE,
    FEATURES,
    LLR_LIMIT,
    MODALITIES,
    VOICE,
    Fusion,
    FusionModel,
    JointModel,
    ScoreCalibration,
    joint_features,
    standardized,
)
from .logistic import fit_logistic
from .measure import MeasuredSet
from .pairs import Pairs
from .policy import DEFAULT_ATTEMPTS
from .trial_set import GENUINE, IMPOSTOR_KINDS, ModalityTrials, TrialSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FOLDS = 5
MIN_PEOPLE = 10
"""Two people a fold; with fewer, a fit without two folds would rest on a handful of pairs."""
FLOOR_FMR = 0.2
"""A modality's floor: the LLR at which that modality alone would falsely match one pair in five."""
PRIOR_STD = 10.0
"""The L2 penalty is a Gaussian prior on each weight: 10 nats per standard deviation of its score, set against
one observation per person. So it fades as people are added, and keeps perfectly separated scores finite.
"""
MIN_SLOPE = 1e-3
"""A modality's slope stays positive, in nats per standard deviation, even if its scores tell nothing."""
Alone = Mapping[str, ModalityTrials]


def calibrate(
    trials: TrialSet,
    *,
    cross_modal: bool,
    alone: Alone | None = None,
    max_attempts: int = DEFAULT_ATTEMPTS,
) -> Fusion:
    """Fit a fusion on `trials`, with cross-fitted thresholds, floors and error rates as its evidence.

    `cross_modal`: whether the encoders were trained on pairs of faces and voices; if not, the cross-modal
    scores are left out. `alone`: by modality ("face", "voice") further trials with it alone, whose people have the
    numbers that they have in `trials`, if they are there: evidence for deciding by that modality alone.
    `max_attempts`: the longest sessions to seek evidence for, at most 5; kept are those of which the trials hold
    enough attempts of every kind. Same trials, same fusion. Raises `UsageError` with fewer than 10 people or
    without trials of every kind, in every fold's complement as well.
    """
    return calibrate_measured(trials, cross_modal=cross_modal, alone=alone, max_attempts=max_attempts)[0]


def calibrate_measured(
    trials: TrialSet, *, cross_modal: bool, alone: Alone | None = None, max_attempts: int = DEFAULT_ATTEMPTS
) -> tuple[Fusion, dict[str, MeasuredSet]]:
    """`calibrate`, and by modality set the trials with their cross-fitted LLRs."""
    people = _people(trials)
    if len(people) < MIN_PEOPLE:
        raise UsageError(
            f"calibration needs at least {MIN_PEOPLE} people, not {len(people)}",
            hint="bring captures of more people; each pair of them counts as evidence",
        )
    l2 = 1.0 / (PRIOR_STD**2 * len(people))
    alone = alone or {}
    model = fit_fusion(trials, cross_modal=cross_modal, l2=l2, alone=alone)
    fitted = cross_fitted_llrs(trials, cross_modal=cross_modal, l2=l2, alone=alone)
    floors, measured = _measured(trials, alone, fitted)
    evidence = Evidence(
        chimeric=trials.chimeric,
        folds=FOLDS,
        floors=floors,
        sets={name: measured[name].evidence(KINDS[name]) for name in MODALITIES},
        sessions={name: measured[name].session_evidence(KINDS[name], max_attempts) for name in MODALITIES},
    )
    return Fusion(model, evidence), measured


def fit_fusion(trials: TrialSet, *, cross_modal: bool, l2: float, alone: Alone | None = None) -> FusionModel:
    """Fit both stages on all of `trials`. Genuine trials weigh 1/2, each kind of impostor 1/6."""
    counts = {kind: int(np.sum(trials.kind == kind)) for kind in (GENUINE, *IMPOSTOR_KINDS)}
    lacking = [kind for kind, number in counts.items() if number == 0]
    if lacking:
        raise UsageError(
            f"too few trials to calibrate: there are none of kind {', '.join(lacking)} among {len(trials)}",
            hint="give trials of every kind, among more people",
        )
    face, voice = (fit_score(modality_trials(trials, name, alone), l2) for name in (FACE, VOICE))
    weights = np.zeros(len(trials))
    for kind, number in counts.items():
        weights[trials.kind == kind] = (1 / 2 if kind == GENUINE else 1 / 6) / number
    features = joint_features(
        face.llr(trials.face), voice.llr(trials.voice), trials.face_voice, trials.voice_face
    )
    joint = _fit_joint(features, trials.genuine, weights, cross_modal, l2)
    return FusionModel(face, voice, joint, cross_modal)


def modality_trials(trials: TrialSet, modality: str, alone: Alone | None = None) -> ModalityTrials:
    """What `trials` say of one modality alone, followed by its trials of `alone`.

    Of the impostors those whose capture in this modality is another's; of the others' nothing, as their captures
    may be those of the genuine trials. Enrollments of different kinds of trial get numbers of their own.
    """
    mask = trials.genuine | _another(trials, modality)
    used = trials.subset(mask)
    enrollment = None
    further = (alone or {}).get(modality)
    if used.enrollment is not None:
        kinds = (GENUINE, *IMPOSTOR_KINDS)
        source = np.argmax(used.kind[:, None] == np.array(kinds), axis=1)
        enrollment = used.enrollment * (len(kinds) + 1) + source
    parts = [ModalityTrials(getattr(used, modality), used.subject_a, used.subject_b, enrollment)]
    if further is not None:
        own = None if further.enrollment is None else further.enrollment * (len(IMPOSTOR_KINDS) + 2) + 4
        parts.append(ModalityTrials(further.score, further.subject_a, further.subject_b, own))
    series = [part.enrollment for part in parts if part.enrollment is not None]
    return ModalityTrials(
        score=np.concatenate([part.score for part in parts]),
        subject_a=np.concatenate([part.subject_a for part in parts]),
        subject_b=np.concatenate([part.subject_b for part in parts]),
        enrollment=np.concatenate(series) if len(series) == len(parts) else None,
    )


def fit_score(trials: ModalityTrials, l2: float) -> ScoreCalibration:
    """Fit one modality's calibration; genuine and impostor trials each weigh 1/2."""
    genuine = trials.genuine
    weights = np.where(genuine, 0.5 / genuine.sum(), 0.5 / (~genuine).sum())
    center, scale = _center_scale(trials.score, weights)
    slope, offset = fit_logistic(
        standardized(trials.score, center, scale)[:, None],
        genuine,
        weights,
        l2=l2,
        lower=np.array([MIN_SLOPE]),
    )
    return ScoreCalibration(center, scale, rounded(float(slope[0])), rounded(offset))


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """LLRs from fusions that were fitted without either of the trial's people.

    `joint`: (trials,) of the `TrialSet`; `each`: by modality the LLRs of its score alone, likewise. `alone`: by
    modality those of `modality_trials`.
    """

    joint: FloatArray
    each: Mapping[str, FloatArray]
    alone: Mapping[str, FloatArray]


def cross_fitted_llrs(
    trials: TrialSet, *, cross_modal: bool, l2: float, alone: Alone | None = None
) -> CrossFitted:
    """Fit 15 fusions, each without the people of two folds (or one), and score those people by it."""
    alone = alone or {}
    each = {modality: modality_trials(trials, modality, alone) for modality in (FACE, VOICE)}
    deal = _Folds(trials, alone)
    joint_folds = deal.of(trials)
    folds = {modality: deal.of(part) for modality, part in each.items()}
    further = {modality: deal.of(part) for modality, part in alone.items()}
    joint = np.full(len(trials), np.nan)
    own = {modality: np.full(len(trials), np.nan) for modality in each}
    llrs = {modality: np.full(len(part), np.nan) for modality, part in each.items()}
    for first in range(FOLDS):
        for second in range(first, FOLDS):
            held_out = {modality: _held_out(sides, first, second) for modality, sides in folds.items()}
            rest = _held_out(joint_folds, first, second)
            if not rest.any() and not any(mask.any() for mask in held_out.values()):
                continue
            model = fit_fusion(
                trials.subset(_seen(joint_folds, first, second)),
                cross_modal=cross_modal,
                l2=l2,
                alone={
                    modality: part.subset(_seen(further[modality], first, second))
                    for modality, part in alone.items()
                },
            )
            theirs = trials.subset(rest)
            joint[rest] = model.joint_llr(theirs.face, theirs.voice, theirs.face_voice, theirs.voice_face)
            for modality, calibration in ((FACE, model.face), (VOICE, model.voice)):
                own[modality][rest] = calibration.llr(getattr(theirs, modality))
                mask = held_out[modality]
                llrs[modality][mask] = calibration.llr(each[modality].score[mask])
    return CrossFitted(joint, own, llrs)


Sides = tuple[IntArray, IntArray]


class _Folds:
    """People in the order of their numbers, dealt in turn: those of the joint trials first, so that each fold has
    its share of them."""

    def __init__(self, trials: TrialSet, alone: Alone) -> None:
        joint = _people(trials)
        others = np.concatenate([joint[:0], *(_people(part) for part in alone.values())])
        dealt = np.concatenate([joint, np.setdiff1d(others, joint)])
        self._order = np.argsort(dealt)
        self._people = dealt[self._order]

    def of(self, trials: TrialSet | ModalityTrials) -> Sides:
        """(trials,) folds of `subject_a` and of `subject_b`."""
        a, b = (
            self._order[np.searchsorted(self._people, side)] % FOLDS
            for side in (trials.subject_a, trials.subject_b)
        )
        return a, b


def _held_out(folds: Sides, first: int, second: int) -> NDArray[np.bool_]:
    a, b = folds
    return np.asarray(((a == first) & (b == second)) | ((a == second) & (b == first)))


def _seen(folds: Sides, first: int, second: int) -> NDArray[np.bool_]:
    a, b = folds
    return np.asarray((a != first) & (a != second) & (b != first) & (b != second))


def _people(trials: TrialSet | ModalityTrials) -> IntArray:
    return np.unique(np.concatenate([trials.subject_a, trials.subject_b]))


def _another(trials: TrialSet, modality: str) -> NDArray[np.bool_]:
    """Whether the trial's capture in this modality is another person's."""
    return np.isin(trials.kind, ("stranger", "other_face" if modality == FACE else "other_voice"))


def _fit_joint(
    features: FloatArray, genuine: NDArray[np.bool_], weights: FloatArray, cross_modal: bool, l2: float
) -> JointModel:
    used = [cross_modal or name not in ("face_voice", "voice_face") for name in FEATURES]
    placed = [
        _center_scale(features[:, column], weights) if use else (0.0, 1.0) for column, use in enumerate(used)
    ]
    columns = [standardized(features[:, column], *placed[column]) for column, use in enumerate(used) if use]
    found, offset = fit_logistic(
        np.column_stack(columns), genuine, weights, l2=l2, lower=np.zeros(len(columns))
    )
    fitted = iter(found.tolist())
    return JointModel(
        center=tuple(center for center, _ in placed),
        scale=tuple(scale for _, scale in placed),
        weights=tuple(rounded(max(0.0, next(fitted))) if use else 0.0 for use in used),
        offset=rounded(offset),
    )


def _center_scale(values: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Weighted mean and standard deviation; 1 for the latter where all values are the same."""
    center = float(weights @ values)
    scale = float(np.sqrt(weights @ (values - center) ** 2))
    return rounded(center), rounded(scale) if scale > 1e-6 else 1.0


def _measured(
    trials: TrialSet, alone: Alone, fitted: CrossFitted
) -> tuple[dict[str, float], dict[str, MeasuredSet]]:
    """By modality the floor, and by modality set the trials with their LLRs."""
    each = {modality: modality_trials(trials, modality, alone) for modality in (FACE, VOICE)}
    floors = {}
    for modality, part in each.items():
        another = ~part.genuine
        pairs = Pairs.of(part.subject_a[another], part.subject_b[another])
        floor = threshold_for_errors(
            fitted.alone[modality][another], pairs.weights, FLOOR_FMR * float(len(pairs))
        )
        floors[modality] = min(floor, LLR_LIMIT) if floor is not None else -LLR_LIMIT
    cleared = np.ones(len(trials), np.bool_)
    measured = {}
    for modality, part in each.items():
        llr = fitted.alone[modality]
        cleared &= fitted.each[modality] >= floors[modality]
        kind = np.where(part.genuine, GENUINE, KINDS[modality][0])
        measured[modality] = MeasuredSet(
            llr, part.subject_a, part.subject_b, kind, llr >= floors[modality], part.enrollment
        )
    measured[FACE_AND_VOICE] = MeasuredSet(
        fitted.joint, trials.subject_a, trials.subject_b, trials.kind, cleared, trials.enrollment
    )
    return floors, measured
