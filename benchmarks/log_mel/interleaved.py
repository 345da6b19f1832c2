"""The coordinator: every method once in every round, in an order that rotates, and only one of them at a time.

What else a machine does changes from second to second, and its clock with it. Methods that take turns meet the same weather, so
that the ratio of their medians holds where their milliseconds do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from benchmarks.log_mel.method import TOLERANCE, Case, Method, Unavailable
from benchmarks.log_mel.process import Worker
from benchmarks.log_mel.summary import Timing, summarize

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """One method in one case."""

    method: Method
    case: Case
    timing: Timing
    rounds: int
    calls: int
    """Of each round."""
    difference: float | None
    """From the definition; None for a floor."""


@dataclasses.dataclass
class Measured:
    """All results, and why something is not among them."""

    results: list[Result] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Label of a method -> reason."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    round_ns: float
    """How long the calls of a method take in a round, the same for all."""

    def calls(self, call_ns: float) -> int:
        """How many calls of about ``call_ns`` make a round, at least one."""
        return max(1, round(self.round_ns / call_ns))


def run_rounds(turns: Sequence[Callable[[], Sequence[float]]], rounds: int) -> list[list[Sequence[float]]]:
    """Every turn once a round, each round from another one on: the times, ``[turn][round]``."""
    times: list[list[Sequence[float]]] = [[] for _ in turns]
    for number in range(rounds):
        for offset in range(len(turns)):
            at = (number + offset) % len(turns)
            times[at].append(turns[at]())
    return times


@contextlib.contextmanager
def open_workers(
    methods: Sequence[tuple[Method, int]], measured: Measured, progress: Progress
) -> Iterator[list[Worker]]:
    """A worker for each method and number of threads that can run here; the others go to ``measured.left_out``."""
    workers = []
    with contextlib.ExitStack() as stack:
        for method, threads in methods:
            reason = method.missing()
            if reason:
                leave_out(method, reason, measured, progress)
            else:
                workers.append(stack.enter_context(Worker(method, threads)))
        yield workers


def leave_out(method: Method, reason: str, measured: Measured, progress: Progress) -> None:
    """Say so once, and keep it."""
    if method.label not in measured.left_out:
        measured.left_out[method.label] = reason
        progress(f"LEFT OUT: {method.label}: {reason}")


def measure(
    pairs: Sequence[tuple[Worker, Case]], effort: Effort, measured: Measured, progress: Progress
) -> list[Result]:
    """Prepare and check all, then time them in rounds. A worker may stand in ``pairs`` once.

    A method that cannot run, or computes another log-mel than the definition, is left out.
    """
    ready, checks, turns = [], [], []
    for worker, case in pairs:
        try:
            difference, call_ns = worker.prepare(case)
        except (Unavailable, RuntimeError) as error:
            leave_out(worker.method, str(error), measured, progress)
            continue
        if difference is not None and not difference <= TOLERANCE:
            reason = f"its log-mel is {difference:.2g} from the definition: that is other work"
            leave_out(worker.method, reason, measured, progress)
            continue
        calls = effort.calls(call_ns)
        ready.append((worker, case))
        checks.append((difference, calls))
        turns.append(lambda worker=worker, calls=calls: worker.time(calls))
    times = run_rounds(turns, effort.rounds)
    return [
        Result(worker.method, case, summarize(rounds), len(rounds), calls, difference)
        for (worker, case), (difference, calls), rounds in zip(ready, checks, times, strict=True)
    ]


def measure_grid(
    methods: Sequence[Method], cases: Sequence[Case], effort: Effort, progress: Progress
) -> Measured:
    """Every method in every case; with several threads only those that can use them."""
    measured = Measured()
    for threads in sorted({case.threads for case in cases}):
        here = [method for method in methods if threads == 1 or method.threaded]
        progress(f"starting {len(here)} processes with {threads} thread(s) each")
        with open_workers([(method, threads) for method in here], measured, progress) as workers:
            for case in (case for case in cases if case.threads == threads):
                progress(f"{case}: {effort.rounds} rounds")
                alive = [worker for worker in workers if worker.method.label not in measured.left_out]
                measured.results += measure([(worker, case) for worker in alive], effort, measured, progress)
    return measured
