"""The guard's keys, all from one: what its rows are named, sealed and held together by."""

from __future__ import annotations

import hashlib
import os

from .._errors import IntegrityError, UsageError

KEY_BYTES = 32
_NONCE_BYTES = 12
RESTORE = "restore it from a backup, or move it away: a new one is made, in which everybody has to wait before every attempt"


class Box:
    """AES-256-GCM under one key, with random nonces: good for 2**32 seals (NIST SP 800-38D, 8.3)."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, place: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, place)

    def unseal(self, sealed: object, place: bytes) -> bytes:
        """The inverse of `seal`. Raises `IntegrityError` if it was altered or belongs elsewhere."""
        from cryptography.exceptions import InvalidTag

        if isinstance(sealed, bytes):
            try:
                return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
            except (InvalidTag, ValueError):
                pass
        raise IntegrityError("a row of the guard was altered or moved", hint=RESTORE)


class GuardKeys:
    """Everything that is derived from the guard's 32-byte key, one key for each use.

    By keyed BLAKE2b (RFC 7693), as a dozen short values are made in every commit: several times faster than HMAC.
    """

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise UsageError(f"the guard's key is {KEY_BYTES} bytes")

        def derived(use: bytes) -> bytes:
            return _keyed(key, b"edgepin guard " + use)

        self.guard_id = derived(b"id")[:16].hex()
        """Says which key opens the file, and names the guard in a signed head. Public."""
        self.rows, self.state = Box(derived(b"rows")), Box(derived(b"state"))
        self._names, self._set, self._tags = derived(b"names"), derived(b"set"), derived(b"tags")
        self._details, self._pseudonyms = derived(b"details"), derived(b"pseudonyms")

    def subject_name(self, subject: str) -> bytes:
        """16 bytes that stand for an id in the file."""
        return _keyed(self._names, b"subject\0" + subject.encode())[:16]

    def door_name(self, door: str) -> bytes:
        """16 bytes that stand for a door in the file."""
        return _keyed(self._names, b"door\0" + door.encode())[:16]

    def member(self, place: bytes, sealed: bytes) -> int:
        """What one row adds to the set of all rows: the exclusive or of all of them changes with any of them.

        Nobody can look for rows that cancel, as neither these numbers nor their sum can be read without the key.
        """
        return int.from_bytes(_keyed(self._set, place + sealed), "big")

    def pseudonym(self, salt: bytes) -> str:
        """What a person is called in the audit, 16 hex digits; with the salt lost, nobody can say who it was."""
        return _keyed(self._pseudonyms, salt)[:8].hex()

    def details(self, salt: bytes) -> Box:
        """What seals the details of a person's audit entries; without a person the salt is empty."""
        return Box(_keyed(self._details, salt))

    def tag(self, chained: bytes) -> bytes:
        """16 bytes that only the key's owner can put beside an audit entry."""
        return _keyed(self._tags, chained)[:16]


def _keyed(key: bytes, data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.blake2b(data, key=key, digest_size=32).digest()
