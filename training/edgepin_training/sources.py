"""Batches for distillation: augmented captures, and what the teacher said of the clean ones.

Batch `step` depends on (seed, step) alone, so that a resumed run sees what an unbroken one would. Captures come in sets
(real people, rendered people), each with a fixed share of every batch. Row i and row i + N/2 of a batch are one person's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgepin._errors import UsageError
from edgepin_kernels import LogMel, LogMelSpec

from .augment import augment_face, augment_voice, mask_log_mel
from .distill import DistillBatch, TargetSpace
from .views import VoiceViews

STREAM = {"faces": 1, "voices": 2, "online faces": 3, "online voices": 4}
"""So that no source draws what another one does."""

FaceSet = tuple[Sequence[NDArray[np.generic]], NDArray[np.int64], NDArray[np.float32]]
"""Crops, n of (S, S, 3) uint8; people (n,), from 0 on, or -1 for an unknown one; the teacher's embeddings (n, D)."""


@dataclass(frozen=True)
class VoiceSet:
    """Views of clips, and the speaker of each clip: (clips,), from 0 on, or -1 for an unknown one."""

    views: VoiceViews
    speakers: NDArray[np.int64]


class FaceSource:
    """Every crop of a set once an epoch, in an order of its own, beside another crop of that person, or itself again."""

    def __init__(
        self,
        sets: Sequence[FaceSet],
        shares: Sequence[float],
        *,
        batch_size: int,
        augment: float = 1.0,
        centering: float = 0.0,
        seed: int = 0,
    ) -> None:
        """`shares` of each batch sum to 1. The target space is that of the first set."""
        self._sets = sets
        self._sizes = _sizes(shares, batch_size)
        self._augment, self._seed = augment, seed
        space = TargetSpace(sets[0][2], centering)
        self.center = space.center
        self._targets = [space(teacher) for _, _, teacher in sets]
        self._labels, self.classes = numbered([labels for _, labels, _ in sets])
        self._owned = [
            [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
            for _, labels, _ in sets
        ]

    def draw(self, step: int) -> DistillBatch:
        rng = np.random.default_rng((self._seed, STREAM["faces"], step))
        halves: list[list[tuple[int, int]]] = [[], []]
        for number, size in enumerate(self._sizes):
            rows = self._rows(number, step, size)
            halves[0] += [(number, int(row)) for row in rows]
            halves[1] += [(number, self._partner(number, int(row), rng)) for row in rows]
        chosen = halves[0] + halves[1]
        crops = [augment_face(self._sets[number][0][row], rng, self._augment) for number, row in chosen]  # type: ignore[arg-type]
        labels = np.array([self._labels[number][row] for number, row in chosen], np.int64)
        return DistillBatch(
            torch.from_numpy(np.stack(crops)),
            torch.from_numpy(np.stack([self._targets[number][row] for number, row in chosen])),
            torch.from_numpy(labels),
            torch.from_numpy(_groups(labels[: len(labels) // 2])),
        )

    def _partner(self, number: int, row: int, rng: np.random.Generator) -> int:
        label = int(self._sets[number][1][row])
        if label < 0 or len(self._owned[number][label]) == 1:
            return row
        others = self._owned[number][label]
        return int(rng.choice(others[others != row]))

    def _rows(self, number: int, step: int, size: int) -> NDArray[np.int64]:
        count = len(self._sets[number][0])
        places = np.arange(step * size, (step + 1) * size)
        orders = {
            int(epoch): np.random.default_rng((self._seed, number, int(epoch))).permutation(count)
            for epoch in np.unique(places // count)
        }
        return np.array([orders[int(place // count)][place % count] for place in places], np.int64)


class VoiceSource:
    """Two crops of a clip, from all views alike; a clip's share grows with the root of its length.

    All crops of a batch are equally long.
    """

    def __init__(
        self,
        sets: Sequence[VoiceSet],
        shares: Sequence[float],
        *,
        batch_size: int,
        log_mel: str = "kaldi",
        seconds: tuple[float, float] = (1.6, 3.6),
        augment: float = 1.0,
        centering: float = 1.0,
        seed: int = 0,
    ) -> None:
        """`shares` of each batch sum to 1. The target space is that of the first set."""
        self._sets = sets
        self._sizes = _sizes(shares, batch_size)
        self._seconds, self._augment, self._seed = seconds, augment, seed
        self._log_mel = LogMel(LogMelSpec.preset(log_mel))
        self._space = TargetSpace(np.concatenate(sets[0].views.teacher), centering)
        self.center: Tensor = self._space.center
        # A speaker in another view is another speaker.
        spread = [
            np.concatenate(
                [
                    np.where(s.speakers >= 0, s.speakers + view * (int(s.speakers.max()) + 1), -1)
                    for view in range(len(s.views))
                ]
            )
            for s in sets
        ]
        self._labels, self.classes = numbered(spread)
        roots = [np.sqrt(np.diff(s.views.starts[0])) for s in sets]
        self._weights = [root / root.sum() for root in roots]

    def draw(self, step: int) -> DistillBatch:
        rng = np.random.default_rng((self._seed, STREAM["voices"], step))
        samples = round(rng.uniform(*self._seconds) * 100) * 160
        chosen = []
        for number, size in enumerate(self._sizes):
            weights = self._weights[number]
            clips = rng.choice(len(weights), size, p=weights).tolist()
            views = rng.integers(0, len(self._sets[number].views), size).tolist()
            chosen += [(number, view, clip) for view, clip in zip(views, clips, strict=True)]
        pcm: list[NDArray[np.int16]] = []
        targets: list[NDArray[np.float32]] = []
        for number, view, clip in chosen * 2:
            views_of = self._sets[number].views
            voice, start = _crop(views_of.clip(view, clip), samples, rng)
            other, _ = _crop(views_of.clip(view, int(rng.integers(len(self._weights[number])))), samples, rng)
            pcm.append(augment_voice(voice, other, rng, self._augment))
            targets.append(views_of.target(view, clip, start, samples))
        features = self._log_mel(np.stack(pcm))
        mask_log_mel(features, rng, self._augment)
        labels = np.array(
            [self._labels[number][view * len(self._weights[number]) + clip] for number, view, clip in chosen],
            np.int64,
        )
        return DistillBatch(
            torch.from_numpy(features),
            torch.from_numpy(self._space(np.stack(targets))),
            torch.from_numpy(np.concatenate([labels, labels])),
            torch.from_numpy(_groups(labels)),
        )


def _crop(pcm: NDArray[np.int16], samples: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], int]:
    """`samples` from a random place, which is given too; a shorter clip is repeated."""
    start = int(rng.integers(0, max(1, len(pcm) - samples + 1)))
    stretch = pcm[start : start + samples]
    if len(stretch) < samples:
        stretch = np.tile(stretch, -(-samples // len(stretch)))[:samples]
    return stretch.astype(np.float32), start


def _sizes(shares: Sequence[float], batch_size: int) -> list[int]:
    """How many pairs of a batch each set gives; at least two of the first."""
    pairs = batch_size // 2
    sizes = [round(share * pairs) for share in shares[1:]]
    if pairs - sum(sizes) < 2:
        raise UsageError("the first set gives less than two pairs of captures to a batch")
    return [pairs - sum(sizes), *sizes]


def _groups(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Who is whom within half a batch; each unknown one is taken for somebody else."""
    return np.where(labels >= 0, labels, -1 - np.arange(len(labels)))


def generator_at(seed: int, stream: int, step: int, device: torch.device) -> torch.Generator:
    """The chance of batch `step` on `device`.

    Hashed, since the generator of processors takes the lower 32 bits of what it is given.
    """
    state = np.random.SeedSequence((seed, stream, step)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))


def numbered(sets: Sequence[NDArray[np.int64]]) -> tuple[list[NDArray[np.int64]], int]:
    """Labels of several sets without collisions, and how many there are; -1 stays."""
    numbered, first = [], 0
    for labels in sets:
        numbered.append(np.where(labels >= 0, labels + first, -1))
        first += int(labels.max(initial=-1)) + 1
    return numbered, max(1, first)
