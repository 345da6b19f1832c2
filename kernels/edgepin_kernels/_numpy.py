"""The log-mel as whole-array numpy operations: the implementation that runs everywhere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from edgepin_kernels._reference import amplitude_scale, mel_filters, window_function
from edgepin_kernels._spec import LogMelSpec

# Frames transformed at a time. The arrays of so few are small enough for the allocator to reuse; those of a
# whole utterance would be fresh pages from the operating system in every call, which cost more than the
# transform itself.
_BLOCK_FRAMES = 64

# Multiplications in one matrix product. Above this OpenBLAS splits a product over threads, which would take
# more of them than the caller allows, and waits for them: on busy cores that took ten times as long.
_PRODUCT_LIMIT = 262_144


class NumpyLogMel:
    """A plan: the tables are made once. Calls change nothing in it, so threads may share it."""

    def __init__(self, spec: LogMelSpec) -> None:
        self._spec = spec
        self._window = window_function(spec)
        self._bands = _bands(mel_filters(spec))
        self._floor = np.float32(spec.log_floor)
        self._log_floor = np.float32(math.log(spec.log_floor))

    def run(self, pcm: npt.NDArray[np.generic], out: npt.NDArray[np.float32]) -> None:
        """Fill ``out`` ``(batch, frames, mels)`` float32 from ``pcm`` ``(batch, samples)``.

        The caller has checked both.
        """
        batch, frames, _ = out.shape
        # Many short utterances make one block; one long utterance makes many.
        rows = max(1, _BLOCK_FRAMES // frames)
        for row in range(0, batch, rows):
            for start in range(0, frames, _BLOCK_FRAMES):
                stop = min(frames, start + _BLOCK_FRAMES)
                first = start * self._spec.hop_length
                last = (stop - 1) * self._spec.hop_length + self._spec.frame_length
                samples = pcm[row : row + rows, first:last]
                out[row : row + rows, start:stop] = self._block(samples, stop - start)
        if self._spec.mean_normalize:
            out -= out.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)

    def _block(self, pcm: npt.NDArray[np.generic], frames: int) -> npt.NDArray[np.float32]:
        """``(batch, samples)`` of exactly ``frames`` frames -> ``(batch, frames, mels)``."""
        spec = self._spec
        samples = pcm.astype(np.float64, order="C")
        scale = amplitude_scale(spec, pcm.dtype)
        if scale != 1.0:
            samples *= scale

        # Pre-emphasis is linear, so it runs once over the samples and not once for each of the frames that
        # overlap them; a frame's mean then leaves by (1 - preemphasis) of it. Only a frame's first sample
        # differs, as it has itself before it. In float32 this would lose quiet detail on a large offset, so
        # everything up to the power is float64.
        keep = 1.0 - spec.preemphasis
        emphasized = np.zeros_like(samples)
        np.multiply(samples[:, :-1], -spec.preemphasis, out=emphasized[:, 1:])
        emphasized[:, 1:] += samples[:, 1:]
        raw = self._frames(samples, frames)
        first = raw[..., 0] * keep
        if spec.remove_dc:
            mean = raw.mean(axis=-1) * keep
            windowed = self._frames(emphasized, frames) - mean[..., np.newaxis]
            first -= mean
        else:
            windowed = self._frames(emphasized, frames).copy()
        windowed[..., 0] = first
        windowed *= self._window

        spectrum = np.fft.rfft(windowed, spec.fft_length, axis=-1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        power32 = power.astype(np.float32)
        energies = np.empty((*power.shape[:-1], spec.num_mels), np.float32)
        for mels, bins, weights in self._bands:
            energies[..., mels] = power32[..., bins] @ weights
        floored = energies <= self._floor
        np.maximum(energies, self._floor, out=energies)
        np.log(energies, out=energies)
        # A vectorized logarithm may be one bit off; silence is the floor exactly.
        energies[floored] = self._log_floor
        return energies

    def _frames(self, samples: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.float64]:
        """A view of C-contiguous ``(batch, samples)`` as overlapping ``(batch, frames, frame_length)``."""
        row, item = samples.strides
        shape = (len(samples), frames, self._spec.frame_length)
        return as_strided(samples, shape, (row, item * self._spec.hop_length, item), writeable=False)


def _bands(filters: npt.NDArray[np.float64]) -> list[tuple[slice, slice, npt.NDArray[np.float32]]]:
    """``(bins, mels)`` as products of neighboring mels with only the bins under them: (mels, bins, weights).

    Triangles are narrow, so that this is also a fraction of the work of one dense product.
    """
    bands = []
    first, num_mels = 0, filters.shape[1]
    while first < num_mels:
        width = min(16, num_mels - first)
        while True:
            under = np.flatnonzero(filters[:, first : first + width].any(axis=1))
            # A triangle between two bins has no weight at all; one bin of zeros stands for it.
            low, high = (int(under[0]), int(under[-1]) + 1) if len(under) else (0, 1)
            if width == 1 or _BLOCK_FRAMES * width * (high - low) <= _PRODUCT_LIMIT:
                break
            width //= 2
        weights = np.ascontiguousarray(filters[low:high, first : first + width], dtype=np.float32)
        bands.append((slice(first, first + width), slice(low, high), weights))
        first += width
    return bands
