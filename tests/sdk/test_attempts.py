"""Attempts: counted before they are compared, bounded in number and time, and refused where something is suspicious."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin import (
    CaptureError,
    Decision,
    EdgePinError,
    EnvironmentFault,
    LockedOutError,
    MemoryKey,
    Policy,
    PolicyError,
    UsageError,
    Verifier,
)

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
    assert caught.value.retry_after == pytest.approx(30.0, abs=5.0)
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
    verifier.pipeline.runtime = Slow(verifier.pipeline.runtime, 1.0)
    verifier.deadline = 0.2
    start = time.monotonic()
    with pytest.raises(EdgePinError, match="no answer within"):
        verifier.verify("ada", **sample(ADA))
    assert time.monotonic() - start < 1.0


def test_an_answer_that_comes_too_late_is_a_rejection(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = verifier.store.get

    def slowly(subject: str) -> Any:
        time.sleep(1.5)
        return get(subject)

    monkeypatch.setattr(verifier.store, "get", slowly)
    verifier.deadline = 1.4
    decision = verifier.verify("ada", **sample(ADA))
    assert (decision.outcome, codes(decision)) == ("rejected", {"deadline"})
    assert failures(verifier) == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_deadline_that_is_none_is_refused(pins: Pins, tmp_path: Path, seconds: float) -> None:
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


@dataclass
class Verdict:
    live: bool
    code: str | None = None


class Check:
    """A liveness check that says what it was told to, and keeps what it was asked."""

    def __init__(self, live: bool) -> None:
        self.live, self.asked = live, []

    def check(self, frames: Any, voice: Any) -> Verdict:
        self.asked.append((len(frames), None if voice is None else voice.dtype))
        return Verdict(self.live, None if self.live else "still_frames")


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
