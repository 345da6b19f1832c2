"""The kernel's own figures, each from rounds of its own: batches, threads, floor, and what Python costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks.log_mel import floor, ours
from benchmarks.log_mel.interleaved import Effort, Measured, Progress, Result, measure, open_workers
from benchmarks.log_mel.method import Case, Method, Unavailable
from benchmarks.log_mel.process import Worker
from benchmarks.log_mel.summary import best_ratio, ratio

SECONDS = 3.0
LARGE_BATCH = 64
THREADS = 2


@dataclasses.dataclass(frozen=True)
class Figure:
    """A ratio by the medians of interleaved rounds, and by the fastest calls."""

    about: str
    by_median: float
    by_best: float


def own_figures(
    methods: Sequence[Method], effort: Effort, progress: Progress
) -> tuple[dict[str, Figure], Measured]:
    """Our kernel at 3 s against itself and against the floor, all in the same rounds; a figure for which something is
    missing is not there."""
    measured = Measured()
    by_name = {method.name: method for method in methods if method.preset == "kaldi"}
    wanted = [
        (ours.NAME, Case(SECONDS, 1, 1)),
        (ours.NAME, Case(SECONDS, LARGE_BATCH, 1)),
        (ours.NAME, Case(SECONDS, LARGE_BATCH, THREADS)),
        (floor.ADD, Case(SECONDS, 1, 1)),
        (floor.FMA, Case(SECONDS, 1, 1)),
    ]
    progress(f"own figures: {effort.rounds} rounds")
    rows = [(by_name[name], case.threads) for name, case in wanted]
    with open_workers(rows, measured, progress) as workers:
        pairs = [(worker, case) for worker, (_, case) in zip(workers, wanted, strict=True)]
        measured.results = measure(pairs, effort, measured, progress)
    found = {(result.method.name, result.case): result for result in measured.results}
    single, batch, parallel, add, fma = (found.get(key) for key in wanted)
    figures = {
        "batch": _figure(
            f"batch {LARGE_BATCH}, an utterance, relative to batch 1", batch, single, 1 / LARGE_BATCH
        ),
        "threads": _figure(
            f"{THREADS} threads, how many times as fast as one at batch {LARGE_BATCH}", batch, parallel
        ),
        "floor_additions": _figure("time relative to the floor of additions, batch 1", single, add),
        "floor_fused": _figure("time relative to the floor of fused operations, batch 1", single, fma),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}, measured


def _figure(about: str, above: Result | None, below: Result | None, factor: float = 1.0) -> Figure | None:
    if above is None or below is None:
        return None
    return Figure(
        about, factor * ratio(above.timing, below.timing), factor * best_ratio(above.timing, below.timing)
    )


def python_overhead(method: Method) -> tuple[float, float] | None:
    """Nanoseconds of a call of `LogMel` and of the compiled plan under it, on one frame; None without the extension."""
    with Worker(method, 1) as worker:
        worker.ask("overhead")
        try:
            answer = worker.answer()
        except Unavailable:
            return None
    return answer["log_mel"], answer["plan"]
