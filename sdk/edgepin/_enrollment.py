"""Enrollment: captures are collected until they make a good template, then written as a whole.

How well captures agree is told as the log-likelihood ratio (LLR) of each one's mean cosine with the others of its
modality, by the bundle's own calibration. A capture that is more likely another person's than this one's (an LLR
below 0) does not agree. Among three or more it is left out; if the rest do not agree either,
nothing is enrolled: it would be anybody's guess whose template that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._attempts import FaceSource, VoiceSource, capture_all
from ._capture.face_stream import FaceStream
from ._capture.quality import Quality
from ._capture.voice_stream import VoiceStream
from ._decision.fusion import Fusion
from ._errors import CaptureError, UsageError
from ._pipeline import Capture, Embedding, ImageSource, SoundSource, Timings
from ._store.consent import Consent
from ._store.template import Template

if TYPE_CHECKING:
    from ._verifier import Verifier

WANTED = 3
"""Captures of each modality that make a good template: `EnrollmentFeedback.good` asks for as many that agree."""
LEAST_AGREEING = 2


@dataclass(frozen=True)
class CaptureFeedback:
    """What became of one capture: `number` counts within its modality, from 1.

    `agreement`: the LLR of its mean cosine with those before it; None for the first. `agrees` is False if it is more
    likely another person's: capture again. `quality`: the verdict with what was measured.
    """

    modality: str
    number: int
    quality: Quality
    agreement: float | None
    agrees: bool


@dataclass(frozen=True)
class EnrollmentFeedback:
    """How far an enrollment is.

    `faces`, `voices`: captures so far, those that do not agree included. `agreement`: by modality the lowest LLR
    among the captures that agree; absent with fewer than two. `disagreeing`: such as "voice 2". `good`: at least
    `WANTED` that agree of each modality that was captured. `advice`: what to do next, in words; empty when good
    and both modalities are there.
    """

    faces: int
    voices: int
    agreement: dict[str, float]
    disagreeing: tuple[str, ...]
    good: bool
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Enrolled:
    """What was written: captures kept of each modality, those left out, and who looks like the same person.

    `duplicates` are other ids whose templates this policy would take for the same person's; None if nobody looked
    (`check_duplicates`).
    """

    subject: str
    faces: int
    voices: int
    left_out: tuple[str, ...]
    agreement: dict[str, float]
    good: bool
    duplicates: tuple[str, ...] | None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.subject,
            "faces": self.faces,
            "voices": self.voices,
            "left_out": list(self.left_out),
            "agreement": {name: round(value, 4) for name, value in self.agreement.items()},
            "good": self.good,
            "duplicates": None if self.duplicates is None else list(self.duplicates),
        }


class Enrollment:
    """Collects the captures of one person; written to the store as a whole when its `with` block ends.

    An exception inside the block discards it. A capture that is refused raises CaptureError and leaves the others.
    Not for several threads at once.
    """

    def __init__(
        self,
        verifier: Verifier,
        subject: str,
        consent: Consent | None,
        *,
        replace: bool,
        check_duplicates: bool,
    ) -> None:
        self.subject, self._verifier, self.consent = subject, verifier, consent
        self._replace, self._check_duplicates = replace, check_duplicates
        self._captures: dict[str, list[Capture]] = {"face": [], "voice": []}
        self.result: Enrolled | None = None
        """What was written; None until `commit`."""

    def add_face(self, image: ImageSource | FaceStream, *, cropped: bool = False) -> CaptureFeedback:
        """An image as path, bytes or uint8 RGB (H, W, 3), or a stream, of which each kept frame becomes a capture and
        the last one is answered; `cropped` says that it is a face crop already.
        """
        return self._add_all(image, None, None, cropped)

    def add_voice(
        self, sound: SoundSource | VoiceStream, *, sample_rate: int | None = None
    ) -> CaptureFeedback:
        """A sound as path, bytes, an array (samples,) or (samples, channels) with its `sample_rate` in Hz, or a stream."""
        return self._add_all(None, sound, sample_rate, False)

    @property
    def feedback(self) -> EnrollmentFeedback:
        """How far it is: what is missing, and what does not agree."""
        agreement, disagreeing, advice = {}, [], []
        good = any(self._captures.values())
        for modality, captures in self._captures.items():
            kept = agreeing(_identities(captures), self._verifier.fusion, modality)
            disagreeing += [f"{modality} {i + 1}" for i in range(len(captures)) if i not in kept]
            if len(kept) >= LEAST_AGREEING:
                agreement[modality] = float(
                    min(_agreement(_identities(captures)[kept], self._verifier.fusion, modality))
                )
            missing = WANTED - len(kept)
            if missing > 0 and captures:
                good = False
                advice.append(
                    f"{missing} more {modality} captures that agree"
                    if missing > 1
                    else f"one more {modality} capture that agrees"
                )
            if not captures:
                advice.append(f"no {modality} yet: one modality alone verifies less surely")
        return EnrollmentFeedback(
            len(self._captures["face"]),
            len(self._captures["voice"]),
            agreement,
            tuple(disagreeing),
            good,
            tuple(advice),
        )

    def commit(self) -> Enrolled:
        """Writes the templates.

        Raises UsageError without a capture, CaptureError (`captures_disagree`) where the captures of a modality are
        more likely several persons' than one's, AlreadyEnrolledError.
        """
        if not any(self._captures.values()):
            raise UsageError("nothing was captured, so nothing was enrolled")
        feedback = self.feedback
        templates, kept_captures = {}, []
        for modality, captures in self._captures.items():
            if not captures:
                continue
            kept = agreeing(_identities(captures), self._verifier.fusion, modality)
            if len(captures) > 1 and (len(kept) < LEAST_AGREEING or 2 * len(kept) < len(captures)):
                raise CaptureError(
                    f"the {modality} captures of {self.subject!r} look like several persons', so nothing was enrolled",
                    code="captures_disagree",
                    hint="capture one person, in the light and the place where verification will be, and try again",
                )
            chosen = [captures[i] for i in kept]
            kept_captures += chosen
            templates[modality] = Template(
                np.stack([capture.embedding.identity for capture in chosen]),
                np.stack([capture.embedding.pin for capture in chosen]),
            )
        duplicates = self._verifier._enroll(
            self, templates, kept_captures, replace=self._replace, check_duplicates=self._check_duplicates
        )
        self.result = Enrolled(
            self.subject,
            len(templates["face"].identity) if "face" in templates else 0,
            len(templates["voice"].identity) if "voice" in templates else 0,
            feedback.disagreeing,
            feedback.agreement,
            feedback.good,
            duplicates,
        )
        return self.result

    def __enter__(self) -> Enrollment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.result is None:
            self.commit()

    def _add_all(
        self, face: FaceSource | None, voice: VoiceSource | None, sample_rate: int | None, cropped: bool
    ) -> CaptureFeedback:
        if self.result is not None:
            raise UsageError("this enrollment has been written", hint="start another: verifier.enroll(…)")
        found = capture_all(self._verifier.pipeline, face, voice, sample_rate, cropped, Timings())
        (group,) = found.values()
        return [self._add(capture) for capture in group][-1]

    def _add(self, capture: Capture) -> CaptureFeedback:
        capture.wipe()  # the embedding is all that is needed from here on
        captures = self._captures[capture.modality]
        captures.append(capture)
        agreement, agrees = None, True
        if len(captures) > 1:
            agreement = _agreement(_identities(captures), self._verifier.fusion, capture.modality)[-1]
            agrees = agreement >= 0.0
        return CaptureFeedback(capture.modality, len(captures), capture.quality, agreement, agrees)


def lookalikes(verifier: Verifier, subject: str, templates: Mapping[str, Template]) -> tuple[str, ...]:
    """Ids whose templates are like the same person's, at the strictest threshold that the evidence carries."""
    index, found = verifier.templates_in_memory(), set()
    for modality, template in templates.items():
        probe = {modality: Embedding(template.identity.mean(axis=0), template.pin.mean(axis=0))}
        llr, captured = index.llrs(probe, verifier.fusion)
        # A looser one would report somebody for nearly every new enrollment, as it is asked of everybody.
        point = verifier.fusion.evidence.sets[captured].strictest
        if point is not None:
            found |= {index.subjects[i] for i in np.flatnonzero(llr >= point.threshold)}
    return tuple(sorted(found - {subject}))


def agreeing(rows: NDArray[np.float32], fusion: Fusion, modality: str) -> list[int]:
    """Which of `rows`, float32 (captures, 256), agree: the one that agrees least is left out until all do."""
    kept = list(range(len(rows)))
    while len(kept) > 1:
        agreement = _agreement(rows[kept], fusion, modality)
        worst = int(np.argmin(agreement))
        if agreement[worst] >= 0.0:
            return kept
        del kept[worst]
    return kept


def _agreement(rows: NDArray[np.float32], fusion: Fusion, modality: str) -> list[float]:
    """The LLR of each row's mean cosine with the others; at least two rows."""
    cosines = rows @ rows.T
    others = (cosines.sum(axis=1) - np.diagonal(cosines)) / (len(rows) - 1)
    return [fusion.modality_llr(modality, float(cosine)) for cosine in others]


def _identities(captures: Sequence[Capture]) -> NDArray[np.float32]:
    if not captures:
        return np.zeros((0, 256), np.float32)
    return np.stack([capture.embedding.identity for capture in captures])
