"""What a step trains on: captures drawn from a corpus, augmented, and turned into what the encoders take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from edgepin._errors import UsageError
from edgepin_kernels import LogMel, LogMelSpec

from .augment import augment_face, augment_voice, crop_voice, mask_log_mel
from .config import TrainConfig
from .corpus import Corpus, Mapped, Modality, tracks_of
from .vggm import spectrogram


@dataclass(frozen=True)
class Batch:
    """N rows of a step, with P pairs among them. Of several processes each holds the captures of its own rows alone, and
    knows the labels of all.
    """

    faces: Tensor  # (N, S, S, 3) uint8
    face_labels: Tensor  # (N,)
    log_mels: Tensor  # (N, T, M) float32
    voice_labels: Tensor  # (N,)
    paired: Tensor  # (P,) rows in which face and voice are the same person's, ascending
    pair_labels: Tensor  # (P,) who that is, or which recording
    others: dict[str, Tensor] = field(
        default_factory=dict
    )  # (P, ...) of further modalities, of the paired rows

    def to(self, device: torch.device) -> Batch:
        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        others = {name: moved(value) for name, value in self.others.items()}
        return Batch(
            moved(self.faces),
            moved(self.face_labels),
            moved(self.log_mels),
            moved(self.voice_labels),
            moved(self.paired),
            moved(self.pair_labels),
            others,
        )


def share(rows: int, rank: int, size: int) -> range:
    """The rows of a batch that process `rank` of `size` holds. The shares follow one another and differ by one row at most."""
    return range(rank * rows // size, (rank + 1) * rows // size)


class Sampler:
    """Draws batches. Batch `step` depends on (seed, step) alone, which makes a resumed run exact.

    Each row has random numbers of its own, so that a process can make its share of a batch and no more: `part` is its
    (rank, size).
    """

    part = (0, 1)

    def __init__(self, corpus: Corpus, config: TrainConfig) -> None:
        self.corpus, self.config = corpus, config
        self.features = (
            spectrogram if config.encoders == "vggm" else LogMel(LogMelSpec.preset(config.log_mel))
        )
        self.face_index, self.voice_index = corpus.faces.of(), corpus.voices.of()
        self.pairs = sorted(corpus.pairs.items())
        self.tracks = tracks_of(corpus) if config.positives == "track" else []
        self.other_index = {name: _of_everyone(name, other, corpus) for name, other in corpus.others.items()}
        # A speaker's share of a batch grows with the root of the number of their captures: many say more, not all.
        self.voice_weights = _root_weights(corpus.voices.names, self.voice_index)
        self.face_weights = _root_weights(corpus.faces.names, self.face_index)
        self.speeds = [at_speed(corpus.voices.items, speed) for speed in config.speeds]

    @property
    def voice_classes(self) -> int:
        return len(self.corpus.voices.names) * len(self.speeds)

    def draw(self, step: int) -> Batch:
        config, rng = self.config, np.random.default_rng((self.config.seed, step))
        speeds, faces, voices, paired, pair_labels = self._tracks(rng) if self.tracks else self._choose(rng)
        own = share(len(faces), *self.part)
        rngs = [np.random.default_rng((config.seed, step, 1 + row)) for row in own]
        samples = int(config.voice_seconds * 16000)
        crops, sounds = [], []
        for row, own_rng in zip(own, rngs, strict=True):
            crops.append(augment_face(self.corpus.faces.items[faces[row]], own_rng, config.augment))
            sounds.append(self._voice(voices[row], speeds[row], samples, own_rng))
        features = self.features(np.stack(sounds))
        for i, own_rng in enumerate(rngs):
            mask_log_mel(features[i : i + 1], own_rng, config.augment)
        speakers = len(self.corpus.voices.names)
        return Batch(
            torch.from_numpy(np.stack(crops)),
            torch.from_numpy(self.corpus.faces.labels[faces]),
            torch.from_numpy(features),
            torch.from_numpy(self.corpus.voices.labels[voices] + speakers * np.array(speeds)),
            torch.tensor(paired, dtype=torch.int64),
            torch.tensor(pair_labels, dtype=torch.int64),
            self._others([(faces[row], rngs[row - own.start]) for row in paired if row in own]),
        )

    def _others(self, rows: list[tuple[int, Generator]]) -> dict[str, Tensor]:
        """A capture of each further modality of the people whose face captures these are."""
        labels = self.corpus.faces.labels
        people = [(self.corpus.faces.names[labels[index]], rng) for index, rng in rows]
        made = {}
        for modality, index in self.other_index.items() if self.pairs else ():
            items = self.corpus.others[modality].items
            chosen = [items[int(rng.choice(index[name]))] for name, rng in people]
            made[modality] = torch.from_numpy(
                np.stack(chosen) if chosen else np.empty((0, *items[0].shape), items[0].dtype)
            )
        return made

    def _tracks(self, rng: Generator) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Recordings, each with one face and one voice of it: nobody says which of them are of one person."""
        chosen = [int(number) for number in _spread(rng, len(self.tracks), self.config.batch_size, None)]
        faces = [int(rng.choice(self.tracks[number][1])) for number in chosen]
        voices = [int(rng.choice(self.tracks[number][2])) for number in chosen]
        return [0] * len(chosen), faces, voices, list(range(len(chosen))), chosen

    def _choose(self, rng: Generator) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Who is in the batch: speeds, face and voice captures, the rows that are pairs, and whose those are.

        Two rows for each person, with different captures where there are: the first half of the batch is held
        against the second.
        """
        people = self.config.batch_size // 2
        speeds = [int(speed) for speed in rng.integers(0, len(self.speeds), people)]
        if self.pairs:
            names = [int(number) for number in _spread(rng, len(self.pairs), people, None)]
            speakers, persons = zip(*(self.pairs[number] for number in names), strict=True)
        else:
            names = []
            voices, faces = self.corpus.voices.names, self.corpus.faces.names
            speakers = tuple(voices[i] for i in _spread(rng, len(voices), people, self.voice_weights))
            persons = tuple(faces[i] for i in _spread(rng, len(faces), people, self.face_weights))
        voice_rows = [self._two(self.voice_index[name], rng) for name in speakers]
        face_rows = [self._two(self.face_index[name], rng) for name in persons]
        paired = [row for row, speed in enumerate(speeds * 2) if speed == 0] if names else []
        faces = _halves(face_rows)
        labels = [int(self.corpus.faces.labels[faces[row]]) for row in paired]
        return speeds * 2, faces, _halves(voice_rows), paired, labels

    @staticmethod
    def _two(indices: list[int], rng: Generator) -> tuple[int, int]:
        first, second = rng.choice(indices, 2, replace=len(indices) < 2)
        return int(first), int(second)

    def _voice(self, index: int, speed: int, samples: int, rng: Generator) -> NDArray[np.int16]:
        pool = self.speeds[speed]
        voice = crop_voice(pool[index], samples, rng)
        other = crop_voice(pool[int(rng.integers(len(pool)))], samples, rng)
        return augment_voice(voice, other, rng, self.config.augment)


def _halves(rows: list[tuple[int, int]]) -> list[int]:
    return [first for first, _ in rows] + [second for _, second in rows]


def _of_everyone(name: str, other: Modality, corpus: Corpus) -> dict[str, list[int]]:
    """Person -> indices of a further modality, which everyone who is paired must have."""
    index = other.of()
    lacking = sorted({face for face in corpus.pairs.values() if not index.get(face)})
    if lacking:
        raise UsageError(f"{len(lacking)} paired people have no {name}, the first is {lacking[0]!r}")
    return index


def _root_weights(names: tuple[str, ...], index: dict[str, list[int]]) -> NDArray[np.float64]:
    weights = np.sqrt([len(index[name]) for name in names])
    return weights / weights.sum()


def _spread(rng: Generator, count: int, size: int, weights: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """`size` of `count`, without repetition where there are enough."""
    return rng.choice(count, size, replace=count < size, p=weights)


def at_speed(items: Sequence[NDArray[Any]], speed: float) -> Sequence[NDArray[Any]]:
    """Voices spoken faster or slower; of captures that stay on disk, when they are asked for."""
    if speed == 1.0:
        return items
    faster = partial(_resampled, speed=speed)
    return [faster(pcm) for pcm in items] if isinstance(items, list) else Mapped(items, faster)


def _resampled(pcm: NDArray[Any], speed: float) -> NDArray[Any]:
    import soxr

    return soxr.resample(pcm, 16000 * speed, 16000, quality="MQ")
