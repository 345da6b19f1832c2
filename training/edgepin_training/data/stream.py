"""Batches from shards, read front to back: what a step holds depends on the seed and the step alone.

The shards of an epoch are shuffled and dealt to a fixed number of lanes; step s takes the next recordings of lane
s mod lanes. Each lane shuffles within a window of recordings. So any number of workers makes the same batches, each
reading its own lanes, and a resumed run skips to its place by the shards' counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgepin._errors import CaptureError, UsageError

from ..config import TrainConfig
from ..corpus import Corpus, Modality
from ..sampler import Batch, Sampler, at_speed
from .media import decode_face, decode_voice
from .shards import Capture, Sample, ShardSet, read_shard

LANES = 8
WINDOW = 512
"""Recordings of a lane that are in memory at a time, two faces and two voices of each."""


class _Elsewhere(Sequence):
    """Captures that only a stream brings: their number and total length are known, they themselves are not here."""

    def __init__(self, count: int, samples: int = 0) -> None:
        self._count, self.lengths = count, [samples]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        raise UsageError(
            "captures in shards come in batches only", hint="train from the index to draw any of them"
        )


def corpus_of(shards: ShardSet) -> Corpus:
    """Who is in the shards, as the trainer wants to know it; the captures come from a `ShardSampler`."""

    def modality(counts: dict[str, int], samples: int = 0) -> Modality:
        labels = np.repeat(np.arange(len(counts)), list(counts.values()))
        return Modality(tuple(counts), labels, _Elsewhere(len(labels), samples), {})

    sources = shards.sources | {"shards": shards.place}
    faces, voices = modality(shards.faces), modality(shards.voices, shards.voice_samples)
    return Corpus(faces, voices, dict(shards.speakers), sources=sources)


class _Decoded(Sequence):
    """Captures decoded when they are asked for, once: of a batch that processes share, each needs a part."""

    def __init__(self, captures: list[Capture], decode: Callable[[Capture], NDArray[Any]]) -> None:
        self._captures, self._decode = captures, decode
        self._made: dict[int, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self._captures)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if index not in self._made:
            self._made[index] = self._decode(self._captures[index])
        return self._made[index]


class ShardSampler(Sampler):
    """`Sampler` on a stream: two faces and two voices of each of batch_size / 2 recordings, or, with positives of tracks,
    one of each of batch_size recordings. Their augmentation and features are the `Sampler`'s own.
    """

    def __init__(self, shards: ShardSet, config: TrainConfig) -> None:
        self.whole = corpus_of(shards)
        super().__init__(self.whole, config)
        self.lanes = [_Lane(shards, lane, config.seed) for lane in range(min(LANES, len(shards.shards)))]

    def draw(self, step: int) -> Batch:
        of_tracks = self.config.positives == "track"
        count = self.config.batch_size // (1 if of_tracks else 2)
        turn, lane = divmod(step, len(self.lanes))
        samples = self.lanes[lane].take(turn * count, count)
        rows = [(sample, 0) for sample in samples]
        if not of_tracks:
            rows += [(sample, 1) for sample in samples]
        spec = self.config.face_spec
        crops = _Decoded(
            [sample.faces[min(i, len(sample.faces) - 1)] for sample, i in rows], partial(_face, spec=spec)
        )
        sounds = _Decoded([sample.voices[min(i, len(sample.voices) - 1)] for sample, i in rows], _voice)
        whole = self.whole
        self.corpus = replace(
            whole,
            faces=Modality(whole.faces.names, _labels(whole.faces, [s.face for s, _ in rows]), crops, {}),
            voices=Modality(
                whole.voices.names, _labels(whole.voices, [s.speaker for s, _ in rows]), sounds, {}
            ),
        )
        self.speeds = [at_speed(sounds, speed) for speed in self.config.speeds]
        self.recordings = [sample.number for sample in samples]
        return super().draw(step)

    def _tracks(self, rng: Generator) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        rows = list(range(len(self.recordings)))
        return [0] * len(rows), rows, rows, rows, self.recordings

    def _choose(self, rng: Generator) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        people = len(self.recordings)
        speeds = [int(speed) for speed in rng.integers(0, len(self.speeds), people)] * 2
        rows = list(range(2 * people))
        paired = [row for row, speed in enumerate(speeds) if speed == 0]
        return speeds, rows, rows, paired, [int(self.corpus.faces.labels[row]) for row in paired]


class _Lane:
    """The endless, shuffled sequence of one lane's recordings; `take` goes on where it was, or skips to another place."""

    def __init__(self, shards: ShardSet, lane: int, seed: int) -> None:
        self.shards, self.lane, self.seed = shards, lane, seed
        self.lanes = min(LANES, len(shards.shards))
        self.position = 0
        self.stream: Iterator[Sample] | None = None

    def take(self, start: int, count: int) -> list[Sample]:
        if self.stream is None or start != self.position:
            self.stream = self._from(start)
        self.position = start + count
        return [next(self.stream) for _ in range(count)]

    def _from(self, start: int) -> Iterator[Sample]:
        epoch = 0
        while True:
            order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.shards.shards))
            dealt = [int(number) for number in order[self.lane :: self.lanes]]
            length = sum(self.shards.shards[number].samples for number in dealt)
            if start < length:
                yield from self._epoch(epoch, dealt, start)
            start = max(0, start - length)
            epoch += 1

    def _epoch(self, epoch: int, dealt: list[int], start: int) -> Iterator[Sample]:
        window, skip = divmod(start, WINDOW)
        samples = self._in_order(epoch, dealt, window * WINDOW)
        while held := list(islice(samples, WINDOW)):
            rng = np.random.default_rng((self.seed, 2, epoch, self.lane, window))
            shuffled = [held[i] for i in rng.permutation(len(held))]
            yield from shuffled[skip:]
            window, skip = window + 1, 0

    def _in_order(self, epoch: int, dealt: list[int], skip: int) -> Iterator[Sample]:
        for number in dealt:
            if skip >= self.shards.shards[number].samples:
                skip -= self.shards.shards[number].samples
                continue
            for sample in read_shard(self.shards, number, skip):
                rng = np.random.default_rng((self.seed, 3, epoch, sample.number))
                yield replace(sample, faces=_two(sample.faces, rng), voices=_two(sample.voices, rng))
            skip = 0


def _two(captures: tuple[Capture, ...], rng: Generator) -> tuple[Capture, ...]:
    """Two of them, in a random order; one where there is one: the rest of a recording need not stay in memory."""
    return tuple(captures[i] for i in rng.permutation(len(captures))[:2])


def _labels(modality: Modality, names: list[str]) -> NDArray[np.int64]:
    number = {name: label for label, name in enumerate(modality.names)}
    return np.array([number[name] for name in names], np.int64)


def _face(capture: Capture, spec: Any) -> NDArray[np.uint8]:
    eyes = None if capture.detail is None else tuple(capture.detail)
    try:
        return decode_face(capture.data, spec, eyes)
    except CaptureError as error:
        raise CaptureError(f"{capture.name}: {error}", code=error.code, hint=error.hint) from error


def _voice(capture: Capture) -> NDArray[np.int16]:
    try:
        return decode_voice(capture.data)[0]
    except CaptureError as error:
        raise CaptureError(f"{capture.name}: {error}", code=error.code, hint=error.hint) from error
