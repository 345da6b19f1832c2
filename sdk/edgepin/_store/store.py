"""Enrollments at rest: a random key for each person, and under it one encrypted record for each modality, the consent
and the dates.

Subject ids are readable in the file; templates and consent are not. An altered, swapped, removed, added or aged
record is noticed: what is there, on opening; what is in it, when it is read (`verify` reads everything). What was
erased stays erased when an older copy comes back (`tombstones`); that nothing else of an older copy comes back needs
a counter outside the file (`counter`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .._bundle.manifest import EMBEDDING_DIM, MODALITIES
from .._errors import AlreadyEnrolledError, UnknownSubjectError, UsageError
from . import file as _store_file
from .consent import Consent
from .counter import MonotonicCounter
from .envelope import Person, Sealed
from .keys import KeyProvider
from .ledger import Ledger, is_a
from .opening import open_ledger
from .records import CONSENT, TEMPLATE, Records, are_templates, new_records, opened, with_captures
from .template import Embeddings, Template, check_subject, pack_template, unpack_means
from .tombstones import ErasureJournal

if TYPE_CHECKING:
    from .backup import Restored


@dataclass(frozen=True)
class StoreReport:
    """What `Store.verify` found in a store that is sound."""

    people: int
    records: int
    tombstones: int
    journal_damaged: int
    """Lines of the journal of erasures that are not what was written; the store has them itself."""


class Store:
    """An open store. Several threads may use one; several processes may open the same file.

    Use `open`, and `close` or a `with` statement: closing moves everything into the one file.
    Every method raises `StoreError` if the file was altered or is damaged, and `EnvironmentFault` if it
    cannot be used now.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self._ledger = ledger
        self._journal = ErasureJournal(path, ledger.envelope.journal_key)

    @classmethod
    def open(
        cls,
        path: str | Path,
        key_provider: KeyProvider,
        bundle_digest: str | None,
        *,
        read_only: bool = False,
        must_exist: bool = False,
        timeout: float = 5.0,
        counter: MonotonicCounter | None = None,
    ) -> Store:
        """Opens the store of one bundle, and makes it first (mode 0600) if there is none.

        A store of an older schema is migrated. People whom the journal of erasures names are erased again.

        Args:
            path: the file; beside it `-wal` and `-shm` files come and go, and `.erased` stays.
            key_provider: the key that locks the store; asked once, here.
            bundle_digest: `Bundle.digest`. Templates of one bundle mean nothing to another. None opens an existing
                store of any bundle: to keep house, not to verify.
            read_only: change nothing; the store must exist.
            must_exist: do not make one.
            timeout: seconds to wait for another process that writes.
            counter: what the store is bound to against being rolled back; a new store is bound to it.

        Raises:
            StoreError: it is damaged or altered, was rolled back, was made for another bundle, or is locked with
                another key.
            EnvironmentFault: it is missing and may not be made, or cannot be read or written.
        """
        path = Path(path)
        ledger = open_ledger(
            path,
            key_provider,
            bundle_digest,
            read_only=read_only,
            must_exist=must_exist,
            timeout=timeout,
            counter=counter,
        )
        return cls(path, ledger)

    @property
    def store_id(self) -> str:
        """32 hex digits, drawn at its creation; every record is bound to it."""
        return self._ledger.envelope.place.store_id

    @property
    def bundle_digest(self) -> str:
        """The digest of the bundle that it was made for."""
        return self._ledger.envelope.place.bundle_digest

    @property
    def version(self) -> int:
        """Another number whenever somebody was enrolled, changed or erased: for what is kept of it in memory."""
        with self._ledger.transaction():
            return self._ledger.index.total

    def derive_key(self, purpose: str) -> bytes:
        """32 bytes for another file that belongs to this store, one key for each purpose; the same after `rotate`."""
        return self._ledger.envelope.derive_key(purpose)

    def put(
        self,
        subject: str,
        templates: Mapping[str, Template],
        consent: Consent | str | None = None,
        *,
        replace: bool = False,
        expires: float | None = None,
    ) -> None:
        """Keeps all templates of a subject and the consent given, or nothing of it.

        Args:
            subject: see `check_subject`.
            templates: by modality, `face` or `voice`; at least one.
            consent: what was agreed to; plain text counts as given now.
            replace: first erase what is kept of the subject, consent included. An older copy of the store does not
                bring it back either.
            expires: when a consent given as text runs out, in Unix seconds.

        Raises:
            AlreadyEnrolledError: the subject has templates and `replace` is False.
            UsageError: an argument cannot be right.
        """
        check_subject(subject)
        now = int(time.time())
        plain = new_records(templates, Consent.of(consent, expires), now)
        erased = {}
        with self._ledger.transaction(write=True):
            if subject in self._ledger.index:
                if not replace:
                    raise AlreadyEnrolledError(
                        f"{subject!r} is already enrolled",
                        hint="choose another id, or replace the enrollment",
                    )
                erased = {self._ledger.erase(subject, now): now}
            person, key = self._ledger.envelope.new_person(subject)
            self._ledger.write(person, [key.seal(*name, data) for name, data in plain.items()])
        self._erased(erased)

    def append(
        self,
        subject: str,
        templates: Mapping[str, Template],
        *,
        to: Mapping[str, Template] | None = None,
    ) -> None:
        """Adds captures to the templates of an enrolled subject; a modality that is not there begins with them.

        `to`: what `get` gave; if anything else is kept by now (the id may be another person's), nothing is added.

        Raises `UnknownSubjectError` if nothing or something else is kept, `UsageError` for too many captures.
        """
        check_subject(subject)
        for modality, template in templates.items():
            pack_template(modality, template)
        if not templates:
            raise UsageError("there is nothing to add")
        with self._ledger.transaction(write=True):
            person, records = self._known(subject)
            key = self._ledger.envelope.open_person(person)
            if to is not None and not are_templates(key, records, to):
                raise UnknownSubjectError(f"{subject!r} was enrolled anew meanwhile")
            self._ledger.write(person, with_captures(key, records, templates, int(time.time())))

    def get(self, subject: str) -> dict[str, Template] | None:
        """The templates of a subject by modality, read-only arrays; None if there are none."""
        return self._open(subject, TEMPLATE).templates

    def consent(self, subject: str) -> Consent | None:
        """What the subject agreed to; None if nothing is kept."""
        return self._open(subject, CONSENT).consent

    def enrollment(self, subject: str) -> tuple[dict[str, Template] | None, Consent | None]:
        """What `get` and `consent` give, of one moment: of one enrollment, even if it is replaced just now."""
        found = self._open(subject, None)
        return found.templates, found.consent

    def export(self, subject: str) -> dict[str, Any]:
        """Everything that is kept of a subject, for JSON: templates in Base64, consent, dates.

        Raises `UnknownSubjectError` if nothing is.
        """
        found = self._open(subject, None)
        if not found:
            raise UnknownSubjectError(f"{subject!r} is not enrolled")
        return {
            "subject": subject,
            "store_id": self.store_id,
            "bundle_digest": self.bundle_digest,
            **found.to_json(),
        }

    def means(self, modality: str) -> tuple[list[str], Embeddings, Embeddings]:
        """The subjects with this modality, sorted, and for each the mean of its rows: identity and pin.

        Float32 `(n, 256)` each. The mean is not brought to unit length, so that its product with a probe is the mean
        of the probe's cosines.
        """
        if modality not in MODALITIES:
            raise UsageError(f"there is no modality {modality!r}", hint=f"choose {' or '.join(MODALITIES)}")
        subjects: list[str] = []
        rows: list[Embeddings] = []
        with self._ledger.transaction() as connection:
            self._ledger.verify_again()
            for subject, key_id, wrapped, seal, body in connection.execute(
                "SELECT subject, key_id, wrapped, seal, body FROM person JOIN record USING (subject) "
                "WHERE modality = ? AND kind = ? ORDER BY subject",
                (modality, TEMPLATE),
            ):
                key = self._ledger.envelope.open_person(Person(subject, key_id, wrapped))
                record = Sealed(modality, TEMPLATE, seal, is_a(bytes, body))
                subjects.append(subject)
                rows.append(unpack_means(key.unseal(record)))
        stacked = np.stack(rows) if rows else np.empty((0, 2, EMBEDDING_DIM), np.float32)
        return subjects, np.ascontiguousarray(stacked[:, 0]), np.ascontiguousarray(stacked[:, 1])

    def delete(self, subject: str) -> None:
        """Erases all that is kept of a subject: key, records, id. Raises `UnknownSubjectError` if nothing is.

        The bytes are overwritten in the file, and in the write-ahead log unless another process is reading
        just now: then at the next close. An older copy of the store does not bring the subject back as long as the
        journal `<store>.erased` is beside it.
        """
        check_subject(subject)
        self._delete(lambda: [self._known(subject)[0].subject])

    def run_out(self, now: float) -> list[str]:
        """Whose consent has run out at `now` (Unix seconds), sorted."""
        with self._ledger.transaction():
            return sorted(self._run_out(now))

    def expire(self, now: float) -> list[str]:
        """Erases all whose consent has run out at `now` (Unix seconds), and says whom, sorted."""
        return self._delete(lambda: self._run_out(now))

    def purge(self) -> list[str]:
        """Erases everybody, and says whom, sorted. The empty store stays, and so do its tombstones."""
        return self._delete(lambda: self._ledger.index.subjects)

    def subjects(self) -> list[str]:
        """The ids of all who have templates, sorted."""
        with self._ledger.transaction():
            return sorted(self._ledger.index.subjects)

    def count(self) -> int:
        """How many have templates."""
        with self._ledger.transaction():
            return len(self._ledger.index)

    def rotate(self, new_provider: KeyProvider, *, data_key: bool = False) -> None:
        """Locks the store with another key: 32 bytes are wrapped anew, and the old key no longer opens it.

        Args:
            new_provider: the key to open it with from now on. Older copies still need the older key.
            data_key: also draw another data key and wrap every person's key anew, so that who had an older copy and
                the older key cannot read who is enrolled from now on. `derive_key` stays the same.
        """
        with self._ledger.lock:
            with self._ledger.transaction(write=True):
                envelope = self._ledger.rewrap(new_provider, data_key=data_key)
            self._ledger.envelope = envelope
            self._ledger.checkpoint()

    def bind_counter(self, counter: MonotonicCounter) -> None:
        """Binds the store, as it is now, to a counter: from now on it opens with it, and no older copy does."""
        self._ledger.bind_counter(counter)

    def verify(self) -> StoreReport:
        """Reads everything there is: pages, index, every record. Raises `StoreError` at the first that is wrong."""
        records = 0
        with self._ledger.transaction() as connection:
            _store_file.check_pages(connection, self.path)
            self._ledger.verify_again()
            subjects = sorted(self._ledger.index.subjects)
            for subject in subjects:
                person, found = self._known(subject)
                key = self._ledger.envelope.open_person(person)
                for record in found:
                    key.unseal(record)
                records += len(found)
            tombstones = len(self._ledger.tombstones())
        return StoreReport(len(subjects), records, tombstones, self._journal.read().damaged)

    def backup(self, path: str | Path, key_provider: KeyProvider | None = None) -> None:
        """Writes a whole copy, of one moment, while the store is in use: a file of mode 0600.

        Args:
            path: where; nothing may be there.
            key_provider: lock the copy with this key, such as a passphrase kept elsewhere, rather than the store's.
                A copy locked with a TPM's key opens only on that machine.
        """
        from .backup import write_backup

        write_backup(self._ledger, Path(path), key_provider)

    @staticmethod
    def restore(
        backup: str | Path,
        path: str | Path,
        key_provider: KeyProvider,
        bundle_digest: str | None,
        *,
        backup_key: KeyProvider | None = None,
        counter: MonotonicCounter | None = None,
        timeout: float = 5.0,
    ) -> Restored:
        """Puts a backup into the place of the store at `path`, without those who were erased since.

        Who was erased is known from the store in that place, if there is one, and from `<path>.erased`. Everybody
        enrolled since the backup is gone. No other program may have the store open.

        Args:
            backup: the copy; it is not changed.
            path: the store; the present one is replaced.
            key_provider: the key of the present store and of the restored one.
            bundle_digest: as in `open`.
            backup_key: the key of the backup, if it is another one.
            counter: what the restored store is bound to; this is how an older store is accepted knowingly.

        Raises `StoreError` if either store does not open, or they are two different stores.
        """
        from .backup import restore

        return restore(
            Path(backup), Path(path), key_provider, bundle_digest, backup_key, counter, timeout=timeout
        )

    def close(self) -> None:
        """Moves everything into the one file and closes it. Closing twice is fine."""
        self._ledger.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, subject: str, kind: str | None) -> Records:
        """The open records of a kind, or all, by modality and kind; empty if the subject has none."""
        check_subject(subject)
        with self._ledger.transaction():
            found = self._ledger.find(subject)
            envelope = self._ledger.envelope
        return Records() if found is None else opened(envelope.open_person(found[0]), found[1], kind)

    def _known(self, subject: str) -> tuple[Person, list[Sealed]]:
        found = self._ledger.find(subject)
        if found is None:
            raise UnknownSubjectError(f"{subject!r} is not enrolled")
        return found

    def _delete(self, choose: Callable[[], Iterable[str]]) -> list[str]:
        now = int(time.time())
        with self._ledger.transaction(write=True):
            subjects = sorted(choose())
            erased = {self._ledger.erase(subject, now): now for subject in subjects}
        self._erased(erased)
        return subjects

    def _run_out(self, now: float) -> Iterator[str]:
        for subject in list(self._ledger.index.subjects):
            person, records = self._known(subject)
            given = opened(self._ledger.envelope.open_person(person), records, CONSENT).consent
            if given is not None and given.has_run_out(now):
                yield subject

    def _erased(self, marks: Mapping[bytes, int]) -> None:
        """After the commit of erasures and before they are answered: notes them beside the store, empties the log."""
        if marks:
            try:
                self._journal.append(marks)
            finally:
                self._ledger.checkpoint()
