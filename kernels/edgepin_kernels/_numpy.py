"""The log-mel as whole-array numpy operations: the implementation that runs everywhere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from edgepin_kernels._reference import STD_GUARD, amplitude_scale, mel_filters, window_function
from edgepin_kernels._spec import LogMelSpec
from edgepin_kernels._tables import log_of_floor

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

    def largest(self, pcm: npt.NDArray[np.generic]) -> float:
        """The largest size of a float32 sample; infinity if one is not finite."""
        # NaN passes through min and max, so two reductions find everything without another array.
        low, high = float(pcm.min()), float(pcm.max())
        return max(-low, high) if math.isfinite(low) and math.isfinite(high) else math.inf

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
                out[row : row + rows, start:stop] = self._block(pcm[row : row + rows], start, stop)
        self._finish(out)

    def _block(self, pcm: npt.NDArray[np.generic], start: int, stop: int) -> npt.NDArray[np.float32]:
        """``(batch, samples)``, whole utterances -> frames ``start`` to ``stop``, before normalization."""
        windowed = self._windowed(self._samples(pcm, start, stop), stop - start)
        windowed *= self._window
        spectrum = np.fft.rfft(windowed, self._spec.fft_length, axis=-1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        power32 = power.astype(np.float32)
        energies = np.empty((*power.shape[:-1], self._spec.num_mels), np.float32)
        for mels, bins, weights in self._bands:
            energies[..., mels] = power32[..., bins] @ weights
        return self._logarithm(energies)

    def _samples(self, pcm: npt.NDArray[np.generic], start: int, stop: int) -> npt.NDArray[np.float64]:
        """The samples under frames ``start`` to ``stop``, padded, scaled and pre-emphasized if over the utterance."""
        spec, total = self._spec, pcm.shape[-1]
        first = start * spec.hop_length - spec.frame_lead
        last = (stop - 1) * spec.hop_length - spec.frame_lead + spec.frame_length
        if first > 0 and last <= total:
            samples = pcm[:, first:last].astype(np.float64, order="C")
            before = pcm[:, first - 1 : last - 1]
        else:
            index = np.arange(first, last)
            if spec.padding == "reflect":
                index = np.abs(index)
                index = np.where(index < total, index, 2 * (total - 1) - index)
            inside = (index >= 0) & (index < total)
            samples = np.where(inside, pcm[:, np.where(inside, index, 0)], 0).astype(np.float64)
            inside &= index > 0
            before = np.where(inside, pcm[:, np.where(inside, index - 1, 0)], 0)
        if spec.preemphasis_over == "utterance":
            samples -= spec.preemphasis * before.astype(np.float64)
        scale = amplitude_scale(spec, pcm.dtype)
        if scale != 1.0:
            samples *= scale
        return samples

    def _windowed(self, samples: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.float64]:
        """``(batch, samples)`` of exactly ``frames`` frames -> ``(batch, frames, frame_length)``, a new array without
        the frames' means and pre-emphasized."""
        raw = self._frames(samples, frames)
        if self._spec.preemphasis_over == "utterance":
            windowed: npt.NDArray[np.float64] = raw.copy()
            if self._spec.remove_dc:
                windowed -= raw.mean(axis=-1, keepdims=True)
            return windowed
        # Pre-emphasis is linear, so it runs once over the samples and not once for each of the frames that
        # overlap them; a frame's mean then leaves by (1 - preemphasis) of it. Only a frame's first sample
        # differs, as it has itself before it. In float32 this would lose quiet detail on a large offset, so
        # everything up to the power is float64.
        keep = 1.0 - self._spec.preemphasis
        emphasized = np.zeros_like(samples)
        np.multiply(samples[:, :-1], -self._spec.preemphasis, out=emphasized[:, 1:])
        emphasized[:, 1:] += samples[:, 1:]
        first = raw[..., 0] * keep
        windowed = self._frames(emphasized, frames).copy()
        if self._spec.remove_dc:
            mean = raw.mean(axis=-1) * keep
            windowed -= mean[..., np.newaxis]
            first -= mean
        windowed[..., 0] = first
        return windowed

    def _frames(self, samples: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.float64]:
        """A view of C-contiguous ``(batch, samples)`` as overlapping ``(batch, frames, frame_length)``."""
        row, item = samples.strides
        shape = (len(samples), frames, self._spec.frame_length)
        frame_view: npt.NDArray[np.float64] = as_strided(
            samples, shape, (row, item * self._spec.hop_length, item), writeable=False
        )
        return frame_view

    def _logarithm(self, energies: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """In place."""
        spec = self._spec
        if spec.log == "none":
            return energies
        floor = np.float32(spec.log_floor)
        if spec.floor_mode == "add":
            silent = energies == 0.0
            energies += floor
        else:
            silent = energies <= floor
            np.maximum(energies, floor, out=energies)
        if spec.log == "ln":
            np.log(energies, out=energies)
        else:
            np.log10(energies, out=energies)
            if spec.log == "db":
                energies *= np.float32(10.0)
        # A vectorized logarithm may be one bit off; silence is the floor exactly.
        energies[silent] = log_of_floor(spec)
        return energies

    def _finish(self, out: npt.NDArray[np.float32]) -> None:
        """Everything that is over the utterance, in place on ``(batch, frames, mels)``."""
        spec = self._spec
        if spec.dynamic_range is not None and out.size:
            np.maximum(out, out.max(axis=(1, 2), keepdims=True) - np.float32(spec.dynamic_range), out=out)
        if (spec.output_offset, spec.output_scale) != (0.0, 1.0):
            out += np.float32(spec.output_offset)
            out *= np.float32(spec.output_scale)
        if spec.normalize == "none":
            return
        mean = out.mean(axis=1, keepdims=True, dtype=np.float64)
        if spec.normalize == "mean":
            out -= mean.astype(np.float32)
            return
        degrees = max(out.shape[1] - 1, 1)
        squares = np.square(out - mean).sum(axis=1, keepdims=True)
        out[...] = (out - mean) / (np.sqrt(squares / degrees) + STD_GUARD)


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
