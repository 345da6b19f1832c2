"""Files that are whole or absent: written beside their place and renamed, secrets for their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ._errors import EnvironmentFault


def write_atomic(path: Path, pieces: Iterable[bytes | memoryview], *, mode: int = 0o644) -> None:
    """Writes `path` so that a reader, or a crash, sees the old file or the whole new one.

    The new file is a sibling because a rename is atomic only within one file system.
    Raises `EnvironmentFault` where the place cannot be written.
    """
    with _explained(path):
        temporary = _write_sibling(path, pieces, mode)
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create_once(path: Path, data: bytes) -> bool:
    """Creates `path` with mode 0600 and its folders with 0700; False, and no change, if it is there already.

    A link fails where the name exists, so that of two processes making a key both go on with the same one.
    """
    with _explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = _write_sibling(path, [data], 0o600)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        return True


def read_secret(path: Path, limit: int = 4096) -> bytes:
    """The bytes of a secret file, at most `limit`.

    Raises `FileNotFoundError` if there is none, and `EnvironmentFault` if someone besides the owner can get
    at it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EnvironmentFault(f"cannot read {path}: {error.strerror}") from error
    with _explained(path), os.fdopen(descriptor, "rb") as file:
        # The open file is asked, not the name: the name may point elsewhere a moment later.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise EnvironmentFault(
                f"{path} is not a file", hint="it must be a file that only its owner can read"
            )
        if status.st_mode & 0o077:
            raise EnvironmentFault(
                f"{path} holds a secret, and others can get at it (mode {status.st_mode & 0o777:04o})",
                hint=f"chmod 600 {path}; if others had access, replace the key",
            )
        return file.read(limit + 1)


def sync_folder(folder: Path) -> None:
    """Makes a rename or link in `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sibling(path: Path) -> Path:
    """A name beside `path` that nobody else uses."""
    return path.parent / f".edgepin-{secrets.token_hex(8)}.tmp"


def _write_sibling(path: Path, pieces: Iterable[bytes | memoryview], mode: int) -> Path:
    temporary = sibling(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns an `OSError` about `path` into an `EnvironmentFault`."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            f"cannot use {path}: {error.strerror or error}",
            hint="check that its folder exists, has space, and may be used by this user",
        ) from error
