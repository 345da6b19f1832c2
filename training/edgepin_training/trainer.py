"""The training loop: an identity loss for faces and for voices, and a joint loss of all modalities of who is paired."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepin._errors import UsageError
from edgepin_kernels import LogMel, LogMelSpec

from .augment import augment_face, augment_voice, crop_voice, mask_log_mel
from .checkpoint import CHECKPOINT_FILE, build_encoders, load_checkpoint, read_run, save_checkpoint, write_run
from .config import TrainConfig
from .corpus import Corpus, Mapped, Modality, sound_lengths, tracks_of
from .data.loader import batches
from .encoders import EMBEDDING_DIM
from .joint import joint_loss
from .losses import additive_margin_softmax, symmetric_info_nce
from .vggm import spectrogram
from .warm_start import start_from

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Batch:
    faces: Tensor  # (N, S, S, 3) uint8
    face_labels: Tensor  # (N,)
    log_mels: Tensor  # (N, T, M) float32
    voice_labels: Tensor  # (N,)
    paired: Tensor  # (P,) rows in which face and voice are the same person's
    pair_labels: Tensor  # (P,) who that is, or which recording
    others: dict[str, Tensor] = field(
        default_factory=dict
    )  # (P, ...) of further modalities, of the paired rows


class Sampler:
    """Draws batches. Batch `step` depends on (seed, step) alone, which makes a resumed run exact."""

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
        crops = np.stack(
            [augment_face(self.corpus.faces.items[index], rng, config.augment) for index in faces]
        )
        samples = int(config.voice_seconds * 16000)
        pcm = np.stack(
            [self._voice(index, speed, samples, rng) for index, speed in zip(voices, speeds, strict=True)]
        )
        features = self.features(pcm)
        mask_log_mel(features, rng, config.augment)
        speakers = len(self.corpus.voices.names)
        return Batch(
            torch.from_numpy(crops),
            torch.from_numpy(self.corpus.faces.labels[faces]),
            torch.from_numpy(features),
            torch.from_numpy(self.corpus.voices.labels[voices] + speakers * np.array(speeds)),
            torch.tensor(paired, dtype=torch.int64),
            torch.tensor(pair_labels, dtype=torch.int64),
            self._others([faces[row] for row in paired], rng),
        )

    def _others(self, faces: list[int], rng: Generator) -> dict[str, Tensor]:
        """A capture of each further modality of the people whose face captures these are."""
        names = [self.corpus.faces.names[self.corpus.faces.labels[index]] for index in faces]
        return {
            modality: torch.from_numpy(
                np.stack([self.corpus.others[modality].items[int(rng.choice(index[name]))] for name in names])
            )
            for modality, index in self.other_index.items()
            if names
        }

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


def train(
    corpus: Corpus,
    config: TrainConfig,
    out: Path,
    *,
    report: Report | None = None,
    workers: int = 0,
    sampler: Sampler | None = None,
) -> None:
    """Trains to `config.steps`, from the checkpoint in `out` if there is one. Raises UsageError if that one differs.

    `workers` processes make the batches (0: this one), the same ones however many. `sampler` draws them where the corpus's
    captures are elsewhere, such as `ShardSampler`.
    """
    summary = _summarize(corpus)
    start = 0
    sampler = sampler or Sampler(corpus, config)
    torch.manual_seed(config.seed)
    encoders = build_encoders(config, {name: other.items[0].shape for name, other in corpus.others.items()})
    modules = nn.ModuleDict(
        {
            **encoders,
            "centers": nn.ParameterDict(
                {
                    "face": nn.Parameter(torch.randn(len(corpus.faces.names), EMBEDDING_DIM)),
                    "voice": nn.Parameter(torch.randn(sampler.voice_classes, EMBEDDING_DIM)),
                }
            ),
        }
    )
    optimizer = _optimizer(modules, config)
    if (out / CHECKPOINT_FILE).exists():
        if read_run(out) != (config, summary):
            raise UsageError(f"{out} holds a run with other options or data", hint="choose another --out")
        start = load_checkpoint(out, modules, optimizer)
    else:
        if config.init:
            start_from(Path(config.init), encoders)
        elif config.matching_head:
            raise UsageError("a matching head needs trained encoders", hint="give their run with --init")
        write_run(out, config, summary)
    modules.train()
    began = time.monotonic()
    for step, batch in enumerate(batches(sampler, start, config.steps, workers), start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        torch.manual_seed(1_000_003 * config.seed + step)  # dropout, too, by step alone
        losses = _step(batch, modules, optimizer, config, step)
        done = step + 1
        if done % config.save_every == 0 or done == config.steps:
            save_checkpoint(out, done, modules, optimizer)
        elapsed = time.monotonic() - began
        figures = {
            "step": done,
            "steps": config.steps,
            **losses,
            "seconds_left": elapsed / (done - start) * (config.steps - done),
        }
        if done % 20 == 0 or done == config.steps:
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({name: round(value, 4) for name, value in figures.items()}) + "\n")
        if report:
            report(figures)


def learning_rate(config: TrainConfig, step: int) -> float:
    """A linear warm-up, then a half cosine to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(modules: nn.ModuleDict, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            modules.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(modules.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def _step(
    batch: Batch, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> dict[str, float]:
    face_identity, face_pin = modules["face"](batch.faces)
    voice_identity, voice_pin = modules["voice"](batch.log_mels)
    loss = torch.zeros(())
    figures: dict[str, float] = {}
    for modality, identity, labels in (
        ("face", face_identity, batch.face_labels),
        ("voice", voice_identity, batch.voice_labels),
    ):
        if not (config.identity_weight or config.contrastive_weight):
            continue
        # The classes tell who; the two captures of a person, held against everyone else's, tell it sooner where
        # most people have one or two captures and a class is hardly ever drawn.
        classes, accuracy = additive_margin_softmax(
            identity, modules["centers"][modality], labels, margin=config.margin, scale=config.scale
        )
        first, second = identity.chunk(2)
        contrast = symmetric_info_nce(first, second, labels.chunk(2)[0], temperature=config.temperature)
        loss = loss + config.identity_weight * classes + config.contrastive_weight * contrast
        figures |= {
            f"{modality}_loss": classes.item(),
            f"{modality}_contrast": contrast.item(),
            f"{modality}_accuracy": accuracy.item(),
        }
    if len(batch.paired) > 1:
        pins = {"face": face_pin[batch.paired], "voice": voice_pin[batch.paired]}
        pins |= {name: modules[name](item)[1] for name, item in batch.others.items()}
        cross, reported = joint_loss(pins, batch.pair_labels, config, step)
        loss = loss + config.cross_modal_weight * cross
        figures |= reported
    if not torch.isfinite(loss):
        raise UsageError("the loss is not finite any more", hint="lower learning_rate")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(modules.parameters(), 5.0)
    optimizer.step()
    return figures


def _halves(rows: list[tuple[int, int]]) -> list[int]:
    return [first for first, _ in rows] + [second for _, second in rows]


def _summarize(corpus: Corpus) -> dict[str, Any]:
    face, voice = corpus.faces, corpus.voices
    summary = {
        "faces": {"people": len(face.names), "captures": len(face.items), "refused": face.refused},
        "voices": {
            "people": len(voice.names),
            "captures": len(voice.items),
            "refused": voice.refused,
            "minutes": round(sum(sound_lengths(voice.items)) / 16000 / 60, 1),
        },
        "pairs": len(corpus.pairs),
        "held_out": corpus.held_out,
        "sources": corpus.sources,
    }
    if corpus.others:
        summary["others"] = {
            name: {
                "people": len(other.names),
                "captures": len(other.items),
                "shape": list(other.items[0].shape),
            }
            for name, other in corpus.others.items()
        }
    return summary


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
