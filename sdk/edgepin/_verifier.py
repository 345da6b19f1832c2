"""`Verifier`: enroll a person, verify a person. The whole device in one object."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ._attempts import (
    AttemptSession,
    FaceSource,
    VoiceSource,
    capture_all,
    mean_embedding,
    not_live,
    wipe,
)
from ._bundle.bundle import Bundle
from ._capture.faces import FaceFinder
from ._decision.decision import Decision
from ._decision.fusion import Fusion
from ._decision.policy import Policy, ResolvedPolicy, resolve
from ._decision.site import SiteCalibration
from ._enrollment import Enrollment, lookalikes
from ._errors import (
    AlreadyEnrolledError,
    EnvironmentFault,
    IntegrityError,
    PolicyError,
    UnknownSubjectError,
    UsageError,
)
from ._guard.clock import Clock
from ._guard.deadline import Deadline, Watchdog
from ._guard.guard import Guard, guard_path
from ._guard.limits import GuardLimits
from ._identify import Identification, TemplateIndex
from ._paths import enrollments_path, store_key_path
from ._pipeline import Capture, Pipeline, Timings, make_pipeline
from ._runtime.backends import close_runtime, open_runtime
from ._runtime.memory import give_back_memory
from ._starter import open_starter
from ._store.consent import Consent
from ._store.keys import KeyFile, KeyProvider
from ._store.store import Store
from ._store.template import Template, check_subject

if TYPE_CHECKING:
    from ._capture.challenge import Challenge
    from ._capture.liveness import LivenessCheck
    from ._store.counter import MonotonicCounter

DEADLINE = 10.0
"""Seconds that a verification may take, captures included; after that the answer is no."""


class Verifier:
    """Enrolls people and verifies them. Open it once and keep it; `verify` may be called from several threads.

    Build it with `Verifier.open`, or from parts of your own: any `Pipeline`, `Store`, `Fusion` and `Guard`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        fusion: Fusion,
        guard: Guard,
        policy: Policy | None = None,
        *,
        about: str = "",
        notice: str | None = None,
        liveness: LivenessCheck | None = None,
        challenge: Challenge | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.pipeline, self.store, self.fusion, self.guard = pipeline, store, fusion, guard
        self.policy: ResolvedPolicy = resolve(policy or Policy(), fusion)
        self.liveness, self.challenge = liveness, challenge
        self.deadline = Deadline(deadline).seconds
        self.watchdog = Watchdog()
        self.about = about
        """Which backend and precision run, and why."""
        self._notice = notice
        self._index: tuple[object, TemplateIndex] | None = None
        self._index_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | None = None,
        store: str | Path | None = None,
        *,
        policy: Policy | None = None,
        calibration: str | Path | SiteCalibration | None = None,
        backend: str = "auto",
        require: str | None = None,
        precision: str = "auto",
        allow_unsigned: bool = False,
        finder: FaceFinder | None = None,
        key: KeyProvider | None = None,
        counter: MonotonicCounter | None = None,
        guard_counter: MonotonicCounter | None = None,
        limits: GuardLimits | None = None,
        clock: Clock | None = None,
        liveness: LivenessCheck | None = None,
        challenge: Challenge | None = None,
        deadline: float = DEADLINE,
        store_must_exist: bool = False,
    ) -> Verifier:
        """Opens a bundle and a store (default: this user's), everything checked before anything runs.

        Args:
            bundle: a `.pin` file, or an open one; by default the packaged starter.
            store: the enrollments; its guard (counters, audit) lies beside it, at `STORE.guard`.
            policy: what false match rate is promised, and what may decide; see `Policy`.
            calibration: a site's own calibration (`edgepin calibrate`) in place of the bundle's.
            backend: `auto` (the best that runs here, chosen now and not again), `tensorrt`, `onnxruntime-cuda`,
                `onnxruntime-tensorrt` or `onnxruntime-cpu`.
            require: None, `tensorrt` or `gpu`: forbids anything less.
            precision: `auto` (the bundle's fastest on this device), `highest` (that it has), `fp32`, `fp16` or `int8`.
            allow_unsigned: open a bundle that nobody whom this machine trusts has signed.
            finder: what finds faces; Haar cascades by default.
            key: what gives the key that locks the store; this user's key file by default.
            counter, guard_counter: two counters outside the files, against older copies of the store and of its guard put
                back. The guard's moves with every attempt.
            limits: of failed attempts; NIST SP 800-63B-4's by default.
            clock: what tells the time; the system's by default.
            liveness, challenge: further checks, each of which can only reject.
            deadline: seconds that a verification may take, captures included; after that the answer is no.
            store_must_exist: do not make one.

        `about` says what was chosen, and why nothing better. A bundle's notice, such as that it is for evaluation, is logged
        as a warning (logger `edgepin`) before the first decision.

        Raises BundleNotFoundError, BundleError, StoreError, PolicyError (stricter than the evidence),
        EnvironmentFault (a backend that is named or required and cannot run here, a key that is not there),
        IntegrityError (a calibration, a guard, or an engine in the cache was altered).
        """
        if policy is not None and not isinstance(policy, Policy):
            raise UsageError(f"the policy must be a Policy, not {type(policy).__name__}")
        if not isinstance(bundle, (str, Path, Bundle, type(None))):
            raise UsageError(f"the bundle must be a path or a Bundle, not {type(bundle).__name__}")
        Deadline(deadline)  # refused before anything is made
        if bundle is None:
            bundle = open_starter()
        elif not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle, allow_unsigned=allow_unsigned)
        path = Path(store) if store is not None else enrollments_path()
        if store_must_exist and not os.path.exists(path):
            raise EnvironmentFault(
                f"there is no store at {path}", hint="enroll someone first: edgepin enroll ID …"
            )
        if isinstance(calibration, (str, Path)):
            calibration = SiteCalibration.open(calibration, bundle)
        if calibration is not None and calibration.bundle != bundle.digest:
            raise IntegrityError("the site calibration belongs to another bundle", hint="edgepin calibrate")
        fusion = Fusion.from_json(bundle.manifest.fusion) if calibration is None else calibration.fusion
        # A policy that cannot be is refused before a store is made for it.
        resolve(policy or Policy(), fusion)
        with ExitStack() as undo:
            chosen = open_runtime(bundle, backend=backend, require=require, precision=precision)
            undo.callback(close_runtime, chosen.runtime)
            pipeline = make_pipeline(bundle, chosen.runtime, finder)
            opened = undo.enter_context(
                Store.open(path, key or KeyFile(store_key_path()), bundle.digest, counter=counter)
            )
            guard = undo.enter_context(
                Guard.open(guard_path(path), opened, clock=clock, limits=limits, counter=guard_counter)
            )
            verifier = cls(
                pipeline,
                opened,
                fusion,
                guard,
                policy,
                notice=bundle.notice,
                about=chosen.about if calibration is None else f"{chosen.about}; calibrated at the site",
                liveness=liveness,
                challenge=challenge,
                deadline=deadline,
            )
            undo.pop_all()
        give_back_memory()
        return verifier

    def give_notice(self) -> None:
        """Logs the bundle's notice, if it has one, the first time."""
        notice, self._notice = self._notice, None
        if notice is not None:
            logging.getLogger("edgepin").warning("%s", notice)

    # --- Enrollment

    def enroll(
        self,
        subject: str,
        *,
        consent: str | Consent | None = None,
        expires: float | None = None,
        replace: bool = False,
        check_duplicates: bool = False,
    ) -> Enrollment:
        """Starts an enrollment, to be used in a `with` block.

        Args:
            subject: the id; see `check_subject`.
            consent: what the person agreed to.
            expires: when the consent given as text runs out, in Unix seconds.
            replace: erase what is kept of the id first.
            check_duplicates: compare with everybody who is enrolled, and report who looks like the same person. That is
                a search of all (1:N), so it is done only where it is asked for.

        Raises AlreadyEnrolledError unless `replace`.
        """
        check_subject(subject)
        if not replace and self.store.get(subject) is not None:
            raise AlreadyEnrolledError(
                f"{subject!r} is enrolled already",
                hint="choose another id, or replace it knowingly (replace=True, --replace)",
            )
        given = Consent.of(consent, expires)
        return Enrollment(self, subject, given, replace=replace, check_duplicates=check_duplicates)

    def erase(self, subject: str) -> None:
        """Erases a person: templates, consent, counters, earlier samples. Raises UnknownSubjectError.

        The audit keeps that somebody was erased, and can no longer say who.
        """
        if self.store.get(subject) is None:
            raise UnknownSubjectError(f"{subject!r} is not enrolled")
        # The store last: an erasure that was cut off can then be asked for again.
        self.guard.note("erased", subject)
        self.guard.forget(subject)
        self.store.delete(subject)
        self.guard.forget(subject)  # an attempt may have been under way

    def _enroll(
        self,
        enrollment: Enrollment,
        templates: Mapping[str, Template],
        captures: Sequence[Capture],
        *,
        replace: bool,
        check_duplicates: bool,
    ) -> tuple[str, ...] | None:
        """Writes an enrollment; returns who looks like the same person, or None if nobody looked."""
        subject = enrollment.subject
        duplicates = lookalikes(self, subject, templates) if check_duplicates else None
        counts = {f"{modality}s": len(template.identity) for modality, template in templates.items()}
        # Before the store: whoever is in it has their samples remembered.
        self.guard.enrolled(subject, [capture.fingerprint for capture in captures], counts)
        self.store.put(subject, templates, enrollment.consent, replace=replace)
        return duplicates

    # --- Verification

    def verify(
        self,
        subject: str,
        *,
        face: FaceSource | None = None,
        voice: VoiceSource | None = None,
        sample_rate: int | None = None,
        cropped: bool = False,
        door: str = "",
    ) -> Decision:
        """Whether the captures are `subject`'s. An unknown id is rejected like a stranger.

        Args:
            subject: whom it should be.
            face: an image as path, bytes or uint8 RGB (H, W, 3), a `FaceStream`, or several frames of one person, of
                which the mean decides.
            voice: a sound as path, bytes, an array with its `sample_rate`, or a `VoiceStream`.
            sample_rate: of a voice given as an array, in Hz.
            cropped: the images are face crops already.
            door: the place or caller of the attempt, by which failures are counted too.

        Raises CaptureError for a capture that cannot be used (not counted), LockedOutError after too many failures,
        UsageError without any capture, StoreError and IntegrityError for altered templates or counters,
        EnvironmentFault (`DeadlineExceededError`) if the captures alone take longer than the deadline. None of these
        is a yes.
        """
        if self.challenge is not None:
            raise UsageError(
                "what is to be spoken must be known before it is captured",
                hint="start a session, show its prompt, then verify: verifier.attempts(…)",
            )
        session = AttemptSession(self, subject, door, 1)
        return session.verify(face=face, voice=voice, sample_rate=sample_rate, cropped=cropped)

    def attempts(self, subject: str, *, door: str = "", max_attempts: int | None = None) -> AttemptSession:
        """A session of several samples, within the policy's false match rate as a whole.

        `max_attempts`: by default as many as the policy and the evidence allow; more is a PolicyError.
        """
        return AttemptSession(self, subject, door, max_attempts)

    def identify(
        self,
        *,
        face: FaceSource | None = None,
        voice: VoiceSource | None = None,
        sample_rate: int | None = None,
        cropped: bool = False,
        top: int = 5,
        door: str = "",
    ) -> Identification:
        """Who of all enrolled it could be (1:N), likeliest first. Off unless the policy has `allow_identification`.

        A search counts as a failure at the door, for nobody in particular, and is in the audit. People whose consent
        has run out are not named.

        Raises PolicyError where it is off, LockedOutError where the door has to wait, else as `verify`.
        """
        if not self.policy.policy.allow_identification:
            raise PolicyError(
                "the policy does not allow identification (1:N)",
                hint="verify an id instead, or allow it knowingly: Policy(allow_identification=True)",
            )
        if face is None and voice is None:
            raise UsageError("nothing to search with", hint="give a face, a voice, or both")
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= 1000:
            raise UsageError(f"top is 1 to 1000 candidates, not {top!r}")
        if self.challenge is not None:
            raise UsageError("a spoken challenge is of one person; it cannot be searched with")
        timings, deadline = Timings(), Deadline(self.deadline)
        captures = self.watchdog.run(
            lambda: capture_all(self.pipeline, face, voice, sample_rate, cropped, timings),
            deadline,
            dispose=wipe,
        )
        self.give_notice()
        self.guard.search(door)
        probe = {modality: mean_embedding(group) for modality, group in captures.items()}
        pcm = captures["voice"][0].sample if "voice" in captures else None
        check, refused = self.liveness, None
        if check is not None:
            refused = self.watchdog.run(lambda: not_live(check, captures, pcm), deadline)
        wipe(captures)
        with timings.stage("index"):
            index = self.templates_in_memory()
        with timings.stage("search"):
            found = index.identify(probe, self.fusion, self.policy, top=top)
            now = self.guard.clock.now()
            gone = {one.subject for one in found.candidates if self._has_run_out(one.subject, now)}
        deadline.check()
        if refused is not None:
            found = replace(found, match=None, candidates=(), reason=refused)
        elif gone:
            kept = tuple(one for one in found.candidates if one.subject not in gone)
            match = None if found.match in gone else found.match
            found = replace(found, match=match, candidates=kept, reason=found.reason if match else "no_match")
        self.guard.note(
            "identified", details={"searched": found.searched, "matched": found.match is not None}
        )
        return replace(found, timings=timings.stages)

    def _has_run_out(self, subject: str, now: float) -> bool:
        consent = self.store.consent(subject)
        return consent is not None and consent.has_run_out(now)

    def templates_in_memory(self) -> TemplateIndex:
        """Everybody's templates in memory, read again when the store has changed."""
        with self._index_lock:
            version = self.store.version
            if self._index is None or self._index[0] != version:
                self._index = None  # not two at once
                self._index = (version, TemplateIndex.of(self.store))
            return self._index[1]

    def close(self) -> None:
        """Closes guard, store and runtime. Closing twice is fine."""
        with ExitStack() as closing:
            closing.callback(self.watchdog.close)
            closing.callback(close_runtime, self.pipeline.runtime)
            closing.callback(self.store.close)
            closing.callback(self.guard.close)

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
