"""Who made a bundle: Ed25519 keys (RFC 8032), and whose signatures this machine trusts.

Keys are PEM files, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. A machine
trusts its own signing key and every `*.pub` in its trusted folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _paths
from .._errors import EnvironmentFault, IntegrityError, UsageError
from .._safe_files import create_once, read_secret, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MAX_PEM_BYTES = 4096


class PublicKey:
    """What verifies signatures. `key_id` is 32 hex digits, the start of the SHA-256 of the 32 raw bytes."""

    def __init__(self, raw: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        self._key = Ed25519PublicKey.from_public_bytes(raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:32]

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """The key in a PEM file. Raises `EnvironmentFault` if there is none in it, or if anyone may change
        the file."""
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_MAX_PEM_BYTES) if stat.S_ISREG(mode) else b""
        except OSError as error:
            raise EnvironmentFault(f"cannot read the public key {path}: {error.strerror}") from error
        if mode & stat.S_IWOTH:
            raise EnvironmentFault(
                f"anyone may change the public key {path}", hint=f"check it, then chmod o-w {path}"
            )
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm, InternalError):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise EnvironmentFault(
                f"{path} is not an Ed25519 public key",
                hint="replace it with the maker's signing.pub, or remove it",
            )
        return cls(key.public_bytes_raw())

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's over `data`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> bytes:
        """The file that another machine trusts."""
        from cryptography.hazmat.primitives import serialization

        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class SigningKey:
    """What signs bundles. Its repr shows the public half only."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """The id of the public half."""
        return self.public_key.key_id

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key, kept nowhere."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key in a PEM file of mode 0600.

        Raises `EnvironmentFault` if it is missing or others can read it, `IntegrityError` if it is damaged.
        """
        key = cls._load_if_there(path)
        if key is None:
            raise EnvironmentFault(f"there is no signing key {path}", hint="`edgepin keygen` makes one")
        return key

    @classmethod
    def _load_if_there(cls, path: Path) -> SigningKey | None:
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            data = read_secret(path, _MAX_PEM_BYTES)
        except FileNotFoundError:
            return None
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise IntegrityError(
                f"{path} is not an Ed25519 private key",
                hint="restore it from a backup, or remove it to get a new one",
            )
        return cls(key)

    @classmethod
    def load_or_create(cls, path: Path | None = None) -> SigningKey:
        """This machine's signing key, made on first use; its public half is kept beside it as
        `signing.pub`.

        Raises `IntegrityError` if that is the public half of another key: who handed it on would be trusted
        for bundles that this key does not sign.
        """
        path = path or _paths.signing_key_path()
        key = cls._load_if_there(path)
        if key is None:
            create_once(path, cls.generate()._to_pem())
            key = cls.load(path)  # another process may have been first: its key is the one
        public = path.with_suffix(".pub")
        if not os.path.lexists(public):
            write_atomic(public, [key.public_key.to_pem()])
        elif PublicKey.load(public).key_id != key.key_id:
            raise IntegrityError(
                f"{public} is not the public half of {path}",
                hint=f"move {public.name} away; it is written again from the key",
            )
        return key

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """A new key in the file `path`, of mode 0600, and its public half beside it with the suffix `.pub`.

        Raises `UsageError` if either file is there already, and nothing is changed then: who loses a signing key
        must be trusted anew everywhere.
        """
        public = path.with_suffix(".pub")
        if path == public:
            raise UsageError(
                "a private key cannot be called .pub", hint="choose another name, such as signing.key"
            )
        if os.path.lexists(public):
            raise _there_already(public)
        key = cls.generate()
        if not create_once(path, key._to_pem()):
            raise _there_already(path)
        write_atomic(public, [key.public_key.to_pem()])
        return key

    def _to_pem(self) -> bytes:
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`; the same data give the same bytes."""
        return self._key.sign(data)


def trusted_keys() -> dict[str, PublicKey]:
    """Every public key whose bundles this machine opens, by key id.

    Raises `EnvironmentFault` on a file in the trusted folder that is not a public key: silently trusting less
    than was meant would look like a bad bundle.
    """
    own = SigningKey._load_if_there(_paths.signing_key_path())
    keys = [own.public_key] if own else []
    folder = _paths.trusted_dir()
    try:
        names = sorted(os.listdir(folder))
        if folder.stat().st_mode & stat.S_IWOTH:
            raise EnvironmentFault(
                f"anyone may add keys to {folder}", hint=f"check what is in it, then chmod o-w {folder}"
            )
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise EnvironmentFault(f"cannot read the trusted keys in {folder}: {error.strerror}") from error
    keys += [PublicKey.load(folder / name) for name in names if name.endswith(".pub")]
    return {key.key_id: key for key in keys}


def trust(key: PublicKey) -> Path | None:
    """Makes this machine trust what `key` signs: writes it into the trusted folder, under its id.

    Returns the file, or None if the key is trusted already.
    """
    if key.key_id in trusted_keys():
        return None
    folder = _paths.trusted_dir()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"cannot make the folder {folder}: {error.strerror}") from error
    path = folder / f"{key.key_id}.pub"
    write_atomic(path, [key.to_pem()])
    return path


def how_to_trust() -> str:
    """The hint for a bundle whose maker is not trusted."""
    return (
        "bring signing.pub from the machine that made it and run `edgepin bundle trust signing.pub` "
        f"(it goes into {_paths.trusted_dir()}), "
        "or pass --allow-unsigned (allow_unsigned=True) if you know where this file comes from"
    )


def _there_already(path: Path) -> UsageError:
    return UsageError(
        f"{path} is there already, and a key is never overwritten",
        hint="use it, or make the new key elsewhere: --out FILE",
    )
