"""The whole device in one object: who is let in, who is not, and what can never let anyone in."""

from __future__ import annotations

import itertools
import json
import math
import runpy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin import (
    AlreadyEnrolledError,
    Bundle,
    BundleNotFoundError,
    CaptureError,
    Decision,
    EdgePinError,
    EnvironmentFault,
    Guard,
    MemoryKey,
    Policy,
    PolicyError,
    Store,
    StoreError,
    UsageError,
    Verifier,
)
from edgepin._decision.fusion import Fusion
from edgepin._pipeline import make_pipeline

from .conftest import DATA, Pins
from .synthetic_captures import RATE, picture, png, voice, write_voice

pytestmark = pytest.mark.usefixtures("device")
ADA, EVE = 1, 2
KEY = MemoryKey(bytes(range(32)))


@pytest.fixture
def verifier(pins: Pins, tmp_path: Path) -> Iterator[Verifier]:
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY) as verifier:
        enroll(verifier, "ada", ADA)
        yield verifier


def enroll(verifier: Verifier, subject: str, person: int, *, replace: bool = False) -> None:
    with verifier.enroll(subject, consent="form 7", replace=replace) as session:
        for capture in (0, 1):
            session.add_face(picture(person, capture), cropped=True)
            session.add_voice(voice(person, capture), sample_rate=RATE)


CAPTURES = itertools.count(9)  # a sample that has been here before is refused


def attempt(
    verifier: Verifier, subject: str, face: int | None, sound: int | None, capture: int | None = None
) -> Decision:
    number = next(CAPTURES) if capture is None else capture
    return verifier.verify(
        subject,
        face=None if face is None else picture(face, number),
        voice=None if sound is None else voice(sound, number),
        sample_rate=RATE,
        cropped=True,
    )


def codes(decision: Decision) -> set[str]:
    return {reason.code for reason in decision.reasons}


def test_the_enrolled_person_is_accepted(verifier: Verifier) -> None:
    decision = attempt(verifier, "ada", ADA, ADA)
    assert decision.accepted
    assert codes(decision) == {"accepted"}
    assert decision.llr is not None
    assert decision.threshold is not None
    assert decision.llr >= decision.threshold
    assert decision.scores.face == pytest.approx(1.0, abs=0.01)
    assert set(decision.timings) >= {"decode", "log_mel", "encode_face", "encode_voice", "decide"}


def test_paths_bytes_and_arrays_are_one_capture(verifier: Verifier, tmp_path: Path) -> None:
    (tmp_path / "f.png").write_bytes(png(picture(ADA, 9)))
    sound = write_voice(tmp_path / "v.wav", voice(ADA, 9))
    decisions = []
    for decide in (
        lambda: attempt(verifier, "ada", ADA, ADA, 9),
        lambda: verifier.verify("ada", face=tmp_path / "f.png", voice=sound, cropped=True),
        lambda: verifier.verify("ada", face=str(tmp_path / "f.png"), voice=sound.read_bytes(), cropped=True),
    ):
        decisions.append(decide())
        verifier.guard.forget("ada")  # or the same sample would be refused
    assert len({decision.llr for decision in decisions}) == 1


def test_another_person_is_rejected(verifier: Verifier) -> None:
    decision = attempt(verifier, "ada", EVE, EVE)
    assert not decision.accepted
    assert codes(decision) == {"below_threshold", "face_below_floor", "voice_below_floor"}


@pytest.mark.parametrize(
    ("face", "sound", "floor"), [(ADA, EVE, "voice_below_floor"), (EVE, ADA, "face_below_floor")]
)
def test_one_right_capture_does_not_carry_a_wrong_one(
    verifier: Verifier, face: int, sound: int, floor: str
) -> None:
    decision = attempt(verifier, "ada", face, sound)
    assert not decision.accepted
    assert floor in codes(decision)


@pytest.mark.parametrize("subject", ["nobody", "ADA", "ada2", "Zoë"])
def test_an_unknown_id_is_answered_like_a_stranger(verifier: Verifier, subject: str) -> None:
    stranger, unknown = attempt(verifier, "ada", EVE, EVE), attempt(verifier, subject, ADA, ADA)
    assert not unknown.accepted
    assert unknown.to_json().keys() == stranger.to_json().keys()
    assert (unknown.threshold, unknown.fmr) == (stranger.threshold, stranger.fmr)
    assert codes(unknown) <= codes(stranger)
    assert "below_threshold" in codes(unknown)
    assert unknown.timings.keys() == stranger.timings.keys()
    assert all(math.isfinite(score) for score in vars(unknown.scores).values() if score is not None)


def test_an_unknown_id_gets_the_same_answer_every_time(verifier: Verifier) -> None:
    first = attempt(verifier, "nobody", EVE, EVE, 9)
    verifier.guard.forget("nobody")
    assert attempt(verifier, "nobody", EVE, EVE, 9) == first


def test_even_a_probe_that_matches_the_decoy_is_rejected(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = verifier.store.get("ada")
    monkeypatch.setattr("edgepin._attempts._decoy", lambda subject: mine)
    decision = attempt(verifier, "nobody", ADA, ADA)
    assert not decision.accepted
    assert codes(decision) == {"below_threshold"}


def test_enrolling_twice_is_refused_and_changes_nothing(verifier: Verifier) -> None:
    with pytest.raises(AlreadyEnrolledError, match="ada"):
        enroll(verifier, "ada", EVE)
    assert attempt(verifier, "ada", ADA, ADA).accepted
    assert not attempt(verifier, "ada", EVE, EVE).accepted


def test_replacing_lets_the_new_person_in_and_the_old_one_no_more(verifier: Verifier) -> None:
    enroll(verifier, "ada", EVE, replace=True)
    assert attempt(verifier, "ada", EVE, EVE).accepted
    assert not attempt(verifier, "ada", ADA, ADA).accepted


def test_an_enrollment_that_fails_on_the_way_writes_nothing(verifier: Verifier) -> None:
    def abandon(subject: str, *, replace: bool) -> None:
        with verifier.enroll(subject, replace=replace) as session:
            session.add_face(picture(EVE), cropped=True)
            raise ZeroDivisionError

    for subject, replace in (("eve", False), ("ada", True)):
        with pytest.raises(ZeroDivisionError):
            abandon(subject, replace=replace)
    assert verifier.store.subjects() == ["ada"]
    assert attempt(verifier, "ada", ADA, ADA).accepted


def test_a_refused_capture_leaves_the_others_of_its_enrollment(verifier: Verifier) -> None:
    with verifier.enroll("eve") as session:
        with pytest.raises(CaptureError, match="nothing"):
            session.add_face(np.full((128, 128, 3), 128, np.uint8), cropped=True)
        session.add_face(picture(EVE), cropped=True)
        session.add_voice(voice(EVE), sample_rate=RATE)
    assert attempt(verifier, "eve", EVE, EVE).accepted


def test_an_enrollment_without_captures_is_refused(verifier: Verifier) -> None:
    with pytest.raises(UsageError, match="nothing was captured"), verifier.enroll("eve"):
        pass
    assert verifier.store.subjects() == ["ada"]


def test_a_voice_has_nothing_to_say_about_an_enrolled_face(verifier: Verifier) -> None:
    with verifier.enroll("eve") as session:
        session.add_face(picture(EVE), cropped=True)
    decision = attempt(verifier, "eve", None, EVE)
    assert not decision.accepted
    assert codes(decision) == {"no_common_modality"}
    assert (decision.llr, decision.threshold, decision.fmr) == (None, None, None)


def test_a_face_alone_is_decided_on_its_own_evidence(verifier: Verifier) -> None:
    assert attempt(verifier, "ada", ADA, None).accepted
    assert not attempt(verifier, "ada", EVE, None).accepted


def test_a_voice_alone_is_decided_only_where_the_policy_says_so(
    verifier: Verifier, pins: Pins, tmp_path: Path
) -> None:
    decision = attempt(verifier, "ada", None, ADA)
    assert not decision.accepted
    assert codes(decision) == {"voice_alone_not_allowed"}
    verifier.close()
    policy = Policy(allow_voice_alone=True)
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY, policy=policy) as allowing:
        assert attempt(allowing, "ada", None, ADA).accepted
        assert not attempt(allowing, "ada", None, EVE).accepted


def test_a_policy_stricter_than_the_evidence_is_refused_before_a_store_is_made(
    pins: Pins, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError, match="stricter than the evidence"):
        Verifier.open(pins.site, tmp_path / "new.db", key=KEY, policy=Policy(fmr=1e-6))
    assert not (tmp_path / "new.db").exists()


def test_nothing_to_verify_with_is_a_usage_error(verifier: Verifier) -> None:
    with pytest.raises(UsageError, match="nothing to verify"):
        verifier.verify("ada")
    with pytest.raises(UsageError, match="sample_rate"):
        verifier.verify("ada", voice=voice(ADA))


def test_a_store_of_another_bundle_is_refused(pins: Pins, verifier: Verifier, tmp_path: Path) -> None:
    verifier.close()
    with pytest.raises(StoreError, match="another bundle"):
        Verifier.open(pins.other, tmp_path / "e.db", key=KEY)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backend": "vulkan"}, UsageError),
        ({"require": "luck"}, UsageError),
        ({"backend": "onnxruntime-cpu", "require": "tensorrt"}, UsageError),
        ({"precision": "fp64"}, UsageError),
        ({"precision": "int8"}, UsageError),  # not in this bundle
        ({"store_must_exist": True}, EnvironmentFault),
    ],
)
def test_what_cannot_be_had_is_said_on_opening(
    pins: Pins, tmp_path: Path, options: dict[str, Any], error: type[EdgePinError]
) -> None:
    with pytest.raises(error):
        Verifier.open(pins.site, tmp_path / "new.db", key=KEY, **options)
    assert not (tmp_path / "new.db").exists()


def test_a_bundle_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        Verifier.open(tmp_path / "none.pin", tmp_path / "new.db", key=KEY)


class Broken:
    """A runtime that answers by the template itself but for one value."""

    name = "broken"

    def __init__(self, value: float, modality: str, head: str) -> None:
        self.value, self.modality, self.head = value, modality, head

    def encode(self, modality: str, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        heads = {name: np.full((len(batch), 256), 1 / 16, np.float32) for name in ("identity", "pin")}
        if modality == self.modality:
            heads[self.head][:, 3] = self.value
        return heads["identity"], heads["pin"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("modality", ["face", "voice"])
@pytest.mark.parametrize("head", ["identity", "pin"])
def test_an_encoder_that_answers_no_number_is_an_error_and_no_acceptance(
    pins: Pins, tmp_path: Path, value: float, modality: str, head: str
) -> None:
    bundle = Bundle.open(pins.site)
    fusion = Fusion.from_json(bundle.manifest.fusion)
    with (
        Store.open(tmp_path / "b.db", KEY, bundle.digest) as store,
        Guard.open(tmp_path / "b.db.guard", store) as guard,
    ):
        pipeline = make_pipeline(bundle, Broken(1 / 16, modality, head))
        verifier = Verifier(pipeline, store, fusion, guard)
        enroll(verifier, "ada", ADA)
        assert attempt(verifier, "ada", EVE, EVE).accepted  # this runtime takes everyone for everyone
        pipeline.runtime = Broken(value, modality, head)
        with pytest.raises(EdgePinError, match="not finite"):
            attempt(verifier, "ada", ADA, ADA)
        with pytest.raises(EdgePinError, match="not finite"):
            enroll(verifier, "eve", EVE)
        assert store.subjects() == ["ada"]


def test_threads_that_verify_at_once_agree(verifier: Verifier) -> None:
    kinds = [("ada", ADA, ADA), ("eve", ADA, ADA), ("nobody", ADA, ADA)]
    enroll(verifier, "eve", EVE)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda number: attempt(verifier, *kinds[number % 3]), range(15)))
    assert [decision.accepted for decision in together] == [True, False, False] * 5


def test_a_decision_is_plain_json(verifier: Verifier) -> None:
    for decision in (attempt(verifier, "ada", ADA, ADA), attempt(verifier, "ada", None, ADA)):
        value = json.loads(json.dumps(decision.to_json(), allow_nan=False))
        assert set(value) == {
            "accepted", "outcome", "llr", "threshold", "policy_fmr", "reasons", "scores", "attempt", "attempts_left",
            "timings_ms",
        }  # fmt: skip
        assert value["accepted"] is decision.accepted
        assert set(value["scores"]) == {"face", "voice", "face_voice", "voice_face"}
        assert all(set(reason) == {"code", "text"} for reason in value["reasons"])


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_the_committed_encoders_are_what_their_script_makes(modality: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the script needs the onnx package")
    script = runpy.run_path(str(DATA / "make_encoders.py"))
    committed = DATA / f"{modality}.onnx"
    assert script[modality]().graph == onnx.load(committed).graph
    assert committed.stat().st_size < 60_000
