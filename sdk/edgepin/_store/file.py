"""The SQLite file under a store, or under the guard beside it: made whole, opened with suspicion, and its errors told
in our words.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .._errors import EnvironmentFault, IntegrityError, StoreError, UsageError
from .._safe_files import sibling, sync_folder
from .envelope import SCHEMA_VERSION

APPLICATION_ID = 0x4550494E  # "EPIN"
PAGE_SIZE = 1024

# The long column comes last: a scan of the others reads none of the pages on which it goes on.
TABLES = {
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    "person": (
        "CREATE TABLE person (subject TEXT PRIMARY KEY NOT NULL, key_id BLOB NOT NULL, wrapped BLOB NOT NULL) "
        "WITHOUT ROWID"
    ),
    "record": (
        "CREATE TABLE record (subject TEXT NOT NULL, modality TEXT NOT NULL, kind TEXT NOT NULL, "
        "seal BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (subject, modality, kind)) WITHOUT ROWID"
    ),
    "tombstone": "CREATE TABLE tombstone (mark BLOB PRIMARY KEY NOT NULL, erased_at INTEGER NOT NULL) WITHOUT ROWID",
}
TABLES_1 = {
    "meta": TABLES["meta"],
    "record": (
        "CREATE TABLE record (subject TEXT NOT NULL, modality TEXT NOT NULL, kind TEXT NOT NULL, "
        "sealed BLOB NOT NULL, PRIMARY KEY (subject, modality, kind)) WITHOUT ROWID"
    ),
}
_RESTORE = "restore the store from a backup, or enroll again into a new one"


@dataclass(frozen=True)
class FileKind:
    """What is in a file of ours: how it is called, what marks it, its tables, and what to do when it is spoilt."""

    called: str
    application_id: int
    schema_version: int
    schema: Mapping[str, str]
    """By table, the statement that makes it, as `sqlite_master` quotes it."""
    error: type[IntegrityError]
    restore: str
    older: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """The tables of earlier schemas that are still read, to be migrated."""
    whole: bool = True
    """Whether opening holds every page against SQLite's rules, which takes time with the size."""


STORE = FileKind(
    "store", APPLICATION_ID, SCHEMA_VERSION, TABLES, StoreError, _RESTORE, older={1: TABLES_1}, whole=False
)

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
def sqlite_errors(path: Path, kind: FileKind = STORE) -> Iterator[None]:
    """Turns every error of SQLite about the file at `path` into `EnvironmentFault` or the kind's error."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(f"cannot use the {kind.called} {path}: {error.strerror}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # A message that quotes a damaged schema may not be text; sqlite3 then raises UnicodeDecodeError.
        text = str(error).lower()
        for trouble, hint in _MACHINE_TROUBLES.items():
            if isinstance(error, sqlite3.OperationalError) and trouble in text:
                raise EnvironmentFault(f"cannot use the {kind.called} {path}: {error}", hint=hint) from error
        raise kind.error(
            f"the {kind.called} {path} is damaged or not a {kind.called}: {ascii(str(error))[1:-1]:.200}",
            hint=kind.restore,
        ) from error


def check_place(path: Path, kind: FileKind = STORE) -> bool:
    """Whether a file is at `path`. Raises the kind's error if something is that cannot be one."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if has_log(path):  # SQLite would write it into whatever file comes into this place
            raise kind.error(
                f"the {kind.called} {path} is missing, and its log {path}-wal is not",
                hint=f"put the {kind.called} back, or move the log away",
            ) from None
        return False
    except ValueError:
        raise UsageError("a path cannot hold a null character") from None
    except OSError as error:
        raise EnvironmentFault(f"cannot use the {kind.called} {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise kind.error(f"{path} is not a file", hint=f"name the {kind.called}'s file")
    if status.st_size == 0:
        raise kind.error(f"the {kind.called} {path} is empty", hint=kind.restore)
    return True


def create(path: Path, meta: Mapping[str, bytes], kind: FileKind = STORE) -> None:
    """Makes a store (or a guard) of mode 0600 without records; if another process made one meanwhile, that one stays.

    It is written beside its place and linked there, so that nobody ever sees half a store.
    """
    temporary = sibling(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with sqlite_errors(path, kind), closing(_connect(temporary, "rw", timeout=5.0)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if journal != "wal":
                raise EnvironmentFault(
                    f"the disk under {path} cannot carry a {kind.called}: it has no write-ahead log",
                    hint=f"keep the {kind.called} on a local disk",
                )
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {kind.application_id}")
            connection.execute(f"PRAGMA user_version = {kind.schema_version}")
            for statement in kind.schema.values():
                connection.execute(statement)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(FileExistsError):
            os.link(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot make the {kind.called} {path}: {error.strerror or error}",
            hint="check that its folder may be written by this user",
        ) from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{temporary}{suffix}").unlink()


def connect(
    path: Path,
    *,
    read_only: bool,
    timeout: float,
    kind: FileKind = STORE,
    any_journal: bool = False,
    still: bool = False,
) -> sqlite3.Connection:
    """A connection to an existing store or guard, its structure checked, for several threads one at a time.

    `still` says that nobody writes it meanwhile, so that a reader leaves no files beside it; `any_journal` takes one
    that was left outside of the write-ahead log.

    The file itself is never opened besides: closing such a second descriptor would drop SQLite's locks in the
    whole process (sqlite.org/howtocorrupt.html, 2.2).
    """
    mode = "rw"
    if read_only:
        # In a folder that cannot be written SQLite cannot make the files that WAL needs; with no writer
        # about, it can do without.
        quiet = (still or not os.access(path.parent, os.W_OK)) and not has_log(path)
        mode = "ro&immutable=1" if quiet else "ro"
    with sqlite_errors(path, kind):
        # SQLite reads a missing end as zeros. With a log pending a crash may have left it, and the log has it.
        torn = os.stat(path).st_size % PAGE_SIZE != 0 and not has_log(path)
        connection = _connect(path, mode, timeout)
        try:
            _check_structure(
                connection, path, kind, journal=None if any_journal or "immutable" in mode else "wal"
            )
            if torn:
                raise kind.error(f"the {kind.called} {path} is cut short", hint=kind.restore)
        except BaseException:
            connection.close()
            raise
        return connection


def has_log(path: Path) -> bool:
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


def schema_version(connection: sqlite3.Connection) -> int:
    """The schema of a file that `connect` opened."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_pages(connection: sqlite3.Connection, path: Path, kind: FileKind = STORE) -> None:
    """Holds every page of the file against SQLite's own rules; takes time with its size."""
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise kind.error(f"the {kind.called} {path} is damaged: {verdict}", hint=kind.restore)


def _check_structure(connection: sqlite3.Connection, path: Path, kind: FileKind, journal: str | None) -> None:
    def ask(name: str) -> object:
        row = connection.execute(f"PRAGMA {name}").fetchone()
        return row[0] if row else None

    if ask("application_id") != kind.application_id:
        raise kind.error(f"{path} is not a {kind.called} of EdgePIN", hint=f"name the {kind.called}'s file")
    version, schemas = ask("user_version"), {**kind.older, kind.schema_version: kind.schema}
    if not isinstance(version, int) or version not in schemas:
        raise kind.error(
            f"the {kind.called} has schema {version}; this version of EdgePIN reads up to schema {kind.schema_version}",
            hint="update EdgePIN, or enroll again into a new store",
        )
    expected = {"page_size": PAGE_SIZE, "encoding": "UTF-8", "auto_vacuum": 0}
    if journal:  # opened as immutable, a file has none, whatever its header says
        expected["journal_mode"] = journal
    for name, value in expected.items():
        if ask(name) != value:
            raise kind.error(
                f"the {kind.called} {path} was altered: its {name} is {ask(name)}", hint=kind.restore
            )
    # Exactly our tables: a trigger or a view in an altered file would run with our statements.
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    if found != [("table", name, name, sql) for name, sql in sorted(schemas[version].items())]:
        raise kind.error(
            f"the {kind.called} {path} was altered: its tables are not a {kind.called}'s", hint=kind.restore
        )
    if kind.whole:
        check_pages(connection, path, kind)
