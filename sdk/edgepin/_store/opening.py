"""From a path to a store's rows, verified: made, migrated, unlocked, and held against its counter and journal."""

from __future__ import annotations

import re
from pathlib import Path

from .._errors import EnvironmentFault, StoreError, UsageError
from . import file as store_file
from .counter import MonotonicCounter
from .envelope import Envelope
from .keys import KeyProvider
from .ledger import Ledger, new_meta, unlock
from .tombstones import ErasureJournal

_SHA256 = re.compile("[0-9a-f]{64}")


def open_ledger(
    path: Path,
    provider: KeyProvider,
    bundle_digest: str | None,
    *,
    read_only: bool = False,
    must_exist: bool = False,
    timeout: float = 5.0,
    counter: MonotonicCounter | None = None,
) -> Ledger:
    """See `Store.open`."""
    if bundle_digest is not None and (
        not isinstance(bundle_digest, str) or not _SHA256.fullmatch(bundle_digest)
    ):
        raise UsageError("a bundle's digest is 64 hex digits")
    if not store_file.check_place(path):
        if must_exist or read_only:
            raise EnvironmentFault(
                f"there is no store at {path}", hint="enroll someone first, or name the store's file"
            )
        if bundle_digest is None:
            raise UsageError("a new store needs the digest of its bundle")
        meta = new_meta(Envelope.create(bundle_digest), provider, counter.read() if counter else 0)
        store_file.create(path, meta)
    ledger = open_unchecked(path, provider, bundle_digest, read_only, timeout, counter)
    try:
        ledger.check()
        _erase_again(ledger)
    except BaseException:
        ledger.close()
        raise
    return ledger


def open_unchecked(
    path: Path,
    provider: KeyProvider,
    bundle_digest: str | None,
    read_only: bool,
    timeout: float,
    counter: MonotonicCounter | None = None,
    *,
    any_journal: bool = False,
) -> Ledger:
    """An existing store, migrated and unlocked, whose rows were not looked at yet."""
    connection = store_file.connect(path, read_only=read_only, timeout=timeout, any_journal=any_journal)
    try:
        if store_file.schema_version(connection) == 1:
            from .migrate import migrate

            if read_only:
                raise StoreError(
                    "the store has schema 1, and to be read it has to be migrated to schema 2",
                    hint="back the file up, then open it once for writing: edgepin store verify",
                )
            migrate(path, connection, provider, bundle_digest)
        with store_file.sqlite_errors(path):
            envelope = unlock(connection, provider, bundle_digest)
    except BaseException:
        connection.close()
        raise
    return Ledger(path, connection, envelope, read_only=read_only, counter=counter, timeout=timeout)


def _erase_again(ledger: Ledger) -> None:
    """Holds the store and its journal of erasures against each other: an older copy of either is made up for."""
    journal = ErasureJournal(ledger.path, ledger.envelope.journal_key)
    noted = journal.read().marks
    with ledger.transaction():
        kept = ledger.tombstones()
        back = ledger.people_of(noted.keys() - kept.keys())
    if ledger.read_only:
        if back:
            raise StoreError(
                "the store is an older copy: people are in it who have been erased",
                hint="open it once for writing, which erases them again: edgepin store verify",
            )
        return
    missing = {mark: when for mark, when in noted.items() if mark not in kept}
    if missing:
        with ledger.transaction(write=True):
            for subject, mark in ledger.people_of(missing.keys()).items():
                ledger.erase(subject, missing[mark])
            ledger.bury(missing)
        ledger.checkpoint()
    journal.append({mark: when for mark, when in kept.items() if mark not in noted})
