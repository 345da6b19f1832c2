"""The guard's file: counters, earlier samples and audit in SQLite, apart from the enrollments.

It is committed to twice in every verification, and a power loss in one of these must not be able to touch a template.
Every row is sealed in its place; one sealed row, the state, binds how many there are, which, and the audit's end.
So no row can be altered, moved, added, removed or put back singly. A whole older copy of the file is noticed while it
is in use, and otherwise only by a counter outside of it (`MonotonicCounter`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import EnvironmentFault, IntegrityError, UsageError
from .._store import file as sqlite_file
from .clock import Clock, Epoch
from .limits import GuardLimits
from .sealing import RESTORE, GuardKeys
from .state import STATE_PLACE, State
from .transaction import Transaction, all_rows

if TYPE_CHECKING:
    from .._bundle.signing import SigningKey
    from .._store.counter import MonotonicCounter

GUARD = sqlite_file.FileKind(
    called="guard",
    application_id=0x45504947,  # "EPIG"
    schema_version=1,
    schema={
        "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
        "counter": (
            "CREATE TABLE counter (subject BLOB NOT NULL, door BLOB NOT NULL, used INTEGER NOT NULL, "
            "sealed BLOB NOT NULL, PRIMARY KEY (subject, door)) WITHOUT ROWID"
        ),
        "memory": (
            "CREATE TABLE memory (subject BLOB PRIMARY KEY NOT NULL, used INTEGER NOT NULL, sealed BLOB NOT NULL) "
            "WITHOUT ROWID"
        ),
        "entry": (
            "CREATE TABLE entry (sequence INTEGER PRIMARY KEY NOT NULL, body BLOB NOT NULL, tag BLOB NOT NULL)"
        ),
    },
    error=IntegrityError,
    restore=RESTORE,
    whole=False,  # only the tables in which a row is looked for, see `_check`
)


class GuardFile:
    """An open file. Several threads may use one; several processes may open the same file."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        keys: GuardKeys,
        clock: Clock,
        limits: GuardLimits,
        counter: MonotonicCounter | None,
        signing_key: SigningKey,
        timeout: float,
    ) -> None:
        self.path, self.keys, self.clock, self.limits, self.signing_key = (
            path,
            keys,
            clock,
            limits,
            signing_key,
        )
        self._connection: sqlite3.Connection | None = connection
        self._counter, self._timeout = counter, timeout
        self._lock = threading.RLock()
        self._latest: State | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        keys: GuardKeys,
        clock: Clock,
        limits: GuardLimits,
        counter: MonotonicCounter | None,
        signing_key: SigningKey,
        *,
        start: int,
        must_exist: bool,
        timeout: float,
    ) -> tuple[GuardFile, bool]:
        """The file, and whether it was made just now; then ids begin with `start` failures."""
        made = not sqlite_file.check_place(path, GUARD)
        if made:
            if must_exist:
                raise EnvironmentFault(f"there is no guard at {path}", hint="the first verification makes it")
            state = State(
                Epoch.begin(clock), start=start, counter=None if counter is None else counter.read()
            )
            sealed = keys.state.seal(state.pack(), STATE_PLACE)
            meta = {"guard_id": keys.guard_id.encode(), "signed_head": b"", "state": sealed}
            sqlite_file.create(path, meta, GUARD)
        connection = sqlite_file.connect(path, read_only=False, timeout=timeout, kind=GUARD)
        file = cls(path, connection, keys, clock, limits, counter, signing_key, timeout)
        try:
            file._check()
        except BaseException:
            connection.close()
            raise
        return file, made

    @contextmanager
    def transaction(self, *, counted: bool = False) -> Iterator[Transaction]:
        """One commit, or none if nothing is changed or an exception passes.

        `counted` commits move the counter outside the file, where there is one, before this returns.
        """
        with self._lock, sqlite_file.sqlite_errors(self.path, GUARD), self._counter_lock(counted):
            connection = self._open_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                state = self._load(connection)
                transaction = Transaction(
                    connection, self.keys, self.limits, self.clock, self.signing_key, state
                )
                yield transaction
                done = transaction.changed
                if done:
                    state = transaction.finished()
                    if counted and self._counter is not None:
                        state.counter = (state.counter or 0) + 1
                    sealed = self.keys.state.seal(state.pack(), STATE_PLACE)
                    connection.execute("UPDATE meta SET value = ? WHERE name = 'state'", (sealed,))
                    connection.execute("COMMIT")
                else:
                    connection.execute("ROLLBACK")
            except BaseException:
                # SQLite itself has already rolled back after some errors, a full disk for one.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._latest = state
            if done and counted and self._counter is not None:
                self._hold_against(self._counter.increment(), state)

    @contextmanager
    def reading(self) -> Iterator[tuple[sqlite3.Connection, State]]:
        """One moment of the file, to look at."""
        with self._lock, sqlite_file.sqlite_errors(self.path, GUARD):
            connection = self._open_connection()
            connection.execute("BEGIN")
            try:
                yield connection, self._load(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def truncate_log(self) -> None:
        """After an erasure: what was erased must not live on in the write-ahead log."""
        # Everything is committed and safe in the log. A reader elsewhere, or a full disk, only puts this off.
        with self._lock, suppress(EnvironmentFault), sqlite_file.sqlite_errors(self.path, GUARD):
            self._open_connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        with self._lock:
            if self._connection is None:
                return
            self.truncate_log()
            connection, self._connection = self._connection, None
            connection.close()

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise UsageError("the guard is closed")
        return self._connection

    def _load(self, connection: sqlite3.Connection) -> State:
        state = self._read_state(connection)
        latest = self._latest
        if latest is not None and (
            state.sequence < latest.sequence
            or (state.sequence == latest.sequence and state.chain != latest.chain)
        ):
            raise IntegrityError(f"an older copy of the guard {self.path} was put in its place", hint=RESTORE)
        return state

    def _read_state(self, connection: sqlite3.Connection) -> State:
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if meta.get("guard_id") != self.keys.guard_id.encode():
            raise IntegrityError(
                f"the guard {self.path} belongs to another store", hint=f"move it away, or {RESTORE}"
            )
        return State.unpack(self.keys.state.unseal(meta.get("state"), STATE_PLACE))

    def _check(self) -> None:
        """Whose file it is, that every row is there, and that it is not an older copy."""
        with self._counter_lock(True):
            with self.reading() as (connection, state):
                for table in ("meta", "counter", "memory"):
                    # In a tree out of order a row may be there when all are read, and not when it is looked for.
                    (verdict, *_) = connection.execute(f"PRAGMA integrity_check({table})").fetchone()
                    if verdict != "ok":
                        raise IntegrityError(f"the guard {self.path} is damaged: {verdict}", hint=RESTORE)
                found = 0
                for where, sealed in all_rows(connection):
                    found ^= self.keys.member(where, sealed)
                if found != state.set:
                    raise IntegrityError(
                        f"the guard {self.path} was altered: its rows are not those that were put into it",
                        hint=RESTORE,
                    )
                self._latest = state
            if (state.counter is None) != (self._counter is None):
                raise _unbound(self.path) if state.counter is None else _no_counter()
            if self._counter is not None:
                self._hold_against(self._counter.read(), state)

    def _hold_against(self, value: int, state: State) -> None:
        """Compares the counter outside the file with the file; one step less is what a crash between both leaves."""
        expected = state.counter
        if expected is not None and value == expected - 1 and self._counter is not None:
            value = self._counter.increment()
        if value != expected:
            raise IntegrityError(
                f"an older copy of the guard {self.path} was put in its place: "
                f"the counter outside of it stands at {value}, the file at {expected}",
                hint=RESTORE,
            )

    @contextmanager
    def _counter_lock(self, counted: bool) -> Iterator[None]:
        """Keeps other processes from the counter outside until file and counter agree again."""
        if self._counter is None or not counted:
            yield
            return
        end = time.monotonic() + self._timeout
        # A file of its own: closing another descriptor of SQLite's would drop its locks. flock ends with the process.
        descriptor = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise EnvironmentFault(
                            f"another program holds the guard {self.path}", hint="try again when it is done"
                        ) from None
                    time.sleep(0.002)
            yield
        finally:
            os.close(descriptor)


def _unbound(path: Path) -> IntegrityError:
    return IntegrityError(
        f"the guard {path} is not bound to the counter that was given: it may be an older copy", hint=RESTORE
    )


def _no_counter() -> UsageError:
    return UsageError(
        "the guard is held against a counter outside of its file, and none was given",
        hint="give the counter that it was made with",
    )
