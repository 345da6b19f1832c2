"""One person's attempts at one door: captures in, a decision out, nothing accepted on an error.

The order is what makes it safe. Captures are judged first: one that cannot be used is refused, uncounted. Then the
attempt is counted, durably, and only then are templates read and compared. Whatever goes wrong from there on (an
exception, a crash, the deadline) leaves a counted failure.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._capture.audio import SAMPLE_RATE
from ._capture.face_stream import FaceStream
from ._capture.fingerprint import is_replay
from ._capture.liveness import Liveness
from ._capture.voice_stream import VoiceStream
from ._decision.decision import Decision, Outcome
from ._decision.fusion import Scores
from ._decision.policy import Reason
from ._decision.sessions import NOT_COUNTED, attempt_llr, decide_session, resolve_session
from ._errors import CaptureError, DeadlineExceededError, EdgePinError, EnvironmentFault, UsageError
from ._guard.deadline import Deadline
from ._guard.guard import check_door
from ._learning import learn
from ._pipeline import Capture, Embedding, ImageSource, Pipeline, SoundSource, Timings
from ._store.template import Template, check_subject

if TYPE_CHECKING:
    from ._capture.liveness import LivenessCheck
    from ._verifier import Verifier

FaceSource = ImageSource | Sequence[ImageSource] | FaceStream
"""An image, several frames of one person, or a stream of them."""
VoiceSource = SoundSource | VoiceStream
SESSION_SECONDS = 120.0
"""A session that was begun longer ago takes no more samples."""
KEPT_FRAMES = 2
"""Of the frames of one attempt, how many are remembered against replays: the first and the last."""
Captures = dict[str, list[Capture]]
"""By modality; of a face as many as there were frames."""


class AttemptSession:
    """At most N samples of one person, within two minutes; made by `Verifier.attempts`.

    The policy's false match rate holds for the session as a whole, whichever sample is accepted. Every sample counts
    towards the limits on failed attempts, and a new session does not reset them. Of several threads one is served.
    """

    def __init__(self, verifier: Verifier, subject: str, door: str, attempts: int | None) -> None:
        self.subject, self.door = check_subject(subject), check_door(door)
        self._verifier = verifier
        self._resolved = resolve_session(verifier.policy.policy, verifier.fusion, attempts)
        self._lock = threading.Lock()
        self._end = Deadline(SESSION_SECONDS)
        self._llrs: list[float] = []
        self._given: frozenset[str] | None = None
        self._prints: list[bytes] = []  # of samples that were not accepted
        self._templates: Mapping[str, Template] | None = None
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
        given = frozenset(name for name, one in (("face", face), ("voice", voice)) if one is not None)
        if not given:
            raise UsageError("nothing to verify with", hint="give a face, a voice, or both")
        if not self._lock.acquire(blocking=False):
            raise UsageError("this session is deciding about another sample", hint="wait for its answer")
        try:
            if self.outcome == "another" and self._end.late:
                self.outcome = "rejected"
            if self.outcome != "another":
                raise UsageError(
                    f"this session has ended ({self.outcome})", hint="start another: verifier.attempts(…)"
                )
            if self._given not in (None, given):
                raise UsageError(
                    f"this session compares {' and '.join(sorted(self._given or ()))}",
                    hint="capture the same as before, or start another session",
                )
            return self._verify(face, voice, sample_rate, cropped, given)
        finally:
            self._lock.release()

    def _verify(
        self,
        face: FaceSource | None,
        voice: VoiceSource | None,
        sample_rate: int | None,
        cropped: bool,
        given: frozenset[str],
    ) -> Decision:
        verifier, timings = self._verifier, Timings()
        deadline = Deadline(verifier.deadline)

        def capture() -> Captures:
            return capture_all(verifier.pipeline, face, voice, sample_rate, cropped, timings)

        captures = verifier.watchdog.run(capture, deadline, dispose=wipe)
        self._given = given
        try:
            decision = self._judge(captures, timings, deadline)
        finally:
            wipe(captures)
        if self._templates is not None:
            learn(verifier, self.subject, self._templates, captures, decision)
        return decision

    def _judge(self, captures: Captures, timings: Timings, deadline: Deadline) -> Decision:
        """Counts the attempt, decides, and records the decision before it is told."""
        verifier = self._verifier
        verifier.give_notice()
        with timings.stage("count"):
            counted = verifier.guard.begin(self.subject, self.door)
        with counted:
            decision = self._decide(captures, timings, deadline)
            codes = [reason.code for reason in decision.reasons]
            details = {"llr": decision.llr, "threshold": decision.threshold}
            prints = _fingerprints(captures)
            with timings.stage("count"):
                if decision.accepted and not counted.accept(
                    codes, details, fingerprints=prints, same=is_replay
                ):
                    decision = replace(decision, outcome="rejected", reasons=(_REPLAYED,), attempts_left=0)
                elif not decision.accepted:
                    counted.reject(codes, details)
        if decision.accepted and deadline.late:  # the disk took its time
            decision = _late(decision, verifier.deadline)
        self.outcome = decision.outcome
        if not decision.accepted:
            self._prints += prints
        if self.outcome == "another" and verifier.challenge is not None:
            self.prompt = verifier.challenge.prompt()
        if decision.reasons[0].code == "deadline" and codes[0] == "accepted":
            verifier.guard.note("answered_late", self.subject)
        return decision

    def _decide(self, captures: Captures, timings: Timings, deadline: Deadline) -> Decision:
        verifier, number = self._verifier, len(self._llrs) + 1
        suspicions: tuple[Reason, ...] = ()
        with timings.stage("replay"), suppress(DeadlineExceededError):  # told below
            suspicions = verifier.watchdog.run(lambda: self._suspicions(captures), deadline)
        with timings.stage("decrypt"):
            templates, consent = verifier.store.enrollment(self.subject)
            self._templates = templates
        with timings.stage("decide"):
            enrolled = templates if templates is not None else _decoy(self.subject)
            probe = {modality: mean_embedding(group) for modality, group in captures.items()}
            scores = compare(enrolled, probe)
            if scores.face is None and scores.voice is None:
                reason = Reason("no_common_modality", "what was captured is not what is enrolled")
                return Decision("rejected", None, None, None, (reason,), scores, timings.stages, number)
            llr, below = attempt_llr(scores, verifier.fusion, self._resolved.floors)
            against = [*suspicions, *below]
            if not below and not self._frames_agree(enrolled, captures):
                against.append(Reason("frames_disagree", "one of the frames is unlike the enrolled face"))
            if consent is not None and consent.has_run_out(verifier.guard.clock.now()):
                against.append(Reason("consent_expired", "what the person agreed to has run out"))
            verdict = decide_session(
                [*self._llrs, llr], self._resolved, captured=scores.captured, reasons=against
            )
            # What counts for nothing must not help a later sample either.
            self._llrs.append(NOT_COUNTED if against else llr)
            outcome, reasons = _OUTCOMES[verdict.outcome], verdict.reasons
            if outcome == "accepted" and templates is None:  # a decoy that matched: as good as never
                outcome, reasons = "rejected", (_BELOW,)
        decision = Decision(
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
        # Immediately before the answer, whatever took its time.
        return _late(decision, verifier.deadline) if deadline.late else decision

    def _frames_agree(self, enrolled: Mapping[str, Template], captures: Captures) -> bool:
        """Whether each single frame clears the face's floor: the mean must not carry another person's frame."""
        frames = captures.get("face", [])
        if len(frames) < 2 or "face" not in enrolled:
            return True
        return all(
            self._verifier.fusion.modality_llr(
                "face", float(np.mean(enrolled["face"].identity @ frame.embedding.identity))
            )
            >= self._resolved.floors["face"]
            for frame in frames
        )

    def _suspicions(self, captures: Captures) -> tuple[Reason, ...]:
        """Reasons to reject that no score can outweigh: replays, faces that do not live, another phrase."""
        verifier, reasons = self._verifier, []
        earlier = [*verifier.guard.remembered(self.subject), *self._prints]
        for modality, group in captures.items():
            if any(is_replay(capture.fingerprint, one) for capture in group for one in earlier):
                reasons.append(
                    Reason(
                        f"{modality}_replayed", f"this {modality} sample has been here before: capture anew"
                    )
                )
        pcm = captures["voice"][0].sample if "voice" in captures else None
        # A check that is asked for is not got around by leaving out what it looks at.
        if verifier.liveness is not None:
            code = not_live(verifier.liveness, captures, pcm)
            if code is not None:
                reasons.append(Reason(code, "the frames do not show a living face"))
        if verifier.challenge is not None:
            with _as_ours("challenge"):
                spoken = (
                    pcm is not None
                    and self.prompt is not None
                    and verifier.challenge.check(pcm, self.prompt) is True
                )
            if not spoken:
                reasons.append(Reason("challenge_failed", "what was asked for was not spoken"))
        return tuple(reasons)


def not_live(check: LivenessCheck, captures: Captures, pcm: NDArray[np.int16] | None) -> str | None:
    """The code of what speaks against a living person; None where nothing does."""
    with _as_ours("liveness check"):
        seen = check.check([capture.sample for capture in captures.get("face", [])], pcm)
        if isinstance(seen, Liveness) and seen.live is True:
            return None
        return str(getattr(seen, "code", None) or "not_live")


@contextmanager
def _as_ours(what: str) -> Iterator[None]:
    """An exception of somebody else's check is told as one of ours: nothing was decided."""
    try:
        yield
    except EdgePinError:
        raise
    except Exception as error:
        raise EnvironmentFault(f"the {what} failed: {type(error).__name__}: {error}") from error


def _fingerprints(captures: Captures) -> list[bytes]:
    """What is remembered of an attempt's samples."""
    prints = []
    for group in captures.values():
        prints += [
            capture.fingerprint for capture in (group if len(group) <= KEPT_FRAMES else (group[0], group[-1]))
        ]
    return prints


def _late(decision: Decision, seconds: float) -> Decision:
    reason = Reason("deadline", f"there was no answer within {seconds:g} s")
    return replace(decision, outcome="rejected", reasons=(reason,), attempts_left=0)


_REPLAYED = Reason("replayed", "this sample was accepted elsewhere meanwhile: capture anew")
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
        if not _is_source(voice):
            raise UsageError("a voice is a path, bytes, samples with their sample_rate, or a VoiceStream")
        captures["voice"] = [pipeline.capture_voice(voice, sample_rate=sample_rate, timings=timings)]
    return captures


def _frames(face: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    if _is_source(face):
        return [face]  # type: ignore[list-item]
    if not isinstance(face, (list, tuple)) or not all(_is_source(frame) for frame in face):
        raise UsageError("a face is a path, bytes, uint8 RGB, a FaceStream, or a list of frames")
    if not face:
        raise UsageError("the list of faces is empty")
    return face


def _is_source(value: object) -> bool:
    return isinstance(value, (str, Path, bytes, np.ndarray))


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
