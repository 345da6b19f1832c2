"""A counter outside the store: no older copy of it opens, and a crash locks nobody out."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from edgepin._errors import EnvironmentFault, StoreError, UsageError
from edgepin._store.counter import RollbackGuard

from .people import FakeCounter, filled, opened, template


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.fixture
def counter() -> FakeCounter:
    return FakeCounter(7)


def test_every_change_advances_the_counter_and_reading_does_not(path: Path, counter: FakeCounter) -> None:
    with opened(path, counter=counter) as store:
        assert counter.value == 7
        store.put("a", {"face": template()})
        assert counter.value == 9  # the first change of a session is an empty one and then itself
        store.append("a", {"face": template()})
        store.put("b", {"face": template()})
        assert counter.value == 11
        store.get("a"), store.subjects(), store.means("face"), store.verify()
        store.delete("b")
        assert counter.value == 12
    with opened(path, counter=counter, read_only=True) as store:
        assert store.subjects() == ["a"]
    assert counter.value == 12


def test_no_older_copy_opens_whatever_lies_between(path: Path, counter: FakeCounter) -> None:
    filled(path, "a", counter=counter)
    copies = []
    for number in range(3):
        copies.append(shutil.copy(path, path.with_suffix(f".{number}")))
        filled(path, f"b{number}", counter=counter)
    last = shutil.copy(path, path.with_suffix(".last"))
    for copy in copies:
        shutil.copy(copy, path)
        for read_only in (False, True):
            with pytest.raises(StoreError, match="rolled back"):
                opened(path, counter=counter, read_only=read_only)
    shutil.copy(last, path)
    with opened(path, counter=counter) as store:
        assert store.count() == 4


def test_a_crash_before_the_counter_moves_locks_nobody_out_and_is_made_up_for(
    path: Path, counter: FakeCounter
) -> None:
    filled(path, "a", counter=counter)
    for more in (0, 1):  # within the empty change, and within the change itself
        counter.fail_after = more
        store = opened(path, counter=counter)
        with pytest.raises(KeyboardInterrupt):
            store.put(f"b{more}", {"face": template()})
        counter.fail_after = 10**9
        store.close()
        before = counter.value
        with opened(path, counter=counter) as store:
            assert store.subjects() == (["a"] if more == 0 else ["a", "b1"])
        assert counter.value == before + 1


def test_what_a_cut_off_session_committed_cannot_be_put_in_the_place_of_later_changes(
    path: Path, counter: FakeCounter
) -> None:
    """The fork: copy what was committed and not counted, go on from an older copy, and put the first one back."""
    filled(path, "a", "b", counter=counter)
    base = shutil.copy(path, path.with_suffix(".base"))
    for more in (0, 1):
        shutil.copy(base, path)
        start = counter.value
        counter.fail_after = more
        store = opened(path, counter=counter)
        with pytest.raises(KeyboardInterrupt):
            store.put("c", {"face": template()})
        counter.fail_after = 10**9
        store.close()
        fork = shutil.copy(path, path.with_suffix(".fork"))
        if counter.value == start:  # the older copy still opens: nothing was acknowledged since
            shutil.copy(base, path)
        with opened(path, counter=counter) as store:
            store.delete("b")
        last = shutil.copy(path, path.with_suffix(".last"))
        shutil.copy(fork, path)
        with pytest.raises(StoreError, match="rolled back"):
            opened(path, counter=counter)
        shutil.copy(last, path)
        with opened(path, counter=counter) as store:
            assert "b" not in store.subjects()
            store.put("b", {"face": template()})
        base = shutil.copy(path, path.with_suffix(".base"))


def test_a_counter_that_was_reset_or_is_another_one_is_refused(path: Path, counter: FakeCounter) -> None:
    filled(path, "a", counter=counter)
    for value, words in ((counter.value - 2, "behind"), (counter.value + 1, "rolled back")):
        for read_only in (False, True):
            with pytest.raises(StoreError, match=words):
                opened(path, counter=FakeCounter(value), read_only=read_only)


def test_a_bound_store_does_not_open_without_its_counter(path: Path, counter: FakeCounter) -> None:
    filled(path, "a", counter=counter)
    with pytest.raises(UsageError, match="none was given"):
        opened(path)


def test_a_store_that_was_never_bound_is_bound_knowingly_alone(path: Path, counter: FakeCounter) -> None:
    filled(path, "a")
    unbound = shutil.copy(path, path.with_suffix(".unbound"))
    with pytest.raises(StoreError, match="not bound"):
        opened(path, counter=counter)
    with opened(path) as store:
        store.bind_counter(counter)
        store.put("b", {"face": template()})
    with opened(path, counter=counter) as store:
        assert store.subjects() == ["a", "b"]
    shutil.copy(unbound, path)
    with pytest.raises(StoreError, match="not bound"):
        opened(path, counter=counter)


def test_an_altered_number_is_noticed(path: Path, counter: FakeCounter) -> None:
    import sqlite3

    filled(path, "a", counter=counter)
    old = shutil.copy(path, path.with_suffix(".old"))
    filled(path, "b", counter=counter)
    for number in (0, counter.value):
        shutil.copy(old, path)
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE meta SET value = ? WHERE name = 'generation'", (number.to_bytes(8, "big"),)
            )
        connection.close()
        with pytest.raises(StoreError):
            opened(path, counter=counter)


def test_a_reader_beside_a_writer_is_not_told_of_a_rollback(path: Path, counter: FakeCounter) -> None:
    with opened(path, counter=counter) as store:
        store.put("a", {"face": template()})
        failures: list[BaseException] = []
        stop = threading.Event()

        def read() -> None:
            try:
                while not stop.is_set():
                    opened(path, counter=counter, read_only=True, timeout=5.0).close()
            except BaseException as error:
                failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(20):
            store.put(f"p{number}", {"face": template()})
        stop.set()
        reader.join()
        assert failures == []


def test_two_who_write_take_turns_from_commit_to_counter(path: Path, counter: FakeCounter) -> None:
    with (
        opened(path, counter=counter, timeout=5.0) as one,
        opened(path, counter=counter, timeout=5.0) as other,
    ):
        threads = [
            threading.Thread(
                target=lambda s=store, n=name: [s.put(f"{n}{i}", {"face": template()}) for i in range(8)]
            )
            for name, store in (("a", one), ("b", other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.count() == other.count() == 16
    opened(path, counter=counter).close()
    assert counter.value == 7 + 2 + 16


def test_a_lock_that_is_held_too_long_is_the_environments_fault(path: Path, counter: FakeCounter) -> None:
    with RollbackGuard(path, counter, 0.1).locked(), pytest.raises(EnvironmentFault, match="another program"):
        opened(path, counter=counter)
