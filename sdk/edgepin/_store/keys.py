"""Where the key comes from that locks a store.

A store's own random data key is wrapped by the provider's key. Here are the simplest providers; a TPM (`tpm`), a systemd
credential (`credential`) and a passphrase (`passphrase`) have files of their own. A key server can stand in too: anything
with `key_id`, `key()` and `tier` will do.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .._errors import EnvironmentFault, IntegrityError, UsageError
from .._safe_files import create_once, read_secret

KEY_BYTES = 32


class KeyProvider(Protocol):
    """What gives the key. Most users need only `KeyFile`."""

    @property
    def key_id(self) -> str:
        """A name of the key that may be public; another key has another one."""
        ...

    def key(self) -> bytes:
        """The 32 bytes. May take time or ask for something; a store calls it once, when it is opened."""
        ...

    @property
    def tier(self) -> str:
        """What stands behind the key: `tpm`, `systemd`, `passphrase`, `file` or `memory`."""
        ...


class MemoryKey:
    """A key that the caller holds. `key_id` is derived from it, without telling it."""

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise UsageError(f"a store's key is {KEY_BYTES} bytes")
        self._key = key
        self._key_id = hashlib.sha256(b"edgepin key id\0" + key).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key_id={self._key_id!r})"

    @property
    def key_id(self) -> str:
        """16 hex digits."""
        return self._key_id

    @property
    def tier(self) -> str:
        return "memory"

    def key(self) -> bytes:
        """The 32 bytes."""
        return self._key


class KeyFile(MemoryKey):
    """A key in a file of mode 0600: 64 hex digits and a newline. Whoever has the file and the store has the
    templates.

    Args:
        path: the file.
        create: make a random key if there is no file. Pass False where a store exists already: a new key
            cannot open it.

    Raises:
        EnvironmentFault: there is no file and none may be made, or others can read it.
        IntegrityError: it does not hold a key.
    """

    def __init__(self, path: str | Path, create: bool = True) -> None:
        path = Path(path)
        try:
            data = read_secret(path)
        except FileNotFoundError:
            if not create:
                raise EnvironmentFault(
                    f"there is no key file {path}",
                    hint="restore it from a backup; without it the store stays locked",
                ) from None
            create_once(path, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            data = read_secret(path)  # another process may have been first: its key is the one
        super().__init__(parse_key(path, data))

    @property
    def tier(self) -> str:
        return "file"


def open_key(
    text: str, *, create: bool = True, ask: Callable[[], str] | None = None, timeout: float = 10.0
) -> KeyProvider:
    """The provider that a text names: `tpm`, `tpm:0x81…`, `systemd:NAME`, `passphrase:FILE` or `file:PATH`.

    Args:
        text: as above; the number is a persistent handle of the TPM.
        create: make a key where there is none. Pass False where a store exists already: a new key cannot open it.
        ask: gives the passphrase where neither `EDGEPIN_PASSPHRASE_FILE` nor a systemd credential does.
        timeout: seconds that one command of the TPM may take.

    Raises `UsageError` for another text or a wrong passphrase, `EnvironmentFault` and `IntegrityError` as the
    providers do.
    """
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return KeyFile(rest, create)
    if kind == "tpm" and (rest or text == kind):
        from .tpm import DEFAULT_HANDLE, TpmKey, parse_handle

        return TpmKey(parse_handle(rest) if rest else DEFAULT_HANDLE, create=create, timeout=timeout)
    if kind == "systemd" and rest:
        from .credential import SystemdCredential

        return SystemdCredential(rest)
    if kind == "passphrase" and rest:
        from .passphrase import PassphraseFile, find_passphrase

        return PassphraseFile(rest, find_passphrase(ask), create=create)
    raise UsageError(
        f"{text!r} names no key", hint="tpm, tpm:0x81…, systemd:NAME, passphrase:FILE or file:PATH"
    )


def parse_key(place: object, data: bytes) -> bytes:
    """The key of a file's bytes, 64 hex digits and a newline. Raises `IntegrityError`."""
    try:
        key = bytes.fromhex(data.decode("ascii"))
        if data == key.hex().encode() + b"\n" and len(key) == KEY_BYTES:
            return key
    except ValueError:
        pass
    raise IntegrityError(
        f"{place} does not hold a key", hint="restore it from a backup; without it the store stays locked"
    )
