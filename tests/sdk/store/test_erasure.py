"""The erased stay erased: tombstones in the store, and the journal beside it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._errors import EnvironmentFault, StoreError
from edgepin._store.envelope import Envelope
from edgepin._store.store import Store
from edgepin._store.tombstones import ErasureJournal

from .people import DIGEST, KEY, filled, opened, template


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


def journal(path: Path) -> Path:
    return Path(f"{path}.erased")


def snapshot(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_suffix(".old")))


def test_an_older_copy_put_back_does_not_bring_back_who_was_erased_since(path: Path) -> None:
    filled(path, "a", "b", "c")
    old = snapshot(path)
    with opened(path) as store:
        store.delete("a")
        store.put("b", {"face": template()}, replace=True)
    shutil.copy(old, path)
    with opened(path) as store:
        assert store.subjects() == ["c"]  # what was replaced was erased too
        store.put("a", {"face": template()})  # and may be enrolled again
    with opened(path) as store:
        assert store.subjects() == ["a", "c"]


def test_who_was_erased_and_enrolled_again_stays_and_the_first_enrollment_does_not_come_back(
    path: Path,
) -> None:
    filled(path, "a")
    old = snapshot(path)
    with opened(path) as store:
        store.delete("a")
        second = template()
        store.put("a", {"face": second})
    with opened(path) as store:
        assert store.subjects() == ["a"]
    shutil.copy(old, path)
    with opened(path) as store:
        assert store.subjects() == []


def test_expired_and_purged_people_stay_away_too(path: Path) -> None:
    with opened(path) as store:
        store.put("runs out", {"face": template()}, "yes", expires=9e9)
        store.put("purged", {"face": template()})
    old = snapshot(path)
    with opened(path) as store:
        assert store.expire(9e9) == ["runs out"]
        assert store.purge() == ["purged"]
        assert store.count() == 0
    shutil.copy(old, path)
    with opened(path) as store:
        assert store.count() == 0


def test_a_lost_journal_is_written_again_from_the_store(path: Path) -> None:
    filled(path, "a")
    old = snapshot(path)
    with opened(path) as store:
        store.delete("a")
    before = journal(path).read_bytes()
    journal(path).unlink()
    opened(path).close()
    assert journal(path).read_bytes() == before
    shutil.copy(old, path)
    with opened(path) as store:
        assert store.count() == 0


def test_without_the_journal_an_older_copy_brings_them_back_as_documented(path: Path) -> None:
    """Pins what is not promised: who rolls back both files needs a counter to be stopped."""
    filled(path, "a")
    old = snapshot(path)
    with opened(path) as store:
        store.delete("a")
    journal(path).unlink()
    shutil.copy(old, path)
    with opened(path) as store:
        assert store.subjects() == ["a"]


def test_an_erasure_that_was_cut_off_after_its_commit_is_noted_on_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, "a", "b")
    old = snapshot(path)

    def cut_off(self: ErasureJournal, marks: object) -> None:
        raise KeyboardInterrupt

    store = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(ErasureJournal, "append", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.delete("a")
    store.close()
    assert not journal(path).exists()
    opened(path).close()
    shutil.copy(old, path)
    with opened(path) as store:
        assert store.subjects() == ["b"]


def test_the_journal_is_on_the_disk_before_an_erasure_is_answered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, "a")
    synced: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with opened(path) as store:
        store.delete("a")
        assert synced == [str(journal(path)), str(path.parent)]


def test_a_journal_that_cannot_be_written_is_said_and_made_up_for(path: Path) -> None:
    filled(path, "a")
    journal(path).mkdir()
    with pytest.raises(EnvironmentFault, match="cannot read"):
        opened(path)
    journal(path).rmdir()
    store = opened(path)
    journal(path).mkdir()
    with pytest.raises(EnvironmentFault, match="gone from the store, but could not be noted"):
        store.delete("a")
    assert store.count() == 0
    store.close()
    journal(path).rmdir()
    opened(path).close()
    assert journal(path).is_file()


def test_the_journal_names_nobody_is_its_owners_and_is_only_added_to(path: Path) -> None:
    filled(path, "badge-0042", "badge-0043")
    with opened(path) as store:
        store.delete("badge-0042")
        first = journal(path).read_bytes()
        store.delete("badge-0043")
    content = journal(path).read_bytes()
    assert content.startswith(first)
    assert len(content.splitlines()) == 2
    assert b"badge" not in content
    assert stat.S_IMODE(journal(path).stat().st_mode) == 0o600
    # Not even the key tells who it was: the mark hangs on a random id that was erased.
    envelope = Envelope.create(DIGEST)
    assert envelope.tombstone("a", bytes(16)) != envelope.tombstone("a", b"\1" + bytes(15))


def test_lines_of_another_store_mean_nothing(path: Path) -> None:
    filled(path, "a")
    other = path.with_name("other.db")
    filled(other, "a")
    with opened(other) as store:
        store.delete("a")
    shutil.copy(journal(other), journal(path))
    with opened(path) as store:
        assert store.subjects() == ["a"]
        assert store.verify().journal_damaged == 1


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), cut=st.integers(0, 230))
def test_a_torn_or_altered_journal_is_passed_over_and_its_good_lines_count(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("j") / "s.db"
    kept = ErasureJournal(path, bytes(32))
    kept.append({bytes(32): 7})
    kept.append({b"\1" * 32: 8})
    lines = journal(path).read_bytes()
    journal(path).write_bytes(lines + data)
    assert {bytes(32): 7, b"\1" * 32: 8}.items() <= dict(kept.read().marks).items()
    journal(path).write_bytes(lines[:cut])
    kept.append({b"\2" * 32: 9})
    marks = kept.read().marks
    assert marks[b"\2" * 32] == 9
    line = len(lines) // 2  # one that lacks its newline alone is whole
    assert len(marks) == 1 + (cut >= line - 1) + (cut >= 2 * line - 1)


def test_a_reader_refuses_an_older_copy_with_erased_people_in_it(path: Path) -> None:
    filled(path, "a", "b")
    old = snapshot(path)
    with opened(path) as store:
        store.delete("a")
    with opened(path, read_only=True) as store:
        assert store.subjects() == ["b"]
    shutil.copy(old, path)
    with pytest.raises(StoreError, match="older copy") as caught:
        opened(path, read_only=True)
    assert "open it once for writing" in (caught.value.hint or "")


def test_nothing_of_an_erased_person_is_left_in_the_file_not_even_the_key(path: Path) -> None:
    filled(path, "to be gone", "stays")
    with sqlite3.connect(path) as connection:
        traces = [
            value
            for table in ("person", "record")
            for row in connection.execute(f"SELECT * FROM {table} WHERE subject = 'to be gone'")
            for value in row
            if len(value) >= 16
        ]
    connection.close()
    assert len(traces) == 6  # key id and wrapped key; seal and body of template and dates
    assert all(trace in path.read_bytes() for trace in traces if len(trace) < 100)
    with opened(path) as store:
        store.delete("to be gone")
    content = path.read_bytes()
    assert [trace for trace in traces if trace[:60] in content] == []
    assert b"to be gone" not in content


def test_without_a_persons_key_the_records_do_not_open(path: Path) -> None:
    """What destroying the key is worth: a copy of the records alone is lost to who has every other key."""
    filled(path, "a")
    with opened(path) as store:
        person, records = store._ledger.find("a") or pytest.fail("a is not there")
        _, another = store._ledger.envelope.new_person("a", person.key_id)
        with pytest.raises(StoreError):
            another.unseal(records[0])


def test_a_log_without_its_store_is_not_taken_into_a_new_one(path: Path) -> None:
    store = Store.open(path, KEY, DIGEST)
    store.put("a", {"face": template()})
    log = Path(f"{path}-wal").read_bytes()
    store.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(StoreError, match="is missing, and its log"):
        opened(path)
