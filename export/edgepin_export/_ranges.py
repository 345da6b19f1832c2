"""Where to clip an activation before it gets 8 bits: what was seen of it, and four ways to choose.

Magnitudes are kept in a histogram from zero up. Codes are symmetric, -127 to 127 times a step of `clip / 127`, so a
clip is all that there is to choose. ONNX Runtime's own calibration has these methods too, but its entropy works on a
histogram of 128 bins, as many as there are codes, where nothing is lost to any clip and "entropy" is "minmax"; and it
knows no mean squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["minmax", "percentile", "entropy", "mse"]
Feed = dict[str, NDArray[np.generic]]
Progress = Callable[[str, int, int], None]

BINS = 4096
_CODES = 127  # largest code; the step is clip / 127
_LEVELS = 128  # magnitudes that a symmetric code tells apart, zero included
_CANDIDATES = 200  # clips that are tried, evenly spaced
_TINY = 1e-12


@dataclass(frozen=True)
class Histogram:
    """Magnitudes of one tensor over everything that was seen: `counts[i]` lie in [i, i + 1) times `width`."""

    counts: NDArray[np.int64]
    width: float
    lowest: float
    highest: float
    # Clips that were asked for already: a search asks for the same ones for every layer.
    _clips: dict[tuple[str, float], float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(-self.lowest, self.highest)

    def clip(self, method: Method, percentile: float = 99.99) -> float:
        """The magnitude at which to clip, above 0.

        * ``"minmax"``: the largest that was seen.
        * ``"percentile"``: that share (in percent) of all values lies below.
        * ``"entropy"``: the clip of the lowest Kullback-Leibler divergence between the distribution and its quantized
          form (Migacz, "8-bit Inference with TensorRT", GTC 2017).
        * ``"mse"``: the clip of the lowest mean squared error, of rounding below it and of clipping above it.
        """
        key = (method, percentile)
        if key not in self._clips:
            self._clips[key] = self._clip(method, percentile)
        return self._clips[key]

    def _clip(self, method: Method, percentile: float) -> float:
        if self.largest <= _TINY:
            return 1.0  # only zeros were seen: any step codes them
        if method == "minmax":
            return self.largest
        if method == "percentile":
            share = np.cumsum(self.counts) / self.counts.sum()
            return self._edge(int(np.searchsorted(share, percentile / 100)) + 1)
        return self._edge(self._least_divergence() if method == "entropy" else self._least_square())

    def _edge(self, bins: int) -> float:
        return min(bins * self.width, self.largest)

    def _used(self) -> int:
        return int(np.flatnonzero(self.counts)[-1]) + 1

    def _candidates(self, least: int) -> NDArray[np.int64]:
        used = self._used()
        return np.unique(np.linspace(min(least, used), used, _CANDIDATES).astype(np.int64))

    def _least_divergence(self) -> int:
        counts = self.counts.astype(np.float64)
        # A ReLU's zeros are coded exactly under any clip, and would drown the rest.
        counts[0] = counts[1]
        total_above = np.concatenate([np.cumsum(counts[::-1])[::-1], [0.0]])
        best, least = self._used(), np.inf
        for bins in self._candidates(_LEVELS):
            inside = counts[:bins]
            wanted = inside.copy()
            wanted[-1] += total_above[bins]  # what is clipped lands on the last code
            level = np.minimum((np.arange(bins) * _LEVELS) // bins, _LEVELS - 1)
            filled = inside > 0
            sums = np.bincount(level, inside, _LEVELS)
            holders = np.bincount(level, filled, _LEVELS)
            coded = np.where(filled, (sums / np.maximum(holders, 1))[level], 0.0)
            p, q = wanted / wanted.sum(), coded / max(coded.sum(), _TINY)
            seen = p > 0
            # The last bin may hold only what was clipped; smoothed, as its own code is all it has.
            divergence = float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-9))).sum())
            if divergence < least:
                best, least = int(bins), divergence
        return best

    def _least_square(self) -> int:
        centers = (np.arange(len(self.counts)) + 0.5) * self.width
        centers[0] = 0.0  # mostly exact zeros
        best, least = self._used(), np.inf
        for bins in self._candidates(1):
            step = bins * self.width / _CODES
            codes = np.minimum(np.round(centers / step), _CODES) * step
            error = float(self.counts @ (centers - codes) ** 2)
            if error < least:
                best, least = int(bins), error
        return best


def collect(
    model: bytes,
    feeds: Sequence[Feed],
    tensors: Iterable[str],
    *,
    label: str = "observing activations",
    progress: Progress | None = None,
) -> dict[str, Histogram]:
    """Histograms of float32 tensors inside a model, by name, over all feeds, in one pass.

    Raises:
        ValueError: there is no feed, or a tensor is not finite.
    """
    import onnx

    names = list(dict.fromkeys(tensors))
    if not feeds:
        raise ValueError("there is no calibration input")
    if not names:
        return {}
    probed = onnx.load_model_from_string(model)
    given = {value.name for value in probed.graph.input}
    shown = {value.name for value in probed.graph.output}
    probed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in shown | given
    )
    running = session(probed.SerializeToString())
    growing = {name: _Growing() for name in names}
    inner = [name for name in names if name not in given]
    for done, feed in enumerate(feeds, start=1):
        found = dict(zip(inner, running.run(inner, feed), strict=True)) if inner else {}
        for name in names:
            growing[name].add(name, np.asarray(found.get(name, feed.get(name)), np.float32))
        if progress:
            progress(label, done, len(feeds))
    return {name: histogram.freeze() for name, histogram in growing.items()}


def session(model: bytes, threads: int = 1):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    """An ONNX Runtime session on the CPU, of one thread: what it computes does not depend on the machine's load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _Growing:
    """A histogram that doubles the width of its bins, pair by pair into one, when something larger comes."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self._width = 0.0
        self._lowest, self._highest = np.inf, -np.inf

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        lowest, highest = float(values.min()), float(values.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise ValueError(f"{name} is not finite on the calibration inputs")
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
        largest = max(-lowest, highest)
        if self._width == 0.0:
            if largest <= _TINY:
                self._counts[0] += values.size
                return
            self._width = largest / BINS * (1 + 1e-6)
        while largest >= self._width * BINS:
            self._counts = np.concatenate(
                [self._counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)]
            )
            self._width *= 2
        places = np.minimum(np.abs(values.ravel()) * np.float32(1 / self._width), BINS - 1).astype(np.int64)
        self._counts += np.bincount(places, minlength=BINS)

    def freeze(self) -> Histogram:
        return Histogram(self._counts, self._width or _TINY, self._lowest, self._highest)
