"""The losses, as small functions of embeddings. Which negatives a loss sees is decided apart from it: `mining`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def additive_margin_softmax(
    embeddings: Tensor, centers: Tensor, labels: Tensor, *, margin: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Additive-margin softmax (Wang et al. 2018, eq. 6): loss (scalar) and accuracy (scalar, without the margin).

    `embeddings` (N, D) are unit vectors, `centers` (C, D) any, `labels` (N,) int64 in [0, C).
    """
    cosines = embeddings @ functional.normalize(centers, dim=1).T
    accuracy = (cosines.argmax(dim=1) == labels).float().mean()
    target = functional.one_hot(labels, centers.shape[0]).to(cosines.dtype)
    return functional.cross_entropy(scale * (cosines - margin * target), labels), accuracy


def symmetric_info_nce(a: Tensor, b: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3) between rows of `a` and `b` (N, D), unit vectors.

    Row i of both is the same person; `labels` (N,) says which. Another row of the same person is no negative:
    it is left out of that row's denominator.
    """
    logits = a @ b.T / temperature
    same = labels[:, None] == labels[None, :]
    others = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(len(labels), device=labels.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def contrastive(
    anchors: Tensor, positives: Tensor, mined: tuple[Tensor, Tensor], candidates: Tensor, *, margin: float
) -> Tensor:
    """Contrastive loss (Hadsell et al. 2006, eq. 4, without its halves): scalar.

    `anchors` and `positives` (N, D) belong together row by row; `mined` is two (M,) int64 tensors, the row of an
    anchor and the row of `candidates` that is its negative. With Euclidean distances d,

        mean d(anchor, positive)^2 + mean max(0, margin - d(anchor, negative))^2

    where each mean is over its own pairs.
    """
    pull = (anchors - positives).square().sum(dim=1).mean()
    square = _squared_distances(anchors, candidates)[mined]
    if not len(square):
        return pull
    # The root's slope is infinite at 0: two equal rows get a gradient of zero.
    distance = torch.sqrt(torch.where(square > 0, square, 1.0)) * (square > 0)
    return pull + functional.relu(margin - distance).square().mean()


def triplet(
    anchors: Tensor, positives: Tensor, mined: tuple[Tensor, Tensor], candidates: Tensor, *, margin: float
) -> Tensor:
    """Triplet loss (Schroff et al. 2015, eq. 2): the mean of max(0, d(a, p)^2 - d(a, n)^2 + margin); scalar.

    The arguments are those of `contrastive`. Zero, with a gradient of zero, where nothing was mined. Which
    negatives it sees (semi-hard, hard, ...) is the mining's affair.
    """
    rows, _ = mined
    if not len(rows):
        return 0.0 * anchors.sum()
    near = (anchors - positives).square().sum(dim=1)[rows]
    return functional.relu(near - _squared_distances(anchors, candidates)[mined] + margin).mean()


def orthogonality(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Orthogonal projection loss (Ranasinghe et al. 2021, section 3.2, with a weight of 1): scalar.

    `embeddings` (N, D) are unit vectors of any modality. With s the mean cosine of the pairs of one person and d that of the
    pairs of two, (1 - s) + |d|: one person's vectors fall together, two persons' stand at right angles. A kind of
    pair that the batch lacks adds nothing.
    """
    cosines = embeddings @ embeddings.T
    same = labels[:, None] == labels[None, :]
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    loss = 0.0 * embeddings.sum()
    if (same & other).any():
        loss = loss + 1.0 - cosines[same & other].mean()
    if (~same).any():
        loss = loss + cosines[~same].mean().abs()
    return loss


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) of the rows of `a` (N, D) and `b` (M, D)."""
    square = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :] - 2 * a @ b.T
    return square.clamp(min=0.0)
