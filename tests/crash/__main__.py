"""Kills, power cuts and full disks, many of them: what a run of tests does in seconds, for minutes.

python -m tests.crash                  a short run of everything
python -m tests.crash --full --json    2,000 kills, half of them of two writers; a kill at every statement; a full disk
                                       at every write; a power cut after every write, sync and rename
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import sys
import time
from typing import Any

from .full_disk import full_disks
from .kills import random_kills, statement_kills
from .power import power_cuts, why_not
from .session import scripted


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash", description="Kill enrolling processes; cut their power."
    )
    parser.add_argument("--full", action="store_true", help="minutes instead of seconds")
    parser.add_argument("--kills", type=int, help="how many processes to kill (100; 2,000 with --full)")
    parser.add_argument("--torn", type=int, help="random states for each event (2; 24 with --full)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    kills = options.kills or (2000 if options.full else 100)
    torn = options.torn or (24 if options.full else 2)
    runs: dict[str, Any] = {
        "one_writer": lambda: random_kills(kills // 2, options.seed),
        # Each round kills both writers, so that there are half as many rounds.
        "two_writers": lambda: random_kills(kills // 4, options.seed + 1, writers=2),
        "every_statement": lambda: statement_kills(scripted()),
        "full_disks": lambda: full_disks(step=1 if options.full else 5),
        "power_cuts": lambda: power_cuts(torn=torn, seed=options.seed),
    }
    if why_not():
        print(f"power cuts and full disks are skipped: {why_not()}", file=sys.stderr)
        del runs["power_cuts"], runs["full_disks"]
    report: dict[str, Any] = {
        "schema": "edgepin.crash/1", "seed": options.seed, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
    }  # fmt: skip
    for name, run in runs.items():
        started = time.monotonic()
        report[name] = {**run(), "seconds": round(time.monotonic() - started, 1)}
        print(f"{name}: {report[name]}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
