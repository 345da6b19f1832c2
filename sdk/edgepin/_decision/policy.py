"""The decision: which false match rate is asked for, whether the evidence carries it, and who passes.

A policy asks for a false match rate (FMR). It is held against the *worst* kind of impostor: for face and
voice the stranger, the right face with another's voice and the right voice with another's face. A policy
stricter than the evidence is refused when it is resolved, not silently weakened. Besides the threshold on the
joint LLR every captured modality must clear a floor of its own, so that a perfect photo cannot carry a wrong
voice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .._errors import PolicyError, UsageError
from .evidence import MAX_SESSION_ATTEMPTS, OperatingPoint, SetEvidence, pairs_needed, people_needed
from .fusion import FACE, FACE_AND_VOICE, MODALITIES, VOICE, Fusion, Scores

DEFAULT_ATTEMPTS = 3


@dataclass(frozen=True)
class Policy:
    """What an operator asks for.

    `fmr`: the highest false match rate allowed, a fraction in (0, 1); by default the strictest that the
    evidence carries and at which at most a third of the right attempts are rejected (`SetEvidence.usual`).
    `allow_face_alone`: let a face decide without a voice, by its own calibration; on.
    `allow_voice_alone`: accept a voice with no face; off, since NIST SP 800-63B-4 forbids
    voice as the authenticating biometric. `allow_cross_modal_alone`: compare an enrolled face with a voice
    only, or the reverse; off, and refused by every fusion of this version, because none has evidence for it.
    `max_attempts`: the longest session, 1 to 5; by default 3, or fewer where the evidence is for fewer.
    `allow_identification`: search everybody (1:N); off. `adaptive_update`: let a template grow by captures that were
    accepted with both modalities and at a ten times stricter FMR; off.
    """

    fmr: float | None = None
    allow_face_alone: bool = True
    allow_voice_alone: bool = False
    allow_cross_modal_alone: bool = False
    max_attempts: int | None = None
    allow_identification: bool = False
    adaptive_update: bool = False

    def __post_init__(self) -> None:
        for name in (
            "allow_face_alone",
            "allow_voice_alone",
            "allow_cross_modal_alone",
            "allow_identification",
            "adaptive_update",
        ):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"the policy's {name} must be True or False, not {getattr(self, name)!r}")
        most = self.max_attempts
        if most is not None and (
            isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MAX_SESSION_ATTEMPTS
        ):
            raise UsageError(f"the policy's max_attempts must be 1 to {MAX_SESSION_ATTEMPTS}, not {most!r}")
        if self.fmr is None:
            return
        if isinstance(self.fmr, bool) or not isinstance(self.fmr, (int, float)):
            raise UsageError(f"the policy's FMR must be a number, not {type(self.fmr).__name__}")
        if not (math.isfinite(self.fmr) and 0.0 < self.fmr < 1.0):
            raise UsageError(f"the policy's FMR must lie between 0 and 1, not at {self.fmr:g}")


@dataclass(frozen=True)
class Reason:
    """Why an attempt was accepted or rejected: a `code` for programs, a `text` for people.

    Codes: accepted, below_threshold, face_below_floor, voice_below_floor, face_alone_not_allowed,
    voice_alone_not_allowed, insufficient_evidence (this modality alone does not carry the policy's FMR),
    no_calibration (it carries none), not_finite; in a session also another_sample.
    """

    code: str
    text: str


@dataclass(frozen=True)
class ResolvedSet:
    """One modality set under a policy: an operating point, or the reason why it is refused."""

    point: OperatingPoint | None
    refusal: Reason | None = None


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy that the evidence carries: by modality set what is decided, by modality the floor's LLR."""

    policy: Policy
    sets: Mapping[str, ResolvedSet]
    floors: Mapping[str, float]


def resolve(policy: Policy, fusion: Fusion) -> ResolvedPolicy:
    """Hold `policy` against the fusion's evidence.

    With `policy.fmr` unset every modality set gets the usual FMR of its own evidence (`SetEvidence.usual`). A given
    FMR gets the loosest one of the ladder that keeps it; if face and voice together do not carry it,
    `PolicyError`; if a modality alone does not, that modality alone is refused and the reason kept.
    """
    if policy.allow_cross_modal_alone:
        raise PolicyError(
            "there is no evidence for cross-modal matching alone, so no false match rate can be promised",
            hint="capture a modality that is enrolled; leave allow_cross_modal_alone off",
        )
    sets = {name: resolve_set(policy, name, fusion.evidence.sets[name]) for name in MODALITIES}
    allowed_attempts(policy, fusion)
    return ResolvedPolicy(policy, sets, dict(fusion.evidence.floors))


def resolve_set(policy: Policy, name: str, evidence: SetEvidence | None) -> ResolvedSet:
    """Hold `policy` against the evidence of one modality set; `PolicyError` if face and voice do not carry it."""
    allowed = {FACE: policy.allow_face_alone, VOICE: policy.allow_voice_alone}
    if not allowed.get(name, True):
        other = VOICE if name == FACE else FACE
        text = f"the policy does not accept a {name} without a {other}"
        return ResolvedSet(None, Reason(f"{name}_alone_not_allowed", text))
    if evidence is None:
        return ResolvedSet(None, Reason("no_calibration", f"{name}: there is no evidence for such sessions"))
    point = evidence.usual if policy.fmr is None else evidence.at(policy.fmr)
    if point is not None:
        return ResolvedSet(point)
    if name == FACE_AND_VOICE:
        raise _too_strict(evidence, policy.fmr)
    return ResolvedSet(None, _not_carried(name, evidence, policy.fmr))


def allowed_attempts(policy: Policy, fusion: Fusion) -> int:
    """The longest session of face and voice under the policy; `PolicyError` if it asks for more than is known."""
    known = fusion.evidence.sessions[FACE_AND_VOICE].max_attempts
    if policy.max_attempts is None:
        return min(DEFAULT_ATTEMPTS, known)
    if policy.max_attempts > known:
        raise PolicyError(
            f"the evidence carries sessions of at most {known} attempt{'s' if known > 1 else ''}, "
            f"and the policy asks for {policy.max_attempts}",
            hint=f"allow {known}, or calibrate with more captures of each person: one more than the attempts",
        )
    return policy.max_attempts


def floor_reasons(scores: Scores, fusion: Fusion, floors: Mapping[str, float]) -> tuple[Reason, ...]:
    """Why an attempt is refused whatever its LLR: a reason for each captured modality below its floor."""
    reasons = []
    for modality in MODALITIES[scores.captured]:
        score = scores.face if modality == FACE else scores.voice
        alone = fusion.modality_llr(modality, math.nan if score is None else score)
        floor = floors[modality]
        if not alone >= floor:  # written so that NaN rejects
            text = f"{modality} alone: LLR {alone:.2f} is below its floor {floor:.2f}"
            reasons.append(Reason(f"{modality}_below_floor", text))
    return tuple(reasons)


def _not_carried(name: str, evidence: SetEvidence, fmr: float | None) -> Reason:
    strictest = evidence.strictest
    if strictest is None or fmr is None:
        return Reason("no_calibration", f"{name} alone: {evidence.pairs} distinct pairs carry no FMR")
    return Reason(
        "insufficient_evidence",
        f"{name} alone carries no FMR below {strictest.fmr:g}, and the policy asks for {fmr:g}",
    )


def _too_strict(evidence: SetEvidence, fmr: float | None) -> PolicyError:
    strictest = evidence.strictest
    if strictest is None:
        return PolicyError(
            f"{evidence.pairs} distinct subject pairs carry no false match rate at all",
            hint="calibrate on more people or better captures (edgepin calibrate)",
        )
    if fmr is None:  # then the usual one would have been taken
        fmr = strictest.fmr
    return PolicyError(
        f"an FMR of {fmr:g} is stricter than the evidence: {evidence.pairs} distinct subject pairs "
        f"carry none below {strictest.fmr:g}",
        hint=f"ask for {strictest.fmr:g} or more, or calibrate with more people (edgepin calibrate): {fmr:g} takes "
        f"at least {pairs_needed(fmr)} distinct pairs ({people_needed(fmr)} people, each tried against each)",
    )
