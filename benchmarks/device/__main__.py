"""`python -m benchmarks.device --bundle B.pin --face F.jpg --voice V.wav [--json OUT]`"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import cost, search

PARTS = ("import", "open", "verify", "memory", "search")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--face", type=Path, required=True, help="an image of a face, with its surroundings")
    parser.add_argument("--voice", type=Path, required=True, help="a recording of some seconds")
    parser.add_argument("--people", type=int, default=10_000, help="enrolled in the store that is opened")
    parser.add_argument("--templates", type=int, default=1_000_000, help="searched")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    parts = given.only or PARTS
    result: dict[str, object] = {"machine": cost.machine()}
    if "import" in parts:
        result["import"] = cost.import_time()
    if "open" in parts:
        result["open"] = cost.opening(given.bundle, given.people)
    if "verify" in parts:
        result["verify"] = cost.verification(given.bundle, given.face, given.voice)
    if "memory" in parts:
        result["memory"] = cost.memory(given.bundle, given.face, given.voice)
    if "search" in parts:
        result["search"] = search.search_time(given.templates)
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", "utf-8")
        print(f"written to {given.json}", file=sys.stderr)


main()
