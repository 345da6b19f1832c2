"""Whoever changes the guard's file without the key is noticed, and nobody is let in meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from edgepin._errors import EnvironmentFault, IntegrityError

from .guards import FakeClock, altered, fail, failures, opened, succeed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A guard with people at doors, earlier samples and failures."""
    path = tmp_path / "g"
    with opened(path) as guard:
        for subject in ("a", "b"):
            guard.begin(subject, "home").accept(["accepted"], fingerprints=[b"print-" + subject.encode()])
        fail(guard, "a", "strange", times=4)
        fail(guard, "c", times=2)
    return path


CHANGES = {
    "a counter taken out": "DELETE FROM counter WHERE used = (SELECT min(used) FROM counter)",
    "all counters taken out": "DELETE FROM counter",
    "the failures of one id taken out": "DELETE FROM counter WHERE door = x''",
    "a counter added": "INSERT INTO counter SELECT x'00112233445566778899aabbccddeeff', door, used, sealed FROM counter LIMIT 1",
    "counters exchanged": (
        "UPDATE counter SET sealed = (SELECT sealed FROM counter AS o WHERE o.door = x'' ORDER BY o.used DESC LIMIT 1) "
        "WHERE door = x''"
    ),
    "another use": "UPDATE counter SET used = used + 1",
    "another type of use": "UPDATE counter SET used = 'now'",
    "another type of name": "UPDATE counter SET door = hex(door) WHERE door != x''",
    "a byte": "UPDATE counter SET sealed = CAST(substr(sealed, 1, 20) || x'ff' || substr(sealed, 22) AS BLOB)",
    "an earlier sample taken out": "DELETE FROM memory WHERE used = (SELECT min(used) FROM memory)",
    "the state": "UPDATE meta SET value = x'00' || value WHERE name = 'state'",
    "no state": "DELETE FROM meta WHERE name = 'state'",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM counter; END",
    "another table": "CREATE TABLE t (x)",
    "another schema": "PRAGMA user_version = 9",
    "another application": "PRAGMA application_id = 1",
    "another store's": "UPDATE meta SET value = x'3030' WHERE name = 'guard_id'",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_an_integrity_error(path: Path, change: str) -> None:
    altered(path, CHANGES[change])
    with pytest.raises(IntegrityError) as caught:
        opened(path)
    assert caught.value.hint
    assert caught.value.exit_code == 5


def test_an_older_row_put_back_is_noticed(path: Path) -> None:
    """The very bytes that once stood there: sealed by us, and no longer true."""
    import sqlite3

    def rows() -> list[tuple[bytes, bytes, int, bytes]]:
        connection = sqlite3.connect(path)
        found = connection.execute("SELECT * FROM counter").fetchall()
        connection.close()
        return found

    before = rows()
    with opened(path) as guard:
        fail(guard, "a", "strange")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executemany("INSERT OR REPLACE INTO counter VALUES (?, ?, ?, ?)", before)
    connection.close()
    assert rows() == before
    with pytest.raises(IntegrityError, match="not those that were put into it"):
        opened(path)


def test_rows_out_of_order_are_noticed(path: Path) -> None:
    """All of them would be there when they are read one after the other, and none where it is looked for."""
    data = bytearray(path.read_bytes())
    leaves = [
        page
        for page in range(0, len(data), 1024)
        if data[page] == 0x0A
        and int.from_bytes(data[page + 3 : page + 5], "big") >= 3  # a leaf without rowids
    ]
    assert leaves
    for page in leaves:
        first, last = slice(page + 8, page + 10), slice(page + 12, page + 14)
        changed = bytearray(data)
        changed[first], changed[last] = data[last], data[first]
        path.write_bytes(changed)
        with pytest.raises(IntegrityError):
            opened(path)


def test_a_row_changed_while_the_guard_is_open_is_noticed_when_it_is_used(path: Path) -> None:
    with opened(path) as guard:
        altered(path, CHANGES["a byte"])
        for call in (lambda: guard.begin("a", "home"), lambda: guard.status("a")):
            with pytest.raises(IntegrityError):
                call()


def test_an_older_copy_put_in_place_while_the_guard_is_open_is_noticed(path: Path) -> None:
    import sqlite3

    guard = opened(path)
    old = {}
    connection = sqlite3.connect(path, isolation_level=None)
    for table in ("meta", "counter", "memory", "entry"):
        old[table] = connection.execute(f"SELECT * FROM {table}").fetchall()
    fail(guard, "a", "strange")
    for table, rows in old.items():
        connection.execute(f"DELETE FROM {table}")
        connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
    connection.close()
    with pytest.raises(IntegrityError, match="older copy"):
        guard.begin("a")
    guard.close()


def test_another_key_does_not_open_it(path: Path) -> None:
    with pytest.raises(IntegrityError, match="belongs to another store"):
        opened(path, store=bytes(32))


@pytest.mark.parametrize("data", [b"", b"not a database" * 200, b"SQLite format 3\0" + bytes(4080)])
def test_a_file_that_is_no_guard_is_refused_and_kept(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "g"
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        opened(path)
    assert path.read_bytes() == data


def test_a_folder_is_no_guard(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not a file"):
        opened(tmp_path)


def test_random_damage_never_raises_another_kind_of_error_and_never_lowers_a_count(path: Path) -> None:
    original, choose = path.read_bytes(), np.random.default_rng(3)
    noticed = 0
    for _ in range(150):
        changed = bytearray(original)
        for offset in choose.integers(0, len(original), size=choose.integers(1, 4)):
            changed[offset] ^= int(choose.integers(1, 256))
        path.write_bytes(changed)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        try:
            with opened(path) as guard:
                assert failures(guard, "a") == 4
                assert failures(guard, "c") == 2
                fail(guard, "a", "strange")
                assert failures(guard, "a") == 5
                list(guard.audit.entries())
        except (IntegrityError, EnvironmentFault):
            noticed += 1
    assert noticed > 75


def test_a_file_cut_anywhere_is_noticed(path: Path) -> None:
    original = path.read_bytes()
    for size in (1, 100, 1024, len(original) // 2, len(original) - 1024, len(original) - 1):
        path.write_bytes(original[:size])
        with pytest.raises(IntegrityError):
            opened(path)


# --- Whose it is


def test_the_file_is_its_owners_and_alone_once_closed(path: Path) -> None:
    guard = opened(path)
    succeed(guard, "a")
    for file in path.parent.iterdir():
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, file
    guard.close()
    assert [file.name for file in path.parent.iterdir()] == ["g"]


def test_the_settings_that_durability_and_erasure_need_are_on(path: Path) -> None:
    guard = opened(path)
    connection = guard._file._connection
    assert connection is not None
    expected = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "trusted_schema": 0}
    for name, value in expected.items():
        assert connection.execute(f"PRAGMA {name}").fetchone()[0] == value, name


def test_a_backup_of_the_closed_file_goes_on_where_it_was(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "copy")
    with opened(tmp_path / "copy", FakeClock()) as guard:
        assert failures(guard, "a") == 4
