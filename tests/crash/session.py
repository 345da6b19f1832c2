"""What an enrolling process does, what must be there after it was cut off, and whether it is.

Operations are told apart as *acknowledged* (they had returned, and the caller was told) and at most one *in flight*. What
is found must be what the acknowledged ones make, or those and the one in flight: wholly or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import numpy as np

from edgepin import KeyFile, Store, UnknownSubjectError
from edgepin._store.template import Template

DIGEST = "ab" * 32
STORE = "s.db"
NOW = 1_800_000_000.0
"""When consents are held to have run out; far from the clock's own time, which no check depends on."""

Person = tuple[tuple[int, ...], str | None]
"""Of an enrolled subject: the versions of its captures in order, and its consent."""
State = dict[str, Person]


@dataclasses.dataclass(frozen=True)
class Operation:
    """One call. `verb` is open, close, key, put, replace, append, delete, expire or rotate."""

    verb: str
    subject: str = ""
    version: int = 0
    consent: str | None = None

    def line(self) -> bytes:
        return f"{self.verb}\t{self.subject}\t{self.version}\t{self.consent or ''}\n".encode()

    @classmethod
    def of(cls, line: bytes) -> Operation:
        verb, subject, version, consent = line.decode().rstrip("\n").split("\t")
        return cls(verb, subject, int(version), consent or None)


@functools.lru_cache(maxsize=4096)
def rows(subject: str, version: int) -> tuple[np.ndarray, np.ndarray]:
    """The one capture that a version of a subject's enrollment has."""
    made = (
        np.random.default_rng((zlib.crc32(subject.encode()), version))
        .standard_normal((2, 1, 256))
        .astype(np.float32)
    )
    return made[0], made[1]


def template(subject: str, version: int) -> Template:
    return Template(*rows(subject, version))


def after(state: State, operation: Operation) -> State:
    """The state that an operation makes."""
    made = dict(state)
    subject, version = operation.subject, operation.version
    if operation.verb in ("put", "replace"):
        made[subject] = ((version,), operation.consent)
    elif operation.verb == "append":
        versions, consent = made[subject]
        made[subject] = ((*versions, version), consent)
    elif operation.verb == "delete":
        del made[subject]
    elif operation.verb == "expire":
        made = {name: person for name, person in made.items() if not (person[1] or "").startswith("until")}
    return made


class Session:
    """Runs operations on the store in a folder, and tells of each before it begins and once it is done."""

    def __init__(self, folder: Path, tell: Callable[[bytes], object]) -> None:
        self.folder, self._tell = folder, tell
        self.key = "store.key"
        self.store: Store | None = None

    def run(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._tell(b"?" + operation.line())
            self._do(operation)
            self._tell(b"!" + operation.line())

    def _do(self, operation: Operation) -> None:
        verb, subject, version = operation.verb, operation.subject, operation.version
        if verb == "key":
            self.key = subject
            KeyFile(self.folder / subject)
            return
        if verb == "open":
            self.store = Store.open(
                self.folder / STORE, KeyFile(self.folder / self.key), DIGEST, timeout=30.0
            )
            return
        store = self.store
        assert store is not None
        if verb in ("put", "replace"):
            expires = NOW - 1.0 if (operation.consent or "").startswith("until") else None
            store.put(
                subject,
                {"face": template(subject, version)},
                operation.consent,
                replace=verb == "replace",
                expires=expires,
            )
        elif verb == "append":
            store.append(subject, {"face": template(subject, version)})
        elif verb == "delete":
            store.delete(subject)
        elif verb == "expire":
            store.expire(NOW)
        elif verb == "rotate":
            store.rotate(KeyFile(self.folder / subject))
            self.key = subject
        elif verb == "close":
            self.store = None
            store.close()
        else:
            raise ValueError(verb)


def told(lines: Iterable[bytes]) -> tuple[list[Operation], Operation | None]:
    """The acknowledged operations and the one in flight, from what a session told. A torn last line was not told."""
    done: list[Operation] = []
    begun: Operation | None = None
    for line in lines:
        if not line.endswith(b"\n"):
            break
        if line[:1] == b"?":
            begun = Operation.of(line[1:])
        else:
            done.append(Operation.of(line[1:]))
            begun = None
    return done, begun


def scripted() -> list[Operation]:
    """A session with every kind of write: first use, several openings, replacing, erasing, expiring, a rotation."""
    return [
        Operation("key", "store.key"),
        Operation("open"),
        Operation("put", "ada", 1, "form 7"),
        Operation("put", "bob", 1),
        Operation("append", "ada", 2),
        Operation("put", "eve", 1, "until yesterday"),
        Operation("delete", "bob"),
        Operation("replace", "ada", 3, "form 8"),
        Operation("close"),
        Operation("open"),
        Operation("put", "carl", 1),
        Operation("key", "next.key"),
        Operation("rotate", "next.key"),
        Operation("put", "dora", 1, "form 7"),
        Operation("expire"),
        Operation("delete", "carl"),
        Operation("close"),
        Operation("open"),
        Operation("put", "bob", 5),
        Operation("close"),
    ]


def endless(random: Random, start: State, prefix: str = "") -> Iterator[Operation]:
    """Enrollments, replacements and erasures without end, among a few people, from a state that is there."""
    state = dict(start)
    yield Operation("open")
    version = 1 + max((max(versions) for versions, _ in state.values()), default=0)
    while True:
        subject = prefix + random.choice("abcdefgh")
        verb = "put" if subject not in state else random.choice(("replace", "append", "delete", "replace"))
        if verb == "append" and len(state[subject][0]) > 5:
            verb = "delete"
        consent = random.choice((None, "form 7")) if verb in ("put", "replace") else None
        operation = Operation(verb, subject, version, consent)
        yield operation
        state, version = after(state, operation), version + 1
        if random.random() < 0.05:
            yield Operation("close")
            yield Operation("open")


class LostError(AssertionError):
    """What is found is not what was acknowledged."""


def found(store: Store) -> State:
    """What a store holds, every template unsealed, or None for rows that no version has."""
    state: State = {}
    for subject in store.subjects():
        templates = store.get(subject)
        if templates is None or templates.keys() != {"face"}:
            raise LostError(f"{subject} has {templates and sorted(templates)}")
        consent = store.consent(subject)
        state[subject] = (
            _versions(subject, templates["face"]),
            None if consent is None else str(getattr(consent, "text", consent)),
        )
    return state


def _versions(subject: str, held: Template) -> tuple[int, ...]:
    versions = []
    for identity, pin in zip(held.identity, held.pin, strict=True):
        version = next((v for v in range(1, 5000) if rows(subject, v)[0][0, 0] == identity[0]), 0)
        if (
            not version
            or not np.array_equal(template(subject, version).identity[0], identity)
            or not np.array_equal(template(subject, version).pin[0], pin)
        ):
            raise LostError(f"{subject} has rows that were never put in")
        versions.append(version)
    return tuple(versions)


def check(
    folder: Path,
    done: list[Operation],
    flying: Operation | None,
    *,
    start: State | None = None,
    key: str = "store.key",
) -> State:
    """Opens what a cut-off session left behind, and gives its state. Raises `LostError`, or what opening raised."""
    state: State = dict(start or {})
    there = bool(start)
    for operation in done:
        if operation.verb == "rotate":
            key = operation.subject
        there = there or operation.verb == "open"
        state = after(state, operation)
        if operation.verb == "key":
            KeyFile(folder / operation.subject, create=False)
    allowed, keys = [state], [key]
    if flying is not None:
        allowed.append(after(state, flying))
        if flying.verb == "rotate":
            keys.append(flying.subject)
    if not there and not (folder / STORE).exists():
        return {}
    last: Exception | None = None
    for name in keys:
        try:
            with Store.open(
                folder / STORE, KeyFile(folder / name, create=False), DIGEST, must_exist=True
            ) as store:
                state = found(store)
                if state not in allowed:
                    raise LostError(f"found {state}, and not {' or '.join(map(str, allowed))}")
                store.put("~after", {"voice": template("~after", 1)})  # and it can be written again
                store.delete("~after")
            _check_integrity(folder / STORE)
            return state
        except LostError:
            raise
        except Exception as error:
            last = last or error
    assert last is not None
    raise last


def _check_integrity(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise LostError(f"SQLite says {verdict}")


def write_all(descriptor: int) -> Callable[[bytes], object]:
    """Tells through a pipe: what was written to it outlives the process."""
    return lambda line: os.write(descriptor, line)


__all__ = ["LostError", "Operation", "Session", "State", "UnknownSubjectError", "after", "check", "endless", "found", "scripted",
           "told", "write_all"]  # fmt: skip
