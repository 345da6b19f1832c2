"""How records are locked: AES-256-GCM (NIST SP 800-38D) under a data key, which the provider's key wraps.

The associated data says where a record belongs: schema version, subject, modality, kind, bundle and data key.
A record that was moved to another row, store or bundle does not open. Rotating the provider's key re-wraps 32
bytes; records stay.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from typing import NamedTuple

from .._errors import StoreError, UsageError
from .keys import KEY_BYTES, KeyProvider

_NONCE_BYTES = 12  # random 96-bit nonces: good for 2**32 records under one key (SP 800-38D, 8.3)


class RecordName(NamedTuple):
    """Where a record belongs. Consent has no modality."""

    subject: str
    modality: str
    kind: str


class Envelope:
    """The data key of one store, and what is done with it."""

    def __init__(self, data_key: bytes, schema_version: int, bundle_digest: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(data_key)
        self._index_key = hmac.digest(data_key, b"edgepin store index", "sha256")
        # The data key's own id, not the provider's: binding that one would make every rotation a rewrite of
        # all records.
        data_key_id = hmac.digest(data_key, b"edgepin data key id", "sha256")[:8].hex()
        self._place = (str(schema_version), bundle_digest, data_key_id)

    @classmethod
    def create(cls, provider: KeyProvider, schema_version: int, bundle_digest: str) -> tuple[Envelope, bytes]:
        """A new data key, and its wrapped form to keep."""
        data_key = os.urandom(KEY_BYTES)
        wrapped = _encrypt(
            _wrapping_key(provider), data_key, _wrap_place(provider, schema_version, bundle_digest)
        )
        return cls(data_key, schema_version, bundle_digest), wrapped

    @classmethod
    def unwrap(
        cls, wrapped: bytes, provider: KeyProvider, schema_version: int, bundle_digest: str
    ) -> Envelope:
        """The inverse of `create`. Raises `StoreError` if the provider's key does not open it."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            data_key = AESGCM(_wrapping_key(provider)).decrypt(
                wrapped[:_NONCE_BYTES],
                wrapped[_NONCE_BYTES:],
                _wrap_place(provider, schema_version, bundle_digest),
            )
        except (InvalidTag, ValueError):
            raise StoreError(
                "the store's key does not open: it was altered, or the key is another one under the same id",
                hint="restore the store and its key from one backup",
            ) from None
        return cls(data_key, schema_version, bundle_digest)

    def seal(self, name: RecordName, plain: bytes) -> bytes:
        """Nonce, ciphertext and tag of a record."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, _bind("record", *name, *self._place))

    def unseal(self, name: RecordName, sealed: bytes) -> bytes:
        """The inverse of `seal`. Raises `StoreError` if the record was altered or belongs elsewhere."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bind("record", *name, *self._place)
            )
        except (InvalidTag, ValueError):
            raise StoreError(
                "a record of the store was altered or moved", hint="restore the store from a backup"
            ) from None

    def index_tag(self, entries: Iterable[tuple[RecordName, bytes]]) -> bytes:
        """HMAC-SHA256 over every record's name and digest, sorted: no record can come, go or age alone."""
        mac = hmac.new(self._index_key, _bind("index", *self._place), hashlib.sha256)
        for name, digest in sorted(entries):
            mac.update(_bind(*name) + digest)
        return mac.digest()


def _wrapping_key(provider: KeyProvider) -> bytes:
    key = provider.key()
    if len(key) != KEY_BYTES:
        raise UsageError(f"the key provider gave {len(key)} bytes; a store's key is {KEY_BYTES}")
    return key


def _encrypt(key: bytes, plain: bytes, place: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, place)


def _wrap_place(provider: KeyProvider, schema_version: int, bundle_digest: str) -> bytes:
    return _bind("data key", str(schema_version), provider.key_id, bundle_digest)


def _bind(*parts: str) -> bytes:
    """The parts with their lengths before them, so that no two lists of parts give the same bytes."""
    raw = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in raw)
