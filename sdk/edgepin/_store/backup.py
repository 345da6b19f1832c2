"""Copies of a store and their way back, in which the erased stay erased."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .._errors import EnvironmentFault, StoreError, UsageError
from .._safe_files import sibling, sync_folder
from . import file as store_file
from .counter import MonotonicCounter, RollbackGuard
from .keys import KeyProvider
from .ledger import Ledger, pack_generation
from .opening import open_unchecked
from .tombstones import ErasureJournal


@dataclass(frozen=True)
class Restored:
    """What came of a restoration."""

    people: int
    """How many are enrolled now."""
    erased_again: tuple[str, ...]
    """Who was in the backup and has been erased since, sorted."""


def write_backup(ledger: Ledger, path: Path, provider: KeyProvider | None) -> None:
    """See `Store.backup`."""
    with _made_at(path) as temporary:
        with ledger.transaction() as connection:
            _copy(connection, temporary, path)
        copy = store_file.connect(temporary, read_only=False, timeout=5.0)
        with closing(Ledger(temporary, copy, ledger.envelope)) as other:
            if provider is None:
                with other.transaction():
                    store_file.check_pages(copy, temporary)
            else:
                with other.transaction(write=True):
                    other.rewrap(provider, data_key=False)
        _put(temporary, path)


def restore(
    backup: Path,
    path: Path,
    provider: KeyProvider,
    bundle_digest: str | None,
    backup_key: KeyProvider | None,
    counter: MonotonicCounter | None,
    *,
    timeout: float,
) -> Restored:
    """See `Store.restore`."""
    if not store_file.check_place(backup):
        raise EnvironmentFault(f"there is no backup at {backup}", hint="name the backup's file")
    guard = RollbackGuard(path, counter, timeout)
    with ExitStack() as stack:
        temporary = stack.enter_context(_made_at(path))
        stack.enter_context(guard.locked())
        with (
            closing(store_file.connect(backup, read_only=True, timeout=timeout, still=True)) as source,
            store_file.sqlite_errors(backup),
        ):
            _copy(source, temporary, backup)
        copy = open_unchecked(temporary, backup_key or provider, bundle_digest, False, timeout)
        stack.callback(copy.close)
        journal = ErasureJournal(path, copy.envelope.journal_key)
        marks = dict(journal.read().marks)
        present = None
        if store_file.check_place(path):
            present, more = _present(path, provider, bundle_digest, timeout, copy.envelope.place.store_id)
            stack.callback(present.close)
            marks |= more
        with copy.transaction(write=True) as connection:
            store_file.check_pages(connection, temporary)
            erased = copy.people_of(marks.keys())
            for subject, mark in erased.items():
                copy.erase(subject, marks[mark])
            copy.bury(marks)
            # With a counter, the commit makes it the next number.
            copy.set_meta(generation=pack_generation(guard.read()))
            if backup_key is not None:
                copy.rewrap(provider, data_key=False)
            people, buried = len(copy.index), copy.tombstones()
        copy.close()
        _replace(temporary, path, present)
        if counter:
            counter.increment()
        noted = journal.read().marks
        journal.append({mark: when for mark, when in buried.items() if mark not in noted})
    return Restored(people, tuple(sorted(erased)))


def _present(
    path: Path, provider: KeyProvider, bundle_digest: str | None, timeout: float, store_id: str
) -> tuple[Ledger, dict[bytes, int]]:
    """The store that a backup replaces, and its tombstones. It may be an older copy: they only add to the others."""
    try:
        present = open_unchecked(path, provider, bundle_digest, False, timeout, any_journal=True)
    except StoreError as error:
        raise _not_opened(path, error) from error
    try:
        with present.transaction():
            marks = present.tombstones()
        if present.envelope.place.store_id != store_id:
            raise StoreError(f"the backup is of another store than {path}", hint=f"move {path} away first")
    except BaseException:
        present.close()
        raise
    return present, marks


def _not_opened(path: Path, error: StoreError) -> StoreError:
    return StoreError(
        f"the store in the backup's place does not open: {error}",
        hint=f"move {path} with its -wal and -shm away, and leave {path}.erased where it is",
    )


def _copy(source: sqlite3.Connection, target: Path, path: Path) -> None:
    with store_file.sqlite_errors(path), closing(sqlite3.connect(target)) as connection:
        source.backup(connection)


@contextmanager
def _made_at(path: Path) -> Iterator[Path]:
    """An empty file of mode 0600 beside `path`, gone with its logs at the end unless it was put elsewhere."""
    temporary = sibling(path)
    try:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise EnvironmentFault(
                f"cannot write {path}: {error.strerror}",
                hint="check that its folder may be written by this user",
            ) from error
        yield temporary
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                Path(f"{temporary}{suffix}").unlink()


def _put(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise UsageError(f"there is something at {path}", hint="choose another name") from None
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror}") from error


def _replace(temporary: Path, path: Path, present: Ledger | None) -> None:
    if present is None:
        _put(temporary, path)
        return
    with store_file.sqlite_errors(path):
        # Leaving the write-ahead log succeeds only if nobody else has the store open, and removes the log: an old
        # log beside the new file would be written into it. Whoever comes meanwhile waits, and then finds the old
        # file in a mode that no store is in.
        present.connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        try:
            present.connection.execute("BEGIN EXCLUSIVE")
            os.replace(temporary, path)
            sync_folder(path.parent)
            present.connection.execute("ROLLBACK")
        except BaseException:
            if present.connection.in_transaction:
                present.connection.execute("ROLLBACK")
            present.connection.execute("PRAGMA journal_mode = WAL").fetchone()
            raise
