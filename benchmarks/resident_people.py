"""Rendered people in the memory of the device that trains, where batches are drawn: for more of them than files are read in time.

Faces are aligned by the eyes that the generator knows, moved as the Haar finder moves them: to find each face would take
three quarters of the time. Of voices the log-mel is kept, which has no frame that depends on another one. So a batch is
flips and crops alone, and the augmentations of `edgepin_training.sampler` are left out.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.rendered_people import SEED
from edgepin._capture.audio import trim_silence
from edgepin._capture.crop import Face, align
from edgepin._capture.image import decode_image
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus, Modality
from edgepin_training.rendered import SETTINGS, capture_seed, make_person, render_face, render_voice
from edgepin_training.sampler import Batch, Sampler

CAPTURES = 2
CHUNK = 100  # people of a file
# Where the Haar finder sees the eyes, less where they are: left x, y, right x, y as (along, across) the line between them, in
# its lengths. Mean and covariance over 500 captures of people from number 100,000 on, none of whom is trained on here.
FINDER_MEAN = np.array([-0.0154, -0.0178, 0.0061, -0.0157])
FINDER_COVARIANCE = 1e-6 * np.array(
    [[359, -21, -45, 109], [-21, 360, -87, -85], [-45, -87, 415, 45], [109, -85, 45, 343]]
)


@dataclass(frozen=True)
class ResidentPeople:
    """Capture c of person i is row CAPTURES * i + c."""

    crops: Tensor  # (rows, S, S, 3) uint8
    frames: Tensor  # (sum of counts, M) float16, the log-mels one behind the other
    starts: Tensor  # (rows,) int64
    counts: Tensor  # (rows,) int64

    def __len__(self) -> int:
        return len(self.counts) // CAPTURES


class ResidentSampler(Sampler):
    """Batches of two captures each of people by chance. Batch `step` depends on (seed, step) and the device's generator."""

    def __init__(self, people: ResidentPeople, config: TrainConfig) -> None:
        self.people, self.config = people, config
        self._span = torch.arange(_crop_frames(config), device=people.counts.device)

    @property
    def voice_classes(self) -> int:
        return len(self.people)

    def draw(self, step: int) -> Batch:
        people, device = self.people, self.people.counts.device
        rng = torch.Generator(device).manual_seed(1_000_003 * self.config.seed + step)
        count = self.config.batch_size // 2
        chosen = torch.randperm(len(people), generator=rng, device=device)[:count]
        first = torch.randint(0, CAPTURES, (2, count), generator=rng, device=device)
        rows = torch.cat([CAPTURES * chosen + first, CAPTURES * chosen + 1 - first], dim=1)
        chance = torch.rand((2, 2 * count), generator=rng, device=device)
        crops = people.crops[rows[0]]
        crops = torch.where((chance[0] < 0.5)[:, None, None, None], crops.flip(2), crops)
        room = people.counts[rows[1]] - len(self._span) + 1
        begin = people.starts[rows[1]] + (chance[1] * room).long().clamp_max(room - 1)
        labels = chosen.repeat(2)
        every = torch.arange(2 * count, device=device)
        log_mels = people.frames[begin[:, None] + self._span].float()
        return Batch(crops, labels, log_mels, labels, every, labels)


class _Elsewhere(Sequence[NDArray[Any]]):
    """Items that are counted here and drawn by the sampler."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        raise IndexError("these captures are with their sampler")


def corpus_of(people: ResidentPeople, config: TrainConfig) -> Corpus:
    """What a run is told of them."""
    names = tuple(f"person-{number:04d}" for number in range(len(people)))
    labels = np.repeat(np.arange(len(people)), CAPTURES)
    hop = LogMelSpec.preset(config.log_mel).hop_length
    items = _Elsewhere([hop * frames for frames in people.counts.tolist()])
    faces, voices = Modality(names, labels, items, {}), Modality(names, labels, items, {})
    pairs = {name: name for name in names}
    return Corpus(faces, voices, pairs, sources={"rendered": len(people), "resident": True})


def render_here(people: int, first: int, config: TrainConfig) -> Corpus:
    """A few people as crops and PCM, in this process."""
    names = tuple(f"person-{number:04d}" for number in range(first, first + people))
    captures = [made for index in range(first, first + people) for made in _captures(index, config)]
    labels = np.repeat(np.arange(people), CAPTURES)
    crops, sounds = (list(items) for items in zip(*captures, strict=True))
    faces, voices = Modality(names, labels, crops, {}), Modality(names, labels, sounds, {})
    return Corpus(faces, voices, {name: name for name in names}, sources={"rendered": people})


def render_people(
    folder: Path,
    people: int,
    config: TrainConfig,
    *,
    first: int = 0,
    seconds: float = 0.0,
    processes: int = 0,
) -> int:
    """Render `people` from number `first` on into `folder`, as far as `seconds` take (0: to the end); how many there are now.

    It goes on where a call before stopped. `processes` 0 is one for each processor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds if seconds else float("inf")
    jobs = [(folder, start, config) for start in range(first, first + people, CHUNK)]
    workers = min(processes or os.cpu_count() or 1, len(jobs))
    pool = multiprocessing.get_context("spawn").Pool(workers, _one_thread)
    with pool:  # which ends the workers: a chunk that is not finished has no name yet
        made = pool.imap(_render_chunk, jobs)
        for _ in jobs:
            try:
                made.next(max(0.0, min(until - time.monotonic(), 1e6)))
            except multiprocessing.TimeoutError:
                break
    return CHUNK * len(list(_chunks(folder, first, people)))


def load_resident(folder: Path, people: int, device: torch.device, *, first: int = 0) -> ResidentPeople:
    """What `render_people` has made of `people` from number `first` on, up to the first gap, in the device's memory."""
    chunks = list(_chunks(folder, first, people))
    counts = np.concatenate([np.load(chunk)["counts"] for chunk in chunks])
    starts = np.concatenate([[0], np.cumsum(counts)])
    shapes = {name: np.load(chunks[0])[name].shape[1:] for name in ("crops", "frames")}
    crops = torch.empty((len(counts), *shapes["crops"]), dtype=torch.uint8, device=device)
    frames = torch.empty((int(starts[-1]), *shapes["frames"]), dtype=torch.float16, device=device)
    row = 0
    for chunk in chunks:
        with np.load(chunk) as part:
            end = row + len(part["counts"])
            crops[row:end] = torch.from_numpy(part["crops"]).to(device)
            frames[int(starts[row]) : int(starts[end])] = torch.from_numpy(part["frames"]).to(device)
            row = end
    return ResidentPeople(
        crops, frames, torch.from_numpy(starts[:-1]).to(device), torch.from_numpy(counts).to(device)
    )


def _crop_frames(config: TrainConfig) -> int:
    return LogMelSpec.preset(config.log_mel).num_frames(int(config.voice_seconds * 16000))


def _chunk(folder: Path, start: int) -> Path:
    return folder / f"people-{start:07d}.npz"


def _chunks(folder: Path, first: int, people: int) -> Iterator[Path]:
    for start in range(first, first + people, CHUNK):
        if not _chunk(folder, start).exists():
            return
        yield _chunk(folder, start)


def _one_thread() -> None:
    """There is a process for each processor already."""
    cv2.setNumThreads(1)


def _render_chunk(job: tuple[Path, int, TrainConfig]) -> None:
    folder, start, config = job
    path = _chunk(folder, start)
    if path.exists():
        return
    log_mel, needed = LogMel(LogMelSpec.preset(config.log_mel)), _crop_frames(config)
    crops, features = [], []
    for index in range(start, start + CHUNK):
        for crop, pcm in _captures(index, config):
            voice = log_mel(pcm)
            crops.append(crop)
            features.append(np.tile(voice, (-(-needed // len(voice)), 1)).astype(np.float16))
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(
            file,
            crops=np.stack(crops),
            frames=np.concatenate(features),
            counts=np.array([len(rows) for rows in features]),
        )
    os.replace(part, path)


def _captures(index: int, config: TrainConfig) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int16]]]:
    """The crops and the trimmed voices of a person."""
    person = make_person(SEED, index, SETTINGS["reference"])
    for capture in range(CAPTURES):
        drawn = render_face(person, capture_seed(SEED, index, "face", capture))
        quality = [cv2.IMWRITE_JPEG_QUALITY, drawn.jpeg_quality]
        _, encoded = cv2.imencode(".jpg", drawn.image[:, :, ::-1], quality)
        eyes = _as_found(drawn.left_eye, drawn.right_eye, np.random.default_rng((SEED, index, capture)))
        crop = align(decode_image(encoded.tobytes()), eyes, config.face_spec)
        yield crop, trim_silence(render_voice(person, capture_seed(SEED, index, "voice", capture)))


def _as_found(left: tuple[float, float], right: tuple[float, float], rng: np.random.Generator) -> Face:
    """The eyes, as far off as the finder sees them."""
    along = complex(*right) - complex(*left)
    off = rng.multivariate_normal(FINDER_MEAN, FINDER_COVARIANCE)
    seen_left, seen_right = (
        complex(*eye) + complex(off[i], off[i + 1]) * along for eye, i in ((left, 0), (right, 2))
    )
    return Face(
        (seen_left.real, seen_left.imag), (seen_right.real, seen_right.imag), (0.0, 0.0, 1.0, 1.0), 1.0
    )
