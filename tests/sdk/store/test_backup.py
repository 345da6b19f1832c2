"""Backups: whole, of one moment, and on the way back the erased stay erased."""

from __future__ import annotations

import shutil
import stat
import threading
from pathlib import Path

import pytest

from edgepin._errors import EdgePinError, EnvironmentFault, StoreError, UsageError
from edgepin._store.store import Store

from .people import DIGEST, KEY, OTHER_KEY, FakeCounter, filled, opened, template


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "backup.db"


def restored(backup: Path, path: Path, **options: object) -> tuple[int, tuple[str, ...]]:
    done = Store.restore(backup, path, KEY, DIGEST, timeout=0.2, **options)  # type: ignore[arg-type]
    return done.people, done.erased_again


def test_a_backup_is_a_store_of_mode_0600_alone_in_one_file(path: Path, copy: Path) -> None:
    with opened(path) as store:
        store.put("a", {"face": template()}, "yes")
        store.backup(copy)
        store.put("b", {"face": template()})
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert list(copy.parent.iterdir()) == [copy]
    with opened(copy) as store:
        assert store.subjects() == ["a"]
        store.verify()


def test_a_backup_never_overwrites(path: Path, copy: Path) -> None:
    copy.parent.mkdir()
    copy.write_text("mine")
    with opened(path) as store, pytest.raises(UsageError, match="there is something at"):
        store.backup(copy)
    assert copy.read_text() == "mine"
    assert list(copy.parent.iterdir()) == [copy]


def test_a_backup_of_a_store_in_use_is_of_one_moment(path: Path, tmp_path: Path) -> None:
    with opened(path, timeout=5.0) as one, opened(path, timeout=5.0) as other:
        one.put("p000", {"face": template()})
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                other.put(f"p{number:03}", {"face": template()}, "yes")

        writer = threading.Thread(target=write)
        writer.start()
        copies = [tmp_path / f"copy{number}.db" for number in range(5)]
        for place in copies:
            one.backup(place)
        stop.set()
        writer.join()
    counts = []
    for place in copies:
        with opened(place) as store:
            subjects = store.subjects()
            assert subjects == [f"p{number:03}" for number in range(len(subjects))]
            store.verify()
            counts.append(len(subjects))
    assert counts == sorted(counts)


def test_a_copy_may_be_locked_with_another_key(path: Path, copy: Path) -> None:
    with opened(path) as store:
        store.put("a", {"face": template()})
        store.backup(copy, OTHER_KEY)
        assert store.get("a") is not None
    with pytest.raises(StoreError, match="another key"):
        opened(copy)
    with pytest.raises(StoreError, match="another key"):
        restored(copy, path)
    assert restored(copy, path, backup_key=OTHER_KEY) == (1, ())
    with opened(path) as store:
        assert store.subjects() == ["a"]


def test_who_was_erased_since_the_backup_is_not_restored(path: Path, copy: Path) -> None:
    filled(path, "a", "b", "c")
    with opened(path) as store:
        store.backup(copy)
        store.delete("a")
        store.put("new", {"face": template()})
    before = copy.read_bytes()
    assert restored(copy, path) == (2, ("a",))
    assert copy.read_bytes() == before
    assert list(copy.parent.iterdir()) == [copy]
    with opened(path) as store:
        assert store.subjects() == ["b", "c"]
        assert store.verify().tombstones == 1
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"s.db", "s.db.erased", "elsewhere"}


def test_a_restored_store_knows_also_the_erased_who_were_not_in_the_backup(
    path: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    filled(path, "a")
    with opened(path) as store:
        store.backup(first)
        store.put("b", {"face": template()})
        store.backup(second)
        store.delete("b")
    Path(f"{path}.erased").unlink()
    assert restored(first, path) == (1, ())
    assert restored(second, path) == (1, ("b",))


@pytest.mark.parametrize("lost", [("s.db",), ("s.db.erased",)])
def test_either_the_present_store_or_its_journal_is_enough(
    path: Path, copy: Path, lost: tuple[str, ...]
) -> None:
    filled(path, "a", "b")
    with opened(path) as store:
        store.backup(copy)
        store.delete("a")
    for name in lost:
        (path.parent / name).unlink()
    assert restored(copy, path) == (1, ("a",))
    assert Path(f"{path}.erased").exists()
    with opened(path) as store:
        assert store.subjects() == ["b"]


def test_a_backup_is_restored_where_nothing_is(copy: Path, path: Path, tmp_path: Path) -> None:
    filled(path, "a")
    with opened(path) as store:
        store.backup(copy)
    place = tmp_path / "new machine" / "s.db"
    assert restored(copy, place) == (1, ())
    with opened(place) as store:
        assert store.subjects() == ["a"]


def test_a_store_that_is_in_use_is_not_replaced(path: Path, copy: Path) -> None:
    filled(path, "a")
    with opened(path) as store:
        store.backup(copy)
        store.put("b", {"face": template()})
        with pytest.raises(EnvironmentFault, match="locked"):
            restored(copy, path)
        assert store.subjects() == ["a", "b"]
        store.put("c", {"face": template()})
    with opened(path) as store:
        assert store.subjects() == ["a", "b", "c"]
    assert not [file for file in path.parent.iterdir() if file.name.endswith(".tmp")]


def test_a_backup_of_another_store_is_refused(path: Path, copy: Path, tmp_path: Path) -> None:
    filled(path, "a")
    filled(tmp_path / "other.db", "x")
    with opened(tmp_path / "other.db") as other:
        other.backup(copy)
    with pytest.raises(StoreError, match="another store"):
        restored(copy, path)
    with opened(path) as store:
        assert store.subjects() == ["a"]


def test_a_present_store_that_does_not_open_is_left_for_its_owner_to_move(path: Path, copy: Path) -> None:
    filled(path, "a", "b")
    with opened(path) as store:
        store.backup(copy)
        store.delete("a")
    path.write_bytes(b"damaged" * 999)
    with pytest.raises(StoreError, match="does not open") as caught:
        restored(copy, path)
    assert "move" in (caught.value.hint or "")
    path.unlink()
    assert restored(copy, path) == (1, ("a",))


def test_a_damaged_backup_is_refused_and_the_present_store_stays(path: Path, copy: Path) -> None:
    filled(path, "a", "b")
    with opened(path) as store:
        store.backup(copy)
    content, present = copy.read_bytes(), path.read_bytes()
    for offset in range(0, len(content), 611):
        changed = bytearray(content)
        changed[offset] ^= 0xFF
        copy.write_bytes(changed)
        try:
            people, _ = restored(copy, path)
            assert people == 2, offset
        except EdgePinError:
            assert path.read_bytes() == present
        path.write_bytes(present)
    copy.unlink()
    with pytest.raises(EnvironmentFault, match="no backup"):
        restored(copy, path)


def test_a_restoration_that_was_cut_off_can_be_done_again(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    filled(path, "a", "b")
    with opened(path) as store:
        store.backup(copy)
        store.delete("a")
    # As a kill between leaving the write-ahead log and the renaming leaves it.
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    assert restored(copy, path) == (1, ("a",))
    with opened(path) as store:
        assert store.subjects() == ["b"]


def test_a_restored_store_is_bound_to_the_counter_and_no_older_one_is(path: Path, copy: Path) -> None:
    counter = FakeCounter(3)
    filled(path, "a", counter=counter)
    with opened(path, counter=counter) as store:
        store.backup(copy)
        store.put("b", {"face": template()})
    last = shutil.copy(path, path.with_suffix(".last"))
    assert restored(copy, path, counter=counter) == (1, ())
    with opened(path, counter=counter) as store:
        assert store.subjects() == ["a"]
    for older in (last, copy):
        shutil.copy(older, path)
        with pytest.raises(StoreError, match="rolled back"):
            opened(path, counter=counter)


def test_a_backup_of_schema_1_is_migrated_on_the_way(path: Path) -> None:
    import runpy

    from edgepin._store.keys import MemoryKey

    golden = Path(__file__).parent / "golden"
    made = runpy.run_path(str(golden / "make_schema_1.py"))
    done = Store.restore(golden / "schema_1.store", path, MemoryKey(made["KEY"]), made["DIGEST"])
    assert done.people == len(made["PEOPLE"])
