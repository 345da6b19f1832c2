"""Fills the disk under an enrolling process: at each of its writes once, the first that fails and all after it.

The recorder, preloaded, makes writes fail once their number is used up. The call in flight must end as our
`EnvironmentFault`; once there is room again, all that was acknowledged is there, and the rest of the session goes on.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from edgepin import EnvironmentFault

from .kills import scratch
from .power import ROOT, compile_recorder
from .session import Session, check, scripted, told

FULL, ENOUGH = 3, 0
"""How a child ends: the disk was full and all was well, or the session never came to so many writes."""


def full_disks(*, step: int = 1, first: int = 0) -> dict[str, Any]:
    """Fills the disk at every `step`-th write."""
    with scratch() as folder:
        library = compile_recorder(folder)
        environment = {"LD_PRELOAD": str(library), "RECORD_UNDER": str(folder / "place")}
        command = [
            sys.executable,
            "-m",
            "tests.crash.full_disk",
            str(folder / "place"),
            str(library),
            str(step),
            str(first),
        ]
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
        )
        if run.returncode:
            raise RuntimeError(run.stderr[-3000:])
        return dict(json.loads(run.stdout))


def _fill(place: Path, left: ctypes.c_long, writes: int) -> int:
    """In a child: runs the session with so many writes, and checks what it left."""
    lines: list[bytes] = []
    operations = scripted()
    session = Session(place, lines.append)
    left.value = writes
    try:
        session.run(operations)
    except EnvironmentFault as error:
        if not error.hint:
            raise
    else:
        return ENOUGH
    left.value = -1
    done, flying = told(lines)
    if session.store is not None:
        session.store.subjects()  # it is still open, and of use
        session.store.close()
    check(place, done, flying)
    return FULL


def main() -> None:
    place, library, step, number = (
        Path(sys.argv[1]),
        ctypes.CDLL(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    left, counts = ctypes.c_long.in_dll(library, "writes_left"), Counter[str]()
    place.mkdir()
    while True:
        own = place / str(number)
        own.mkdir()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _fill(own, left, number)
            except BaseException:
                print(f"with {number} writes", file=sys.stderr)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in (FULL, ENOUGH):
            sys.exit(1)
        if code == ENOUGH:
            break
        counts["full disks"] += 1
        counts["writes"] = number + 1
        number += step
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
