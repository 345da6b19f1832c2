"""The foreign encoder as its maker runs it: its own file, one capture at a time, preprocessing in numpy.

Written apart from the graph adapter, so that a mistake in either shows as a difference between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgepin._errors import UsageError

from ._foreign_open import ForeignEncoder
from ._foreign_projection import Projection
from ._foreign_rewrite import first_line
from ._foreign_spec import ForeignFace, ForeignVoice
from ._ranges import session


class OriginalEncoder:
    """Embeds captures with the file that was given.

    Raises:
        UsageError: ONNX Runtime refuses the file.
    """

    def __init__(self, encoder: ForeignEncoder) -> None:
        self.encoder = encoder
        try:
            self._session = session(encoder.original)
        except Exception as error:  # onnxruntime's errors share no base below Exception
            raise UsageError(
                f"ONNX Runtime refuses the {encoder.modality} encoder: {first_line(error)}"
            ) from error

    def embed(self, capture: NDArray[Any]) -> NDArray[np.float32]:
        """One crop (1, S, S, 3) or log-mel (1, T, M) -> (1, D), of unit length. Raises `UsageError` if it fails."""
        spec = self.encoder.spec
        if isinstance(spec, ForeignFace):
            return _unit(self._run(_pixels(capture, spec)))
        if spec.least_mean is not None:
            capture = capture * np.float32(max(1.0, spec.least_mean / max(float(capture.mean()), 1e-20)))
        windows = _windows((capture - np.float32(spec.mean)) / np.float32(spec.std), spec)
        rows = np.concatenate(
            [_unit(self._run(_laid_out(window, spec), window.shape[1])) for window in windows]
        )
        return rows if spec.frames is None else _unit(rows.mean(axis=0, keepdims=True))

    def _run(self, x: NDArray[Any], frames: int = 0) -> NDArray[np.float32]:
        encoder = self.encoder
        kind = onnx.helper.tensor_dtype_to_np_dtype(encoder.input_type)
        rows = encoder.batch or 1  # a file that insists on a number of rows gets the same one so many times
        feeds = {encoder.input: np.repeat(x.astype(kind), rows, axis=0)}
        if encoder.lengths is not None:
            name, number = encoder.lengths
            of = onnx.helper.tensor_dtype_to_np_dtype(number)
            feeds[name] = np.full(rows, 1.0 if of.kind == "f" else frames, of)
        try:
            (found,) = self._session.run([encoder.output], feeds)
        except Exception as error:  # onnxruntime's errors share no base below Exception
            raise UsageError(
                f"the {encoder.modality} encoder fails on a capture of {_shape(x)}: {first_line(error)}",
                hint="compare its input with the spec",
            ) from error
        return np.asarray(found, np.float32)[:1].reshape(1, -1)


class OriginalRuntime:
    """Original encoders and their projections behind the device's `Runtime` protocol: what FP32 is held against."""

    name = "original"

    def __init__(self, encoders: dict[str, OriginalEncoder], projections: dict[str, Projection]) -> None:
        self._encoders, self._projections = encoders, projections

    def encode(self, modality: str, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = np.concatenate([self._encoders[modality].embed(row[None]) for row in batch])
        return self._projections[modality].apply(rows)


def _pixels(crop: NDArray[np.uint8], spec: ForeignFace) -> NDArray[np.float32]:
    x = crop[..., ::-1] if spec.channels == "bgr" else crop
    x = (x.astype(np.float32) - np.float32(spec.mean)) / np.float32(spec.std)
    return np.ascontiguousarray(np.moveaxis(x, 3, 1) if spec.layout == "nchw" else x)


def _windows(log_mel: NDArray[np.float32], spec: ForeignVoice) -> list[NDArray[np.float32]]:
    if spec.frames is None:
        return [log_mel]
    length = log_mel.shape[1]
    if length <= spec.frames:
        return [log_mel[:, np.arange(spec.frames) % length]]
    starts = [*range(0, length - spec.frames, spec.window_hop), length - spec.frames]
    return [log_mel[:, start : start + spec.frames] for start in starts]


def _laid_out(x: NDArray[np.float32], spec: ForeignVoice) -> NDArray[np.float32]:
    if spec.layout in ("nmt", "n1mt"):
        x = x.transpose(0, 2, 1)
    return np.ascontiguousarray(x[:, None] if spec.layout.startswith("n1") else x)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def _shape(x: NDArray[Any]) -> str:
    return "x".join(map(str, x.shape))
