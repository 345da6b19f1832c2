"""`edgepin store`: house-keeping from the command line, without the bundle."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from edgepin._store.consent import Consent
from edgepin._store.keys import KeyFile
from edgepin._store.store import Store

from ..commands import ENVIRONMENT, INTEGRITY, NO, USAGE, YES, invoke
from .people import DIGEST, template

VARIABLES = ("EDGEPIN_STORE", "EDGEPIN_KEY_FILE", "EDGEPIN_KEY", "EDGEPIN_COUNTER", "EDGEPIN_PASSPHRASE_FILE")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own with a store of three people."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path))
    with opened(tmp_path) as store:
        store.put("ada", {"face": template(3), "voice": template(2)}, Consent("form 7", 1.7e9, 1.8e9, "desk"))
        store.put("bob", {"face": template()}, Consent("form 8", 1.0, 2.0))
        store.put("cy", {"voice": template()})
    return tmp_path


def opened(home: Path, key: str = "store.key") -> Store:
    return Store.open(home / "enrollments.db", KeyFile(home / key), DIGEST)


def people(home: Path, key: str = "store.key") -> list[str]:
    with opened(home, key) as store:
        return store.subjects()


def said(*arguments: object) -> dict[str, Any]:
    result = invoke("store", *arguments, "--json")
    assert result.exit_code == YES, result.output
    return dict(json.loads(result.stdout))


def test_listing_says_who_is_enrolled(home: Path) -> None:
    found = said("list")
    assert found.keys() == {"schema", "store_id", "bundle_digest", "count", "ids"}
    assert (found["schema"], found["count"], found["ids"]) == (
        "edgepin.store-list/1",
        3,
        ["ada", "bob", "cy"],
    )
    assert found["bundle_digest"] == DIGEST
    assert invoke("store", "list").stdout == "ada\nbob\ncy\n"


def test_showing_says_what_is_kept_and_no_template(home: Path) -> None:
    found = said("show", "ada")
    assert found["schema"] == "edgepin.store-subject/1"
    assert found["captures"] == {"face": 3, "voice": 2}
    assert found["consent"]["expires_at"] == "2027-01-15T08:00:00Z"
    assert "templates" not in found
    spoken = invoke("store", "show", "ada")
    assert spoken.stdout == "ada\n"
    assert "3 of the face" in spoken.stderr
    assert "recorded by desk: form 7" in spoken.stderr
    assert "none on record" in invoke("store", "show", "cy").stderr


@pytest.mark.parametrize("verb", [("show",), ("export",), ("erase", "--yes")])
def test_an_unknown_id_is_a_no(home: Path, verb: tuple[str, ...]) -> None:
    result = invoke("store", *verb, "nobody")
    assert result.exit_code == NO
    assert "not enrolled" in result.stderr
    assert result.stdout == ""


def test_an_export_is_json_and_in_a_file_its_owners(home: Path) -> None:
    found = said("export", "ada")
    assert found["schema"] == "edgepin.store-export/1"
    assert found["templates"]["voice"]["captures"] == 2
    out = home / "out" / "ada.json"
    assert invoke("store", "export", "ada", "--out", out).exit_code == YES
    assert json.loads(out.read_text()) == found
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert said("export", "bob", "--out", home / "bob.json")["path"] == str(home / "bob.json")
    again = invoke("store", "export", "ada", "--out", out)
    assert again.exit_code == USAGE
    assert json.loads(out.read_text()) == found


def test_erasing_needs_a_yes_and_is_for_all_or_nobody(home: Path) -> None:
    refused = invoke("store", "erase", "ada")
    assert refused.exit_code == USAGE
    assert "--yes" in refused.stderr
    assert invoke("store", "erase", "ada", "nobody", "--yes").exit_code == NO
    assert people(home) == ["ada", "bob", "cy"]
    assert said("erase", "ada", "cy", "ada", "--yes") == {
        "schema": "edgepin.store-erasure/1", "erased": ["ada", "cy"], "would_erase": [],
    }  # fmt: skip
    assert people(home) == ["bob"]


def test_expiring_erases_whose_consent_has_run_out(home: Path) -> None:
    assert said("expire", "--dry-run")["would_erase"] == ["bob"]
    assert people(home) == ["ada", "bob", "cy"]
    assert invoke("store", "expire").exit_code == USAGE
    assert said("expire", "--yes")["erased"] == ["bob"]
    assert invoke("store", "expire").exit_code == YES  # nobody: there is nothing to ask
    assert people(home) == ["ada", "cy"]


def test_purging_erases_everybody(home: Path) -> None:
    assert invoke("store", "purge").exit_code == USAGE
    assert said("purge", "--yes")["erased"] == ["ada", "bob", "cy"]
    assert people(home) == []


def test_what_the_guard_keeps_of_a_person_is_erased_too(home: Path) -> None:
    from edgepin._guard.guard import Guard, guard_path

    path = guard_path(home / "enrollments.db")
    with opened(home) as store, Guard.open(path, store) as guard:
        guard.enrolled("ada", [b"\1" * 33])
        assert guard.remembered("ada")
    assert invoke("store", "erase", "ada", "--yes").exit_code == YES
    with opened(home) as store, Guard.open(path, store) as guard:
        assert guard.remembered("ada") == []
        assert guard.audit.verify()


def test_rotating_locks_the_store_with_another_key(home: Path) -> None:
    found = said("rotate", "--to", f"file:{home / 'new.key'}", "--data-key")
    assert found["tier"] == "file"
    assert people(home, "new.key") == ["ada", "bob", "cy"]
    assert invoke("store", "list").exit_code == INTEGRITY
    assert said("list", "--key", f"file:{home / 'new.key'}")["count"] == 3
    assert said("list", "--key-file", home / "new.key")["count"] == 3
    for nothing in ((), ("--data-key",)):
        assert invoke("store", "rotate", *nothing).exit_code == USAGE


def test_a_passphrase_from_a_file_locks_and_opens(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = home / "secret"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    monkeypatch.setenv("EDGEPIN_PASSPHRASE_FILE", str(secret))
    assert said("rotate", "--to", f"passphrase:{home / 'salt'}")["tier"] == "passphrase"
    monkeypatch.setenv("EDGEPIN_KEY", f"passphrase:{home / 'salt'}")
    assert said("list")["count"] == 3
    secret.write_text("open sesam\n")
    assert invoke("store", "list").exit_code == USAGE


def test_a_backup_comes_back_without_the_erased(home: Path) -> None:
    copy = home / "usb" / "copy.db"
    assert said("backup", copy) == {
        "schema": "edgepin.store-backup/1", "path": str(copy), "people": 3, "key": None,
    }  # fmt: skip
    assert invoke("store", "backup", copy).exit_code == USAGE
    assert invoke("store", "erase", "bob", "--yes").exit_code == YES
    assert invoke("store", "restore", copy).exit_code == USAGE
    assert said("restore", copy, "--yes") == {
        "schema": "edgepin.store-restoration/1",
        "store": str(home / "enrollments.db"),
        "people": 2,
        "erased_again": ["bob"],
    }
    assert people(home) == ["ada", "cy"]


def test_a_copy_under_another_key_comes_back_to_a_machine_that_has_none(home: Path) -> None:
    copy = home / "usb" / "copy.db"
    assert invoke("store", "backup", copy, "--to", f"file:{home / 'recovery.key'}").exit_code == YES
    for name in ("enrollments.db", "store.key"):
        (home / name).unlink()
    back = said("restore", copy, "--from", f"file:{home / 'recovery.key'}", "--yes")
    assert back["people"] == 3
    assert people(home) == ["ada", "bob", "cy"]


def test_verifying_reads_everything(home: Path) -> None:
    import sqlite3

    assert said("verify") == {
        "schema": "edgepin.store-verification/1",
        "store": str(home / "enrollments.db"),
        "people": 3, "records": 9, "tombstones": 0, "journal_damaged": 0,
    }  # fmt: skip
    with sqlite3.connect(home / "enrollments.db") as connection:
        connection.execute(
            "UPDATE record SET body = zeroblob(2052) WHERE subject = 'cy' AND kind = 'template'"
        )
    connection.close()
    result = invoke("store", "verify")
    assert result.exit_code == INTEGRITY
    assert result.stdout == ""


def test_without_a_store_or_its_key_it_is_the_environments_fault(home: Path, tmp_path: Path) -> None:
    assert invoke("store", "list", "--store", tmp_path / "none.db").exit_code == ENVIRONMENT
    (home / "store.key").unlink()
    result = invoke("store", "list")
    assert result.exit_code == ENVIRONMENT
    assert "no key file" in result.stderr
    assert not (home / "store.key").exists()
    assert invoke("store", "list", "--key", "nonsense").exit_code == USAGE


def test_the_doctor_names_the_tier_and_a_better_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepin._store.tiers import describe_key

    monkeypatch.setenv("TPM2TOOLS_TCTI", "swtpm")
    about = describe_key({})
    assert (about["tier"], about["exists"], about["better"]["tier"]) == ("file", True, "tpm")
    assert "edgepin store rotate --to tpm" in about["better"]["mend"]
    assert describe_key({"EDGEPIN_KEY": "tpm"}) == {
        "key": "tpm", "path": None, "exists": None, "tier": "tpm", "better": None,
    }  # fmt: skip
    assert describe_key({"EDGEPIN_KEY": "systemd:x"})["better"] is None
    monkeypatch.delenv("TPM2TOOLS_TCTI")
    monkeypatch.setattr("edgepin._store.tiers.tpm_is_here", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert describe_key({"EDGEPIN_KEY": "passphrase:p"})["better"] is None
