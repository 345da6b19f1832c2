"""The log-mel in the package's compiled extension: what runs unless numpy is asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepin_kernels._reference import STD_GUARD, amplitude_scale, window_function
from edgepin_kernels._spec import LogMelSpec
from edgepin_kernels._tables import log_of_floor, mel_table


class CompiledLogMel:
    """A plan of one instruction set's kernel. Threads may share it.

    Raises:
        ImportError: the extension is not here.
        ValueError: this processor has no such kernel.
    """

    def __init__(self, spec: LogMelSpec, kernel: str, threads: int) -> None:
        from edgepin_kernels import _native

        self._plan = _native.Plan(kernel=kernel, threads=threads, **plan_arguments(spec))

    def largest(self, pcm: npt.NDArray[np.generic]) -> float:
        """The largest size of a sample of float32, C-contiguous ``(batch, samples)``; infinity if one is not finite."""
        return self._plan.largest(pcm)

    def run(self, pcm: npt.NDArray[np.generic], out: npt.NDArray[np.float32]) -> None:
        """Fill ``out`` ``(batch, frames, mels)`` float32 from C-contiguous ``pcm`` ``(batch, samples)``.

        The caller has checked both. An ``out`` with gaps is filled by way of another array.
        """
        if out.flags.c_contiguous and out.flags.aligned:
            self._plan.run(pcm, out)
        else:
            whole = np.empty(out.shape, np.float32)
            self._plan.run(pcm, whole)
            out[...] = whole


def plan_arguments(spec: LogMelSpec) -> dict[str, Any]:
    """``spec`` and its tables, as the extension takes them."""
    mels = mel_table(spec)
    return {
        "frame_length": spec.frame_length,
        "hop_length": spec.hop_length,
        "fft_length": spec.fft_length,
        "frame_lead": spec.frame_lead,
        "padding": spec.padding,
        "remove_dc": spec.remove_dc,
        "preemphasis": spec.preemphasis,
        "preemphasis_over_utterance": spec.preemphasis_over == "utterance" and spec.preemphasis != 0.0,
        "window": window_function(spec),
        "int16_scale": amplitude_scale(spec, np.dtype(np.int16)),
        "float_scale": amplitude_scale(spec, np.dtype(np.float32)),
        "mel_firsts": mels.firsts,
        "mel_counts": mels.counts,
        "mel_weights": mels.weights,
        "log": spec.log,
        "add_floor": spec.floor_mode == "add",
        "floor": spec.log_floor,
        "log_of_floor": log_of_floor(spec),
        "dynamic_range": math.inf if spec.dynamic_range is None else spec.dynamic_range,
        "output_offset": spec.output_offset,
        "output_scale": spec.output_scale,
        "normalize": spec.normalize,
        "std_guard": STD_GUARD,
    }


def available_kernels() -> list[str]:
    """The kernels of the extension that this processor can run, the fastest first.

    Raises:
        ImportError: the extension is not here.
    """
    from edgepin_kernels import _native

    return _native.available_kernels()
