"""Attempts: counted before they are compared, bounded in number and time, and refused where something is suspicious."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin import (
    CaptureError,
    Decision,
    EdgePinError,
    EnvironmentFault,
    FrameMotion,
    Liveness,
    LockedOutError,
    MemoryKey,
    Policy,
    PolicyError,
    UsageError,
    Verifier,
)
from edgepin._decision.policy import resolve
from edgepin._guard.attempt import Attempt

from .conftest import Pins
from .synthetic_captures import RATE, picture, voice

pytestmark = pytest.mark.usefixtures("device")
ADA, EVE = 1, 2
KEY = MemoryKey(bytes(range(32)))
CAPTURES = itertools.count(9)


@pytest.fixture
def verifier(pins: Pins, tmp_path: Path) -> Iterator[Verifier]:
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY) as verifier:
        enroll(verifier)
        yield verifier


def enroll(verifier: Verifier) -> None:
    with verifier.enroll("ada") as session:
        for capture in range(3):
            session.add_face(picture(ADA, capture), cropped=True)
            session.add_voice(voice(ADA, capture), sample_rate=RATE)


def sample(person: int, capture: int | None = None) -> dict[str, Any]:
    number = next(CAPTURES) if capture is None else capture
    return {
        "face": picture(person, number),
        "voice": voice(person, number),
        "sample_rate": RATE,
        "cropped": True,
    }


def codes(decision: Decision) -> set[str]:
    return {reason.code for reason in decision.reasons}


def kinds(verifier: Verifier) -> list[str]:
    return [entry.kind for entry in verifier.guard.audit.entries()]


def failures(verifier: Verifier, subject: str = "ada") -> int:
    return verifier.guard.status(subject).failures_everywhere


# --- Counting


def test_after_five_failures_the_sixth_is_not_even_compared(verifier: Verifier) -> None:
    for _ in range(5):
        assert not verifier.verify("ada", **sample(EVE), door="north").accepted
    with pytest.raises(LockedOutError) as caught:
        verifier.verify("ada", **sample(ADA), door="north")
    assert not caught.value.disabled
    assert caught.value.retry_after is not None
    assert 0.0 < caught.value.retry_after <= 30.0
    assert kinds(verifier).count("attempt") == 5


def test_an_unknown_id_is_locked_out_like_a_known_one(verifier: Verifier) -> None:
    for _ in range(5):
        verifier.verify("nobody", **sample(EVE))
    with pytest.raises(LockedOutError):
        verifier.verify("nobody", **sample(EVE))


def test_an_acceptance_ends_the_row_of_failures(verifier: Verifier) -> None:
    for _ in range(4):
        verifier.verify("ada", **sample(EVE))
    assert failures(verifier) == 4
    assert verifier.verify("ada", **sample(ADA)).accepted
    assert failures(verifier) == 0


def test_a_capture_that_cannot_be_used_is_not_counted(verifier: Verifier) -> None:
    blank = {**sample(ADA), "face": np.full((128, 128, 3), 128, np.uint8)}
    for _ in range(7):
        with pytest.raises(CaptureError):
            verifier.verify("ada", **blank)
    assert failures(verifier) == 0
    assert verifier.verify("ada", **sample(ADA)).accepted


def test_an_error_while_deciding_is_a_counted_failure(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("edgepin._attempts.compare", broken)
    with pytest.raises(ZeroDivisionError):
        verifier.verify("ada", **sample(ADA))
    assert failures(verifier) == 1


def test_who_cannot_be_counted_is_not_compared(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise EnvironmentFault("the disk is full")

    monkeypatch.setattr(verifier.guard, "begin", full)
    monkeypatch.setattr("edgepin._attempts.compare", lambda *_: pytest.fail("compared"))
    with pytest.raises(EnvironmentFault):
        verifier.verify("ada", **sample(ADA))


def test_an_acceptance_that_cannot_be_recorded_is_none(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise EnvironmentFault("the disk is full")

    monkeypatch.setattr("edgepin._guard.attempt.Attempt.accept", full)
    with pytest.raises(EnvironmentFault):
        verifier.verify("ada", **sample(ADA))


def test_the_audit_tells_what_happened_and_verifies(verifier: Verifier) -> None:
    verifier.verify("ada", **sample(ADA), door="north")
    verifier.verify("ada", **sample(EVE), door="north")
    assert [kind for kind in kinds(verifier) if kind != "created"] == [
        "enrolled", "attempt", "accepted", "attempt", "rejected",
    ]  # fmt: skip
    assert verifier.guard.audit.verify().intact


def test_the_audit_of_an_erased_person_no_longer_says_who(verifier: Verifier) -> None:
    verifier.verify("ada", **sample(ADA))
    verifier.erase("ada")
    assert verifier.store.subjects() == []
    assert verifier.guard.remembered("ada") == []
    assert not any((entry.details or {}).get("id") == "ada" for entry in verifier.guard.audit.entries())


def test_what_is_remembered_of_the_enrollment_outlasts_any_number_of_acceptances(verifier: Verifier) -> None:
    for _ in range(20):
        assert verifier.verify("ada", **sample(ADA)).accepted
    assert "face_replayed" in codes(verifier.verify("ada", **sample(ADA, capture=0)))


def test_the_same_rejected_sample_twice_does_not_tell_who_is_enrolled(verifier: Verifier) -> None:
    wrong = sample(EVE)
    told = {name: [codes(verifier.verify(name, **wrong)) for _ in range(2)] for name in ("ada", "nobody")}
    assert told["ada"][0] == told["ada"][1]
    assert told["nobody"][0] == told["nobody"][1]


def test_of_one_sample_at_several_doors_at_once_one_is_accepted(verifier: Verifier) -> None:
    shared, together = sample(ADA), threading.Barrier(3)

    class Waits:
        def check(self, frames: Any, voice: Any) -> Liveness:
            together.wait(10.0)
            return Liveness(True, None)

    verifier.liveness = Waits()
    with ThreadPoolExecutor(3) as pool:
        decisions = list(pool.map(lambda door: verifier.verify("ada", **shared, door=door), "abc"))
    assert sorted(decision.outcome for decision in decisions) == ["accepted", "rejected", "rejected"]
    assert {code for decision in decisions for code in codes(decision)} == {"accepted", "replayed"}


def test_a_new_person_under_an_id_inherits_nothing_of_the_one_before(verifier: Verifier) -> None:
    verifier.verify("ada", **sample(ADA))
    verifier.store.delete("ada")
    enroll(verifier)
    assert len(verifier.guard.remembered("ada")) == 6


def test_replacing_an_enrollment_keeps_the_failures_counted(verifier: Verifier) -> None:
    for _ in range(3):
        verifier.verify("ada", **sample(EVE))
    with verifier.enroll("ada", replace=True) as session:
        session.add_face(picture(ADA, next(CAPTURES)), cropped=True)
    assert failures(verifier) == 3


# --- Time


class Slow:
    """The runtime of a verifier, after a while."""

    name = "slow"

    def __init__(self, runtime: Any, seconds: float) -> None:
        self.runtime, self.seconds = runtime, seconds

    def encode(self, modality: str, batch: Any) -> Any:
        time.sleep(self.seconds)
        return self.runtime.encode(modality, batch)


def test_a_runtime_that_hangs_is_answered_in_time_and_never_with_yes(verifier: Verifier) -> None:
    verifier.pipeline.runtime = Slow(verifier.pipeline.runtime, 4.0)
    verifier.deadline = 0.2
    start = time.monotonic()
    with pytest.raises(EdgePinError, match="no answer within"):
        verifier.verify("ada", **sample(ADA))
    assert time.monotonic() - start < 3.5


def test_an_answer_that_comes_too_late_is_a_rejection(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = verifier.store.enrollment

    def slowly(subject: str) -> Any:
        time.sleep(3.0)
        return read(subject)

    monkeypatch.setattr(verifier.store, "enrollment", slowly)
    verifier.deadline = 2.5
    decision = verifier.verify("ada", **sample(ADA))
    assert (decision.outcome, codes(decision)) == ("rejected", {"deadline"})
    assert failures(verifier) == 1


def test_a_check_that_hangs_is_answered_in_time(verifier: Verifier) -> None:
    class Hangs:
        def check(self, frames: Any, voice: Any) -> Liveness:
            time.sleep(6.0)
            return Liveness(True, None)

    verifier.liveness, verifier.deadline = Hangs(), 2.0
    start = time.monotonic()
    decision = verifier.verify("ada", **sample(ADA))
    assert time.monotonic() - start < 5.5
    assert (decision.outcome, codes(decision)) == ("rejected", {"deadline"})
    assert failures(verifier) == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 1e30, "5", True, None])
def test_a_deadline_that_is_none_is_refused(pins: Pins, tmp_path: Path, seconds: Any) -> None:
    with pytest.raises(UsageError, match="deadline"):
        Verifier.open(pins.site, tmp_path / "d.db", key=KEY, deadline=seconds)


# --- Suspicion


def test_a_sample_that_was_here_before_is_refused(verifier: Verifier) -> None:
    again = sample(ADA)
    assert verifier.verify("ada", **again).accepted
    decision = verifier.verify("ada", **again)
    assert not decision.accepted
    assert {"face_replayed", "voice_replayed"} <= codes(decision)


def test_a_sample_of_the_enrollment_is_refused(verifier: Verifier) -> None:
    decision = verifier.verify("ada", **sample(ADA, capture=0))
    assert not decision.accepted
    assert {"face_replayed", "voice_replayed"} <= codes(decision)


def test_what_another_person_brought_is_no_replay_of_mine(verifier: Verifier) -> None:
    shared = sample(ADA)
    verifier.verify("nobody", **shared)
    assert verifier.verify("ada", **shared).accepted


class Check:
    """A liveness check that says what it was told to, and keeps what it was asked."""

    def __init__(self, live: bool) -> None:
        self.live, self.asked = live, []

    def check(self, frames: Any, voice: Any) -> Liveness:
        self.asked.append((len(frames), None if voice is None else voice.dtype))
        return Liveness(self.live, None if self.live else "still_frames")


@pytest.mark.parametrize("live", [True, False])
def test_a_liveness_check_can_reject_and_nothing_else(verifier: Verifier, live: bool) -> None:
    verifier.liveness = Check(live)
    frames = {**sample(ADA), "face": [picture(ADA, next(CAPTURES)) for _ in range(4)]}
    decision = verifier.verify("ada", **frames)
    assert decision.accepted is live
    assert ("still_frames" in codes(decision)) is not live
    assert verifier.liveness.asked == [(4, np.dtype(np.int16))]
    assert not verifier.verify("ada", **sample(EVE)).accepted


class Digits:
    """A challenge whose recognizer hears what it was told to."""

    def __init__(self, heard: str) -> None:
        self.heard, self.prompts = heard, iter(["1 2 3", "4 5 6", "7 8 9"])

    def prompt(self) -> str:
        return next(self.prompts)

    def check(self, pcm: Any, prompt: str) -> bool:
        return prompt == self.heard


def test_another_phrase_than_was_asked_for_is_a_rejection(verifier: Verifier) -> None:
    verifier.challenge = Digits("1 2 3")
    session = verifier.attempts("ada")
    assert session.prompt == "1 2 3"
    assert session.verify(**sample(ADA)).accepted
    session = verifier.attempts("ada")
    assert session.prompt == "4 5 6"
    decision = session.verify(**sample(ADA))
    assert not decision.accepted
    assert "challenge_failed" in codes(decision)


class Says:
    """A check of somebody else's that answers, or raises, what it was told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def prompt(self) -> str:
        return "1 2 3"

    def check(self, *_: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [1, "no", "yes", None, [True]])
def test_a_check_that_does_not_say_true_says_no(verifier: Verifier, answer: Any) -> None:
    verifier.challenge = Says(answer)
    assert "challenge_failed" in codes(verifier.attempts("ada").verify(**sample(ADA)))
    verifier.challenge, verifier.liveness = None, Says(answer)
    assert "not_live" in codes(verifier.verify("ada", **sample(ADA)))


def test_a_check_that_breaks_lets_nobody_in_and_is_told_as_ours(verifier: Verifier) -> None:
    verifier.liveness = Says(ZeroDivisionError("7"))
    with pytest.raises(EnvironmentFault, match="liveness check failed"):
        verifier.verify("ada", **sample(ADA))
    assert failures(verifier) == 1


def test_a_challenge_needs_a_session_whose_prompt_can_be_seen(verifier: Verifier) -> None:
    verifier.challenge = Digits("1 2 3")
    with pytest.raises(UsageError, match="must be known"):
        verifier.verify("ada", **sample(ADA))
    assert failures(verifier) == 0


def test_a_frame_of_another_person_is_not_carried_by_the_others(verifier: Verifier) -> None:
    frames = [picture(ADA, next(CAPTURES)) for _ in range(4)] + [picture(EVE, next(CAPTURES))]
    decision = verifier.verify("ada", **{**sample(ADA), "face": frames})
    assert not decision.accepted
    assert "frames_disagree" in codes(decision)


@pytest.mark.parametrize("captures", [{"face": 5}, {"voice": 5}, {"face": [5]}, {"face": {}}])
def test_what_is_no_capture_is_a_usage_error_and_not_counted(verifier: Verifier, captures: Any) -> None:
    with pytest.raises(UsageError):
        verifier.verify("ada", **captures)
    assert failures(verifier) == 0


def test_a_check_is_not_got_around_by_leaving_out_what_it_looks_at(verifier: Verifier) -> None:
    verifier.challenge = Digits("1 2 3")
    face = {"face": picture(ADA, next(CAPTURES)), "cropped": True}
    assert "challenge_failed" in codes(verifier.attempts("ada").verify(**face))
    verifier.challenge, verifier.liveness = None, FrameMotion()
    verifier.policy = resolve(Policy(allow_voice_alone=True), verifier.fusion)
    decision = verifier.verify("ada", voice=voice(ADA, next(CAPTURES)), sample_rate=RATE)
    assert "too_few_frames" in codes(decision)


def test_whose_consent_has_run_out_is_rejected(pins: Pins, tmp_path: Path) -> None:
    with Verifier.open(pins.site, tmp_path / "c.db", key=KEY) as verifier:
        with verifier.enroll("ada", consent="form 7", expires=time.time() + 0.5) as session:
            session.add_face(picture(ADA, 0), cropped=True)
        time.sleep(0.6)
        decision = verifier.verify("ada", face=picture(ADA, next(CAPTURES)), cropped=True)
    assert not decision.accepted
    assert codes(decision) == {"consent_expired"}


def test_an_acceptance_whose_record_came_too_late_is_a_rejection(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Attempt.accept

    def slowly(*arguments: Any, **options: Any) -> bool:
        accepted = accept(*arguments, **options)
        time.sleep(3.0)
        return accepted

    monkeypatch.setattr(Attempt, "accept", slowly)
    verifier.deadline = 2.5
    decision = verifier.verify("ada", **sample(ADA))
    assert (decision.outcome, codes(decision)) == ("rejected", {"deadline"})
    assert kinds(verifier)[-1] == "answered_late"


# --- Sessions


def test_a_session_takes_another_sample_and_then_ends(verifier: Verifier) -> None:
    session = verifier.attempts("ada", max_attempts=3)
    outcomes = [session.verify(**sample(EVE)).outcome for _ in range(3)]
    assert outcomes == ["another", "another", "rejected"]
    assert session.attempts_left == 0
    with pytest.raises(UsageError, match="ended"):
        session.verify(**sample(ADA))


def test_a_later_sample_of_a_session_can_be_accepted(verifier: Verifier) -> None:
    session = verifier.attempts("ada", max_attempts=3)
    assert session.verify(**sample(EVE)).outcome == "another"
    decision = session.verify(**sample(ADA))
    assert (decision.outcome, decision.attempt, decision.attempts_left) == ("accepted", 2, 0)


def test_sessions_share_the_limits(verifier: Verifier) -> None:
    for _ in range(2):
        session = verifier.attempts("ada", max_attempts=3)
        for _ in range(3):
            if failures(verifier) < 5:
                session.verify(**sample(EVE))
    with pytest.raises(LockedOutError):
        verifier.attempts("ada").verify(**sample(ADA))


def test_a_session_keeps_to_what_it_began_with(verifier: Verifier) -> None:
    session = verifier.attempts("ada", max_attempts=3)
    session.verify(**sample(EVE))
    with pytest.raises(UsageError, match="this session compares"):
        session.verify(face=picture(ADA, next(CAPTURES)), cropped=True)


def test_a_session_ends_by_its_age(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepin._attempts.SESSION_SECONDS", 0.01)
    session = verifier.attempts("ada", max_attempts=3)
    time.sleep(0.02)
    with pytest.raises(UsageError, match="ended"):
        session.verify(**sample(ADA))
    assert (session.outcome, session.attempts_left) == ("rejected", 0)


def test_more_samples_than_the_evidence_carries_are_refused(verifier: Verifier) -> None:
    with pytest.raises(PolicyError):
        verifier.attempts("ada", max_attempts=5)


# --- Growing templates


def captures(verifier: Verifier) -> int:
    return len((verifier.store.get("ada") or {})["face"].identity)


def test_a_template_grows_only_where_the_policy_says_so(
    pins: Pins, verifier: Verifier, tmp_path: Path
) -> None:
    assert verifier.verify("ada", **sample(ADA)).accepted
    assert captures(verifier) == 3
    verifier.close()
    policy = Policy(fmr=0.1, adaptive_update=True)
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY, policy=policy) as learning:
        assert learning.verify("ada", **sample(ADA)).accepted
        assert captures(learning) == 4
        assert not learning.verify("ada", **sample(EVE)).accepted
        assert learning.verify("ada", face=picture(ADA, next(CAPTURES)), cropped=True).accepted
        assert captures(learning) == 4  # one modality alone teaches nothing
