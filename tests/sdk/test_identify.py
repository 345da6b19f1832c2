"""Identification: exact, off by default, and no match without the evidence for one among so many."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin import (
    FrameMotion,
    GuardLimits,
    LockedOutError,
    MemoryKey,
    Policy,
    PolicyError,
    UsageError,
    Verifier,
)
from edgepin._decision.calibration import calibrate
from edgepin._decision.policy import resolve
from edgepin._identify import ModalityIndex, TemplateIndex
from edgepin._pipeline import Embedding

from .conftest import APART, Pins
from .simulated_people import World
from .synthetic_captures import RATE, picture, voice

pytestmark = pytest.mark.usefixtures("device")
KEY = MemoryKey(bytes(range(32)))
FUSION = calibrate(APART.trials(40, seed=2), cross_modal=False)
CROSS = calibrate(World().trials(40, seed=3), cross_modal=True)


@pytest.fixture
def verifier(pins: Pins, tmp_path: Path) -> Iterator[Verifier]:
    policy = Policy(fmr=0.1, allow_identification=True)
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY, policy=policy) as verifier:
        for person in range(1, 5):
            enroll(verifier, f"badge-{person}", person)
        yield verifier


def enroll(verifier: Verifier, subject: str, person: int) -> None:
    with verifier.enroll(subject) as session:
        for capture in range(2):
            session.add_face(picture(person, capture), cropped=True)
            session.add_voice(voice(person, capture), sample_rate=RATE)


def unit(rng: np.random.Generator, people: int) -> np.ndarray:
    rows = rng.standard_normal((people, 256)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def index_of(people: int, seed: int, *, without_voice: int = 0) -> TemplateIndex:
    rng = np.random.default_rng(seed)
    names = tuple(f"p{i:04d}" for i in range(people))
    voiced = names[without_voice:]
    return TemplateIndex(
        {
            "face": ModalityIndex(names, unit(rng, people), unit(rng, people)),
            "voice": ModalityIndex(voiced, unit(rng, len(voiced)), unit(rng, len(voiced))),
        }
    )


def probe_of(seed: int) -> dict[str, Embedding]:
    rng = np.random.default_rng(seed)
    return {name: Embedding(unit(rng, 1)[0], unit(rng, 1)[0]) for name in ("face", "voice")}


def test_it_is_off_unless_the_policy_allows_it(pins: Pins, tmp_path: Path) -> None:
    with (
        Verifier.open(pins.site, tmp_path / "e.db", key=KEY) as verifier,
        pytest.raises(PolicyError, match="identification"),
    ):
        verifier.identify(face=picture(1, 9), cropped=True)


def test_the_right_person_is_first(verifier: Verifier) -> None:
    found = verifier.identify(face=picture(3, 9), voice=voice(3, 9), sample_rate=RATE, cropped=True)
    assert found.candidates[0].subject == "badge-3"
    assert found.searched == 4
    assert [one.llr for one in found.candidates] == sorted(
        (one.llr for one in found.candidates), reverse=True
    )
    assert found.match in (None, "badge-3")


def test_a_stranger_is_no_match(verifier: Verifier) -> None:
    found = verifier.identify(face=picture(77, 9), voice=voice(77, 9), sample_rate=RATE, cropped=True)
    assert found.match is None
    assert len(found.candidates) == 4


def test_it_sees_who_was_enrolled_and_erased_since(verifier: Verifier) -> None:
    verifier.identify(face=picture(1, 9), cropped=True)
    enroll(verifier, "badge-9", 9)
    assert verifier.identify(face=picture(9, 9), cropped=True).candidates[0].subject == "badge-9"
    verifier.erase("badge-9")
    found = verifier.identify(face=picture(9, 9), cropped=True, top=10)
    assert "badge-9" not in [one.subject for one in found.candidates]


def test_searches_are_counted_at_the_door(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier.guard._file, "limits", GuardLimits(door_failures=3, door_seconds=600.0))
    for _ in range(3):
        verifier.identify(face=picture(1, 9), cropped=True, door="north")
    with pytest.raises(LockedOutError):
        verifier.identify(face=picture(1, 9), cropped=True, door="north")
    assert verifier.identify(face=picture(1, 9), cropped=True, door="south").searched == 4


def test_nobody_is_named_who_does_not_live_or_whose_consent_has_run_out(verifier: Verifier) -> None:
    with verifier.enroll("badge-8", consent="form 7", expires=time.time() + 0.5) as session:
        session.add_face(picture(8, 0), cropped=True)
    time.sleep(0.6)
    found = verifier.identify(face=picture(8, 9), cropped=True)
    assert "badge-8" not in [one.subject for one in found.candidates]
    verifier.liveness = FrameMotion()
    found = verifier.identify(face=picture(1, 9), cropped=True)
    assert (found.match, found.candidates, found.reason) == (None, (), "too_few_frames")


def test_among_nobody_there_is_no_match(pins: Pins, tmp_path: Path) -> None:
    policy = Policy(allow_identification=True)
    with Verifier.open(pins.site, tmp_path / "empty.db", key=KEY, policy=policy) as verifier:
        found = verifier.identify(face=picture(1, 9), cropped=True)
    assert (found.match, found.candidates, found.searched, found.reason) == (None, (), 0, "no_match")


@pytest.mark.parametrize("top", [0, -1, 1001, True, 2.0])
def test_how_many_candidates_must_be_a_number_that_can_be(verifier: Verifier, top: object) -> None:
    with pytest.raises(UsageError, match="candidates"):
        verifier.identify(face=picture(1, 9), cropped=True, top=top)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(people=st.integers(1, 60), seed=st.integers(0, 1000), lack=st.integers(0, 3), cross=st.booleans())
def test_the_search_is_exact(people: int, seed: int, lack: int, cross: bool) -> None:
    fusion = CROSS if cross else FUSION
    index, probe = index_of(people, seed, without_voice=min(lack, people)), probe_of(seed + 1)
    llr, captured = index.llrs(probe, fusion)
    assert captured == "face+voice"
    face, sound = index._modalities["face"], index._modalities["voice"]
    for place, name in enumerate(index.subjects):
        if name not in sound.subjects:
            assert llr[place] == -np.inf
            continue
        own, own_sound = face.subjects.index(name), sound.subjects.index(name)
        scores = [
            float(face.identity[own].astype(np.float64) @ probe["face"].identity),
            float(sound.identity[own_sound].astype(np.float64) @ probe["voice"].identity),
            float(face.pin[own].astype(np.float64) @ probe["voice"].pin),
            float(sound.pin[own_sound].astype(np.float64) @ probe["face"].pin),
        ]
        expected = fusion.model.joint_llr(*(np.array([score]) for score in scores))[0]
        assert llr[place] == pytest.approx(expected, abs=1e-3)


def test_more_people_need_more_evidence() -> None:
    policy = resolve(Policy(fmr=0.05), FUSION)
    probe = probe_of(5)
    few, many = index_of(2, 1), index_of(2000, 1)
    assert few.identify(probe, FUSION, policy).reason == "no_match"
    found = many.identify(probe, FUSION, policy)
    assert (found.match, found.reason, found.fmr, found.searched) == (
        None,
        "insufficient_evidence",
        None,
        2000,
    )
    assert len(found.candidates) == 5


def test_a_match_must_clear_the_floor_of_each_modality() -> None:
    index = index_of(3, 4)
    policy = resolve(Policy(fmr=0.1), FUSION)
    own = {name: index._modalities[name].identity[1] for name in ("face", "voice")}
    right = {name: Embedding(rows, rows) for name, rows in own.items()}
    assert index.identify(right, FUSION, policy).match == "p0001"
    forged = {**right, "voice": probe_of(9)["voice"]}
    assert index.identify(forged, FUSION, policy).match is None
