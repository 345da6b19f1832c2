"""Consents, and what runs out with them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from edgepin._errors import StoreError, UnknownSubjectError, UsageError
from edgepin._store.consent import Consent

from .people import DIGEST, opened, same, template


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


def test_a_consent_comes_back_as_it_was_given(path: Path) -> None:
    given = Consent("form 7 ✓", given_at=1_700_000_000.5, expires_at=1_800_000_000, recorded_by="front desk")
    with opened(path) as store:
        store.put("a", {"face": template()}, given)
    with opened(path) as store:
        assert store.consent("a") == given
        assert store.export("a")["consent"] == {
            "text": "form 7 ✓",
            "given_at": "2023-11-14T22:13:20Z",
            "expires_at": "2027-01-15T08:00:00Z",
            "recorded_by": "front desk",
        }


def test_text_counts_as_given_now_and_may_run_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.9)
    with opened(path) as store:
        store.put("a", {"face": template()}, "yes", expires=1_700_000_100)
        assert store.consent("a") == Consent("yes", 1_700_000_000.0, 1_700_000_100)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": 7}, {"text": "\ud800"}, {"text": "x" * 65537}, {"given_at": -1.0}, {"given_at": float("nan")},
        {"given_at": True}, {"given_at": "now"}, {"given_at": 1e12}, {"expires_at": float("inf")}, {"expires_at": 10.0},
        {"recorded_by": None},
    ],
)  # fmt: skip
def test_a_consent_that_cannot_be_right_is_a_usage_error(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Consent(**{"text": "yes", "given_at": 10.0, **fields})  # type: ignore[arg-type]


def test_nothing_runs_out_without_a_consent_and_not_twice(path: Path) -> None:
    with opened(path) as store:
        for consent in (None, Consent("yes", 1.0)):
            with pytest.raises(UsageError):
                store.put("a", {"face": template()}, consent, expires=9e9)
        assert store.count() == 0


def test_expiry_erases_whose_consent_has_run_out_and_nobody_else(path: Path) -> None:
    with opened(path) as store:
        for subject, ends in (("past", 100.0), ("now", 200.0), ("later", 201.0), ("never", None)):
            store.put(subject, {"face": template()}, Consent("yes", 1.0, ends))
        store.put("nothing agreed", {"face": template()})
        assert store.run_out(200.0) == ["now", "past"]
        assert store.count() == 5
        assert store.expire(200.0) == ["now", "past"]
        assert store.subjects() == ["later", "never", "nothing agreed"]
        assert store.expire(200.0) == []


def test_an_export_is_everything_and_can_be_read_without_edgepin(path: Path) -> None:
    face, voice = template(3), template(2)
    with opened(path) as store:
        store.put("a", {"face": face, "voice": voice}, "yes")
        found = json.loads(json.dumps(store.export("a")))
        store_id = store.store_id
    assert found.keys() == {
        "subject",
        "store_id",
        "bundle_digest",
        "enrolled_at",
        "updated_at",
        "consent",
        "templates",
    }
    assert (found["subject"], found["store_id"], found["bundle_digest"]) == ("a", store_id, DIGEST)
    for modality, kept in (("face", face), ("voice", voice)):
        about = found["templates"][modality]
        for head in ("identity", "pin"):
            rows = np.frombuffer(base64.b64decode(about[head]), "<f4").reshape(
                about["captures"], about["dimension"]
            )
            assert np.array_equal(rows, getattr(kept, head))


def test_what_is_not_kept_cannot_be_exported(path: Path) -> None:
    with opened(path) as store, pytest.raises(UnknownSubjectError):
        store.export("nobody")


def test_captures_are_added_to_what_is_kept(path: Path) -> None:
    first, second, voice = template(2), template(3), template()
    with opened(path) as store:
        store.put("a", {"face": first}, "yes")
        store.append("a", {"face": second, "voice": voice})
        found = store.get("a")
        assert found is not None
        assert same(found["face"], first.with_captures(second))
        assert same(found["voice"], voice)
        assert store.consent("a") is not None
        with pytest.raises(UnknownSubjectError):
            store.append("b", {"face": first})
        for wrong in ({}, {"iris": first}, {"face": template(252)}):
            with pytest.raises(UsageError):
                store.append("a", wrong)
        found = store.get("a")
        assert found is not None
        assert len(found["face"].identity) == 5


def test_the_means_are_of_each_subjects_rows(path: Path) -> None:
    people = {f"p{i}": template(i + 1) for i in range(4)}
    with opened(path) as store:
        assert store.means("face")[1].shape == (0, 256)
        for subject, one in people.items():
            store.put(subject, {"face": one})
        store.put("voice alone", {"voice": template()})
        subjects, identity, pin = store.means("face")
        assert subjects == sorted(people)
        assert identity.dtype == pin.dtype == np.float32
        for row, subject in enumerate(subjects):
            np.testing.assert_allclose(
                identity[row], people[subject].identity.mean(axis=0), rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(pin[row], people[subject].pin.mean(axis=0), rtol=1e-5, atol=1e-6)
        with pytest.raises(UsageError):
            store.means("iris")


def test_a_consent_that_cannot_be_read_is_the_stores_error() -> None:
    for data in (b"", b"{}\n", b"[]\n", b'{"given_at":"x","text":"yes"}\n'):
        with pytest.raises(StoreError):
            Consent.unpack(data)
