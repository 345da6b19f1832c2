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
from .evidence import OperatingPoint, SetEvidence, pairs_needed, people_needed
from .fusion import FACE, FACE_AND_VOICE, MODALITIES, VOICE, Fusion, Scores


@dataclass(frozen=True)
class Policy:
    """What an operator asks for.

    `fmr`: the highest false match rate allowed, a fraction in (0, 1); by default the strictest that the
    evidence carries. `allow_voice_alone`: accept a voice with no face; off, since NIST SP 800-63B-4 forbids
    voice as the authenticating biometric. `allow_cross_modal_alone`: compare an enrolled face with a voice
    only, or the reverse; off, and refused by every fusion of this version, because none has evidence for it.
    """

    fmr: float | None = None
    allow_voice_alone: bool = False
    allow_cross_modal_alone: bool = False

    def __post_init__(self) -> None:
        if self.fmr is None:
            return
        if isinstance(self.fmr, bool) or not isinstance(self.fmr, (int, float)):
            raise UsageError(f"the policy's FMR must be a number, not {type(self.fmr).__name__}")
        if not (math.isfinite(self.fmr) and 0.0 < self.fmr < 1.0):
            raise UsageError(f"the policy's FMR must lie between 0 and 1, not at {self.fmr:g}")


@dataclass(frozen=True)
class Reason:
    """Why an attempt was accepted or rejected: a `code` for programs, a `text` for people.

    Codes: accepted, below_threshold, face_below_floor, voice_below_floor, voice_alone_not_allowed,
    insufficient_evidence (this modality alone does not carry the policy's FMR), no_calibration (it carries
    none), not_finite.
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


@dataclass(frozen=True)
class Verdict:
    """The answer to one attempt.

    `llr`: natural log-likelihood ratio in [-30, 30], `None` if there is none (a score was not finite).
    `threshold` and `fmr`: the LLR needed and the FMR promised at it; `None` if the modality set is refused.
    `reasons`: at least one; of an acceptance exactly one.
    """

    accepted: bool
    llr: float | None
    threshold: float | None
    fmr: float | None
    reasons: tuple[Reason, ...]


def resolve(policy: Policy, fusion: Fusion) -> ResolvedPolicy:
    """Hold `policy` against the fusion's evidence.

    With `policy.fmr` unset every modality set gets the strictest FMR that its own evidence carries. A given
    FMR gets the loosest one of the ladder that keeps it; if face and voice together do not carry it,
    `PolicyError`; if a modality alone does not, that modality alone is refused and the reason kept.
    """
    if policy.allow_cross_modal_alone:
        raise PolicyError(
            "there is no evidence for cross-modal matching alone, so no false match rate can be promised",
            hint="capture a modality that is enrolled; leave allow_cross_modal_alone off",
        )
    joint = fusion.evidence.sets[FACE_AND_VOICE]
    if _point(joint, policy.fmr) is None:
        raise _too_strict(joint, policy.fmr)
    sets = {}
    for name in MODALITIES:
        evidence = fusion.evidence.sets[name]
        if name == VOICE and not policy.allow_voice_alone:
            sets[name] = ResolvedSet(
                None, Reason("voice_alone_not_allowed", "the policy does not accept a voice without a face")
            )
            continue
        point = _point(evidence, policy.fmr)
        sets[name] = ResolvedSet(
            point, None if point is not None else _not_carried(name, evidence, policy.fmr)
        )
    return ResolvedPolicy(policy, sets, dict(fusion.evidence.floors))


def decide(scores: Scores, fusion: Fusion, resolved: ResolvedPolicy) -> Verdict:
    """Decide one attempt under a policy resolved for the same fusion.

    Accepted only if the LLR reaches the threshold and each captured modality its floor. A NaN or infinite
    score is a rejection. Raises `UsageError` if there is neither face nor voice, or if both are there without
    the cross-modal scores that the fusion weighs.
    """
    captured = scores.captured
    chosen = resolved.sets[captured]
    point = chosen.point
    threshold, fmr = (None, None) if point is None else (point.threshold, point.fmr)
    if not scores.finite:
        reason = Reason("not_finite", "a score is not a finite number; nothing was decided on it")
        return Verdict(False, None, threshold, fmr, (reason,))
    llr = fusion.llr(scores)
    if point is None:
        refusal = chosen.refusal or Reason("no_calibration", f"{captured} is not calibrated")
        return Verdict(False, llr, None, None, (refusal,))
    # Every comparison is written so that NaN rejects.
    reasons = []
    if not llr >= point.threshold:
        reasons.append(
            Reason(
                "below_threshold",
                f"LLR {llr:.2f} is below {point.threshold:.2f}, which FMR {point.fmr:g} needs",
            )
        )
    for modality in MODALITIES[captured]:
        score = scores.face if modality == FACE else scores.voice
        alone = fusion.modality_llr(modality, math.nan if score is None else score)
        floor = resolved.floors[modality]
        if not alone >= floor:
            reasons.append(
                Reason(
                    f"{modality}_below_floor",
                    f"{modality} alone: LLR {alone:.2f} is below its floor {floor:.2f}",
                )
            )
    if reasons:
        return Verdict(False, llr, point.threshold, point.fmr, tuple(reasons))
    text = f"LLR {llr:.2f} reaches {point.threshold:.2f}, which FMR {point.fmr:g} needs"
    return Verdict(True, llr, point.threshold, point.fmr, (Reason("accepted", text),))


def _point(evidence: SetEvidence, fmr: float | None) -> OperatingPoint | None:
    return evidence.strictest if fmr is None else evidence.at(fmr)


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
            hint="export it again, calibrated on more people or better captures (edgepin export --calibration)",
        )
    if fmr is None:  # then the strictest would have been taken
        fmr = strictest.fmr
    return PolicyError(
        f"an FMR of {fmr:g} is stricter than the evidence: {evidence.pairs} distinct subject pairs "
        f"carry none below {strictest.fmr:g}",
        hint=f"ask for {strictest.fmr:g} or more, or run `edgepin export --calibration` with more people: {fmr:g} takes "
        f"at least {pairs_needed(fmr)} distinct pairs ({people_needed(fmr)} people, each tried against each)",
    )
