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
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .._errors import UsageError
from .._json_fields import rounded
from .evidence import (
    FMR_LADDER,
    KINDS,
    Evidence,
    KindEvidence,
    OperatingPoint,
    SetEvidence,
    allowed_errors,
    pair_weights,
    threshold_for_errors,
    worst_thresholds,
)
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

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_COLUMNS = ("face", "voice", "face_voice", "voice_face", "subject_a", "subject_b", "kind")

GENUINE = "genuine"
IMPOSTOR_KINDS = KINDS[FACE_AND_VOICE]
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


@dataclass(frozen=True)
class TrialSet:
    """Scores of verification attempts among known people; all arrays are (trials,).

    `face`, `voice`, `face_voice`, `voice_face`: cosines as in `Scores`, all finite. `subject_a`: whose
    enrollment it is. `subject_b`: whose captures were used where they were not the enrolled person's;
    `subject_a` again in genuine trials. `kind`: "genuine", "stranger" (both captures another's),
    "other_voice" (right face, another's voice) or "other_face" (another's face, right voice). `chimeric`: one
    person's face was given another's voice to make up the people. Raises `UsageError` if something does not
    fit together.
    """

    face: FloatArray
    voice: FloatArray
    face_voice: FloatArray
    voice_face: FloatArray
    subject_a: IntArray
    subject_b: IntArray
    kind: NDArray[np.str_]
    chimeric: bool = False

    def __post_init__(self) -> None:
        for name in _COLUMNS[:4]:
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(values).all():
                raise UsageError(f"trials: {name} has scores that are not finite")
            object.__setattr__(self, name, values)
        for name in ("subject_a", "subject_b"):
            values = np.asarray(getattr(self, name))
            if not np.issubdtype(values.dtype, np.integer):
                raise UsageError(f"trials: {name} must be integers, not {values.dtype}")
            object.__setattr__(self, name, values.astype(np.int64))
        object.__setattr__(self, "kind", np.asarray(self.kind, dtype=np.str_))
        shapes = {np.shape(getattr(self, name)) for name in _COLUMNS}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise UsageError("trials: the arrays must have one dimension and one length")
        unknown = sorted(set(self.kind.tolist()) - {GENUINE, *IMPOSTOR_KINDS})
        if unknown:
            raise UsageError(f"trials: unknown kind {', '.join(unknown)}")
        if bool(np.any((self.subject_a == self.subject_b) != (self.kind == GENUINE))):
            raise UsageError("trials: exactly the genuine ones have the same person on both sides")

    def __len__(self) -> int:
        return len(self.kind)

    def subset(self, mask: NDArray[np.bool_]) -> TrialSet:
        """The trials that `mask` (trials,) keeps."""
        return replace(self, **{name: getattr(self, name)[mask] for name in _COLUMNS})


def calibrate(trials: TrialSet, *, cross_modal: bool) -> Fusion:
    """Fit a fusion on `trials`, with cross-fitted thresholds, floors and error rates as its evidence.

    `cross_modal`: whether the encoders were trained on pairs of faces and voices; if not, the cross-modal
    scores are left out. Same trials, same fusion. Raises `UsageError` with fewer than 10 people or without
    trials of every kind, in every fold's complement as well.
    """
    people = np.unique(np.concatenate([trials.subject_a, trials.subject_b]))
    if len(people) < MIN_PEOPLE:
        raise UsageError(
            f"calibration needs at least {MIN_PEOPLE} people, not {len(people)}",
            hint="bring captures of more people; each pair of them counts as evidence",
        )
    l2 = 1.0 / (PRIOR_STD**2 * len(people))
    model = fit_fusion(trials, cross_modal=cross_modal, l2=l2)
    return Fusion(model, _evidence(trials, cross_fitted_llrs(trials, cross_modal=cross_modal, l2=l2)))


def fit_fusion(trials: TrialSet, *, cross_modal: bool, l2: float) -> FusionModel:
    """Fit both stages on all of `trials`. Genuine trials weigh 1/2, each kind of impostor 1/6."""
    counts = {kind: int(np.sum(trials.kind == kind)) for kind in (GENUINE, *IMPOSTOR_KINDS)}
    lacking = [kind for kind, number in counts.items() if number == 0]
    if lacking:
        raise UsageError(
            f"too few trials to calibrate: there are none of kind {', '.join(lacking)} among {len(trials)}",
            hint="give trials of every kind, among more people",
        )
    genuine = trials.kind == GENUINE
    face = _fit_score(trials.face, genuine, _another(trials, FACE), l2)
    voice = _fit_score(trials.voice, genuine, _another(trials, VOICE), l2)
    weights = np.zeros(len(trials))
    for kind, number in counts.items():
        weights[trials.kind == kind] = (1 / 2 if kind == GENUINE else 1 / 6) / number
    features = joint_features(
        face.llr(trials.face), voice.llr(trials.voice), trials.face_voice, trials.voice_face
    )
    joint = _fit_joint(features, genuine, weights, cross_modal, l2)
    return FusionModel(face, voice, joint, cross_modal)


def cross_fitted_llrs(trials: TrialSet, *, cross_modal: bool, l2: float) -> dict[str, FloatArray]:
    """By modality set, (trials,) LLRs, each from a fusion fitted without either of the trial's people."""
    folds_a, folds_b = _folds(trials)
    llrs = {name: np.full(len(trials), np.nan) for name in MODALITIES}
    for first in range(FOLDS):
        for second in range(first, FOLDS):
            held_out = ((folds_a == first) & (folds_b == second)) | ((folds_a == second) & (folds_b == first))
            if not held_out.any():
                continue
            seen = ~(np.isin(folds_a, (first, second)) | np.isin(folds_b, (first, second)))
            model = fit_fusion(trials.subset(seen), cross_modal=cross_modal, l2=l2)
            rest = trials.subset(held_out)
            llrs[FACE][held_out] = model.face.llr(rest.face)
            llrs[VOICE][held_out] = model.voice.llr(rest.voice)
            llrs[FACE_AND_VOICE][held_out] = model.joint_llr(
                rest.face, rest.voice, rest.face_voice, rest.voice_face
            )
    return llrs


def _folds(trials: TrialSet) -> tuple[IntArray, IntArray]:
    """(trials,) folds of `subject_a` and `subject_b`: people in the order of their numbers, dealt in turn."""
    people = np.unique(np.concatenate([trials.subject_a, trials.subject_b]))
    return (
        np.searchsorted(people, trials.subject_a) % FOLDS,
        np.searchsorted(people, trials.subject_b) % FOLDS,
    )


def _another(trials: TrialSet, modality: str) -> NDArray[np.bool_]:
    """Whether the trial's capture in this modality is another person's."""
    return np.isin(trials.kind, ("stranger", "other_face" if modality == FACE else "other_voice"))


def _fit_score(
    scores: FloatArray, genuine: NDArray[np.bool_], another: NDArray[np.bool_], l2: float
) -> ScoreCalibration:
    used = genuine | another
    weights = np.where(genuine, 0.5 / genuine.sum(), 0.5 / another.sum())[used]
    center, scale = _center_scale(scores[used], weights)
    slope, offset = fit_logistic(
        standardized(scores[used], center, scale)[:, None],
        genuine[used],
        weights,
        l2=l2,
        lower=np.array([MIN_SLOPE]),
    )
    return ScoreCalibration(center, scale, rounded(float(slope[0])), rounded(offset))


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


def _evidence(trials: TrialSet, llrs: Mapping[str, FloatArray]) -> Evidence:
    low = np.minimum(trials.subject_a, trials.subject_b)
    high = np.maximum(trials.subject_a, trials.subject_b)
    pairs = np.unique(np.column_stack([low, high]), axis=0, return_inverse=True)[1].reshape(-1)
    floors = {}
    for modality in (FACE, VOICE):
        another = _another(trials, modality)
        weights = pair_weights(pairs[another])
        floor = threshold_for_errors(llrs[modality][another], weights, FLOOR_FMR * float(weights.sum()))
        floors[modality] = min(floor, LLR_LIMIT) if floor is not None else -LLR_LIMIT
    above = {modality: llrs[modality] >= floor for modality, floor in floors.items()}
    sets = {}
    for name, modalities in MODALITIES.items():
        kinds = {}
        for kind in KINDS[name]:
            mask = trials.kind == kind if name == FACE_AND_VOICE else _another(trials, name)
            people = len(np.unique(np.concatenate([trials.subject_a[mask], trials.subject_b[mask]])))
            kinds[kind] = _kind_evidence(llrs[name][mask], pairs[mask], people)
        genuine = trials.kind == GENUINE
        allowed = np.all([above[modality][genuine] for modality in modalities], axis=0)
        sets[name] = _set_evidence(llrs[name][genuine], allowed, trials.subject_a[genuine], kinds)
    return Evidence(chimeric=trials.chimeric, folds=FOLDS, floors=floors, sets=sets)


def _kind_evidence(llr: FloatArray, pairs: IntArray, people: int) -> KindEvidence:
    weights = pair_weights(pairs)
    distinct = len(np.unique(pairs))
    thresholds = []
    for fmr in FMR_LADDER:
        errors = allowed_errors(fmr, distinct)
        if errors is None:
            break
        # Every pair's mean false-match frequency is the sum of its trials' weights; the sum over pairs,
        # rounded up, must not exceed `errors`, which is whole: so the sum itself must not.
        threshold = threshold_for_errors(llr, weights, float(errors))
        if threshold is None or threshold > LLR_LIMIT:
            break  # impostors at the limit of the LLR: no threshold could tell them from genuine attempts
        thresholds.append((fmr, threshold))
    return KindEvidence(distinct, people, len(llr), tuple(thresholds))


def _set_evidence(
    llr: FloatArray, allowed: NDArray[np.bool_], subjects: IntArray, kinds: Mapping[str, KindEvidence]
) -> SetEvidence:
    """`allowed` (trials,): every captured modality cleared its floor."""
    weights = pair_weights(subjects)
    people = len(np.unique(subjects))
    points = tuple(
        OperatingPoint(fmr, threshold, rounded(float(weights @ ~(allowed & (llr >= threshold)) / people)))
        for fmr, threshold in worst_thresholds(kinds)
    )
    return SetEvidence(people, len(llr), kinds, points)
