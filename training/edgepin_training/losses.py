"""The losses, as small functions of embeddings."""

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
    others = same & ~torch.eye(len(labels), dtype=torch.bool)
    logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(len(labels))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
