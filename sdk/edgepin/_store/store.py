"""Enrollments at rest: one encrypted record for each modality of each subject, and one for consent.

Subject ids are readable in the file; templates and consent are not. An altered, swapped, removed, added or
aged record is noticed. What is not noticed is a whole older copy of the file put back in its place: that
needs a counter outside the file.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .._bundle.manifest import MODALITIES
from .._errors import AlreadyEnrolledError, EnvironmentFault, StoreError, UnknownSubjectError, UsageError
from . import file as _store_file
from .envelope import Envelope, RecordName
from .keys import KeyProvider
from .template import Template, check_subject, pack_template, pack_text, unpack_template

_TEMPLATE, _CONSENT = "template", "consent"
_SHA256 = re.compile("[0-9a-f]{64}")
_META = ("bundle_digest", "index_tag", "key_id", "wrapped_key")

_T = TypeVar("_T")


class Store:
    """An open store. Several threads may use one; several processes may open the same file.

    Use `open`, and `close` or a `with` statement: closing moves everything into the one file.
    Every method raises `StoreError` if the file was altered or is damaged, and `EnvironmentFault` if it
    cannot be used now.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, envelope: Envelope, read_only: bool
    ) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection
        self._envelope = envelope
        self._read_only = read_only
        self._lock = threading.RLock()
        self._index: dict[RecordName, bytes] = {}
        self._verified: int | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        key_provider: KeyProvider,
        bundle_digest: str,
        *,
        read_only: bool = False,
        must_exist: bool = False,
        timeout: float = 5.0,
    ) -> Store:
        """Opens the store of one bundle, and makes it first (mode 0600) if there is none.

        Args:
            path: the file; beside it `-wal` and `-shm` files come and go.
            key_provider: the key that locks the store; asked once, here.
            bundle_digest: `Bundle.digest`. Templates of one bundle mean nothing to another.
            read_only: change nothing; the store must exist.
            must_exist: do not make one.
            timeout: seconds to wait for another process that writes.

        Raises:
            StoreError: it is damaged or altered, was made for another bundle, or is locked with another key.
            EnvironmentFault: it is missing and may not be made, or cannot be read or written.
        """
        path = Path(path)
        if not isinstance(bundle_digest, str) or not _SHA256.fullmatch(bundle_digest):
            raise UsageError("a bundle's digest is 64 hex digits")
        if not _store_file.check_place(path):
            if must_exist or read_only:
                raise EnvironmentFault(
                    f"there is no store at {path}", hint="enroll someone first, or name the store's file"
                )
            envelope, wrapped = Envelope.create(key_provider, _store_file.SCHEMA_VERSION, bundle_digest)
            _store_file.create(
                path,
                {
                    "bundle_digest": bundle_digest.encode(),
                    "index_tag": envelope.index_tag([]),
                    "key_id": key_provider.key_id.encode(),
                    "wrapped_key": wrapped,
                },
            )
        connection = _store_file.connect(path, read_only=read_only, timeout=timeout)
        try:
            with _store_file.sqlite_errors(path):
                envelope = _unlock(connection, key_provider, bundle_digest)
            store = cls(path, connection, envelope, read_only)
            with store._transaction():
                pass
        except BaseException:
            connection.close()
            raise
        return store

    def put(
        self,
        subject: str,
        templates: Mapping[str, Template],
        consent: str | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Keeps all templates of a subject and the consent given, or nothing of it.

        Args:
            subject: see `check_subject`.
            templates: by modality, `face` or `voice`; at least one.
            consent: what was agreed to, in the integrator's words.
            replace: first erase what is kept of the subject, consent included.

        Raises:
            AlreadyEnrolledError: the subject has templates and `replace` is False.
            UsageError: an argument cannot be right.
        """
        check_subject(subject)
        plain = {
            RecordName(subject, modality, _TEMPLATE): pack_template(modality, template)
            for modality, template in templates.items()
        }
        if not plain:
            raise UsageError("an enrollment needs at least one template")
        if consent is not None:
            plain[RecordName(subject, "", _CONSENT)] = pack_text(consent)
        sealed = {name: self._envelope.seal(name, data) for name, data in plain.items()}
        with self._transaction(write=True) as connection:
            old = [name for name in self._index if name.subject == subject]
            if old and not replace:
                raise AlreadyEnrolledError(
                    f"{subject!r} is already enrolled", hint="choose another id, or replace the enrollment"
                )
            connection.execute("DELETE FROM record WHERE subject = ?", (subject,))
            connection.executemany(
                "INSERT INTO record VALUES (?, ?, ?, ?)", [(*name, data) for name, data in sealed.items()]
            )
            self._reindex(connection, old, sealed)
        if old:
            self._forget()

    def get(self, subject: str) -> dict[str, Template] | None:
        """The templates of a subject by modality, read-only arrays; None if there are none."""
        check_subject(subject)
        with self._transaction() as connection:
            records = {
                modality: self._record(connection, RecordName(subject, modality, _TEMPLATE))
                for modality in MODALITIES
            }
            return {
                modality: unpack_template(data) for modality, data in records.items() if data is not None
            } or None

    def consent(self, subject: str) -> str | None:
        """What the subject agreed to; None if nothing is kept."""
        check_subject(subject)
        with self._transaction() as connection:
            data = self._record(connection, RecordName(subject, "", _CONSENT))
            return None if data is None else data.decode()

    def delete(self, subject: str) -> None:
        """Erases all that is kept of a subject. Raises `UnknownSubjectError` if nothing is.

        The bytes are overwritten in the file, and in the write-ahead log unless another process is reading
        just now: then at the next close.
        """
        check_subject(subject)
        with self._transaction(write=True) as connection:
            old = [name for name in self._index if name.subject == subject]
            if not old:
                raise UnknownSubjectError(f"{subject!r} is not enrolled")
            connection.execute("DELETE FROM record WHERE subject = ?", (subject,))
            self._reindex(connection, old, {})
        self._forget()

    def subjects(self) -> list[str]:
        """The ids of all who have templates, sorted."""
        with self._transaction():
            return sorted({name.subject for name in self._index})

    def count(self) -> int:
        """How many have templates."""
        return len(self.subjects())

    def close(self) -> None:
        """Moves everything into the one file and closes it. Closing twice is fine."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            try:
                if not self._read_only:
                    self._checkpoint(connection)
            finally:
                connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, on records verified within it. The index in memory follows the file's."""
        with self._lock, _store_file.sqlite_errors(self.path):
            if self._connection is None:
                raise UsageError("the store is closed")
            if write and self._read_only:
                raise UsageError("the store was opened to be read only")
            connection, index = self._connection, self._index
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                self._verify(connection)
                index = self._index
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._index = index
                # SQLite itself has already rolled back after some errors, a full disk for one.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _verify(self, connection: sqlite3.Connection) -> None:
        """Holds every record against the index, unless nobody else has written since that was last done."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._verified:
            return
        index = {}
        for subject, modality, kind, sealed in connection.execute(
            "SELECT subject, modality, kind, sealed FROM record"
        ):
            index[RecordName(_is(str, subject), _is(str, modality), _is(str, kind))] = hashlib.sha256(
                _is(bytes, sealed)
            ).digest()
        tag = _meta(connection)["index_tag"]
        if not hmac.compare_digest(tag, self._envelope.index_tag(index.items())):
            raise StoreError(
                "the store was altered: its records are not those that were put into it",
                hint="restore the store from a backup",
            )
        self._index, self._verified = index, version

    def _record(self, connection: sqlite3.Connection, name: RecordName) -> bytes | None:
        row = connection.execute(
            "SELECT sealed FROM record WHERE subject = ? AND modality = ? AND kind = ?", name
        ).fetchone()
        expected = self._index.get(name)
        if row is None and expected is None:
            return None
        # Also when nobody wrote through SQLite: the bytes on the disk may have changed all the same.
        if row is None or expected is None or hashlib.sha256(_is(bytes, row[0])).digest() != expected:
            raise StoreError(
                "the store was altered while it was open", hint="restore the store from a backup"
            )
        return self._envelope.unseal(name, row[0])

    def _reindex(
        self, connection: sqlite3.Connection, old: list[RecordName], new: Mapping[RecordName, bytes]
    ) -> None:
        index = {name: digest for name, digest in self._index.items() if name not in old}
        index.update((name, hashlib.sha256(data).digest()) for name, data in new.items())
        connection.execute(
            "UPDATE meta SET value = ? WHERE name = 'index_tag'", (self._envelope.index_tag(index.items()),)
        )
        self._index = index

    def _forget(self) -> None:
        """After an erasure: what was erased must not live on in the write-ahead log."""
        with self._lock:
            if self._connection is not None:
                self._checkpoint(self._connection)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        # Everything is committed and safe in the log. A reader elsewhere, or a full disk, only puts this off.
        try:
            with _store_file.sqlite_errors(self.path):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except EnvironmentFault:
            pass


def _unlock(connection: sqlite3.Connection, provider: KeyProvider, bundle_digest: str) -> Envelope:
    meta = _meta(connection)
    if meta["bundle_digest"] != bundle_digest.encode():
        made_for = meta["bundle_digest"].decode("ascii", "replace")
        raise StoreError(
            f"the store was made for another bundle ({made_for[:12]}…, not {bundle_digest[:12]}…)",
            hint="pass the bundle that it was made for, or enroll again into a new store",
        )
    if meta["key_id"] != provider.key_id.encode():
        raise StoreError(
            "the store is locked with another key "
            f"({meta['key_id'].decode('ascii', 'replace')[:40]}, not {provider.key_id[:40]})",
            hint="restore the key that it was made with; without it nobody can open the store",
        )
    return Envelope.unwrap(meta["wrapped_key"], provider, _store_file.SCHEMA_VERSION, bundle_digest)


def _meta(connection: sqlite3.Connection) -> dict[str, bytes]:
    rows = {
        _is(str, name): _is(bytes, value)
        for name, value in connection.execute("SELECT name, value FROM meta")
    }
    if sorted(rows) != list(_META):
        raise StoreError(
            "the store was altered: its description is not a store's", hint="restore the store from a backup"
        )
    return rows


def _is(kind: type[_T], value: object) -> _T:
    """`value`, if SQLite gave it in the type that it was put in as."""
    if not isinstance(value, kind):
        raise StoreError(
            "the store was altered: a value has another type", hint="restore the store from a backup"
        )
    return value
