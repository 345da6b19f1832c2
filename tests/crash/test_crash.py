"""A process that is killed, or whose power or disk fails, loses nothing that it acknowledged and leaves nothing else behind.

Short runs of what `python -m tests.crash --full` does for minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .disk import CREATED, LINK, SYNC, SYNC_FOLDER, TRUNCATE, WRITE, Disk, Event
from .full_disk import full_disks
from .kills import random_kills, scratch, statement_kills
from .power import power_cuts, record, why_not
from .session import LostError, Operation, Session, check, scripted, told

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
needs_recorder = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@needs_fork
@pytest.mark.parametrize("writers", [1, 2])
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(writers: int) -> None:
    counts = random_kills(30 // writers, seed=3, writers=writers)
    assert counts["kills"] == 30
    assert counts["acknowledged"] > 0
    assert counts["in flight"] > 0


@needs_fork
def test_a_kill_at_each_statement_of_the_write_path_loses_nothing_that_was_acknowledged() -> None:
    writing = [Operation("key", "store.key"), Operation("open"), Operation("put", "ada", 1, "form 7"),
               Operation("replace", "ada", 2), Operation("delete", "ada")]  # fmt: skip
    counts = statement_kills(writing)
    assert counts["statements"] > 80
    assert counts["checked"] == counts["statements"] + 1


@needs_recorder
def test_a_power_cut_after_any_event_loses_nothing_that_was_acknowledged() -> None:
    counts = power_cuts(torn=1, seed=5, every=4)
    assert counts["checked"] > 200
    assert counts["sync"] > 20
    assert counts["sync folder"] > 2


@needs_recorder
def test_a_disk_that_fills_up_at_any_write_is_told_and_loses_nothing_that_was_acknowledged() -> None:
    counts = full_disks(step=13, first=2)
    assert counts["full disks"] > 10


# --- The harness itself: what it would find if it were there


@pytest.fixture
def session(tmp_path: Path) -> tuple[Path, list[bytes]]:
    lines: list[bytes] = []
    Session(tmp_path, lines.append).run(scripted())
    return tmp_path, lines


def test_an_acknowledged_enrollment_that_is_missing_is_found(session: tuple[Path, list[bytes]]) -> None:
    folder, lines = session
    done, _ = told(lines)
    check(folder, done, None)
    with pytest.raises(LostError):
        check(folder, [*done, Operation("put", "nobody", 1)], None)


def test_a_person_whom_nobody_enrolled_is_found(session: tuple[Path, list[bytes]]) -> None:
    folder, lines = session
    done, _ = told(lines)
    with pytest.raises(LostError):
        check(folder, [*done, Operation("delete", "bob")], None)


def test_what_was_in_flight_may_be_there_or_not_and_nothing_else(session: tuple[Path, list[bytes]]) -> None:
    folder, lines = session
    done, _ = told(lines)
    check(folder, done, Operation("delete", "bob"))
    last = next(i for i, operation in enumerate(done) if operation.verb == "put" and operation.version == 5)
    check(folder, done[:last], done[last])
    with pytest.raises(LostError):
        check(folder, done[:last], Operation("put", "other", 1))


def test_a_torn_line_was_not_told() -> None:
    done, flying = told([b"?put\ta\t1\t\n", b"!put\ta\t1\t\n", b"?put\tb\t2\t\n", b"!put\tb"])
    assert done == [Operation("put", "a", 1)]
    assert flying == Operation("put", "b", 2)


def events(*given: tuple[int, int, bytes, str]) -> Disk:
    disk = Disk()
    for kind, offset, data, name in given:
        disk.take(Event(kind, 0 if kind == SYNC_FOLDER else 7, offset, data, name, ""))
    return disk


def test_what_was_not_synced_is_lost_with_the_power() -> None:
    disk = events(
        (CREATED, 0, b"", "a"),
        (SYNC_FOLDER, 0, b"", ""),
        (WRITE, 0, b"one", ""),
        (SYNC, 0, b"", ""),
        (WRITE, 3, b"two", ""),
    )
    assert disk.dropped() == {"a": b"one"}
    assert disk.whole() == {"a": b"onetwo"}


def test_a_name_whose_folder_was_not_synced_is_lost_with_the_power() -> None:
    disk = events((CREATED, 0, b"", "a"), (WRITE, 0, b"one", ""), (SYNC, 0, b"", ""), (LINK, 0, b"", "b"))
    assert disk.dropped() == {}
    assert disk.whole() == {"a": b"one", "b": b"one"}


def test_a_write_tears_between_sectors_and_lengths_may_come_late() -> None:
    from random import Random

    disk = events(
        (CREATED, 0, b"", "a"),
        (SYNC_FOLDER, 0, b"", ""),
        (WRITE, 0, b"x" * 2048, ""),
        (TRUNCATE, 100, b"", ""),
    )
    found = {disk.torn(Random(seed))["a"] for seed in range(200)}
    assert len(found) > 10
    assert b"" in found
    for content in found:
        sectors = [content[at : at + 512] for at in range(0, len(content), 512)]
        assert all(set(sector) in ({0}, {ord("x")}) for sector in sectors)


@needs_recorder
def test_the_recorder_sees_what_the_session_leaves_behind() -> None:
    with scratch() as folder:
        disk = Disk()
        for event in record(folder):
            disk.take(event)
        there = {path.name: path.read_bytes() for path in (folder / "place").iterdir()}
        assert disk.whole() == there
