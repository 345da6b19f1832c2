"""The loss that brings the modalities of a person together: over every pair of a set of them."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from .config import TrainConfig
from .losses import contrastive, orthogonality, symmetric_info_nce, triplet
from .mining import hardness_at, miner


def joint_loss(
    embeddings: dict[str, Tensor], labels: Tensor, config: TrainConfig, step: int
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The cross-modal loss, the mean over all pairs of modalities, and what there is to report.

    `embeddings` maps two or more modalities to unit vectors (N, D), in which row i is of person `labels[i]` (int64, (N,))
    in all of them. A mined loss looks for negatives of each modality in the other, both ways.
    """
    pairs = list(combinations(embeddings.values(), 2))
    loss = torch.stack([_pair_loss(a, b, labels, config, step) for a, b in pairs]).mean()
    figures: dict[str, Tensor | float] = {"cross_modal_loss": loss.detach()}
    if config.cross_modal_loss != "info_nce" and config.mining == "curriculum":
        figures["hardness"] = hardness_at(config.hardness, step, config.steps)
    if config.orthogonality_weight:
        apart = orthogonality(torch.cat(list(embeddings.values())), labels.repeat(len(embeddings)))
        figures["orthogonality_loss"] = apart.detach()
        loss = loss + config.orthogonality_weight * apart
    return loss, figures


def _pair_loss(a: Tensor, b: Tensor, labels: Tensor, config: TrainConfig, step: int) -> Tensor:
    if config.cross_modal_loss == "info_nce":
        return symmetric_info_nce(a, b, labels, temperature=config.temperature)
    measure = {"contrastive": contrastive, "triplet": triplet}[config.cross_modal_loss]
    mine = miner(
        config.mining,
        hardness=hardness_at(config.hardness, step, config.steps),
        margin=config.cross_modal_margin,
    )
    with torch.no_grad():
        distances = torch.cdist(a, b)
        forth, back = mine(distances, labels), mine(distances.T, labels)
    margin = config.cross_modal_margin
    return (measure(a, b, forth, b, margin=margin) + measure(b, a, back, a, margin=margin)) / 2
