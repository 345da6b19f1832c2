"""Which negative an anchor is held against: indices from a matrix of distances, and nothing else.

Throughout, `distances` (N, N) holds the distance of anchor i (one modality) to candidate j (the other), and
`labels` (N,) int64 says whose row i is, in both. A candidate with another label is a negative of the anchor. Each
function returns `(anchors, negatives)`, two int64 tensors of one length with one entry per anchor that has such a
negative: `distances[anchors[k], negatives[k]]` is the distance of the k-th mined pair. An anchor without one is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Mined = tuple[Tensor, Tensor]


def curriculum(distances: Tensor, labels: Tensor, *, hardness: float) -> Mined:
    """The negative at a percentile of hardness (Learnable PINs, Nagrani et al. 2018: curriculum mining).

    An anchor's n negatives are ranked from the farthest (easiest, percentile 0) to the nearest (hardest, 1); the one
    whose rank is nearest to `hardness` (n - 1) is taken, the easier one at a tie.
    """
    negatives = _negatives(labels)
    # What is no negative goes behind all negatives.
    ranked = distances.masked_fill(~negatives, float("-inf")).argsort(dim=1, descending=True, stable=True)
    count = negatives.sum(dim=1)
    anchors = (count > 0).nonzero().flatten()
    rank = torch.ceil(hardness * (count[anchors] - 1).double() - 0.5).long().clamp(min=0)
    # The rank says where in `ranked` the negative's index stands; it is not itself that index.
    return anchors, ranked[anchors, rank]


def hard(distances: Tensor, labels: Tensor) -> Mined:
    """The nearest negative."""
    negatives = _negatives(labels)
    anchors = negatives.any(dim=1).nonzero().flatten()
    return anchors, distances.masked_fill(~negatives, float("inf"))[anchors].argmin(dim=1)


def semi_hard(distances: Tensor, labels: Tensor, *, margin: float) -> Mined:
    """The nearest negative that is farther than the positive, and not by more than `margin` (Schroff et al. 2015, eq. 4).

    The positive of anchor i is candidate i. Distances are compared squared, as in the triplet loss.
    """
    positive = distances.diagonal()[:, None]
    squared = distances.square()
    fitting = _negatives(labels) & (distances > positive) & (squared < positive.square() + margin)
    anchors = fitting.any(dim=1).nonzero().flatten()
    return anchors, distances.masked_fill(~fitting, float("inf"))[anchors].argmin(dim=1)


def random(distances: Tensor, labels: Tensor) -> Mined:
    """Any negative, each as likely, drawn from torch's generator."""
    negatives = _negatives(labels)
    anchors = negatives.any(dim=1).nonzero().flatten()
    if not len(anchors):
        return anchors, anchors
    return anchors, torch.multinomial(negatives[anchors].float(), 1).flatten()


def every(distances: Tensor, labels: Tensor) -> Mined:
    """All negatives of all anchors."""
    anchors, negatives = _negatives(labels).nonzero(as_tuple=True)
    return anchors, negatives


MINING = ("curriculum", "semi_hard", "hard", "random", "all")


def miner(name: str, *, hardness: float, margin: float) -> Callable[[Tensor, Tensor], Mined]:
    """The function of that name among `MINING`, with what it needs bound."""
    named: dict[str, Callable[[Tensor, Tensor], Mined]] = {
        "curriculum": lambda distances, labels: curriculum(distances, labels, hardness=hardness),
        "semi_hard": lambda distances, labels: semi_hard(distances, labels, margin=margin),
        "hard": hard,
        "random": random,
        "all": every,
    }
    return named[name]


def hardness_at(schedule: Sequence[float], step: int, steps: int) -> float:
    """The curriculum's percentile at `step` of `steps`: each of `schedule` holds for as long as every other."""
    return schedule[min(len(schedule) - 1, step * len(schedule) // max(1, steps))]


def _negatives(labels: Tensor) -> Tensor:
    return labels[:, None] != labels[None, :]
