"""The floor of the processor: as many additions, or fused multiplications and additions, as the definition has operations.

It takes part in the rounds as if it were a method, so that it is measured at the clock and in the noise that the methods meet.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.log_mel.compiler import load_library
from benchmarks.log_mel.method import Inputs, Method, Pipeline
from benchmarks.log_mel.operations import utterance_operations, vector_steps

ADD = "floor, additions"
FMA = "floor, fused"

_SOURCE = Path(__file__).with_name("floor.cpp")

# A call does at least so many, so that calling it through ctypes is under a percent of its time.
_LEAST_OPERATIONS = 50_000_000


def methods() -> list[Method]:
    """Both floors. A processor with other pipes for multiplications may beat the first; none beats the second."""
    count = "the definition's count of operations"
    return [
        Method(
            ADD, "kaldi", f"{count} at the measured peak rate of vector additions, one core", _prepare(_add)
        ),
        Method(FMA, "kaldi", f"{count} at the measured peak rate of fused ones, one core", _prepare(_fma)),
    ]


def _prepare(run: Callable[[ctypes.CDLL, int], Callable[[], None]]) -> Callable[[Inputs], Pipeline]:
    def prepare(inputs: Inputs) -> Pipeline:
        library = load_library(_SOURCE, "-march=native", "-ffp-contract=fast")
        for name in ("lanes", "chains"):
            getattr(library, name).restype = ctypes.c_int64
        operations = inputs.batch * utterance_operations(inputs.spec, inputs.pcm.shape[1])
        repeats = math.ceil(_LEAST_OPERATIONS / operations)
        return Pipeline(run(library, repeats * operations), repeats=repeats)

    return prepare


def _add(library: ctypes.CDLL, operations: int) -> Callable[[], None]:
    steps = vector_steps(operations, library.lanes(), library.chains(), 1)
    library.additions.restype = None
    return partial(library.additions, ctypes.c_int64(steps))


def _fma(library: ctypes.CDLL, operations: int) -> Callable[[], None]:
    steps = vector_steps(operations, library.lanes(), library.chains(), 2)
    library.fused.restype = None
    return partial(library.fused, ctypes.c_int64(steps))
