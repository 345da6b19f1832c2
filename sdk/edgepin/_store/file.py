"""The SQLite file under a store: made whole, opened with suspicion, and its errors told in our words."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .._errors import EnvironmentFault, StoreError, UsageError
from .._safe_files import sibling, sync_folder

APPLICATION_ID = 0x4550494E  # "EPIN"
SCHEMA_VERSION = 1
PAGE_SIZE = 1024

_SCHEMA = {
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    "record": (
        "CREATE TABLE record (subject TEXT NOT NULL, modality TEXT NOT NULL, kind TEXT NOT NULL, "
        "sealed BLOB NOT NULL, PRIMARY KEY (subject, modality, kind)) WITHOUT ROWID"
    ),
}
_RESTORE = "restore the store from a backup, or enroll again into a new one"

# SQLite's messages for what is this machine's trouble and not the file's. Their codes are in Python only from
# 3.11 on.
_MACHINE_TROUBLES = {
    "database is locked": "another program holds the store; try again when it is done",
    "disk is full": "free some space on the disk and try again; nothing was changed",
    "readonly database": "the store may not be written by this user, or lies on a read-only disk",
    "unable to open database file": "check the permissions of the store and its folder",
    "disk i/o error": "check the disk",
}


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turns every error of SQLite about the store at `path` into `EnvironmentFault` or `StoreError`."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(f"cannot use the store {path}: {error.strerror}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # A message that quotes a damaged schema may not be text; sqlite3 then raises UnicodeDecodeError.
        text = str(error).lower()
        for trouble, hint in _MACHINE_TROUBLES.items():
            if isinstance(error, sqlite3.OperationalError) and trouble in text:
                raise EnvironmentFault(f"cannot use the store {path}: {error}", hint=hint) from error
        raise StoreError(f"the store {path} is damaged or not a store: {error}", hint=_RESTORE) from error


def check_place(path: Path) -> bool:
    """Whether a file is at `path`. Raises `StoreError` if something is that cannot be a store."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:
        raise UsageError("a path cannot hold a null character") from None
    except OSError as error:
        raise EnvironmentFault(f"cannot use the store {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is not a file", hint="name the store's file")
    if status.st_size == 0:
        raise StoreError(f"the store {path} is empty", hint=_RESTORE)
    return True


def create(path: Path, meta: Mapping[str, bytes]) -> None:
    """Makes a store of mode 0600 without records; if another process made one meanwhile, that one stays.

    It is written beside its place and linked there, so that nobody ever sees half a store.
    """
    temporary = sibling(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with sqlite_errors(path), closing(_connect(temporary, "rw", timeout=5.0)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if journal != "wal":
                raise EnvironmentFault(
                    f"the disk under {path} cannot carry a store: it has no write-ahead log",
                    hint="keep the store on a local disk",
                )
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for statement in _SCHEMA.values():
                connection.execute(statement)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(FileExistsError):
            os.link(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot make the store {path}: {error.strerror or error}",
            hint="check that its folder may be written by this user",
        ) from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{temporary}{suffix}").unlink()


def connect(path: Path, *, read_only: bool, timeout: float) -> sqlite3.Connection:
    """A connection to an existing store, its structure checked, for several threads one at a time.

    The file itself is never opened besides: closing such a second descriptor would drop SQLite's locks in the
    whole process (sqlite.org/howtocorrupt.html, 2.2).
    """
    mode = "rw"
    if read_only:
        # In a folder that cannot be written SQLite cannot make the files that WAL needs; with no writer
        # about, it can do without.
        quiet = not os.access(path.parent, os.W_OK) and not _has_log(path)
        mode = "ro&immutable=1" if quiet else "ro"
    with sqlite_errors(path):
        # SQLite reads a missing end as zeros. With a log pending a crash may have left it, and the log has it.
        torn = os.stat(path).st_size % PAGE_SIZE != 0 and not _has_log(path)
        connection = _connect(path, mode, timeout)
        try:
            _check_structure(connection, path, journal=None if "immutable" in mode else "wal")
            if torn:
                raise StoreError(f"the store {path} is cut short", hint=_RESTORE)
        except BaseException:
            connection.close()
            raise
        return connection


def _has_log(path: Path) -> bool:
    try:
        return os.stat(f"{path}-wal").st_size > 0
    except OSError:
        return False


def _connect(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    for pragma in (
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "mmap_size = 0",
        "temp_store = MEMORY",
        "synchronous = FULL",
        "secure_delete = ON",
    ):
        try:
            connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
    return connection


def _check_structure(connection: sqlite3.Connection, path: Path, journal: str | None) -> None:
    def ask(name: str) -> object:
        row = connection.execute(f"PRAGMA {name}").fetchone()
        return row[0] if row else None

    if ask("application_id") != APPLICATION_ID:
        raise StoreError(f"{path} is not a store of EdgePIN", hint="name the store's file")
    version = ask("user_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"the store has schema {version}; this version of EdgePIN reads schema {SCHEMA_VERSION}",
            hint="update EdgePIN, or enroll again into a new store",
        )
    expected = {"page_size": PAGE_SIZE, "encoding": "UTF-8", "auto_vacuum": 0}
    if journal:  # opened as immutable, a store has none, whatever its header says
        expected["journal_mode"] = journal
    for name, value in expected.items():
        if ask(name) != value:
            raise StoreError(f"the store {path} was altered: its {name} is {ask(name)}", hint=_RESTORE)
    # Exactly our tables: a trigger or a view in an altered file would run with our statements.
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    if found != [("table", name, name, sql) for name, sql in sorted(_SCHEMA.items())]:
        raise StoreError(f"the store {path} was altered: its tables are not a store's", hint=_RESTORE)
    verdict = ask("integrity_check(1)")
    if verdict != "ok":
        raise StoreError(f"the store {path} is damaged: {verdict}", hint=_RESTORE)
