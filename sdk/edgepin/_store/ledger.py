"""The rows of a store under its index and its counter: every transaction begins on rows that were verified in it."""

from __future__ import annotations

import hmac
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from .._errors import EnvironmentFault, StoreError, UsageError
from . import file as store_file
from .counter import MonotonicCounter, RollbackGuard
from .envelope import ID_BYTES, Envelope, Person, Place, Sealed, bind
from .index import Index, named_seal, seals_of
from .keys import KeyProvider

META = ("bundle_digest", "generation", "index_tag", "key_id", "sealed_root", "store_id", "wrapped_key")
_RESTORE = "restore the store from a backup"

_T = TypeVar("_T")


class Ledger:
    """One connection to one store, and what is known of it. Threads take turns."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        envelope: Envelope,
        *,
        read_only: bool = False,
        counter: MonotonicCounter | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.path, self.envelope, self.read_only = path, envelope, read_only
        self.guard = RollbackGuard(path, counter, timeout)
        self.index = Index(envelope.index_key)
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = connection
        self._verified: int | None = None
        self._session_begun = False

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise UsageError("the store is closed")
        return self._connection

    def check(self) -> None:
        """The first look: every row under the index, and the store's number against the counter."""
        with nullcontext() if self.read_only else self.guard.locked():
            before = self.guard.read()
            with self._transaction(write=False) as connection:
                generation = self._generation(read_meta(connection))
            self.guard.check(generation, before, repair=not self.read_only)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction on verified rows; what a writing one changes is committed with its index, or nothing."""
        with self.lock:
            if not write or self.guard.counter is None:
                with self._transaction(write) as connection:
                    yield connection
                return
            with self.guard.locked():
                if not self._session_begun:
                    # A session that was cut off may have committed the next number. What this one commits must
                    # have another.
                    with self._counted():
                        pass
                    self._session_begun = True
                with self._counted() as connection:
                    yield connection

    @contextmanager
    def _counted(self) -> Iterator[sqlite3.Connection]:
        before = self.guard.read()
        with self._transaction(write=True) as connection:
            self.guard.check(self._generation(read_meta(connection)), before, repair=True)
            yield connection
        assert self.guard.counter is not None
        self.guard.counter.increment()

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[sqlite3.Connection]:
        with self.lock, store_file.sqlite_errors(self.path):
            connection = self.connection
            if write and self.read_only:
                raise UsageError("the store was opened to be read only")
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                self._verify(connection)
                yield connection
                if write:
                    self.commit_index()
                connection.execute("COMMIT")
            except BaseException:
                if write:
                    self._verified = None  # the index in memory may be ahead of the file
                # SQLite itself has already rolled back after some errors, a full disk for one.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def verify_again(self) -> None:
        """Within a transaction: holds every row against the index, whatever was seen before."""
        self._verified = None
        self._verify(self.connection)

    def find(self, subject: str) -> tuple[Person, list[Sealed]] | None:
        """Within a transaction: a person's row and records as they were entered; None if there is no such person."""
        person = self._person(subject)
        known = subject in self.index
        if person is None and not known:
            return None
        records = [
            Sealed(is_a(str, row[0]), is_a(str, row[1]), is_a(bytes, row[2]), is_a(bytes, row[3]))
            for row in self.connection.execute(
                "SELECT modality, kind, seal, body FROM record WHERE subject = ?", (subject,)
            )
        ]
        # Also when nobody wrote through SQLite: the bytes on the disk may have changed all the same.
        if person is None or not self.index.holds(person, seals_of(records)):
            raise StoreError("the store was altered while it was open", hint=_RESTORE)
        return person, records

    def write(self, person: Person, records: Iterable[Sealed]) -> None:
        """Within a writing transaction: enters a person in place of all that was there under that name."""
        records = list(records)
        self._delete(person.subject)
        self.connection.execute("INSERT INTO person VALUES (?, ?, ?)", person)
        self.connection.executemany(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?)", [(person.subject, *record) for record in records]
        )
        self.index.put(person, seals_of(records))

    def erase(self, subject: str, now: int) -> bytes:
        """Within a writing transaction: removes a person, overwriting the bytes. Gives the mark that stays."""
        person = self._person(subject)
        if person is None or subject not in self.index:
            raise StoreError("the store was altered while it was open", hint=_RESTORE)
        mark = self.envelope.tombstone(subject, person.key_id)
        self._delete(subject)
        self.index.remove(subject)
        self.bury({mark: now})
        return mark

    def bury(self, marks: Mapping[bytes, int]) -> None:
        """Within a writing transaction: enters tombstones."""
        for mark, when in marks.items():
            self.connection.execute("INSERT OR REPLACE INTO tombstone VALUES (?, ?)", (mark, when))
            self.index.bury(mark, when)

    def tombstones(self) -> dict[bytes, int]:
        """Within a transaction: by mark, when it was erased."""
        return {
            is_a(bytes, mark): is_a(int, when)
            for mark, when in self.connection.execute("SELECT mark, erased_at FROM tombstone")
        }

    def people(self) -> list[Person]:
        """Within a transaction: every person's row."""
        return [
            Person(is_a(str, row[0]), is_a(bytes, row[1]), is_a(bytes, row[2]))
            for row in self.connection.execute("SELECT subject, key_id, wrapped FROM person ORDER BY subject")
        ]

    def people_of(self, marks: AbstractSet[bytes]) -> dict[str, bytes]:
        """Within a transaction: by subject the mark, of the people whose erasure these marks tell of."""
        if not marks:
            return {}
        found = {
            person.subject: self.envelope.tombstone(person.subject, person.key_id) for person in self.people()
        }
        return {subject: mark for subject, mark in found.items() if mark in marks}

    def bind_counter(self, counter: MonotonicCounter) -> None:
        """Gives the store the counter's next number, and advances the counter."""
        guard = RollbackGuard(self.path, counter, self.guard.timeout)
        with self.lock, guard.locked():
            before = guard.read()
            with self._transaction(write=True):
                self.set_meta(generation=pack_generation(before))
            counter.increment()
            self.guard, self._session_begun = guard, True

    def rewrap(self, provider: KeyProvider, *, data_key: bool) -> Envelope:
        """Within a writing transaction: locks the store with another key. Take the envelope once it is committed."""
        envelope = self.envelope.with_new_data_key() if data_key else self.envelope
        if data_key:
            self.connection.executemany(
                "UPDATE person SET wrapped = ? WHERE subject = ?",
                [
                    (self.envelope.rewrap(person, envelope).wrapped, person.subject)
                    for person in self.people()
                ],
            )
            self.index = self._scan(self.connection, Index(envelope.index_key))
        wrapped, sealed_root = envelope.wrap(provider)
        self.set_meta(key_id=provider.key_id.encode(), wrapped_key=wrapped, sealed_root=sealed_root)
        return envelope

    def set_meta(self, **values: bytes) -> None:
        """Within a writing transaction: changes what the store says of itself."""
        self.connection.executemany(
            "UPDATE meta SET value = ? WHERE name = ?", [(value, name) for name, value in values.items()]
        )

    def checkpoint(self) -> None:
        """Moves everything into the file and empties the log, in which what was erased would live on."""
        # Everything is committed and safe in the log. A reader elsewhere, or a full disk, only puts this off.
        with self.lock:
            if self._connection is None or self.read_only:
                return
            try:
                with store_file.sqlite_errors(self.path):
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except EnvironmentFault:
                pass

    def close(self) -> None:
        """Closing twice is fine."""
        with self.lock:
            try:
                self.checkpoint()
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()

    def _verify(self, connection: sqlite3.Connection) -> None:
        """Holds every row against the index, unless nobody else has written since that was last done."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._verified:
            return
        meta = read_meta(connection)
        index = self._scan(connection, Index(self.envelope.index_key))
        if not hmac.compare_digest(meta["index_tag"], index.tag(_about(meta))):
            raise StoreError(
                "the store was altered: its records are not those that were put into it "
                "(or its data key was changed while it was open)",
                hint="restore the store from a backup",
            )
        self.index, self._verified = index, version

    @staticmethod
    def _scan(connection: sqlite3.Connection, index: Index) -> Index:
        seals: dict[str, bytes] = {}
        # In the order of the primary key, in which `seals_of` has them too.
        for subject, modality, kind, seal in connection.execute(
            "SELECT subject, modality, kind, seal FROM record ORDER BY subject, modality, kind"
        ):
            seals[subject] = seals.get(subject, b"") + named_seal(modality, kind, seal)
        for subject, key_id, wrapped in connection.execute("SELECT subject, key_id, wrapped FROM person"):
            if type(subject) is not str or not (type(key_id) is type(wrapped) is bytes):
                raise _wrong_type()
            index.put(Person(subject, key_id, wrapped), seals.pop(subject, b""))
        if seals:
            raise StoreError("the store was altered: it has records of nobody", hint=_RESTORE)
        for mark, when in connection.execute("SELECT mark, erased_at FROM tombstone"):
            index.bury(is_a(bytes, mark), is_a(int, when))
        return index

    def commit_index(self) -> None:
        """Within a writing transaction, last: enters the index of what is there now, and the store's next number."""
        meta = read_meta(self.connection)
        generation = self._generation(meta)
        if generation:
            meta["generation"] = pack_generation(generation + 1)
        self.set_meta(index_tag=self.index.tag(_about(meta)), generation=meta["generation"])

    def _person(self, subject: str) -> Person | None:
        row = self.connection.execute(
            "SELECT key_id, wrapped FROM person WHERE subject = ?", (subject,)
        ).fetchone()
        return None if row is None else Person(subject, is_a(bytes, row[0]), is_a(bytes, row[1]))

    def _delete(self, subject: str) -> None:
        self.connection.execute("DELETE FROM record WHERE subject = ?", (subject,))
        self.connection.execute("DELETE FROM person WHERE subject = ?", (subject,))

    @staticmethod
    def _generation(meta: Mapping[str, bytes]) -> int:
        return int.from_bytes(meta["generation"], "big")


def new_meta(envelope: Envelope, provider: KeyProvider, generation: int) -> dict[str, bytes]:
    """What an empty store says of itself. `generation` is the counter that it is bound to, 0 for none."""
    wrapped, sealed_root = envelope.wrap(provider)
    meta = {
        "bundle_digest": envelope.place.bundle_digest.encode(),
        "generation": pack_generation(generation),
        "key_id": provider.key_id.encode(),
        "sealed_root": sealed_root,
        "store_id": bytes.fromhex(envelope.place.store_id),
        "wrapped_key": wrapped,
    }
    return {**meta, "index_tag": Index(envelope.index_key).tag(_about(meta))}


def pack_generation(generation: int) -> bytes:
    return generation.to_bytes(8, "big")


def unlock(connection: sqlite3.Connection, provider: KeyProvider, bundle_digest: str | None) -> Envelope:
    """The envelope of a store. Raises `StoreError` if it is another bundle's, or locked with another key."""
    meta = read_meta(connection)
    check_owner(meta, provider, bundle_digest)
    place = Place(meta["store_id"].hex(), meta["bundle_digest"].decode("ascii", "replace"))
    return Envelope.unwrap(place, meta["wrapped_key"], meta["sealed_root"], provider)


def check_owner(meta: Mapping[str, bytes], provider: KeyProvider, bundle_digest: str | None) -> None:
    """Raises `StoreError` if the store was made for another bundle or is locked with another key."""
    if bundle_digest is not None and meta["bundle_digest"] != bundle_digest.encode():
        made_for = ascii(meta["bundle_digest"].decode("latin-1"))[1:-1]
        raise StoreError(
            f"the store was made for another bundle ({made_for[:12]}…, not {bundle_digest[:12]}…)",
            hint="pass the bundle that it was made for, or enroll again into a new store",
        )
    if meta["key_id"] != provider.key_id.encode():
        raise StoreError(
            "the store is locked with another key "
            f"({ascii(meta['key_id'].decode('latin-1'))[1:-1]:.40}, not {provider.key_id[:40]})",
            hint="restore the key that it was made with; without it nobody can open the store",
        )


def read_meta(connection: sqlite3.Connection, names: tuple[str, ...] = META) -> dict[str, bytes]:
    """What the store says of itself. Raises `StoreError` if that is more or less than it should say."""
    rows = {
        is_a(str, name): is_a(bytes, value)
        for name, value in connection.execute("SELECT name, value FROM meta")
    }
    if sorted(rows) != sorted(names) or len(rows.get("store_id", bytes(ID_BYTES))) != ID_BYTES:
        raise StoreError("the store was altered: its description is not a store's", hint=_RESTORE)
    return rows


def is_a(kind: type[_T], value: object) -> _T:
    """`value`, if SQLite gave it in the type that it was put in as."""
    if not isinstance(value, kind):
        raise _wrong_type()
    return value


def _wrong_type() -> StoreError:
    return StoreError("the store was altered: a value has another type", hint=_RESTORE)


def _about(meta: Mapping[str, bytes]) -> bytes:
    return bind(meta["generation"], meta["key_id"], meta["wrapped_key"], meta["sealed_root"])
