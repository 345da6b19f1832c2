"""`edgepin unlock` and `edgepin audit`: what they print, what they change, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from edgepin._errors import LockedOutError
from edgepin._guard.guard import Guard, guard_path
from edgepin._store.keys import KeyFile
from edgepin._store.store import Store
from edgepin._store.template import Template

from ..commands import ENVIRONMENT, INTEGRITY, USAGE, YES, invoke
from .guards import altered, fail

DIGEST = "ab" * 32


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one person, whose guard has seen an acceptance at home and five failures elsewhere."""
    for variable in ("EDGEPIN_STORE", "EDGEPIN_KEY_FILE", "EDGEPIN_KEY", "EDGEPIN_COUNTER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    path, ones = tmp_path / "home" / "enrollments.db", np.ones((1, 256), np.float32)
    with Store.open(path, KeyFile(tmp_path / "home" / "store.key"), DIGEST) as store, opened(store) as guard:
        store.put("badge-0042", {"face": Template(ones, ones)})
        guard.begin("badge-0042", "home").accept(["accepted"], {"llr": 3.14159})
        fail(guard, "badge-0042", "strange", times=5)
    return path


def opened(store: Store) -> Guard:
    return Guard.open(guard_path(store.path), store)


def printed(result: Result) -> dict[str, Any]:
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def begin(path: Path, door: str) -> None:
    with Store.open(path, KeyFile(path.parent / "store.key"), DIGEST) as store, opened(store) as guard:
        guard.begin("badge-0042", door).not_counted("test")


def test_the_status_changes_nothing(place: Path) -> None:
    for _ in range(2):
        about = printed(invoke("unlock", "badge-0042", "--status", "--json"))
        assert about["schema"] == "edgepin.unlock/1"
        assert about["unlocked"] is False
        assert [(door["door"], door["failures"]) for door in about["before"]["doors"]] == [
            (None, 5),
            ("home", 0),
        ]
    result = invoke("unlock", "badge-0042", "--status")
    assert "where not yet accepted: 5 failures, wait" in result.stdout
    assert "at the door 'home': 0 failures, open" in result.stdout
    with pytest.raises(LockedOutError):
        begin(place, "strange")


def test_an_unlocking_lets_try_again_and_is_in_the_audit(place: Path) -> None:
    result = invoke("unlock", "badge-0042", "--why", "seen in person", "--by", "Ida")
    assert (result.exit_code, result.stderr) == (YES, "unlocked badge-0042\n")
    begin(place, "strange")
    (entry,) = printed(invoke("audit", "show", "--kind", "unlocked", "--json"))["entries"]
    assert entry["details"] == {"id": "badge-0042", "by": "Ida", "why": "seen in person"}


def test_an_unknown_id_is_answered_like_a_known_one(place: Path) -> None:
    assert invoke("unlock", "nobody", "--why", "x").exit_code == YES
    assert invoke("unlock", "nobody", "--status").exit_code == YES


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--why", ""],
        ["--why", "x", "--by", " "],
        ["--why", "x", "--door", "nowhere"],
        ["--why", "\x1b[2J"],
    ],
)
def test_an_unlocking_that_cannot_be_is_a_usage_error(place: Path, arguments: list[str]) -> None:
    assert invoke("unlock", "badge-0042", *arguments).exit_code == USAGE


def test_without_a_guard_or_a_store_it_is_the_environment(place: Path) -> None:
    guard_path(place).unlink()
    for verb in (["unlock", "a", "--why", "x"], ["audit", "show"], ["audit", "verify"], ["audit", "head"]):
        result = invoke(*verb)
        assert result.exit_code == ENVIRONMENT, verb
        assert "there is no guard at" in result.stderr
        assert invoke(*verb, "--store", place.parent / "none.db").exit_code == ENVIRONMENT


def test_show_reveals_ids_and_scores_and_can_choose(place: Path) -> None:
    entries = printed(invoke("audit", "show", "--json"))["entries"]
    assert [entry["kind"] for entry in entries][:3] == ["created", "attempt", "accepted"]
    assert entries[2]["details"] == {"id": "badge-0042", "llr": 3.14}
    assert len(printed(invoke("audit", "show", "--last", 2, "--json"))["entries"]) == 2
    assert len(printed(invoke("audit", "show", "--last", 0, "--json"))["entries"]) == len(entries)
    assert printed(invoke("audit", "show", "--id", "nobody", "--json"))["entries"] == []
    (alarm,) = printed(invoke("audit", "show", "--id", "badge-0042", "--kind", "alarm", "--json"))["entries"]
    assert (alarm["codes"], alarm["door"]) == (["waiting"], "strange")
    text = invoke("audit", "show").stdout
    assert "accepted     badge-0042  door home  accepted  llr 3.14" in text


def test_an_intact_audit_verifies_and_says_what_it_was_not_held_against(place: Path) -> None:
    result = invoke("audit", "verify")
    assert (result.exit_code, result.stdout) == (YES, "intact\n")
    assert "not held against a head" in result.stderr


def test_a_head_kept_elsewhere_is_held_against_the_audit(place: Path, tmp_path: Path) -> None:
    kept = tmp_path / "head.json"
    kept.write_text(invoke("audit", "head", "--json").stdout)
    assert json.loads(kept.read_text())["schema"] == "edgepin.audit-head/1"
    assert "entry" in invoke("audit", "head").stdout
    public = tmp_path / "home" / "audit.pub"
    about = printed(invoke("audit", "verify", "--head", kept, "--public-key", public, "--json"))
    assert (about["intact"], about["held_against"]) == (True, json.loads(kept.read_text())["sequence"])
    kept.write_text(kept.read_text().replace('"sequence": ', '"sequence": 1'))
    result = invoke("audit", "verify", "--head", kept)
    assert (result.exit_code, result.stdout) == (INTEGRITY, "altered\n")
    kept.write_text("{}")
    assert invoke("audit", "verify", "--head", kept).exit_code == INTEGRITY
    assert invoke("audit", "verify", "--head", tmp_path / "none.json").exit_code == ENVIRONMENT


def test_an_altered_audit_is_said_with_its_first_bad_entry(place: Path) -> None:
    altered(
        guard_path(place),
        "UPDATE entry SET body = CAST(replace(body, 'strange', 'home') AS BLOB) WHERE sequence = 5",
    )
    result = invoke("audit", "verify", "--json")
    about = printed(result)
    assert result.exit_code == INTEGRITY
    assert (about["intact"], about["first_bad"], about["problem"]) == (False, 5, "the entry was altered")
    assert "entry 5: the entry was altered" in invoke("audit", "verify").stderr
    shown = invoke("audit", "show", "--json")
    assert shown.exit_code == INTEGRITY
    assert [entry["sequence"] for entry in printed(shown)["entries"]] == [1, 2, 3, 4]
