"""Cuts the power of an enrolling process at every moment: records what it writes and syncs, and replays it.

The recorder (`recorder.c`) is preloaded into a process that runs the scripted session, so that what is replayed is what
the library did: the store and its log by SQLite, the keys and the journal of erasures by our own code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from .disk import KINDS, WRITE, Disk, Event, read_log
from .kills import scratch
from .session import LostError, Operation, check, scripted, told

ROOT = Path(__file__).resolve().parents[2]
TOLD = "told"
"""The file in which the session tells what it begins and what is done, so that this is in the log too."""


def why_not() -> str | None:
    """Why nothing can be recorded here, or None."""
    if not sys.platform.startswith("linux"):
        return "the recorder is for Linux"
    return None if shutil.which("cc") or shutil.which("gcc") else "there is no C compiler for the recorder"


def compile_recorder(folder: Path) -> Path:
    """The library to preload."""
    library, compiler = folder / "recorder.so", shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    source = Path(__file__).with_name("recorder.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def record(folder: Path) -> list[Event]:
    """Runs the scripted session in a process with the recorder, and gives what it did to files."""
    library, log, place = compile_recorder(folder), folder / "log", folder / "place"
    place.mkdir()
    environment = {"LD_PRELOAD": str(library), "RECORD_UNDER": str(place), "RECORD_INTO": str(log)}
    subprocess.run(
        [sys.executable, "-m", "tests.crash.recorded", str(place)],
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    events = read_log(log)
    if (
        not {"s.db", "s.db-wal", TOLD} <= {event.name for event in events}
        or sum(event.kind == WRITE for event in events) < 100
    ):
        raise RuntimeError("the recorder has not seen what the session did")
    return events


def power_cuts(
    *, torn: int, seed: int, every: int = 1, progress: Callable[[int, int], object] = lambda done, all: None
) -> dict[str, Any]:
    """After every event of the session the power fails: checks what may be found then.

    `torn` is how many random states there are for each event beside the two in which all, or nothing, of what was not
    synced is there. With `every`, only the n-th events have random states.
    """
    random, counts = Random(seed), Counter[str]()
    with scratch() as folder:
        events = record(folder)
        told_inode = next(event.inode for event in events if event.name == TOLD)
        disk, seen, words = Disk(), set[bytes](), b""
        for number, event in enumerate(events):
            if event.inode == told_inode:
                words += event.data
                continue
            disk.take(event)
            counts[KINDS[event.kind]] += 1
            done, flying = told(words.splitlines(keepends=True))
            states = [disk.dropped(), disk.whole()]
            if number % every == 0 and disk.on_its_way:
                states += [disk.torn(random) for _ in range(torn)]
            for state in states:
                mark = hashlib.sha256(json.dumps([len(done), repr(flying)]).encode())
                for name, content in sorted(state.items()):
                    mark.update(name.encode() + len(content).to_bytes(8, "big") + content)
                counts["states"] += 1
                if mark.digest() in seen:
                    continue
                seen.add(mark.digest())
                counts["checked"] += 1
                try:
                    _check(folder / "found", state, done, flying)
                except Exception as error:
                    event_name = f"{KINDS[event.kind]} of {event.name or event.inode}"
                    raise LostError(
                        f"after event {number} ({event_name}), during {flying}: {error}"
                    ) from error
            progress(number + 1, len(events))
        counts["events"] = sum(counts[kind] for kind in KINDS if kind)
        done, flying = told(words.splitlines(keepends=True))
        if flying is not None or len(done) != len(scripted()):
            raise RuntimeError("the session did not end")
    return dict(counts)


def _check(place: Path, state: dict[str, bytes], done: list[Operation], flying: Operation | None) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, content in state.items():
        if name != TOLD and not name.endswith("-shm"):  # made anew by the first who opens the store
            (place / name).write_bytes(content)
            (place / name).chmod(0o600)
    erased = {operation.subject for operation in done if operation.verb in ("delete", "replace")}
    lines = [line for line in state.get("s.db.erased", b"").split(b"\n") if len(line) > 96]
    if len(lines) < len(erased):
        raise LostError(f"{len(erased)} erasures were acknowledged, and {len(lines)} are in the journal")
    check(place, done, flying)
