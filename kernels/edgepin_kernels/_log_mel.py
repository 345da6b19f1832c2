"""`LogMel`: one call for the log-mel, whatever computes it."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from edgepin_kernels._numpy import NumpyLogMel
from edgepin_kernels._spec import LogMelSpec

Implementation = Literal["auto", "numpy"]

# Float samples have full scale 1. Resampling and gain may pass it by a little; this far beyond it,
# int16-scale samples came as floats, and every energy would be wrong by the same factor without a sign of it.
_LARGEST_FLOAT = 8.0


class LogMel:
    """A plan for one `LogMelSpec`: build once, call often. Calls do not change it, so threads may share it.

    Args:
        spec: what to compute.
        threads: how many threads a call may use, at least 1. The numpy implementation runs on the caller's.
        implementation: ``"auto"`` takes the fastest one that is here, once; a name insists on that one.

    Raises:
        TypeError: ``spec`` is not a `LogMelSpec`.
        ValueError: ``threads`` or ``implementation`` is not allowed.
    """

    def __init__(self, spec: LogMelSpec, threads: int = 1, implementation: Implementation = "auto") -> None:
        if not isinstance(spec, LogMelSpec):
            raise TypeError(f"spec must be a LogMelSpec, not {type(spec).__name__}")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be a whole number of at least 1, not {threads!r}")
        if implementation not in get_args(Implementation):
            known = ", ".join(get_args(Implementation))
            raise ValueError(f"implementation must be one of {known}, not {implementation!r}")
        self._spec = spec
        self._threads = threads
        self._plan = NumpyLogMel(spec)

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
        return "numpy"

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
            float32, natural logarithm of mel energies; ``frames`` is ``spec.num_frames(samples)``.

        Raises:
            TypeError: ``pcm`` is not an array of int16 or float32, or ``out`` not one of float32.
            ValueError: ``pcm`` has another number of axes, is too short for one frame, not finite or far
                beyond full scale; or ``out`` has another shape, is read-only or shares memory with ``pcm``.
        """
        _check_samples(pcm)
        samples = pcm.shape[-1]
        frames = self._spec.num_frames(samples)
        if frames == 0:
            raise ValueError(f"{samples} samples are too short for one frame of {self._spec.frame_length}")
        shape = (*pcm.shape[:-1], frames, self._spec.num_mels)
        if out is None:
            out = np.empty(shape, np.float32)
        else:
            _check_out(out, shape, pcm)
        if pcm.ndim == 1:
            self._plan.run(pcm[np.newaxis], out[np.newaxis])
        else:
            self._plan.run(pcm, out)
        return out


def _check_samples(pcm: object) -> None:
    if not isinstance(pcm, np.ndarray):
        raise TypeError(f"samples must be a numpy array, not {type(pcm).__name__}")
    if pcm.dtype not in (np.int16, np.float32):
        raise TypeError(f"samples must be int16 or float32, not {pcm.dtype}")
    if pcm.ndim not in (1, 2):
        raise ValueError(f"samples must be (samples,) or (batch, samples), not of shape {pcm.shape}")
    if pcm.dtype == np.float32 and pcm.size:
        # NaN passes through min and max, so two reductions find everything without another array.
        low, high = float(pcm.min()), float(pcm.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("samples must be finite; there are NaN or infinite ones")
        if max(-low, high) > _LARGEST_FLOAT:
            raise ValueError(
                f"float32 samples have full scale 1, and one of these is {max(-low, high):g};"
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
