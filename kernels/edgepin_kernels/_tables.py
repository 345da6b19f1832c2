"""What the compiled kernels are told of a `LogMelSpec`: the same tables for the processor's and for CUDA's."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from edgepin_kernels._reference import mel_filters, window_function
from edgepin_kernels._spec import LogMelSpec


@dataclasses.dataclass(frozen=True)
class MelTable:
    """The mel filters without their zeros: mel *m* is the sum over *i* < ``counts[m]`` of
    ``power[firsts[m] + i] * weights[offsets[m] + i]``. A triangle between two bins has count 0."""

    firsts: npt.NDArray[np.int32]
    """``(num_mels,)``"""
    counts: npt.NDArray[np.int32]
    """``(num_mels,)``"""
    offsets: npt.NDArray[np.int32]
    """``(num_mels,)``"""
    weights: npt.NDArray[np.float32]
    """``(counts.sum(),)``"""


def mel_table(spec: LogMelSpec) -> MelTable:
    """The filters of ``spec``, mel after mel."""
    filters = mel_filters(spec)
    firsts, counts, weights = [], [], []
    for column in filters.T:
        under = np.flatnonzero(column)
        first, stop = (int(under[0]), int(under[-1]) + 1) if len(under) else (0, 0)
        firsts.append(first)
        counts.append(stop - first)
        weights.append(column[first:stop])
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return MelTable(
        np.array(firsts, np.int32),
        np.array(counts, np.int32),
        offsets.astype(np.int32),
        np.concatenate(weights).astype(np.float32),
    )


def scaled_window(spec: LogMelSpec, scale: float) -> npt.NDArray[np.float32]:
    """``(frame_length,)``: the window with the samples' scale in it."""
    return np.asarray(window_function(spec) * scale, dtype=np.float32)


def log_of_floor(spec: LogMelSpec) -> float:
    """What silence is before ``dynamic_range`` and all after it: ``log_floor`` in the unit of ``log``, and 0 without."""
    if spec.log == "none":
        return 0.0
    if spec.log == "ln":
        return math.log(spec.log_floor)
    return math.log10(spec.log_floor) * (10.0 if spec.log == "db" else 1.0)
