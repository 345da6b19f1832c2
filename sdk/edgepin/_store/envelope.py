"""How records are locked: AES-256-GCM (NIST SP 800-38D) under keys that hang on each other.

    the provider's key  wraps  the data key  wraps  a random key of each person  seals  that person's records

Rotating the provider's key re-wraps 32 bytes; overwriting a person's wrapped key makes that person's records
unreadable, wherever copies of them lie. The associated data says where a record belongs: schema version, subject,
modality, kind, bundle, store and the person's key. A record that was moved to another row, person, store or bundle
does not open.

Beside the data key there is a root, random and never changed, from which everything is derived that has to outlive a
rotation: tombstones, and the keys of files that belong to the store.
"""

from __future__ import annotations

import functools
import hmac
import os
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .._errors import StoreError, UsageError
from .keys import KEY_BYTES, KeyProvider

SCHEMA_VERSION = 2
ID_BYTES = 16

_NONCE_BYTES, _TAG_BYTES = (
    12,
    16,
)  # random 96-bit nonces: good for 2**32 records under one key (SP 800-38D, 8.3)
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES
WRAPPED_BYTES = _NONCE_BYTES + KEY_BYTES + _TAG_BYTES


class _Cipher(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


@dataclass(frozen=True)
class Place:
    """What a whole store is bound to."""

    store_id: str
    """32 hex digits, random."""
    bundle_digest: str
    """64 hex digits."""

    @functools.cached_property
    def _prefix(self) -> bytes:
        return bind(str(SCHEMA_VERSION), self.bundle_digest, self.store_id)

    def bind(self, *parts: str | bytes) -> bytes:
        """The associated data of something in this store."""
        return self._prefix + bind(*parts)


class Person(NamedTuple):
    """A person's row: whose key it is, and the key under the data key."""

    subject: str
    key_id: bytes
    """16 random bytes: the name of this key, and so of this enrollment."""
    wrapped: bytes


class Sealed(NamedTuple):
    """A record of a person. Consent has no modality."""

    modality: str
    kind: str
    seal: bytes
    """Nonce and authentication tag, 28 bytes: they stand for the whole record."""
    body: bytes
    """The ciphertext."""


class SubjectKey:
    """The key of one person, open."""

    def __init__(self, place: Place, subject: str, key_id: bytes, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._place, self._of = place, (subject, key_id)

    def seal(self, modality: str, kind: str, plain: bytes) -> Sealed:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, plain, self._place.bind("record", *self._of, modality, kind))
        return Sealed(modality, kind, nonce + sealed[-_TAG_BYTES:], sealed[:-_TAG_BYTES])

    def unseal(self, record: Sealed) -> bytes:
        """The inverse of `seal`. Raises `StoreError` if the record was altered or belongs elsewhere."""
        return _opened(
            self._cipher,
            record.seal[:_NONCE_BYTES],
            record.body + record.seal[_NONCE_BYTES:],
            self._place.bind("record", *self._of, record.modality, record.kind),
        )


class Envelope:
    """The open data key of one store, and its root."""

    def __init__(self, place: Place, data_key: bytes, root: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.place = place
        self._data_key, self._root = data_key, root
        self._cipher = AESGCM(data_key)
        self.index_key = hmac.digest(data_key, place.bind("index key"), "sha256")
        self._tombstone_key = hmac.digest(root, place.bind("tombstone key"), "sha256")
        self.journal_key = hmac.digest(root, place.bind("journal key"), "sha256")

    @classmethod
    def create(cls, bundle_digest: str) -> Envelope:
        """A new data key, root and store id."""
        place = Place(os.urandom(ID_BYTES).hex(), bundle_digest)
        return cls(place, os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))

    @classmethod
    def unwrap(cls, place: Place, wrapped: bytes, sealed_root: bytes, provider: KeyProvider) -> Envelope:
        """The inverse of `wrap`. Raises `StoreError` if the provider's key does not open it."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            data_key = decrypt(
                AESGCM(wrapping_key(provider)), wrapped, place.bind("data key", provider.key_id)
            )
        except StoreError:
            raise StoreError(
                "the store's key does not open: it was altered, or the key is another one under the same id",
                hint="restore the store and its key from one backup",
            ) from None
        return cls(place, data_key, decrypt(AESGCM(data_key), sealed_root, place.bind("root")))

    def wrap(self, provider: KeyProvider) -> tuple[bytes, bytes]:
        """The data key under the provider's key, and the root under the data key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return (
            encrypt(
                AESGCM(wrapping_key(provider)), self._data_key, self.place.bind("data key", provider.key_id)
            ),
            encrypt(self._cipher, self._root, self.place.bind("root")),
        )

    def with_new_data_key(self) -> Envelope:
        """The same store under another data key; its people have to be wrapped again."""
        return Envelope(self.place, os.urandom(KEY_BYTES), self._root)

    def new_person(self, subject: str, key_id: bytes | None = None) -> tuple[Person, SubjectKey]:
        """A random key for a person, wrapped and open."""
        key_id = key_id or os.urandom(ID_BYTES)
        return self._keyed(subject, key_id, os.urandom(KEY_BYTES))

    def open_person(self, person: Person) -> SubjectKey:
        """Raises `StoreError` if the key was altered or is another person's."""
        return SubjectKey(self.place, person.subject, person.key_id, self._subject_key(person))

    def rewrap(self, person: Person, other: Envelope) -> Person:
        """The same key of a person under the data key of `other`."""
        return other._keyed(person.subject, person.key_id, self._subject_key(person))[0]

    def tombstone(self, subject: str, key_id: bytes) -> bytes:
        """What is kept of an erased enrollment: 32 bytes that name nobody, with the store's key or without.

        The key's random id is erased too; only who has an old copy of the row can tell that it was meant.
        """
        return hmac.digest(self._tombstone_key, bind(subject, key_id), "sha256")

    def derive_key(self, purpose: str) -> bytes:
        """32 bytes for `purpose` (HKDF-SHA256, RFC 5869), the same after every rotation."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = bind("edgepin derived key", purpose)
        return HKDF(SHA256(), KEY_BYTES, bytes.fromhex(self.place.store_id), info).derive(self._root)

    def _subject_key(self, person: Person) -> bytes:
        return decrypt(
            self._cipher, person.wrapped, self.place.bind("subject key", person.subject, person.key_id)
        )

    def _keyed(self, subject: str, key_id: bytes, key: bytes) -> tuple[Person, SubjectKey]:
        wrapped = encrypt(self._cipher, key, self.place.bind("subject key", subject, key_id))
        return Person(subject, key_id, wrapped), SubjectKey(self.place, subject, key_id, key)


def wrapping_key(provider: KeyProvider) -> bytes:
    """The provider's key. Raises `UsageError` if it is no key."""
    key = provider.key()
    if len(key) != KEY_BYTES:
        raise UsageError(f"the key provider gave {len(key)} bytes; a store's key is {KEY_BYTES}")
    return key


def encrypt(cipher: _Cipher, plain: bytes, associated: bytes) -> bytes:
    """Nonce, ciphertext and tag."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, associated)


def decrypt(cipher: _Cipher, sealed: bytes, associated: bytes) -> bytes:
    """The inverse of `encrypt`. Raises `StoreError`."""
    return _opened(cipher, sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)


def bind(*parts: str | bytes) -> bytes:
    """The parts with their lengths before them, so that no two lists of parts give the same bytes."""
    bound = b""
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        bound += len(raw).to_bytes(4, "big") + raw
    return bound


def _opened(cipher: _Cipher, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError):
        raise StoreError(
            "a record of the store was altered or moved", hint="restore the store from a backup"
        ) from None
