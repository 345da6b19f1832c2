"""The log-mel as plain ONNX operators: every option of a `LogMelSpec` as a short chain without loops or branches.

A frame's pre-emphasis and window, the scale of the samples and the Fourier transform are all linear, so they are one
matrix, made in float64 and applied as one `Conv` whose stride is the hop: no frames are cut out first.

A frame's mean is linear too, but the matrix alone would turn the rounding errors of products as large as the offset
into sound. So the samples lose their offset before it, in one of two ways:

- The matrix applies to the differences of neighboring samples. A constant has none, so it is silence exactly, on any
  runtime. This sums up again what it took apart, which for low frequencies is the larger by the inverse of the
  frequency, unless strong pre-emphasis damps them as much.
- Without that, frames are cut out after all, by a `Conv` with the identity, and their means subtracted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgepin_kernels._reference import STD_GUARD, amplitude_scale, mel_filters, window_function
from edgepin_kernels._spec import LogMelSpec
from edgepin_kernels._tables import log_of_floor

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[np.float64]

# A message of protobuf ends at 2 GiB; what is beside the matrix is small.
_CONSTANTS_LIMIT = 2**31 - 2**24

# From here on a matrix over differences is no larger than one over samples, at usual lengths of the transform.
_STRONG_PREEMPHASIS = 0.9

# The smallest positive normal float32: what keeps the logarithm of silence finite until its floor is put in.
_TINY = np.finfo(np.float32).tiny

_END = np.iinfo(np.int64).max


def analysis_matrix(spec: LogMelSpec, dtype: npt.DTypeLike, bins: npt.NDArray[np.intp]) -> Array:
    """What takes a frame, without its mean if that is removed, to its spectrum.

    Args:
        spec: the definition.
        dtype: the samples' dtype, int16 or float32.
        bins: ``(bins,)``, which bins of the transform.

    Returns:
        ``(2 bins, frame_length)`` float64: the real parts, then the imaginary ones.
    """
    # Exact angles: k n modulo the length is a whole number, however long the transform.
    turns = np.outer(bins, np.arange(spec.frame_length)) % spec.fft_length * (1.0 / spec.fft_length)
    matrix = np.concatenate([np.cos(2.0 * math.pi * turns), -np.sin(2.0 * math.pi * turns)])
    # From the transform back to the samples, each step of the definition acts on the matrix as its transpose.
    matrix *= window_function(spec) * amplitude_scale(spec, np.dtype(dtype))
    if spec.preemphasis_over == "frame":
        first = spec.preemphasis * matrix[:, 0]
        matrix[:, :-1] -= spec.preemphasis * matrix[:, 1:]
        matrix[:, 0] -= first  # the first sample has itself before it
    return matrix


def without_mean(matrix: Array) -> Array:
    """The matrix that does to frames what `matrix` does to frames without their mean; its rows sum to 0."""
    return np.asarray(matrix - matrix.mean(axis=1, keepdims=True))


def over_differences(matrix: Array) -> Array:
    """``(rows, frame_length)``, rows that sum to 0 -> ``(rows, frame_length - 1)``, which does the same to the frame's
    differences ``d[n] = x[n] - x[n-1]``, n from 1."""
    # x[n] = x[0] + d[1] + ... + d[n], and x[0] does not matter.
    return np.cumsum(matrix[:, ::-1], axis=1)[:, ::-1][:, 1:]


class LogMelBody:
    """Operators and constants that compute `target` from `source`, in the order in which they run.

    Args:
        spec: what to compute.
        dtype: int16, or float32 with full scale 1.
        source: name of the samples, ``(N, samples)``.
        target: name of the log-mel, float32 ``(N, frames, mels)``.
        prefix: what the names of nodes, constants and all values in between start with.

    Raises:
        ImportError: `onnx` is not installed.
        ValueError: the matrix would not fit into an ONNX model.
    """

    def __init__(
        self, spec: LogMelSpec, dtype: npt.DTypeLike, source: str, target: str, *, prefix: str = ""
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._spec, self._prefix = spec, prefix
        samples = self._padded(self._samples(source, np.dtype(dtype)))
        values = self._normalized(self._logarithm(self._energies(samples, np.dtype(dtype))))
        self._node("Transpose", [values], [target], perm=[0, 2, 1])

    def _samples(self, source: str, dtype: np.dtype[np.generic]) -> str:
        """``(N, samples)`` as float32, pre-emphasized if that is over the utterance."""
        from onnx import TensorProto

        spec, samples = self._spec, source
        if dtype == np.int16:
            samples = self._add("Cast", [source], "samples", to=TensorProto.FLOAT)
        if spec.preemphasis_over == "frame" or spec.preemphasis == 0.0:
            return samples
        shifted = self._add(
            "Pad", [samples, self._ints("one_before", [0, 1, 0, 0])], "shifted", mode="constant"
        )
        before = self._slice(shifted, "before", 0, -1)
        # x[n] - a x[n-1] as a difference, which is exact between near samples, and the little that is kept.
        difference = self._add("Sub", [samples, before], "difference")
        kept = self._add("Mul", [before, self._floats("keep", 1.0 - spec.preemphasis)], "kept")
        return self._add("Add", [difference, kept], "emphasized")

    def _padded(self, samples: str) -> str:
        """So that every frame is whole, and no more frames fit than are wanted."""
        spec = self._spec
        if spec.padding == "none":
            return samples
        lead = spec.frame_lead
        tail = spec.frame_length - lead - (spec.hop_length if spec.drop_last_frame else 0)
        if lead or tail > 0:
            mode = "constant" if spec.padding == "zeros" else "reflect"
            pads = self._ints("pads", [0, lead, 0, max(tail, 0)])
            samples = self._add("Pad", [samples, pads], "padded", mode=mode)
        return self._slice(samples, "cut", 0, tail) if tail < 0 else samples

    def _energies(self, samples: str, dtype: np.dtype[np.generic]) -> str:
        """``(N, samples)`` -> ``(N, mels, frames)``, the mel energies."""
        filters = mel_filters(self._spec)
        # Bins that no triangle covers are not computed. One of zero weight stands for none at all.
        bins = np.flatnonzero(filters.any(axis=1))
        bins = bins if len(bins) else np.zeros(1, np.intp)
        spectrum = self._spectrum(samples, dtype, bins)
        squares = self._add("Mul", [spectrum, spectrum], "squares")
        real = self._add("Split", [squares], "real", "imaginary", axis=1, num_outputs=2)
        power = self._add("Add", [real, f"{self._prefix}imaginary"], "power")
        return self._add("MatMul", [self._floats("mel_filters", filters[bins].T), power], "energies")

    def _spectrum(self, samples: str, dtype: np.dtype[np.generic], bins: npt.NDArray[np.intp]) -> str:
        """``(N, samples)`` -> ``(N, 2 bins, frames)``, the real parts and the imaginary ones."""
        spec, length = self._spec, self._spec.frame_length
        emphasized = spec.preemphasis_over == "frame" and spec.preemphasis >= _STRONG_PREEMPHASIS
        cut_frames = spec.remove_dc and not emphasized
        if 4 * length * (2 * len(bins) + length * cut_frames) > _CONSTANTS_LIMIT:
            raise ValueError(f"frames of {length} samples make a matrix that no ONNX model can hold")
        matrix = analysis_matrix(spec, dtype, bins)
        if not spec.remove_dc:
            return self._convolved(samples, matrix, "spectrum")
        if not cut_frames:
            after, before = self._slice(samples, "after", 1, _END), self._slice(samples, "until", 0, -1)
            differences = self._add("Sub", [after, before], "differences")
            return self._convolved(differences, over_differences(without_mean(matrix)), "spectrum")
        frames = self._convolved(samples, np.eye(length), "frames")
        mean = self._add("ReduceMean", [frames, self._ints("frame_axis", [1])], "frame_mean", keepdims=1)
        centered = self._add("Sub", [frames, mean], "centered_frames")
        # What float32 left of the mean is little now, and the matrix takes it out.
        return self._add(
            "MatMul", [self._floats("spectrum_matrix", without_mean(matrix)), centered], "spectrum"
        )

    def _convolved(self, samples: str, matrix: Array, name: str) -> str:
        """``(N, samples)`` -> ``(N, rows, frames)``: `matrix` ``(rows, taps)`` applied at every hop."""
        signal = self._add("Unsqueeze", [samples, self._ints("channel_axis", [1])], f"{name}_samples")
        weights = self._floats(f"{name}_matrix", matrix[:, np.newaxis])
        return self._add("Conv", [signal, weights], name, strides=[self._spec.hop_length])

    def _logarithm(self, energies: str) -> str:
        spec = self._spec
        if spec.log == "none":
            return energies
        # The floor's logarithm is put in as a constant, so that silence does not depend on how exact Log is.
        floor = self._floats("log_floor", log_of_floor(spec))
        if spec.floor_mode == "add":
            argument = self._add("Add", [energies, self._floats("floor", spec.log_floor)], "floored")
        else:
            argument = self._add("Max", [energies, self._floats("tiny", _TINY)], "positive")
        values = self._add("Log", [argument], "ln")
        if spec.log != "ln":
            unit = (10.0 if spec.log == "db" else 1.0) / math.log(10.0)
            values = self._add("Mul", [values, self._floats("unit", unit)], spec.log)
        if spec.floor_mode == "add":
            silent = self._add("Equal", [energies, self._floats("zero", 0.0)], "silent")
            return self._add("Where", [silent, floor, values], "logarithm")
        return self._add("Max", [values, floor], "logarithm")

    def _normalized(self, values: str) -> str:
        """Everything that is over the utterance, on ``(N, mels, frames)``."""
        spec = self._spec
        if spec.dynamic_range is not None:
            largest = self._add("ReduceMax", [values, self._ints("all_axes", [1, 2])], "largest", keepdims=1)
            least = self._add("Sub", [largest, self._floats("dynamic_range", spec.dynamic_range)], "least")
            values = self._add("Max", [values, least], "limited")
        if spec.output_offset != 0.0:
            values = self._add(
                "Add", [values, self._floats("output_offset", spec.output_offset)], "shifted_output"
            )
        if spec.output_scale != 1.0:
            values = self._add(
                "Mul", [values, self._floats("output_scale", spec.output_scale)], "scaled_output"
            )
        if spec.normalize == "none":
            return values
        axis = self._ints("utterance_axis", [2])
        mean = self._add("ReduceMean", [values, axis], "mean", keepdims=1)
        rest = self._add("Sub", [values, mean], "nearly_centered")
        # Once more: what float32 lost in the sum is little, until silence is divided by its standard deviation.
        mean = self._add("ReduceMean", [rest, axis], "rest_of_mean", keepdims=1)
        centered = self._add("Sub", [rest, mean], "centered")
        if spec.normalize == "mean":
            return centered
        squares = self._add("Mul", [centered, centered], "deviations")
        total = self._add("ReduceSum", [squares, axis], "deviation", keepdims=1)
        variance = self._add("Div", [total, self._degrees(values)], "variance")
        deviation = self._add("Sqrt", [variance], "standard_deviation")
        guarded = self._add("Add", [deviation, self._floats("std_guard", STD_GUARD)], "guarded")
        return self._add("Div", [centered, guarded], "standardized")

    def _degrees(self, values: str) -> str:
        """One less than there are frames, and at least 1."""
        from onnx import TensorProto

        shape = self._add("Shape", [values], "shape", start=2, end=3)
        count = self._add("Cast", [shape], "count", to=TensorProto.FLOAT)
        one = self._floats("one", 1.0)
        fewer = self._add("Sub", [count, one], "fewer")
        return self._add("Max", [fewer, one], "degrees")

    def _slice(self, values: str, name: str, start: int, end: int) -> str:
        """``values[:, start:end]``."""
        limits = [self._ints(f"{name}_{limit}", [at]) for limit, at in (("start", start), ("end", end))]
        return self._add("Slice", [values, *limits, self._ints("samples_axis", [1])], name)

    def _add(self, operator: str, inputs: list[str], *names: str, **attributes: Any) -> str:
        """A node with outputs of these names; the first as it is called in the graph."""
        outputs = [self._prefix + name for name in names]
        self._node(operator, inputs, outputs, **attributes)
        return outputs[0]

    def _node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        from onnx import helper

        name = f"{self._prefix}node_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))

    def _floats(self, name: str, value: npt.ArrayLike) -> str:
        return self._constant(name, np.asarray(value, np.float32))

    def _ints(self, name: str, value: list[int]) -> str:
        return self._constant(name, np.asarray(value, np.int64))

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        full = self._prefix + name
        if all(tensor.name != full for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(value, full))
        return full
