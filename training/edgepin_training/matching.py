"""The two-stage form: embeddings of frozen encoders, and a head that learns to match them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgepin._bundle.manifest import EMBEDDING_DIM


class MatchingHead(nn.Module):
    """An encoder that stays as it is, and two layers on its `identity` (what its softmax saw) that give the `pin`."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.head = nn.Sequential(
            nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM), nn.ReLU(), nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        )

    def train(self, mode: bool = True) -> MatchingHead:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            identity, _ = self.encoder(item)
        return identity, functional.normalize(self.head(identity), dim=1)
