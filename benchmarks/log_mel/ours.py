"""edgepin's own rows: the kernel that is chosen by itself, and each other one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.log_mel.method import Inputs, Method, Pipeline, Unavailable
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_kernels._compiled import CompiledLogMel, available_kernels

NAME = "edgepin"
"""What the others' times are divided by: this method with their preset, in their case."""


def methods() -> list[Method]:
    """The rows of this processor, the first one `NAME` with the preset ``kaldi``."""
    about = "LogMel(spec, threads)(pcm, out=out) on int16, the processor's fastest kernel"
    rows = [
        Method(NAME, preset, about, _auto, threaded=True) for preset in ("kaldi", "torchaudio", "librosa")
    ]
    rows.append(
        Method(
            f"{NAME} float32", "kaldi", "the same on float32, range check included", _float32, threaded=True
        )
    )
    try:
        others = available_kernels()[1:]
    except ImportError:
        others = []
    rows += [_kernel(kernel, f"the same on int16, kernel {kernel}") for kernel in others]
    rows.append(_kernel("numpy", "the numpy implementation on int16", threaded=False))
    return rows


def _kernel(name: Any, about: str, threaded: bool = True) -> Method:
    def prepare(inputs: Inputs) -> Pipeline:
        return _pipeline(LogMel(inputs.spec, threads=inputs.threads, implementation=name), inputs, inputs.pcm)

    return Method(f"{NAME} {name}", "kaldi", about, prepare, threaded=threaded)


def _auto(inputs: Inputs) -> Pipeline:
    return _pipeline(_plan(inputs), inputs, inputs.pcm)


def _float32(inputs: Inputs) -> Pipeline:
    return _pipeline(_plan(inputs), inputs, inputs.unit_floats)


def _plan(inputs: Inputs) -> LogMel:
    try:
        return LogMel(inputs.spec, threads=inputs.threads)
    except ImportError as error:
        raise Unavailable(str(error)) from error


def _pipeline(plan: LogMel, inputs: Inputs, pcm: Any) -> Pipeline:
    # As its users call it: one utterance has no batch axis.
    out = inputs.empty_output()
    rows, values = (pcm[0], out[0]) if inputs.batch == 1 else (pcm, out)

    return Pipeline(lambda: plan(rows, out=values), lambda _: out)


def call_overhead(calls: int = 2_000) -> tuple[float, float]:
    """What Python costs: the median nanoseconds of `LogMel` and of the bare compiled plan under it.

    On the shortest utterance there is, one frame, where the kernel's own noise hides nothing. The two take turns.

    Raises:
        Unavailable: the compiled extension is missing.
    """
    spec = LogMelSpec.preset("kaldi")
    pcm = np.random.default_rng(7).integers(-3_000, 3_000, spec.frame_length).astype(np.int16)
    out = np.empty((1, spec.num_mels), np.float32)
    try:
        kernel = available_kernels()[0]
    except ImportError as error:
        raise Unavailable(str(error)) from error
    log_mel = LogMel(spec, implementation=kernel)  # type: ignore[arg-type]
    bare = CompiledLogMel(spec, kernel, 1)._plan
    rows, values = pcm[np.newaxis], out[np.newaxis]
    whole, plan = [], []
    clock = time.perf_counter_ns
    for _ in range(calls):
        start = clock()
        log_mel(pcm, out=out)
        middle = clock()
        bare.run(rows, values)
        stop = clock()
        whole.append(middle - start)
        plan.append(stop - middle)
    return float(np.median(whole)), float(np.median(plan))
