"""A key from a passphrase, by Argon2id (RFC 9106)."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import _canonical_json
from .._errors import EnvironmentFault, IntegrityError, UsageError
from .._safe_files import create_once, read_secret
from .credential import read_credential
from .keys import KEY_BYTES, MemoryKey

PASSPHRASE_VARIABLE = "EDGEPIN_PASSPHRASE_FILE"
CREDENTIAL = "edgepin-passphrase"
_SALT_BYTES = 16
_MAX_BYTES = 1024
_FORMAT = "edgepin.passphrase/1"


@dataclass(frozen=True)
class Argon2Cost:
    """What a guess costs. The defaults are the second recommended option of RFC 9106, section 4, for machines
    without 2 GiB to spare: 64 MiB of memory while the key is derived.

    Raises `UsageError` for less than the RFC allows, or more than a device should be asked for.
    """

    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        for name, low, high in (("lanes", 1, 64), ("iterations", 1, 16), ("memory_kib", 8, 1024 * 1024)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"{name} is a whole number from {low} to {high}, not {value!r}")
        if self.memory_kib < 8 * self.lanes:
            raise UsageError("Argon2 needs at least 8 KiB for each lane")


class PassphraseFile(MemoryKey):
    """A key derived from a passphrase. The file keeps the salt, the cost and the key's id; it is no secret, and
    without it the passphrase opens nothing.

    Args:
        path: the file.
        passphrase: its bytes, at most 1024.
        create: make the file with a random salt if there is none.
        cost: for a file that is made.

    Raises:
        UsageError: it is another passphrase, or none.
        EnvironmentFault: there is no file and none may be made, or this machine has no Argon2id.
        IntegrityError: the file is not what was written.
    """

    def __init__(
        self, path: str | Path, passphrase: bytes, *, create: bool = True, cost: Argon2Cost | None = None
    ) -> None:
        path = Path(path)
        if not isinstance(passphrase, bytes) or not 1 <= len(passphrase) <= _MAX_BYTES:
            raise UsageError(f"a passphrase has 1 to {_MAX_BYTES} bytes")
        try:
            data = read_secret(path)
        except FileNotFoundError:
            if not create:
                raise EnvironmentFault(
                    f"there is no passphrase file {path}",
                    hint="restore it from a backup; without it the passphrase opens nothing",
                ) from None
            create_once(path, _new(passphrase, cost or Argon2Cost()))
            data = read_secret(path)  # another process may have been first: its salt is the one
        salt, kept, key_id = _parse(path, data)
        super().__init__(_derive(passphrase, salt, kept))
        if not hmac.compare_digest(self.key_id, key_id):
            raise UsageError(f"the passphrase is not the one of {path}", hint="try again")

    @property
    def tier(self) -> str:
        return "passphrase"


def find_passphrase(ask: Callable[[], str] | None = None) -> bytes:
    """The passphrase from the file (mode 0600) that `EDGEPIN_PASSPHRASE_FILE` names, from the systemd credential
    `edgepin-passphrase`, or asked for. One newline at its end does not count.

    Raises `EnvironmentFault` if there is none of them, or others can read the file.
    """
    named = os.environ.get(PASSPHRASE_VARIABLE)
    if named:
        try:
            found: bytes | None = read_secret(Path(named))
        except FileNotFoundError:
            raise EnvironmentFault(
                f"there is no file {named}", hint=f"correct {PASSPHRASE_VARIABLE}"
            ) from None
    else:
        found = read_credential(CREDENTIAL)
    if found is None and ask is not None:
        try:
            found = ask().encode()
        except UnicodeEncodeError:
            raise UsageError("the passphrase is no text") from None
    if found is None:
        raise EnvironmentFault(
            "there is no passphrase",
            hint=f"name a file of mode 0600 with {PASSPHRASE_VARIABLE}, or give the systemd credential {CREDENTIAL}",
        )
    return found.removesuffix(b"\n")


def _new(passphrase: bytes, cost: Argon2Cost) -> bytes:
    salt = os.urandom(_SALT_BYTES)
    key_id = MemoryKey(_derive(passphrase, salt, cost)).key_id
    return _canonical_json.encode({"format": _FORMAT, "key_id": key_id, "salt": salt.hex(), **asdict(cost)})


def _parse(path: Path, data: bytes) -> tuple[bytes, Argon2Cost, str]:
    try:
        value = _canonical_json.decode(data)
        if value.pop("format") != _FORMAT:
            raise ValueError("the format is another one")
        salt, key_id = bytes.fromhex(value.pop("salt")), value.pop("key_id")
        if len(salt) != _SALT_BYTES or not isinstance(key_id, str) or not key_id.isascii():
            raise ValueError("a field is not what it should be")
        return salt, Argon2Cost(**value), key_id
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise IntegrityError(
            f"{path} is no passphrase file: {ascii(str(error))[1:-1]:.200}",
            hint="restore it from a backup; without it the passphrase opens nothing",
        ) from error


def _derive(passphrase: bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        raise EnvironmentFault(
            "this version of cryptography has no Argon2id", hint="pip install 'cryptography>=44'"
        ) from None
    try:
        return Argon2id(
            salt=salt,
            length=KEY_BYTES,
            iterations=cost.iterations,
            lanes=cost.lanes,
            memory_cost=cost.memory_kib,
        ).derive(passphrase)
    except (UnsupportedAlgorithm, MemoryError) as error:
        raise EnvironmentFault(
            f"this machine cannot derive the key with {cost.memory_kib // 1024} MiB of memory: {error}",
            hint="free some memory, or choose another key (docs/keys.md)",
        ) from error
