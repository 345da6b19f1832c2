"""`LogMel`: one call for the log-mel, whatever computes it."""

from __future__ import annotations

import os
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from edgepin_kernels._compiled import CompiledLogMel, available_kernels
from edgepin_kernels._numpy import NumpyLogMel
from edgepin_kernels._spec import LogMelSpec

Implementation = Literal["auto", "avx512", "avx2", "neon", "portable", "numpy"]

IMPLEMENTATION_VARIABLE = "EDGEPIN_LOG_MEL"
"""The environment variable that says what ``"auto"`` means in this process."""

# Float samples have full scale 1. Resampling and gain may pass it by a little; this far beyond it,
# int16-scale samples came as floats, and every energy would be wrong by the same factor without a sign of it.
_LARGEST_FLOAT = 8.0


class LogMel:
    """A plan for one `LogMelSpec`: build once, call often. Calls do not change it, so threads may share it.

    A call on the compiled kernel releases the GIL, and allocates nothing when ``out`` is given, the samples have no gaps
    and no more calls run at once than before.

    Args:
        spec: what to compute.
        threads: how many threads a call may use, at least 1; they wait between calls. The numpy implementation
            runs on the caller's alone.
        implementation: ``"auto"`` is what the environment variable ``EDGEPIN_LOG_MEL`` names, or else the fastest
            compiled kernel of this processor. A name insists on that one: ``"avx512"``, ``"avx2"``, ``"neon"``,
            ``"portable"`` (compiled, for any processor) or ``"numpy"``. Nothing falls back to another.

    Raises:
        TypeError: ``spec`` is not a `LogMelSpec`.
        ValueError: ``threads`` or ``implementation`` is not allowed, or not of this processor.
        ImportError: the compiled extension is missing, and numpy was not asked for.
    """

    def __init__(self, spec: LogMelSpec, threads: int = 1, implementation: Implementation = "auto") -> None:
        if not isinstance(spec, LogMelSpec):
            raise TypeError(f"spec must be a LogMelSpec, not {type(spec).__name__}")
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise ValueError(f"threads must be a whole number from 1 to 1024, not {threads!r}")
        self._spec = spec
        self._threads = threads
        self._implementation = _choose(implementation)
        self._plan: NumpyLogMel | CompiledLogMel
        if self._implementation == "numpy":
            self._plan = NumpyLogMel(spec)
        else:
            self._plan = CompiledLogMel(spec, self._implementation, threads)

    def __reduce__(self) -> tuple[type[LogMel], tuple[LogMelSpec, int, str]]:
        # To another process, maybe on another machine: what is fastest is found again there.
        return LogMel, (self._spec, self._threads, "numpy" if self._implementation == "numpy" else "auto")

    @property
    def spec(self) -> LogMelSpec:
        """What is computed."""
        return self._spec

    @property
    def threads(self) -> int:
        """How many threads a call may use."""
        return self._threads

    @property
    def implementation(self) -> str:
        """What computes it, chosen when the plan was built; never ``"auto"``."""
        return self._implementation

    def __repr__(self) -> str:
        return f"LogMel({self._spec!r}, threads={self._threads}, implementation={self.implementation!r})"

    def __call__(
        self, pcm: npt.NDArray[np.generic], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """The log-mel of whole utterances.

        Args:
            pcm: ``(samples,)`` or ``(batch, samples)`` at ``spec.sample_rate``: int16, or float32 with full
                scale 1.
            out: float32 ``(frames, mels)`` or ``(batch, frames, mels)`` to fill and return; a new array
                without it. It must not share memory with ``pcm``.

        Returns:
            float32, what ``spec`` says; ``frames`` is ``spec.num_frames(samples)``.

        Raises:
            TypeError: ``pcm`` is not an array of int16 or float32, or ``out`` not one of float32.
            ValueError: ``pcm`` has another number of axes, is too short for one frame, not finite or far
                beyond full scale; or ``out`` has another shape, is read-only or shares memory with ``pcm``.
        """
        _check_samples(pcm)
        samples = pcm.shape[-1]
        frames = self._spec.num_frames(samples)
        if frames == 0:
            raise ValueError(
                f"{samples} samples are too few for one frame; at least {self._spec.min_samples} are needed"
            )
        shape = (*pcm.shape[:-1], frames, self._spec.num_mels)
        if out is None:
            out = np.empty(shape, np.float32)
        else:
            _check_out(out, shape, pcm)
        rows, values = (pcm[np.newaxis], out[np.newaxis]) if pcm.ndim == 1 else (pcm, out)
        if not rows.size:
            return out
        if not (rows.flags.c_contiguous and rows.flags.aligned):
            rows = np.array(rows, order="C")
        if rows.dtype == np.float32:
            _check_range(self._plan.largest(rows))
        self._plan.run(rows, values)
        return out


def _choose(implementation: str) -> str:
    """The name of what will run; never ``"auto"``."""
    asked_by = "implementation"
    if implementation == "auto":
        implementation = os.environ.get(IMPLEMENTATION_VARIABLE) or "auto"
        asked_by = f"the environment variable {IMPLEMENTATION_VARIABLE}"
    if implementation not in get_args(Implementation):
        known = ", ".join(get_args(Implementation))
        raise ValueError(f"{asked_by} must be one of {known}, not {implementation!r}")
    if implementation == "numpy":
        return implementation
    try:
        kernels = available_kernels()
    except ImportError as error:
        raise ImportError(
            "the compiled log-mel kernel is not here: install edgepin with a C++ compiler at hand, or ask for the"
            f" slower one by implementation='numpy' or {IMPLEMENTATION_VARIABLE}=numpy ({error})"
        ) from error
    if implementation == "auto":
        return kernels[0]
    if implementation not in kernels:
        raise ValueError(
            f"{asked_by} must be a kernel of this processor ({', '.join(kernels)}), not {implementation!r}"
        )
    return implementation


def _check_samples(pcm: object) -> None:
    if not isinstance(pcm, np.ndarray):
        raise TypeError(f"samples must be a numpy array, not {type(pcm).__name__}")
    if pcm.dtype not in (np.int16, np.float32):
        raise TypeError(f"samples must be int16 or float32, not {pcm.dtype}")
    if pcm.ndim not in (1, 2):
        raise ValueError(f"samples must be (samples,) or (batch, samples), not of shape {pcm.shape}")


def _check_range(largest: float) -> None:
    if not largest < float("inf"):
        raise ValueError("samples must be finite; there are NaN or infinite ones")
    if largest > _LARGEST_FLOAT:
        raise ValueError(
            f"float32 samples have full scale 1, and one of these is {largest:g};"
            " give int16-scale samples as int16"
        )


def _check_out(out: object, shape: tuple[int, ...], pcm: npt.NDArray[np.generic]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32:
        raise TypeError(f"out must be a float32 array, not {getattr(out, 'dtype', type(out).__name__)}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape {shape}, not {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if np.may_share_memory(out, pcm):
        raise ValueError("out must not share memory with the samples")
