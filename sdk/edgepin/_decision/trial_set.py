"""Scores of verification attempts among known people: what a calibration is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._errors import UsageError
from .evidence import KINDS
from .fusion import FACE_AND_VOICE

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GENUINE = "genuine"
IMPOSTOR_KINDS = KINDS[FACE_AND_VOICE]

_SCORES = ("face", "voice", "face_voice", "voice_face", "score")


@dataclass(frozen=True)
class ModalityTrials:
    """Attempts with one modality, by people of whom the other need not be known; all arrays are (trials,).

    `score`: cosines, finite. `subject_a`: whose enrollment it is. `subject_b`: whose capture was tried on it; the
    same person in genuine trials. `enrollment`: as in `TrialSet`. Raises `UsageError` if something does not fit
    together.
    """

    score: FloatArray
    subject_a: IntArray
    subject_b: IntArray
    enrollment: IntArray | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.score)

    @property
    def genuine(self) -> NDArray[np.bool_]:
        """bool (trials,): the capture is the enrolled person's."""
        return np.asarray(self.subject_a == self.subject_b)

    def subset(self, mask: NDArray[np.bool_]) -> ModalityTrials:
        """The trials that `mask` (trials,) keeps."""
        return _subset(self, mask)


@dataclass(frozen=True)
class TrialSet:
    """Attempts with face and voice; all arrays are (trials,).

    `face`, `voice`, `face_voice`, `voice_face`: cosines as in `Scores`, all finite. `subject_a`: whose
    enrollment it is. `subject_b`: whose captures were used where they were not the enrolled person's;
    `subject_a` again in genuine trials. `kind`: "genuine", "stranger" (both captures another's),
    "other_voice" (right face, another's voice) or "other_face" (another's face, right voice). `chimeric`: one
    person's face was given another's voice to make up the people. `enrollment`: numbers that tell the
    enrollments of one person apart; attempts of one kind by one person on one enrollment, each with captures
    of its own, may follow each other in a session. Without it nothing is known of sessions. Raises
    `UsageError` if something does not fit together.
    """

    face: FloatArray
    voice: FloatArray
    face_voice: FloatArray
    voice_face: FloatArray
    subject_a: IntArray
    subject_b: IntArray
    kind: NDArray[np.str_]
    chimeric: bool = False
    enrollment: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", np.asarray(self.kind, dtype=np.str_))
        _check(self)
        unknown = sorted(set(np.unique(self.kind).tolist()) - {GENUINE, *IMPOSTOR_KINDS})
        if unknown:
            raise UsageError(f"trials: unknown kind {', '.join(unknown)}")
        if bool(np.any((self.subject_a == self.subject_b) != self.genuine)):
            raise UsageError("trials: exactly the genuine ones have the same person on both sides")

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def genuine(self) -> NDArray[np.bool_]:
        """bool (trials,): both captures are the enrolled person's."""
        return np.asarray(self.kind == GENUINE)

    def subset(self, mask: NDArray[np.bool_]) -> TrialSet:
        """The trials that `mask` (trials,) keeps."""
        return _subset(self, mask)


T = TypeVar("T", TrialSet, ModalityTrials)


def _arrays(trials: TrialSet | ModalityTrials) -> dict[str, NDArray[Any]]:
    values = {field.name: getattr(trials, field.name) for field in fields(trials)}
    return {name: value for name, value in values.items() if name != "chimeric" and value is not None}


def _subset(trials: T, mask: NDArray[np.bool_]) -> T:
    kept: dict[str, Any] = {name: value[mask] for name, value in _arrays(trials).items()}
    return replace(trials, **kept)


def _check(trials: TrialSet | ModalityTrials) -> None:
    for name, given in _arrays(trials).items():
        if name in _SCORES:
            values = np.asarray(given, dtype=np.float64)
            if not np.isfinite(values).all():
                raise UsageError(f"trials: {name} has scores that are not finite")
            object.__setattr__(trials, name, values)
        elif name != "kind":
            numbers = np.asarray(given)
            if not np.issubdtype(numbers.dtype, np.integer):
                raise UsageError(f"trials: {name} must be integers, not {numbers.dtype}")
            object.__setattr__(trials, name, numbers.astype(np.int64))
    shapes = {np.shape(value) for value in _arrays(trials).values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise UsageError("trials: the arrays must have one dimension and one length")
