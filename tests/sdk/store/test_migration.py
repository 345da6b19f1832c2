"""A store of schema 1 becomes one of schema 2, whole or not at all."""

from __future__ import annotations

import runpy
import shutil
import sqlite3
from pathlib import Path

import pytest

from edgepin._errors import EdgePinError, StoreError
from edgepin._store.consent import Consent
from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store

from .people import same, template

GOLDEN = Path(__file__).parent / "golden"
MADE = runpy.run_path(str(GOLDEN / "make_schema_1.py"))
KEY = MemoryKey(MADE["KEY"])


def opened(path: Path, **options: object) -> Store:
    return Store.open(path, KEY, MADE["DIGEST"], **options)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(GOLDEN / "schema_1.store", tmp_path / "s.db"))


def version(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return int(found)


def test_everybody_of_the_golden_store_is_there_after_migration_and_stays(path: Path) -> None:
    assert version(path) == 1
    for _ in range(2):
        with opened(path) as store:
            assert store.subjects() == sorted(MADE["PEOPLE"])
            for subject, (templates, consent) in MADE["PEOPLE"].items():
                found = store.get(subject)
                assert found is not None
                assert found.keys() == templates.keys()
                assert all(same(found[modality], templates[modality]) for modality in templates)
                assert store.consent(subject) == (None if consent is None else Consent(consent, None))
            assert store.export("Zoë")["enrolled_at"] is None
            store.verify()
    assert version(path) == 2


def test_a_migrated_store_takes_all_that_a_new_one_does(path: Path) -> None:
    with opened(path) as store:
        store.append("Zoë", {"voice": template()})
        assert store.export("Zoë")["updated_at"] is not None
        store.put("new", {"face": template()}, "yes", expires=9e9)
        store.delete("badge-0042")
        assert store.subjects() == ["Zoë", "new"]


def test_nothing_of_the_old_records_is_left_in_the_file(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        old = [row[0] for row in connection.execute("SELECT sealed FROM record")]
    connection.close()
    assert all(sealed[-64:] in path.read_bytes() for sealed in old)
    opened(path).close()
    assert not any(sealed[-64:] in path.read_bytes() for sealed in old)


def test_a_store_of_schema_1_is_not_read_without_migrating_it(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError, match="schema 1") as caught:
        opened(path, read_only=True)
    assert "open it once for writing" in (caught.value.hint or "")
    assert path.read_bytes() == before


def test_an_older_copy_of_schema_1_does_not_bring_back_who_was_erased_since(path: Path) -> None:
    copy = shutil.copy(path, path.with_suffix(".old"))
    with opened(path) as store:
        store_id, key = store.store_id, store.derive_key("x")
        store.delete("badge-0042")
    shutil.copy(copy, path)
    with opened(path) as store:
        assert (store.store_id, store.derive_key("x")) == (store_id, key)
        assert store.subjects() == ["Zoë"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record SET sealed = zeroblob(60) WHERE kind = 'consent'",
        "DELETE FROM record WHERE subject = 'Zoë'",
        "UPDATE record SET subject = 'x' WHERE subject = 'Zoë'",
        "UPDATE meta SET value = zeroblob(60) WHERE name = 'wrapped_key'",
        "DELETE FROM meta WHERE name = 'index_tag'",
    ],
)
def test_an_altered_store_of_schema_1_is_refused_and_stays_as_it_is(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError):
        opened(path)
    assert version(path) == 1


@pytest.mark.parametrize(("key", "digest"), [(MemoryKey(bytes(32)), MADE["DIGEST"]), (KEY, "00" * 32)])
def test_another_key_or_bundle_does_not_migrate_it(path: Path, key: MemoryKey, digest: str) -> None:
    with pytest.raises(StoreError, match=r"another (key|bundle)"):
        Store.open(path, key, digest)
    assert version(path) == 1


def test_a_migration_that_is_cut_off_leaves_schema_1(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepin._store.ledger import Ledger

    def cut_off(self: Ledger) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit_index", cut_off)
        with pytest.raises(KeyboardInterrupt):
            opened(path)
    assert version(path) == 1
    with opened(path) as store:
        assert store.count() == 2


def test_flipped_bytes_of_a_store_of_schema_1_are_noticed_or_change_nothing(path: Path) -> None:
    original = path.read_bytes()
    for offset in range(0, len(original), 97):
        changed = bytearray(original)
        changed[offset] ^= 0xFF
        path.write_bytes(changed)
        for suffix in ("-wal", "-shm", ".erased"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        try:
            with opened(path) as store:
                for subject, (templates, _) in MADE["PEOPLE"].items():
                    found = store.get(subject)
                    assert found is not None, offset
                    assert all(same(found[modality], templates[modality]) for modality in templates), offset
        except EdgePinError:
            pass
