"""Whether an exported encoder still says what the trained one says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._runtime import OUTPUT_NAMES
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training.checkpoint import Run
from edgepin_training.corpus import Modality

Feed = dict[str, NDArray[np.generic]]

CALIBRATION_SECONDS = 3.0
_SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Parity:
    """Cosines between embeddings of the same captures: 1 is the same direction."""

    mean_cosine: float
    min_cosine: float

    def to_json(self) -> dict[str, float]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PrecisionReport:
    """One precision of one modality: its embeddings against the trained encoder's, and the error rate."""

    identity: Parity
    pin: Parity
    eer: float | None = None  # fraction; None where there were no trials to count on

    def to_json(self) -> dict[str, Any]:
        return {"identity": self.identity.to_json(), "pin": self.pin.to_json(), "eer": self.eer}


@dataclass(frozen=True)
class ParityReport:
    """A modality's precisions by name (``"fp32"``, ``"int8"``), and the trained encoder's own error rate."""

    torch_eer: float | None
    precisions: dict[str, PrecisionReport]

    def to_json(self) -> dict[str, Any]:
        return {
            "torch_eer": self.torch_eer,
            "precisions": {name: report.to_json() for name, report in self.precisions.items()},
        }


def compare(reference: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> Parity:
    """Cosines row by row between two `(N, D)` arrays of embeddings, which need not be of unit length.

    Raises:
        ValueError: shapes differ, there is no row, or a row is zero or not finite.
    """
    if reference.shape != other.shape or reference.ndim != 2 or not len(reference):
        raise ValueError(f"two equal shapes (N, D) are needed, not {reference.shape} and {other.shape}")
    a, b = reference.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        raise ValueError("an embedding is zero or not finite")
    cosines = np.clip((a * b).sum(axis=1) / norms, -1.0, 1.0)
    return Parity(float(cosines.mean()), float(cosines.min()))


def onnx_embed(
    model: bytes, inputs: Iterable[Feed], *, threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All `identity` and all `pin` rows, `(N, 256)` each, of a model run on each of `inputs` by ONNX Runtime.

    Raises:
        ValueError: there is no input.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = [session.run(OUTPUT_NAMES, feed) for feed in inputs]
    if not rows:
        raise ValueError("there is no input")
    return np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])


def calibration_inputs(
    run: Run, faces: Modality, voices: Modality, count: int = 128, seed: int = 0
) -> dict[str, list[Feed]]:
    """Inputs to calibrate on: ``"face"`` and ``"voice"`` -> up to `count` feeds of batch 1, over many people.

    Voices are crops of 3 s; a shorter capture is repeated up to that length, as all feeds need one shape.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    random = np.random.default_rng(seed)
    log_mel = LogMel(LogMelSpec.preset(run.config.log_mel))
    length = int(CALIBRATION_SECONDS * _SAMPLE_RATE)
    face_feeds: list[Feed] = [
        {"face": faces.items[index][np.newaxis]} for index in _spread(faces, count, random)
    ]
    voice_feeds: list[Feed] = []
    for index in _spread(voices, count, random):
        pcm = voices.items[index]
        pcm = np.resize(pcm, max(len(pcm), length))
        start = int(random.integers(len(pcm) - length + 1))
        voice_feeds.append({"log_mel": log_mel(pcm[np.newaxis, start : start + length])})
    return {"face": face_feeds, "voice": voice_feeds}


def _spread(modality: Modality, count: int, random: np.random.Generator) -> list[int]:
    """Captures in an order that takes one of everybody before a second of anybody."""
    turns = np.empty(len(modality.items), np.int64)
    for indices in modality.of().values():
        turns[random.permutation(indices)] = np.arange(len(indices))
    order = np.lexsort((random.permutation(len(turns)), turns))
    return [int(index) for index in order[:count]]
