"""Voices that nobody has, made and labeled by the teacher while the student trains: a source for `distill` on a GPU.

Each pair of a batch is one stretch of a clip, played at another speed, from another vocal tract, and colored by chance and by
part of what another clip differs by, which makes another speaker of it. The teacher embeds the clean stretch; the student
hears two crops of it, each with its own nuisances. No stretch comes twice, so that the student learns what the teacher does
rather than what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from edgepin_kernels import LogMelSpec

from .distill import DistillBatch, TargetSpace
from .log_mel_tensors import LogMelTensors
from .sound_tensors import Nuisances, color, curve, mask, play, reshape_spectrum
from .sources import STREAM, generator_at, numbered
from .views import HOP, WINDOW

STRETCH = 96_000  # samples: 6 s, what a pair of crops is cut from
_LENGTHS = (25_600, 32_000, 38_400, 48_000, 57_600)  # samples of a crop: few, since a GPU plans for each anew
_STREAM = STREAM["online voices"]
_PLAIN = 0.2  # of the pairs are as they were recorded
_SPEED, _FORMANTS, _GAINS = 0.11, 0.06, 3.0  # standard deviations: nats, nats, dB


@dataclass(frozen=True)
class Clips:
    """PCM at 16 kHz, and the speaker of each, (n,): from 0 on, or -1 for an unknown one."""

    pcm: Sequence[NDArray[np.int16]]
    speakers: NDArray[np.int64]


class OnlineVoiceSource:
    """Batches on `device`. A clip's share grows with the root of its length."""

    classes = 1  # nobody's label is known: made speakers have none

    def __init__(
        self,
        sets: Sequence[Clips],
        shares: Sequence[float],
        teacher: nn.Module,
        *,
        batch_size: int,
        device: torch.device,
        log_mel: str = "kaldi",
        augment: float = 1.0,
        centering: float = 1.0,
        seed: int = 0,
    ) -> None:
        """`shares` of each batch sum to 1. `teacher` embeds (N, 25440). The target space is that of all clips."""
        self._device, self._augment, self._seed, self._pairs = device, augment, seed, batch_size // 2
        clips = [np.asarray(clip, np.int16) for part in sets for clip in part.pcm]
        self._pcm = torch.from_numpy(np.concatenate(clips)).to(device)
        lengths = np.array([len(clip) for clip in clips], np.int64)
        self._lengths = torch.from_numpy(lengths).to(device)
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        speakers, _ = numbered([part.speakers for part in sets])
        self._speakers = torch.from_numpy(np.concatenate(speakers)).to(device)
        roots = [np.sqrt([len(clip) for clip in part.pcm]) for part in sets]
        weights = np.concatenate(
            [share * root / root.sum() for share, root in zip(shares, roots, strict=True)]
        )
        self._weights = torch.from_numpy(weights).to(device)
        self._teacher = teacher.to(device)
        self._log_mel = LogMelTensors(LogMelSpec.preset(log_mel)).to(device)
        self._nuisances = Nuisances(device)
        self._bins = torch.arange(257, dtype=torch.float32, device=device)
        embeddings, self._colors = self._plain()
        space = TargetSpace(embeddings, centering)
        self.center: Tensor = space.center.to(device)
        self._space: Callable[[Tensor], Tensor] = space.on(device)

    @torch.no_grad()
    def draw(self, step: int) -> DistillBatch:
        chance = generator_at(self._seed, _STREAM, step, self._device)
        # Drawn on the processor, which needs it to ask for so much memory.
        samples = _LENGTHS[int(np.random.default_rng((self._seed, _STREAM, step)).integers(len(_LENGTHS)))]
        pairs = self._pairs
        clips = torch.multinomial(self._weights, pairs, replacement=True, generator=chance)
        stretch = self._stretch(clips, chance)
        rows = self._teacher(stretch.unfold(1, WINDOW, HOP).reshape(-1, WINDOW)).reshape(pairs, -1, 256)
        at = (
            torch.rand(2 * pairs, generator=chance, device=self._device) * ((STRETCH - samples) // 160 + 1)
        ).long() * 160
        twice = stretch.repeat(2, 1)
        crops = twice.gather(1, at[:, None] + torch.arange(samples, device=self._device))
        heard = self._nuisances(crops, crops.roll(1, 0), self._augment, chance)
        features = mask(self._log_mel(heard), self._augment, chance)
        groups = torch.where(
            self._speakers[clips] >= 0, self._speakers[clips], -1 - torch.arange(pairs, device=self._device)
        )
        return DistillBatch(
            features,
            self._space(targets(rows.repeat(2, 1, 1), at, samples)),
            torch.full((2 * pairs,), -1, device=self._device),
            groups,
        )

    def _stretch(self, clips: Tensor, chance: Generator) -> Tensor:
        """(pairs, STRETCH), each of another made speaker."""
        count = len(clips)

        def spread(columns: int, deviation: float) -> Tensor:
            made = torch.randn(count, columns, generator=chance, device=self._device) * deviation
            return torch.where(plain, 0.0, made.clamp(-2.5 * deviation, 2.5 * deviation))

        plain = torch.rand(count, 1, generator=chance, device=self._device) < _PLAIN
        speed = spread(1, _SPEED)[:, 0].double().exp()
        formants, gains = spread(1, _FORMANTS)[:, 0].exp(), spread(8, _GAINS)
        others = torch.randint(len(self._lengths), (count,), generator=chance, device=self._device)
        share = torch.rand(count, 1, generator=chance, device=self._device)
        share = torch.where(plain | (share < 0.5), 0.0, 2 * share - 1)
        another = (self._colors[others] - self._colors[clips]).clamp(-2.5, 2.5)
        colors = curve(gains, self._bins) + share * another
        lengths = self._lengths[clips]
        first = torch.rand(count, generator=chance, device=self._device, dtype=torch.float64) * (
            lengths - STRETCH * speed
        ).clamp_min(1.0)
        played = play(self._pcm, self._starts[clips], lengths, first.floor(), speed, STRETCH)
        return reshape_spectrum(played, formants, colors)

    @torch.no_grad()
    def _plain(self) -> tuple[NDArray[np.float32], Tensor]:
        """The teacher's embeddings, and the colors, of the beginning of each clip as it was recorded."""
        rows, colors = [], []
        for clips in torch.arange(len(self._lengths), device=self._device).split(64):
            at = torch.zeros(len(clips), dtype=torch.float64, device=self._device)
            voices = play(self._pcm, self._starts[clips], self._lengths[clips], at, at + 1, 2 * WINDOW)
            rows.append(self._teacher(voices[:, :WINDOW]).float().cpu())
            colors.append(color(voices))
        return torch.cat(rows).numpy(), torch.cat(colors)


def targets(rows: Tensor, at: Tensor, samples: int) -> Tensor:
    """What the teacher says of crops: the mean of the windows whose middle they cover, and of the whole stretch.

    Args:
        rows: (N, windows, D), the teacher's of the stretch each crop is from, one every 0.8 s.
        at: int64 (N,), where each crop begins, in samples; samples: how long all are, 1.6 s at least.

    Returns:
        (N, D), unit vectors. One window is noisy; the stretch's mean is nearer to who speaks, the crop's to what is heard.
    """
    middles = torch.arange(rows.shape[1], device=rows.device) * HOP + WINDOW // 2
    inside = (middles >= at[:, None]) & (middles <= at[:, None] + samples)
    covered = functional.normalize((rows * inside[:, :, None]).sum(dim=1), dim=1)
    return functional.normalize(covered + functional.normalize(rows.mean(dim=1), dim=1), dim=1)
