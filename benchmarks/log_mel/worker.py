"""A process that holds one method and times single calls of it on request: ``python -m benchmarks.log_mel.worker``.

A request is a line of JSON on stdin, an answer one on what was stdout when it started; whatever libraries print goes to stderr.
Every request has ``do``, every answer may have ``unavailable`` instead, with the reason.

- ``prepare`` (``seconds``, ``batch``): builds the pipeline and checks it; answers ``difference`` from the definition, or null,
  and ``ns``, about what a call takes.
- ``time`` (``calls``): answers ``ns``, a list with the nanoseconds of each call. Before several, one runs that is not counted.
- ``overhead``: answers ``log_mel`` and ``plan``, nanoseconds, as `ours.call_overhead` says.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.log_mel.method import Case, Method, Pipeline, Unavailable, difference, make_inputs
from benchmarks.log_mel.methods import find_method
from benchmarks.log_mel.ours import call_overhead


def prepare(method: Method, case: Case) -> tuple[Pipeline, dict[str, Any]]:
    """The method for a case, warm, and the answer to ``prepare``."""
    inputs = make_inputs(method.preset, case)
    pipeline = method.prepare(inputs)
    limit_torch(case.threads)
    made = pipeline.call()
    far = difference(inputs, pipeline.log_mel(made)) if pipeline.log_mel else None
    (first,) = time_calls(pipeline, 1)
    # The first calls of a library may be its slowest; a long call says enough by itself.
    ns = first if first > 20e6 else min(time_calls(pipeline, 3))
    return pipeline, {"difference": far, "ns": pipeline.repeats * ns}


def limit_torch(threads: int) -> None:
    """The environment has said so too; torch may have been told otherwise since."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def time_calls(pipeline: Pipeline, calls: int) -> list[float]:
    """Nanoseconds of each of ``calls`` calls, for the work done once."""
    call, clock = pipeline.call, time.perf_counter_ns
    taken = []
    gc.collect()
    gc.disable()
    try:
        if calls > 1:
            call()  # the caches are another process's
        for _ in range(calls):
            start = clock()
            call()
            taken.append((clock() - start) / pipeline.repeats)
    finally:
        gc.enable()
    return taken


def serve(method: Method, threads: int, requests: Any, answer: Callable[[dict[str, Any]], None]) -> None:
    """Answer until the requests end."""
    pipeline: Pipeline | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                pipeline = None  # the last case's arrays go first
                pipeline, about = prepare(method, Case(request["seconds"], request["batch"], threads))
                answer(about)
            elif request["do"] == "time":
                assert pipeline is not None
                answer({"ns": time_calls(pipeline, request["calls"])})
            elif request["do"] == "overhead":
                log_mel, plan = call_overhead()
                answer({"log_mel": log_mel, "plan": plan})
            else:
                raise ValueError(f"no request is called {request['do']!r}")
        except Unavailable as error:
            answer({"unavailable": str(error)})


def main() -> None:
    """Arguments: the method's name, its preset, the number of threads."""
    name, preset, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers)

    serve(find_method(name, preset), int(threads), sys.stdin, answer)


if __name__ == "__main__":
    main()
