"""Fuzzing of every decoder and parser that takes bytes from outside.

    python -m tests.fuzz --list
    python -m tests.fuzz --target all --cases 1000000 --seed 1 --checkpoint build/fuzz.json --json
    python -m tests.fuzz --target png --cases 10000
    python -m tests.fuzz --target onnx --atheris --seconds 60       coverage-guided; needs `pip install atheris`
    python -m tests.fuzz --replay build/fuzz-findings/png-0123456789ab.bin

`--cases` are shared out over the targets. With `--checkpoint` a run that was stopped goes on where it was. Exits with 1
if anything was found; the first case of each finding is in `--findings`, and belongs into tests/fuzz/regressions once
it is mended.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .registry import TARGETS
from .runner import Result, run_cases
from .target import Target

CHUNK = 5000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz decoders and parsers.")
    parser.add_argument("--target", action="append", metavar="NAME", help="may be repeated; all by default")
    parser.add_argument("--cases", type=int, default=10_000, help="in all, over the targets (10,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--atheris", action="store_true", help="guided by coverage, --seconds for each target"
    )
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="kept as the run goes on, and resumed from"
    )
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz-findings"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--list", action="store_true", help="say what is fuzzed")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one saved case")
    options = parser.parse_args(arguments)
    if options.list:
        for target in TARGETS.values():
            print(f"{target.name:16}{target.about}")
        return 0
    if options.replay:
        print(TARGETS[options.replay.stem.rsplit("-", 1)[0]].check(options.replay.read_bytes()))
        return 0
    names = [name for name in options.target or ["all"] if name != "all"] or list(TARGETS)
    targets = [TARGETS[name] for name in names if not TARGETS[name].missing]
    for name in names:
        if TARGETS[name].missing:
            print(f"{name}: skipped, {TARGETS[name].needs} is not here", file=sys.stderr)
    if options.atheris:
        return _guided(targets, options)
    results = _unguided(targets, options)
    report = _report(results, options)
    print(json.dumps(report, indent=1) if options.json else _table(results))
    return 1 if report["findings"] else 0


def _unguided(targets: list[Target], options: argparse.Namespace) -> dict[str, Result]:
    """In turn, each its share, a chunk at a time, so that a run that is stopped has seen something of all."""
    shares = sum(target.share for target in targets)
    wanted = {target.name: max(1, round(options.cases * target.share / shares)) for target in targets}
    results = {target.name: Result() for target in targets}
    if options.checkpoint and options.checkpoint.exists():
        saved = json.loads(options.checkpoint.read_text("utf-8"))
        if saved["seed"] == options.seed:
            results.update(
                {name: Result.from_json(value) for name, value in saved["targets"].items() if name in results}
            )
    while True:
        left = [target for target in targets if results[target.name].cases < wanted[target.name]]
        if not left:
            return results
        target = min(left, key=lambda one: results[one.name].cases / wanted[one.name])
        done = results[target.name].cases
        count = min(CHUNK, wanted[target.name] - done)
        results[target.name].add(run_cases(target, options.seed, done, count, options.findings))
        if options.checkpoint:
            options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            temporary = options.checkpoint.with_suffix(".tmp")
            temporary.write_text(json.dumps(_report(results, options), indent=1) + "\n", "utf-8")
            os.replace(temporary, options.checkpoint)


def _report(results: dict[str, Result], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "schema": "edgepin.fuzz/1",
        "seed": options.seed,
        "python": platform.python_version(),
        "cases": sum(result.cases for result in results.values()),
        "seconds": round(sum(result.seconds for result in results.values()), 1),
        "findings": sum(sum(result.findings.values()) for result in results.values()),
        "targets": {name: result.to_json() for name, result in results.items()},
    }


def _table(results: dict[str, Result]) -> str:
    lines = [f"{'target':16}{'cases':>9}{'seconds':>9}{'slowest':>9}{'+MiB':>6}  findings"]
    for name, result in results.items():
        lines.append(
            f"{name:16}{result.cases:9}{result.seconds:9.1f}{result.slowest:9.2f}{result.grown:6}  "
            + (", ".join(f"{count} x {what}" for what, count in result.findings.items()) or "none")
        )
    return "\n".join(lines)


def _guided(targets: list[Target], options: argparse.Namespace) -> int:
    """Each target in a process of its own, whose modules are instrumented as they are imported."""
    results: dict[str, dict[str, Any]] = {}
    for target in targets:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            answer = Path(place) / "answer.json"
            words = (target.name, options.findings, options.seed, options.seconds, answer)
            command = [sys.executable, "-m", "tests.fuzz.guided", *map(str, words)]
            run = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=options.seconds + 300
            )
            result = (
                json.loads(answer.read_text("utf-8")) if answer.exists() else {"cases": 0, "findings": {}}
            )
        if run.returncode or not result["cases"]:
            result["findings"][f"ended with {run.returncode}: {run.stderr[-300:]}"] = 1
        results[target.name] = {**result, "seconds": round(time.monotonic() - started, 1)}
        if not options.json:
            print(f"{target.name:16}{json.dumps(results[target.name])}", flush=True)
    failed = sum(sum(result["findings"].values()) for result in results.values())
    if options.json:
        cases = sum(result["cases"] for result in results.values())
        print(
            json.dumps(
                {"schema": "edgepin.fuzz-guided/1", "cases": cases, "findings": failed, "targets": results},
                indent=1,
            )
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
