"""From the scores of one verification attempt to one log-likelihood ratio.

A model of its own stands for each set of captured modalities: `face+voice`, `face` and `voice`.

1. Each modality's cosine becomes a log-likelihood ratio (LLR, natural logarithm) by an affine calibration.
2. With both captured, a second calibration takes the two LLRs, the two cross-modal cosines and `both`, the
LLR of
   "both are genuine" against "one of them is forged" (`both_genuine_llr`), with weights that are not
   negative: no score can rise and lower the result.

The joint LLR answers "both are the enrolled person's" against an equal mixture of three impostors: a stranger
(face and voice of another), the right face with another's voice, the right voice with another's face.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import BundleError, UsageError
from .._json_fields import count, fields, flag, items, number
from .evidence import Evidence

FloatArray = NDArray[np.float64]

FUSION_FORMAT = 2
LLR_LIMIT = 30.0
"""No LLR leaves [-30, 30]: e^30 is beyond what any calibration set can tell."""
SPAN = 8.0
"""A score further than this many standard deviations from the fitted center counts as at that distance."""
FEATURES = ("face", "voice", "face_voice", "voice_face", "both")
"""What the joint model weighs, in the order of its arrays."""
FACE_AND_VOICE, FACE, VOICE = "face+voice", "face", "voice"
MODALITY_SETS = (FACE_AND_VOICE, FACE, VOICE)
MODALITIES: Mapping[str, tuple[str, ...]] = {
    FACE_AND_VOICE: (FACE, VOICE),
    FACE: (FACE,),
    VOICE: (VOICE,),
}


@dataclass(frozen=True)
class Scores:
    """Cosines of one verification attempt; `None` where nothing was captured or enrolled.

    `face`: enrolled face × probe face, identity heads. `voice`: enrolled voice × probe voice, identity heads.
    `face_voice`: enrolled face × probe voice, pin heads. `voice_face`: enrolled voice × probe face, pin
    heads.
    """

    face: float | None
    voice: float | None
    face_voice: float | None = None
    voice_face: float | None = None

    @property
    def captured(self) -> str:
        """The set of modalities that can be compared; `UsageError` if there is none."""
        if self.face is None and self.voice is None:
            raise UsageError(
                "there is neither a face score nor a voice score",
                hint="capture a modality that is enrolled; cross-modal scores alone cannot verify a person",
            )
        if self.voice is None:
            return FACE
        return VOICE if self.face is None else FACE_AND_VOICE

    @property
    def finite(self) -> bool:
        """Whether no given score is NaN or infinite."""
        given = (self.face, self.voice, self.face_voice, self.voice_face)
        return all(math.isfinite(score) for score in given if score is not None)


def both_genuine_llr(face_llr: FloatArray, voice_llr: FloatArray) -> FloatArray:
    """-log(e^-lf + e^-lv): the LLR of "both genuine" against "one of them forged", up to a constant.

    Let face and voice be independent given who gave them, g for genuine and i for impostor. Half-forged
    attempts of both kinds, equally likely, have the density ½ p(f|i) p(v|g) + ½ p(f|g) p(v|i). The ratio of
    p(f|g) p(v|g) to it, divided through by its numerator, is 1 / (½ e^-lf + ½ e^-lv), with lf = log
    p(f|g)/p(f|i) and lv likewise. Its logarithm is log 2 - log(e^-lf + e^-lv); the constant belongs to the
    intercept. It is a soft minimum: the weaker modality decides, which no weighted sum of lf and lv can say.
    """
    return np.asarray(-np.logaddexp(-face_llr, -voice_llr), dtype=np.float64)


@dataclass(frozen=True)
class ScoreCalibration:
    """LLR = slope · (score - center) / scale + offset; `scale` is the calibration scores' standard deviation.

    The slope is positive. Scores beyond `SPAN` standard deviations count as at that distance.
    """

    center: float
    scale: float
    slope: float
    offset: float

    def llr(self, score: FloatArray) -> FloatArray:
        """(trials,) cosines -> (trials,) LLRs in [-30, 30]."""
        values = self.slope * standardized(score, self.center, self.scale) + self.offset
        return np.asarray(np.clip(values, -LLR_LIMIT, LLR_LIMIT), dtype=np.float64)

    def llr_of(self, score: float) -> float:
        """`llr` of one cosine, without numpy: a decision takes a fifth of the time."""
        value = self.slope * _standardized_one(score, self.center, self.scale) + self.offset
        return min(max(value, -LLR_LIMIT), LLR_LIMIT)

    def to_json(self) -> dict[str, Any]:
        return {"center": self.center, "scale": self.scale, "slope": self.slope, "offset": self.offset}

    @classmethod
    def from_json(cls, value: object, where: str) -> ScoreCalibration:
        found = fields(value, ("center", "scale", "slope", "offset"), where)
        return cls(
            center=number(found["center"], f"{where}.center"),
            scale=number(found["scale"], f"{where}.scale", positive=True),
            slope=number(found["slope"], f"{where}.slope", positive=True),
            offset=number(found["offset"], f"{where}.offset"),
        )


def standardized(values: FloatArray, center: float, scale: float) -> FloatArray:
    """(values - center) / scale, held to ±`SPAN`; NaN stays NaN."""
    held = np.clip(values, center - SPAN * scale, center + SPAN * scale)
    return np.asarray((held - center) / scale, dtype=np.float64)


def _standardized_one(value: float, center: float, scale: float) -> float:
    held = min(max(value, center - SPAN * scale), center + SPAN * scale)  # a NaN, first, stays
    return (held - center) / scale


@dataclass(frozen=True)
class JointModel:
    """LLR = offset + Σ weight · (feature - center) / scale over the five `FEATURES`; no weight < 0."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    offset: float

    def llr(self, features: FloatArray) -> FloatArray:
        """(trials, 5) features -> (trials,) LLRs in [-30, 30]."""
        total = np.full(len(features), self.offset)
        for column, (center, scale, weight) in enumerate(
            zip(self.center, self.scale, self.weights, strict=True)
        ):
            if weight > 0.0:
                total = total + weight * standardized(features[:, column], center, scale)
        return np.asarray(np.clip(total, -LLR_LIMIT, LLR_LIMIT), dtype=np.float64)

    def llr_of(self, features: tuple[float, ...]) -> float:
        """`llr` of one trial's five features."""
        total = self.offset
        for value, center, scale, weight in zip(features, self.center, self.scale, self.weights, strict=True):
            if weight > 0.0:
                total += weight * _standardized_one(value, center, scale)
        return min(max(total, -LLR_LIMIT), LLR_LIMIT)

    def to_json(self) -> dict[str, Any]:
        return {
            "center": list(self.center),
            "scale": list(self.scale),
            "weights": list(self.weights),
            "offset": self.offset,
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> JointModel:
        found = fields(value, ("center", "scale", "weights", "offset"), where)

        def five(key: str, **limits: Any) -> tuple[float, ...]:
            place = f"{where}.{key}"
            return tuple(number(item, place, **limits) for item in items(found[key], place, length=5))

        return cls(
            center=five("center"),
            scale=five("scale", positive=True),
            weights=five("weights", low=0.0),
            offset=number(found["offset"], f"{where}.offset"),
        )


@dataclass(frozen=True)
class FusionModel:
    """The calibrations alone, with no evidence for a threshold.

    `cross_modal` says whether the encoders were trained on pairs of faces and voices. If not, the cross-modal
    scores mean nothing, the fit leaves them out and their weights are 0.
    """

    face: ScoreCalibration
    voice: ScoreCalibration
    joint: JointModel
    cross_modal: bool

    def joint_llr(
        self, face: FloatArray, voice: FloatArray, face_voice: FloatArray, voice_face: FloatArray
    ) -> FloatArray:
        """Cosines, each (trials,) -> (trials,) joint LLRs. Cosines of weight 0 are not read."""
        return self.joint.llr(
            joint_features(self.face.llr(face), self.voice.llr(voice), face_voice, voice_face)
        )


def joint_features(
    face_llr: FloatArray, voice_llr: FloatArray, face_voice: FloatArray, voice_face: FloatArray
) -> FloatArray:
    """(trials, 5): the columns that `FEATURES` names."""
    both = both_genuine_llr(face_llr, voice_llr)
    return np.column_stack([face_llr, voice_llr, face_voice, voice_face, both])


@dataclass(frozen=True)
class Fusion:
    """A fitted fusion with the evidence behind its thresholds; made by `calibrate`, kept in the bundle."""

    model: FusionModel
    evidence: Evidence

    def modality_llr(self, modality: str, score: float) -> float:
        """The LLR of one modality ("face" or "voice") alone."""
        calibration = self.model.face if modality == FACE else self.model.voice
        return calibration.llr_of(score)

    def llr(self, scores: Scores) -> float:
        """The LLR of the captured set in [-30, 30]; NaN if a score that it weighs is NaN.

        Raises `UsageError` if there is neither face nor voice, or if both are there without the cross-modal
        scores that the model weighs.
        """
        captured = scores.captured
        if captured == FACE:
            return self.modality_llr(FACE, _given(scores.face))
        if captured == VOICE:
            return self.modality_llr(VOICE, _given(scores.voice))
        cross = (scores.face_voice, scores.voice_face)
        if self.model.cross_modal and None in cross:
            raise UsageError("face and voice need their two cross-modal scores as well")
        face, voice = (
            self.modality_llr(FACE, _given(scores.face)),
            self.modality_llr(VOICE, _given(scores.voice)),
        )
        # As in `both_genuine_llr`.
        both = min(face, voice) - math.log1p(math.exp(-abs(face - voice)))
        face_voice, voice_face = (0.0 if score is None else score for score in cross)
        return self.model.joint.llr_of((face, voice, face_voice, voice_face, both))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; the same fusion gives the same bytes."""
        return {
            "format": FUSION_FORMAT,
            "cross_modal": self.model.cross_modal,
            "face": self.model.face.to_json(),
            "voice": self.model.voice.to_json(),
            "joint": self.model.joint.to_json(),
            "evidence": self.evidence.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Fusion:
        """Read what `to_json` wrote.

        Anything else (an unknown or missing key, a NaN, a negative weight, an FMR beyond its own evidence)
        raises `BundleError`.
        """
        found = fields(value, ("format", "cross_modal", "face", "voice", "joint", "evidence"), "fusion")
        if count(found["format"], "fusion.format") != FUSION_FORMAT:
            raise BundleError(
                f"fusion: format {found['format']} is not read by this version",
                hint="use the EdgePIN version that made the bundle, or calibrate again",
            )
        model = FusionModel(
            face=ScoreCalibration.from_json(found["face"], "fusion.face"),
            voice=ScoreCalibration.from_json(found["voice"], "fusion.voice"),
            joint=JointModel.from_json(found["joint"], "fusion.joint"),
            cross_modal=flag(found["cross_modal"], "fusion.cross_modal"),
        )
        if not model.cross_modal and any(model.joint.weights[2:4]):
            raise BundleError("fusion: cross-modal scores carry weight though cross_modal is false")
        return cls(model, Evidence.from_json(found["evidence"], "fusion.evidence"))


def _given(score: float | None) -> float:
    assert score is not None  # `captured` has said so
    return float(score)
