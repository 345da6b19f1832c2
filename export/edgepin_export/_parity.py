"""Whether an exported encoder still says what the trained one says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._runtime.runtime import OUTPUT_NAMES
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training.checkpoint import Run
from edgepin_training.corpus import Modality

from ._ranges import session

Feed = dict[str, NDArray[np.generic]]

CALIBRATION_SECONDS = 3.0
_SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Captured:
    """Embeddings of one modality: float32 (n, 256) each, and whose they are, int64 (n,)."""

    identity: NDArray[np.float32]
    pin: NDArray[np.float32]
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Parity:
    """Cosines between embeddings of the same captures: 1 is the same direction."""

    mean_cosine: float
    min_cosine: float

    def to_json(self) -> dict[str, float]:
        return dataclasses.asdict(self)


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


def batched(feeds: Sequence[Feed], size: int = 16) -> list[Feed]:
    """Feeds of equal shape, one after another, joined along their first axis, up to `size` rows each.

    Rows stay in order, and an encoder's rows do not depend on each other, so embeddings are those of the single feeds.
    """
    joined: list[Feed] = []
    waiting: list[Feed] = []

    def close() -> None:
        if waiting:
            joined.append({name: np.concatenate([feed[name] for feed in waiting]) for name in waiting[0]})
            waiting.clear()

    for feed in feeds:
        if waiting and (len(waiting) == size or _shape(feed) != _shape(waiting[0])):
            close()
        waiting.append(feed)
    close()
    return joined


def _shape(feed: Feed) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, value.shape) for name, value in sorted(feed.items())]


def onnx_embed(
    model: bytes, inputs: Iterable[Feed], *, threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All `identity` and all `pin` rows, `(N, 256)` each, of a model run on each of `inputs` by ONNX Runtime.

    Raises:
        ValueError: there is no input.
    """
    running = session(model, threads)
    rows = [running.run(OUTPUT_NAMES, feed) for feed in inputs]
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
