"""Enrollment tells how far it is, leaves out who does not belong, and reports who is there twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgepin import CaptureError, Consent, Enrollment, MemoryKey, Verifier

from .conftest import Pins
from .synthetic_captures import RATE, picture, voice

pytestmark = pytest.mark.usefixtures("device")
ADA, EVE = 1, 2
KEY = MemoryKey(bytes(range(32)))


@pytest.fixture
def verifier(pins: Pins, tmp_path: Path) -> Iterator[Verifier]:
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY) as verifier:
        yield verifier


def add(session: Enrollment, faces: list[int], voices: list[int]) -> None:
    for capture, person in enumerate(faces):
        session.add_face(picture(person, capture), cropped=True)
    for capture, person in enumerate(voices):
        session.add_voice(voice(person, capture), sample_rate=RATE)


def enroll(verifier: Verifier, subject: str, person: int) -> None:
    with verifier.enroll(subject) as session:
        add(session, [person] * 3, [person] * 3)


def test_feedback_asks_for_what_is_missing_until_the_template_is_good(verifier: Verifier) -> None:
    session = verifier.enroll("ada")
    assert not session.feedback.good
    add(session, [ADA], [])
    assert session.feedback.advice == (
        "2 more face captures that agree",
        "no voice yet: one modality alone verifies less surely",
    )
    add(session, [ADA, ADA], [ADA] * 3)
    feedback = session.feedback
    assert (feedback.faces, feedback.voices, feedback.good, feedback.advice) == (3, 3, True, ())
    assert set(feedback.agreement) == {"face", "voice"}
    assert min(feedback.agreement.values()) > 0.0


def test_each_capture_is_answered_with_its_quality_and_how_far_it_agrees(verifier: Verifier) -> None:
    session = verifier.enroll("ada")
    first = session.add_face(picture(ADA, 0), cropped=True)
    assert (first.number, first.agreement, first.agrees) == (1, None, True)
    assert first.quality.ok
    assert first.quality.measurements
    second = session.add_face(picture(ADA, 1), cropped=True)
    assert second.agrees
    assert second.agreement is not None
    third = session.add_face(picture(EVE, 2), cropped=True)
    assert (third.number, third.agrees) == (3, False)


def test_a_capture_of_somebody_else_is_left_out(verifier: Verifier) -> None:
    with verifier.enroll("ada") as session:
        add(session, [ADA, ADA, EVE, ADA], [ADA, ADA, ADA])
    assert session.result is not None
    assert (session.result.faces, session.result.left_out) == (3, ("face 3",))
    kept = verifier.store.get("ada")
    assert kept is not None
    assert len(kept["face"].identity) == 3
    assert float((kept["face"].identity @ kept["face"].identity.T).min()) > 0.9


@pytest.mark.parametrize("faces", [[ADA, EVE], [ADA, EVE, 3], [ADA, ADA, EVE, 3, 4]])
def test_captures_of_several_people_enroll_nobody(verifier: Verifier, faces: list[int]) -> None:
    with pytest.raises(CaptureError, match="several persons") as caught, verifier.enroll("ada") as session:
        add(session, faces, [ADA])
    assert caught.value.code == "captures_disagree"
    assert verifier.store.subjects() == []


def test_one_capture_is_enough_to_enroll_and_not_good(verifier: Verifier) -> None:
    with verifier.enroll("ada") as session:
        add(session, [ADA], [ADA])
    assert session.result is not None
    assert not session.result.good


def test_the_same_person_under_two_ids_is_reported_where_it_was_asked_for(verifier: Verifier) -> None:
    enroll(verifier, "ada", ADA)
    enroll(verifier, "eve", EVE)
    with verifier.enroll("ada again", check_duplicates=True) as session:
        for capture in (5, 6, 7):
            session.add_face(picture(ADA, capture), cropped=True)
            session.add_voice(voice(ADA, capture), sample_rate=RATE)
    assert session.result is not None
    assert session.result.duplicates == ("ada",)
    with verifier.enroll("ada once more") as session:
        add(session, [ADA], [ADA])
    assert session.result is not None
    assert session.result.duplicates is None


def test_replacing_an_enrollment_is_not_its_own_duplicate(verifier: Verifier) -> None:
    enroll(verifier, "ada", ADA)
    with verifier.enroll("ada", replace=True, check_duplicates=True) as session:
        add(session, [ADA], [ADA])
    assert session.result is not None
    assert session.result.duplicates == ()


def test_consent_is_kept_as_it_was_given(verifier: Verifier) -> None:
    consent = Consent(
        "form 7", given_at=1_700_000_000.0, expires_at=1_800_000_000.0, recorded_by="front desk"
    )
    with verifier.enroll("ada", consent=consent) as session:
        add(session, [ADA], [ADA])
    assert verifier.store.consent("ada") == consent
    with verifier.enroll("eve", consent="form 8", expires=4e9) as session:
        add(session, [EVE], [])
    kept = verifier.store.consent("eve")
    assert kept is not None
    assert (kept.text, kept.expires_at) == ("form 8", 4e9)


def test_a_result_is_plain_json(verifier: Verifier) -> None:
    with verifier.enroll("ada") as session:
        add(session, [ADA, ADA], [ADA])
    assert session.result is not None
    assert session.result.to_json() == {
        "id": "ada",
        "faces": 2,
        "voices": 1,
        "left_out": [],
        "agreement": {"face": pytest.approx(np.round(session.result.agreement["face"], 4))},
        "good": False,
        "duplicates": None,
    }
