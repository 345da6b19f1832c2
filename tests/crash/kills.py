"""Kills enrolling processes: at random moments, and at every statement that they send to SQLite."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import shutil
import signal
import sqlite3
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from .session import Operation, Session, State, after, check, endless, told, write_all


def random_kills(
    kills: int, seed: int, *, writers: int = 1, progress: Callable[[int], object] = lambda done: None
) -> dict[str, Any]:
    """Enrolls in child processes without end, and kills them after a random time; checks the store each time.

    With two writers both write to one store, and one of them is killed at a random moment, the other a little later.
    """
    random, counts = Random(seed), Counter[str]()
    with scratch() as folder:
        states: list[State] = [{} for _ in range(writers)]
        window = 0.03  # seconds; it follows the machine, so that most kills fall among a few operations
        Session(folder, lambda line: None).run([Operation("key", "store.key")])
        for number in range(kills):
            if number % 25 == 0:  # from the first moment of a store's life, too
                for path in folder.glob("s.db*"):
                    path.unlink()
                states = [{} for _ in range(writers)]
            children = [
                _child(folder, Random(f"{seed}:{number}:{i}"), states[i], "AB"[i] if writers > 1 else "")
                for i in range(writers)
            ]
            if number % 25:
                select.select([pipe for _, pipe in children], [], [], 10.0)  # until one has begun
            time.sleep(random.uniform(0.0, window))
            for child, _ in random.sample(children, len(children)):
                os.kill(child, signal.SIGKILL)
                time.sleep(random.uniform(0.0, 0.01))
            outcome = []
            for child, pipe in children:
                _, status = os.waitpid(child, 0)
                lines = _drain(pipe)
                if not os.WIFSIGNALED(status):
                    raise RuntimeError(f"a writer ended by itself with {status}")
                outcome.append(told(lines))
            told_of = sum(len(done) for done, _ in outcome)
            window = min(2.0, window * (1.5 if told_of < 2 else 0.8 if told_of > 8 else 1.0))
            states = _check_all(folder, states, outcome, counts)
            counts["kills"] += len(children)
            progress(number + 1)
        counts["leftovers"] = sum(1 for _ in folder.glob(".edgepin-*"))
    return dict(counts)


def _check_all(
    folder: Path,
    states: list[State],
    outcome: list[tuple[list[Operation], Operation | None]],
    counts: Counter[str],
) -> list[State]:
    """Each writer has people of its own, so the store must be the union of what each of them may have made."""
    before: State = {}
    done: list[Operation] = []
    for state, (own, flying) in zip(states, outcome, strict=True):
        before.update(state)
        done += own
        counts["acknowledged"] += sum(operation.verb not in ("open", "close") for operation in own)
        counts["in flight"] += flying is not None and flying.verb not in ("open", "close")
    flights = [flying for _, flying in outcome if flying is not None and flying.verb not in ("open", "close")]
    # With two in flight each may be there or not: take in those whose traces are found, and hold the rest to the rule.
    there = _peek(folder, done, before)
    base = before
    for operation in done:
        base = after(base, operation)
    landed = [flying for flying in flights if there.get(flying.subject) != base.get(flying.subject)]
    if len(landed) > 1:
        done = done + landed[1:]
        landed = landed[:1]
    counts["in flight and there"] += len(landed)
    found = check(folder, done, landed[0] if landed else None, start=before)
    return [
        {name: person for name, person in found.items() if len(states) == 1 or name[0] == "AB"[i]}
        for i in range(len(states))
    ]


def _peek(folder: Path, done: list[Operation], before: State) -> State:
    from edgepin import KeyFile, Store

    from .session import DIGEST, STORE, found

    if not (folder / STORE).exists():
        return {}
    # The log is part of what is checked, so what is looked at here is a copy.
    with scratch() as copy:
        for path in folder.glob("s.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy / path.name)
        with Store.open(
            copy / STORE, KeyFile(folder / "store.key", create=False), DIGEST, must_exist=True
        ) as store:
            return found(store)


def _child(folder: Path, random: Random, state: State, prefix: str) -> tuple[int, int]:
    """A forked process that enrolls, and the end of the pipe on which it tells."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        Session(folder, write_all(writing)).run(endless(random, state, prefix))
    finally:
        os._exit(9)


def _drain(pipe: int) -> list[bytes]:
    with os.fdopen(pipe, "rb") as file:
        return file.read().splitlines(keepends=True)


def statement_kills(operations: Sequence[Operation]) -> dict[str, Any]:
    """Runs a session once for each statement that it sends to SQLite, and kills it as that one begins."""
    counts = Counter[str]()
    for number in itertools.count(1):
        with scratch() as folder:
            lines, killed = _killed_at(folder, operations, number)
            done, flying = told(lines)
            check(folder, done, flying)
            counts["checked"] += 1
            counts["in flight"] += flying is not None
            if not killed:
                if len(done) != len(operations):
                    raise RuntimeError("the session ended by itself")
                counts["statements"] = number - 1
                break
    return dict(counts)


def _killed_at(folder: Path, operations: Sequence[Operation], number: int) -> tuple[list[bytes], bool]:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 9
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _kill_at_statement(number)
            Session(folder, write_all(writing)).run(operations)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    lines = _drain(reading)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError("the session failed by itself")
    return lines, os.WIFSIGNALED(status)


def _kill_at_statement(number: int) -> None:
    """From now on every connection of this process counts, and the process ends as statement `number` begins."""
    connect, left = sqlite3.connect, number

    def count(statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = counted  # type: ignore[assignment]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards; in memory where there is such a place, as a kill leaves what the kernel has."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="edgepin-crash-", dir=memory if memory.is_dir() else None
    ) as folder:
        yield Path(folder)
