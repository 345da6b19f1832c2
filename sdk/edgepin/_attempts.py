"""One person's attempts at one door: captures in, a decision out, nothing accepted on an error.

The order is what makes it safe. Captures are judged first: one that cannot be used is refused, uncounted. Then the
attempt is counted, durably, and only then are templates read and compared. Whatever goes wrong from there on (an
exception, a crash, the deadline) leaves a counted failure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._capture.audio import SAMPLE_RATE
from ._capture.face_stream import FaceStream
from ._capture.fingerprint import is_replay
from ._capture.voice_stream import VoiceStream
from ._decision.decision import Decision, Outcome
from ._decision.fusion import Scores
from ._decision.policy import Reason
from ._decision.sessions import NOT_COUNTED, attempt_llr, decide_session, resolve_session
from ._errors import CaptureError, UsageError
from ._guard.deadline import Deadline
from ._guard.guard import check_door
from ._pipeline import Capture, Embedding, ImageSource, Pipeline, SoundSource, Timings
from ._store.template import Template, check_subject

if TYPE_CHECKING:
    from ._verifier import Verifier

FaceSource = ImageSource | Sequence[ImageSource] | FaceStream
"""An image, several frames of one person, or a stream of them."""
VoiceSource = SoundSource | VoiceStream
Captures = dict[str, list[Capture]]
"""By modality; of a face as many as there were frames."""


class AttemptSession:
    """At most N samples of one person; made by `Verifier.attempts`. Not for several threads at once.

    The policy's false match rate holds for the session as a whole, whichever sample is accepted. Every sample counts
    towards the limits on failed attempts, and a new session does not reset them.
    """

    def __init__(self, verifier: Verifier, subject: str, door: str, attempts: int | None) -> None:
        self.subject, self.door = check_subject(subject), check_door(door)
        self._verifier = verifier
        self._resolved = resolve_session(verifier.policy.policy, verifier.fusion, attempts)
        self._llrs: list[float] = []
        self._captured: str | None = None
        self._known = False
        self.outcome: Outcome = "another"
        """`another` while the session takes samples; then `accepted` or `rejected`."""
        self.prompt: str | None = None if verifier.challenge is None else verifier.challenge.prompt()
        """What is to be spoken in the next sample, where the verifier has a challenge; another one each time."""

    @property
    def attempts_left(self) -> int:
        """How many more samples the session takes."""
        return self._resolved.attempts - len(self._llrs) if self.outcome == "another" else 0

    def verify(
        self,
        *,
        face: FaceSource | None = None,
        voice: VoiceSource | None = None,
        sample_rate: int | None = None,
        cropped: bool = False,
    ) -> Decision:
        """Whether the captures are the person's; see `Verifier.verify`.

        Raises UsageError once the session has ended, or for another set of modalities than before.
        """
        if self.outcome != "another":
            raise UsageError(
                f"this session has ended ({self.outcome})", hint="start another: verifier.attempts(…)"
            )
        if face is None and voice is None:
            raise UsageError("nothing to verify with", hint="give a face, a voice, or both")
        verifier, timings = self._verifier, Timings()
        deadline = Deadline(verifier.deadline)

        def capture() -> Captures:
            return capture_all(verifier.pipeline, face, voice, sample_rate, cropped, timings)

        captures = verifier.watchdog.run(capture, deadline)
        try:
            decision = self._judge(captures, timings, deadline)
        finally:
            wipe(captures)
        verifier._learn(self.subject, captures, decision)
        return decision

    def _judge(self, captures: Captures, timings: Timings, deadline: Deadline) -> Decision:
        """Counts the attempt, decides, and records the decision before it is told."""
        verifier = self._verifier
        with timings.stage("count"):
            counted = verifier.guard.begin(self.subject, self.door)
        with counted:
            decision = self._decide(captures, timings)
            codes = [reason.code for reason in decision.reasons]
            # Of ids that nobody enrolled none are kept: made-up ids would push out those of real people.
            prints = [one.fingerprint for group in captures.values() for one in group] if self._known else []
            details = {"llr": decision.llr, "threshold": decision.threshold}
            # Immediately before the answer, whatever took its time.
            if deadline.late:
                reason = Reason("deadline", f"there was no answer within {verifier.deadline:g} s")
                decision = replace(decision, outcome="rejected", reasons=(reason,), attempts_left=0)
                codes = [reason.code]
            with timings.stage("count"):
                if decision.accepted:
                    counted.accept(codes, details, fingerprints=prints)
                else:
                    counted.reject(codes, details, fingerprints=prints)
        self.outcome = decision.outcome
        if self.outcome == "another" and verifier.challenge is not None:
            self.prompt = verifier.challenge.prompt()
        return decision

    def _decide(self, captures: Captures, timings: Timings) -> Decision:
        verifier, number = self._verifier, len(self._llrs) + 1
        with timings.stage("replay"):
            suspicions = self._suspicions(captures)
        with timings.stage("decrypt"):
            templates = verifier.store.get(self.subject)
            consent = verifier.store.consent(self.subject)
        self._known = templates is not None
        with timings.stage("decide"):
            probe = {modality: mean_embedding(group) for modality, group in captures.items()}
            scores = compare(templates if templates is not None else _decoy(self.subject), probe)
            if scores.face is None and scores.voice is None:
                reason = Reason("no_common_modality", "what was captured is not what is enrolled")
                return Decision("rejected", None, None, None, (reason,), scores, timings.stages, number)
            self._keep_to(scores.captured)
            llr, below = attempt_llr(scores, verifier.fusion, self._resolved.floors)
            against = (*suspicions, *below)
            if consent is not None and consent.has_run_out(verifier.guard.clock.now()):
                against = (*against, Reason("consent_expired", "what the person agreed to has run out"))
            verdict = decide_session(
                [*self._llrs, llr], self._resolved, captured=scores.captured, reasons=against
            )
            # What counts for nothing must not help a later sample either.
            self._llrs.append(NOT_COUNTED if against else llr)
            outcome, reasons = _OUTCOMES[verdict.outcome], verdict.reasons
            if outcome == "accepted" and templates is None:  # a decoy that matched: as good as never
                outcome, reasons = "rejected", (_BELOW,)
        return Decision(
            outcome,
            verdict.statistic if scores.finite else None,
            verdict.threshold,
            verdict.fmr,
            reasons,
            scores,
            timings.stages,
            number,
            self._resolved.attempts - number if outcome == "another" else 0,
        )

    def _keep_to(self, captured: str) -> None:
        if self._captured not in (None, captured):
            raise UsageError(
                f"this session compares {self._captured}, not {captured}", hint="capture the same as before"
            )
        self._captured = captured

    def _suspicions(self, captures: Captures) -> tuple[Reason, ...]:
        """Reasons to reject that no score can outweigh: replays, faces that do not live, another phrase."""
        verifier, reasons = self._verifier, []
        earlier = verifier.guard.remembered(self.subject)
        for modality, group in captures.items():
            if any(is_replay(capture.fingerprint, one) for capture in group for one in earlier):
                reasons.append(
                    Reason(
                        f"{modality}_replayed", f"this {modality} sample has been here before: capture anew"
                    )
                )
        pcm = captures["voice"][0].sample if "voice" in captures else None
        if verifier.liveness is not None and "face" in captures:
            seen = verifier.liveness.check([capture.sample for capture in captures["face"]], pcm)
            if not seen.live:
                reasons.append(Reason(seen.code or "not_live", "the frames do not show a living face"))
        if (
            verifier.challenge is not None
            and pcm is not None
            and self.prompt is not None
            and not verifier.challenge.check(pcm, self.prompt)
        ):
            reasons.append(Reason("challenge_failed", "what was spoken is not what was asked for"))
        return tuple(reasons)


_BELOW = Reason("below_threshold", "the scores do not reach the policy's threshold")
_OUTCOMES: Mapping[str, Outcome] = {"accept": "accepted", "reject": "rejected", "another": "another"}


def capture_all(
    pipeline: Pipeline,
    face: FaceSource | None,
    voice: VoiceSource | None,
    sample_rate: int | None,
    cropped: bool,
    timings: Timings,
) -> Captures:
    """Every capture through the quality gate and its encoder. Raises CaptureError, UsageError."""
    captures: Captures = {}
    if isinstance(face, FaceStream):
        face, cropped = face.in_order(), True
        if not face:
            raise CaptureError("no good frame of a face was seen", code="no_face", hint="face the camera")
    if isinstance(voice, VoiceStream):
        voice, sample_rate = voice.take(), SAMPLE_RATE
    if face is not None:
        frames = _frames(face)
        captures["face"] = [
            pipeline.capture_face(frame, cropped=cropped, timings=timings) for frame in frames
        ]
    if voice is not None:
        captures["voice"] = [pipeline.capture_voice(voice, sample_rate=sample_rate, timings=timings)]
    return captures


def _frames(face: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    if isinstance(face, (str, Path, bytes, np.ndarray)):
        return [face]
    if not face:
        raise UsageError("the list of faces is empty")
    return face


def wipe(captures: Captures) -> None:
    """Overwrites the samples with zeros: as far as Python allows, nothing of a face or a voice stays behind."""
    for group in captures.values():
        for capture in group:
            capture.wipe()


def mean_embedding(captures: Sequence[Capture]) -> Embedding:
    """The mean of the captures' unit vectors, not normalized: a cosine with it is the mean of the cosines."""
    return Embedding(
        np.mean([capture.embedding.identity for capture in captures], axis=0, dtype=np.float32),
        np.mean([capture.embedding.pin for capture in captures], axis=0, dtype=np.float32),
    )


def compare(templates: Mapping[str, Template], probe: Mapping[str, Embedding]) -> Scores:
    """The four cosines. Over several enrolled captures each is the mean: its spread among impostors is
    never wider than that of the single comparisons that thresholds are calibrated on.
    """

    def score(enrolled: str, captured: str, head: str) -> float | None:
        if enrolled not in templates or captured not in probe:
            return None
        rows: NDArray[np.float32] = getattr(templates[enrolled], head)
        return float(np.mean(rows @ getattr(probe[captured], head)))

    return Scores(
        face=score("face", "face", "identity"),
        voice=score("voice", "voice", "identity"),
        face_voice=score("face", "voice", "pin"),
        voice_face=score("voice", "face", "pin"),
    )


def _decoy(subject: str) -> dict[str, Template]:
    """A template of nobody, so that an unknown id takes the same way to its rejection as a known one."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "little"))
    rows: Any = rng.standard_normal((4, 1, 256)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return {"face": Template(rows[0], rows[1]), "voice": Template(rows[2], rows[3])}
