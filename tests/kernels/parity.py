"""How an implementation of a `LogMelSpec` is held against a package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgepin_kernels import LogMel, LogMelSpec, available_kernels, reference_log_mel

Mels = npt.NDArray[Any]

RESULT_TOLERANCE = 2e-3
"""Of what the package's users get, logarithm and normalization included."""


class Implementation(NamedTuple):
    """One way to compute a spec."""

    call: Callable[[LogMelSpec, npt.NDArray[np.generic]], Mels]
    energy_error: float
    """How far it may itself be from the float64 definition, as a fraction of the frame's largest energy."""


def _log_mel(name: str) -> Callable[[LogMelSpec, npt.NDArray[np.generic]], Mels]:
    return lambda spec, pcm: LogMel(spec, implementation=name)(pcm)  # type: ignore[arg-type]


IMPLEMENTATIONS = {
    "reference": Implementation(reference_log_mel, 0.0),
    "numpy": Implementation(_log_mel("numpy"), 1e-6),
    **{name: Implementation(_log_mel(name), 1e-5) for name in available_kernels()},
}


def linear(spec: LogMelSpec) -> LogMelSpec:
    """``spec`` without all that comes after the mel energies."""
    return dataclasses.replace(
        spec, log="none", dynamic_range=None, output_offset=0.0, output_scale=1.0, normalize="none"
    )


def energy_error(ours: Mels, theirs: Mels, floor: float) -> float:
    """The largest difference of two ``(frames, mels)`` energies, as a fraction of their frame's largest, or of the
    logarithm's ``floor`` where that is larger."""
    assert ours.shape == theirs.shape
    theirs = theirs.astype(np.float64)
    peak = np.maximum(theirs.max(axis=1, keepdims=True), floor)
    return float((np.abs(ours - theirs) / peak).max())


def largest_difference(ours: Mels, theirs: Mels) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max())
