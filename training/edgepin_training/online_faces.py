"""Faces that nobody has, labeled by the teacher while the student trains.

With a GPU the teacher embeds a batch of new faces (`face_tensors`) in less time than the student takes to learn from it,
so no two batches show the same face. Everything of a batch is made where the student is; batch `step` depends on the
seed, the step and the kind of device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from edgepin._errors import UsageError

from .distill import DistillBatch, TargetSpace
from .face_chips import FaceChips
from .face_nuisances import degrade, moves
from .face_tensors import Known, NewFaces, Warp, WarpOptions
from .sources import STREAM, generator_at, numbered

_STREAM = STREAM["online faces"]
_AT_ONCE = 256  # chips for the teacher


@dataclass(frozen=True)
class OnlineFaceOptions:
    """What a batch is made of. The shares are of its pairs of real people."""

    warp: WarpOptions = field(default_factory=WarpOptions)
    blended: float = 0.4  # pairs that show two people's faces in one
    captures: float = 0.2  # pairs of two captures of one person, where there are people with several
    rendered: float = 0.1  # of all pairs: rendered people
    augment: float = 1.0  # the strength of the student's nuisances
    centering: float = 1.0  # see `TargetSpace`

    def __post_init__(self) -> None:
        for name in ("blended", "captures", "rendered", "centering"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in 0-1")
        if self.blended + self.captures > 1:
            raise UsageError("blended and captures are shares of the same pairs: together at most 1")
        if not 0 <= self.augment <= 3:
            raise UsageError("augment must lie in 0-3")


class OnlineFaceSource:
    """A `Source`. Rows i and i + N/2 are two views of one new face or, of some people, of two captures of them.

    A batch holds, in its first half: pairs of captures (of rendered, then of real people), single captures, and blends.
    Two captures of one person are warped alike, and the teacher says of each what it shows.
    """

    def __init__(
        self,
        real: FaceChips,
        rendered: FaceChips,
        teacher: nn.Module,
        options: OnlineFaceOptions,
        *,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        clean: NDArray[np.float32] | None = None,
    ) -> None:
        """`teacher`: float (n, 150, 150, 3), RGB 0-255 -> (n, D); it is moved to `device`.

        The target space is that of the real people's clean chips; `clean` (n, D) is what the teacher says of them, where
        that is known already.

        Raises:
            UsageError: the batch cannot be filled with different captures.
        """
        self.options, self._seed, self._device = options, seed, torch.device(device)
        self._teacher = teacher.eval().to(self._device).to(memory_format=torch.channels_last)
        parts, self.classes = numbered([real.labels, rendered.labels])
        labels = np.concatenate(parts)
        self._labels = self._put(labels)
        self._known = Known(
            self._put(np.concatenate([real.crops, rendered.crops])),
            self._put(np.concatenate([real.maps, rendered.maps])),
        )
        order, starts, counts = _captures(labels)
        self._order, self._starts, self._counts = (self._put(x) for x in (order, starts, counts))
        self._places = self._put(np.argsort(order))
        first = np.arange(len(labels)) < len(real.labels)
        pairs = batch_size // 2
        rendered_pairs = round(options.rendered * pairs)
        several_real = np.flatnonzero((counts > 1) & first)
        real_pairs = pairs - rendered_pairs
        captures = round(options.captures * real_pairs) if len(several_real) else 0
        blends = min(round(options.blended * real_pairs), real_pairs - captures)
        # By part of the batch: which captures it is drawn from, without repetition, and how many.
        self._parts = [
            (self._put(np.flatnonzero(~first)), rendered_pairs),
            (self._put(several_real), captures),
            (self._put(np.flatnonzero(first)), real_pairs - captures),
        ]
        if any(len(pool) < count for pool, count in self._parts) or pairs < 2:
            raise UsageError(f"batches of {batch_size} need more captures, or fewer of each kind")
        self._doubles, self._blends = rendered_pairs + captures, blends
        if clean is None:
            clean = self._clean(len(real.labels))
        if len(clean) != len(real.labels):
            raise UsageError(f"{len(clean)} embeddings do not go with {len(real.labels)} captures")
        space = TargetSpace(clean, options.centering)
        self.center = space.center.to(self._device)
        self._space = space.on(self._device)

    def draw(self, step: int) -> DistillBatch:
        with torch.no_grad():
            return self._draw(generator_at(self._seed, _STREAM, step, self._device))

    def _draw(self, generator: Generator) -> DistillBatch:
        rows = torch.cat([pool[self._shuffled(len(pool), generator)[:count]] for pool, count in self._parts])
        real = self._parts[2][0]
        partners = real[self._shuffled(len(real), generator)[: self._blends]]
        low, high = self.options.warp.blend
        weights = low + (high - low) * torch.rand(self._blends, generator=generator, device=self._device)
        warp, plain = Warp.draw(len(rows), generator, self.options.warp)
        faces = NewFaces(self._known[rows], warp, self._known[partners], weights)

        doubles = self._doubles
        step = torch.rand(doubles, generator=generator, device=self._device)
        others = torch.cat([self._other(rows[:doubles], step), rows[doubles:]])
        again = NewFaces(self._known[others], warp, faces.partners, weights)
        chips = torch.cat([faces.chips(), again.first(doubles).chips()])
        targets = self._space(self._embed(chips))
        targets = torch.cat([targets[: len(rows)], targets[len(rows) :], targets[doubles : len(rows)]])

        side = self._known.crops.shape[1]
        strength = self.options.augment
        views = [view.crops(moves(len(rows), side, generator, strength)) for view in (faces, again)]
        inputs = degrade(torch.cat(views), generator, strength)

        number = torch.arange(len(rows), device=self._device)
        people = self._labels[rows]
        single = number < len(rows) - self._blends
        labels = torch.where(plain & single, people, -1)
        # Warps of one person are no negatives of each other, as they are alike.
        groups = torch.where(single & (people >= 0), people, -1 - number)
        return DistillBatch(inputs, targets, torch.cat([labels, labels]), groups)

    def _other(self, rows: Tensor, chance: Tensor) -> Tensor:
        """Another capture of the person of each row; the same one where there is no other. `chance` is in [0, 1)."""
        counts = self._counts[rows]
        ahead = 1 + (chance * (counts - 1)).long()
        starts = self._starts[rows]
        return self._order[starts + (self._places[rows] - starts + ahead) % counts]

    def _shuffled(self, count: int, generator: Generator) -> Tensor:
        return torch.randperm(count, generator=generator, device=self._device)

    def _embed(self, chips: Tensor) -> Tensor:
        # No activation of dlib's network comes near half precision's limits.
        with torch.autocast(self._device.type, torch.float16, enabled=self._device.type == "cuda"):
            embeddings: Tensor = self._teacher(chips)
        return embeddings.float()

    def _clean(self, count: int) -> NDArray[np.float32]:
        embeddings = []
        with torch.no_grad():
            for start in range(0, count, _AT_ONCE):
                known = self._known[slice(start, min(start + _AT_ONCE, count))]
                embeddings.append(self._embed(known.chips()).cpu().numpy())
        return np.concatenate(embeddings)

    def _put(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


def _captures(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The captures in an order by person and, of each capture, where that person's begin in it and how many they are.

    An unknown person (-1) has one capture.
    """
    people = np.where(labels >= 0, labels, labels.max(initial=0) + 1 + np.arange(len(labels)))
    order = np.argsort(people, kind="stable")
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    return order, starts[person], counts[person]
