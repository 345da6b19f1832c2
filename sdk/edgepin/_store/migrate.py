"""From schema 1, in which all records were under the data key itself, to schema 2, in one transaction.

What schema 2 draws at random is derived here from the old records. So an older copy of the same store is migrated to
the same enrollments, and what was erased since stays erased.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from pathlib import Path

from .._errors import StoreError
from . import file as store_file
from .consent import Consent
from .envelope import ID_BYTES, SCHEMA_VERSION, Envelope, Place, bind, decrypt, wrapping_key
from .index import Index
from .keys import KeyProvider
from .ledger import Ledger, check_owner, is_a, new_meta, read_meta

_META_1 = ("bundle_digest", "index_tag", "key_id", "wrapped_key")
_DAMAGED = "restore the store from a backup"


def migrate(
    path: Path,
    connection: sqlite3.Connection,
    provider: KeyProvider,
    bundle_digest: str | None,
) -> None:
    """Makes a store of schema 1 one of schema 2; nothing is changed if it fails. Raises `StoreError`."""
    with store_file.sqlite_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if store_file.schema_version(connection) == 1:  # another process may have been first
                _migrate(path, connection, provider, bundle_digest)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _migrate(
    path: Path,
    connection: sqlite3.Connection,
    provider: KeyProvider,
    bundle_digest: str | None,
) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    meta = read_meta(connection, _META_1)
    check_owner(meta, provider, bundle_digest)
    digest = meta["bundle_digest"].decode("ascii", "replace")
    data_key = decrypt(
        AESGCM(wrapping_key(provider)), meta["wrapped_key"], bind("data key", "1", provider.key_id, digest)
    )
    place = ("1", digest, hmac.digest(data_key, b"edgepin data key id", "sha256")[:8].hex())
    _check_index(connection, meta["index_tag"], data_key, place)

    root = hmac.digest(data_key, b"edgepin root, from schema 1", "sha256")
    store_id = hmac.digest(data_key, b"edgepin store id, from schema 1", "sha256")[:ID_BYTES]
    envelope = Envelope(Place(store_id.hex(), digest), data_key, root)
    cipher = AESGCM(data_key)

    connection.execute("ALTER TABLE record RENAME TO old")
    for name in ("person", "record", "tombstone"):
        connection.execute(store_file.TABLES[name])
    connection.execute("DELETE FROM meta")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", new_meta(envelope, provider, 0).items())
    ledger = Ledger(path, connection, envelope)
    ledger.index = Index(envelope.index_key)
    subjects = [row[0] for row in connection.execute("SELECT DISTINCT subject FROM old ORDER BY subject")]
    for subject in subjects:
        rows = [
            (is_a(str, row[0]), is_a(str, row[1]), is_a(bytes, row[2]))
            for row in connection.execute(
                "SELECT modality, kind, sealed FROM old WHERE subject = ? ORDER BY modality, kind", (subject,)
            )
        ]
        old = bind(subject, *(part for row in rows for part in row))
        person, key = envelope.new_person(
            subject, hmac.digest(root, b"person, from schema 1" + old, "sha256")[:ID_BYTES]
        )
        records = []
        for modality, kind, sealed in rows:
            plain = decrypt(cipher, sealed, bind("record", subject, modality, kind, *place))
            if kind == "consent":
                plain = Consent(plain.decode(), given_at=None).pack()
            records.append(key.seal(modality, kind, plain))
        ledger.write(person, records)
    connection.execute("DROP TABLE old")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    ledger.commit_index()


def _check_index(connection: sqlite3.Connection, tag: bytes, data_key: bytes, place: tuple[str, ...]) -> None:
    entries = [
        (
            (is_a(str, row[0]), is_a(str, row[1]), is_a(str, row[2])),
            hashlib.sha256(is_a(bytes, row[3])).digest(),
        )
        for row in connection.execute("SELECT subject, modality, kind, sealed FROM record")
    ]
    key = hmac.digest(data_key, b"edgepin store index", "sha256")
    mac = hmac.new(key, bind("index", *place), hashlib.sha256)
    for name, digest in sorted(entries):
        mac.update(bind(*name) + digest)
    if not hmac.compare_digest(tag, mac.digest()):
        raise StoreError(
            "the store was altered: its records are not those that were put into it", hint=_DAMAGED
        )
