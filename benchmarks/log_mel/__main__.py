"""``python -m benchmarks.log_mel``: time our log-mel and its peers, report, and keep the result."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.log_mel import floor, ours
from benchmarks.log_mel.chart import draw_chart
from benchmarks.log_mel.figures import own_figures, python_overhead
from benchmarks.log_mel.interleaved import Effort, measure_grid
from benchmarks.log_mel.method import Case, Method
from benchmarks.log_mel.methods import METHODS
from benchmarks.log_mel.report import Report, report_json, report_text

FULL = Effort(rounds=21, round_ns=20e6)
QUICK = Effort(rounds=7, round_ns=10e6)
OWN = Effort(rounds=41, round_ns=20e6)
OWN_QUICK = Effort(rounds=15, round_ns=10e6)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; those that are not given are those of a full run, or of a quick one."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.log_mel",
        description="Time edgepin's log-mel against named peers on the processor.",
    )
    parser.add_argument("--quick", action="store_true", help="3 s, batch 1, one thread, fewer rounds")
    parser.add_argument("--seconds", type=float, nargs="+", metavar="S", help="lengths (1 3 10; quick: 3)")
    parser.add_argument(
        "--batch", type=int, nargs="+", metavar="N", help="utterances a call (1 64; quick: 1)"
    )
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="threads (1 2; quick: 1)")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"rounds ({FULL.rounds}; quick: {QUICK.rounds})"
    )
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="peers whose name has one of these in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw the result there: .svg, .png or .pdf"
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    options.seconds = options.seconds or ([3.0] if quick else [1.0, 3.0, 10.0])
    options.batch = options.batch or ([1] if quick else [1, 64])
    options.threads = options.threads or ([1] if quick else [1, 2])
    options.rounds = options.rounds or (QUICK if quick else FULL).rounds
    for name in ("seconds", "batch", "threads"):
        if min(getattr(options, name)) <= 0:
            parser.error(f"--{name} must be above 0")
    if min(options.seconds) < 0.1:
        parser.error("--seconds must be at least 0.1, which is more than one frame")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Progress goes to stderr, the report to stdout."""
    options = parse(arguments)
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    methods = _chosen(options.only)
    effort = Effort(options.rounds, (QUICK if options.quick else FULL).round_ns)
    cases = [
        Case(seconds, batch, threads)
        for threads in dict.fromkeys(options.threads)
        for batch in dict.fromkeys(options.batch)
        for seconds in dict.fromkeys(options.seconds)
    ]
    grid = measure_grid(methods, cases, effort, progress)
    figures, own = own_figures(METHODS, OWN_QUICK if options.quick else OWN, progress)
    command = shlex.join(
        ["python", "-m", "benchmarks.log_mel", *(sys.argv[1:] if arguments is None else arguments)]
    )
    report = Report(command, effort, grid, own, figures, python_overhead(METHODS[0]))
    print(report_text(report))
    if options.json:
        options.json.write_text(json.dumps(report_json(report), indent=1) + "\n", "utf-8")
        progress(f"wrote {options.json}")
    if options.chart:
        draw_chart(report, options.chart)
        progress(f"wrote {options.chart}")


def _chosen(only: Sequence[str] | None) -> list[Method]:
    """The methods whose names have one of ``only`` in them, and always what they are compared with."""
    always = (ours.NAME, floor.ADD, floor.FMA)
    return [
        method
        for method in METHODS
        if not only or method.name in always or any(text.lower() in method.name.lower() for text in only)
    ]


if __name__ == "__main__":
    main()
