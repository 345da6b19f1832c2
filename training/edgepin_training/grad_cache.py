"""The gradient cache: a contrastive loss over a batch whose graph doesn't fit in memory (Gao et al. 2021).

The loss needs the embeddings of the whole batch, but the graph behind them only one chunk at a time: embed everything
without a graph, take the loss's gradient with respect to the embeddings, then embed chunk by chunk again and carry that
gradient on. Twice the forward passes; the same step, if what an encoder makes of a row depends on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Embedded = tuple[Tensor, Tensor]
Encode = Callable[[str, Tensor], Embedded]


@dataclass(frozen=True)
class _Chunk:
    modality: str
    first: int
    last: int
    random: tuple[Tensor, ...]  # states of the generators before its first pass


class GradientCache:
    """Embeddings of a batch as leaves, and the chunks that they were made of.

    `encode(modality, items)` gives identity and pin, (N, D) each; `items` are tensors by modality; `chunk` is how many rows
    are embedded at a time. Random layers draw the same in both passes, and buffers (the running statistics of batch
    normalization) are changed by the second alone.

        cache = GradientCache(encode, modules, items, chunk)
        loss(cache.embeddings).backward()
        for part in cache.surrogates():
            part().backward()
    """

    def __init__(self, encode: Encode, modules: nn.Module, items: dict[str, Tensor], chunk: int) -> None:
        self._encode, self._items = encode, items
        self._chunks: list[_Chunk] = []
        self.embeddings: dict[str, Embedded] = {}
        kept = [(buffer, buffer.clone()) for buffer in modules.buffers()]
        with torch.no_grad():
            for modality, rows in items.items():
                made = []
                # Chunks of like size: no row is left over alone.
                for part in torch.arange(len(rows)).tensor_split(max(1, -(-len(rows) // chunk))):
                    first, last = (int(part[0]), int(part[-1]) + 1) if len(part) else (0, 0)
                    self._chunks.append(_Chunk(modality, first, last, _random_state(rows.device)))
                    made.append(encode(modality, rows[first:last]))
                identity, pin = (torch.cat(tensors) for tensors in zip(*made, strict=True))
                self.embeddings[modality] = identity.requires_grad_(), pin.requires_grad_()
            for buffer, before in kept:
                buffer.copy_(before)

    def surrogates(self) -> list[Callable[[], Tensor]]:
        """For each chunk what computes a scalar whose gradient is the chunk's share of the loss's.

        To be called in order, each followed by its backward pass. The last one is of the first modality, of which every
        process has rows.
        """
        order = list(self.embeddings)[::-1]
        chunks = sorted(self._chunks, key=lambda chunk: order.index(chunk.modality))
        return [lambda chunk=chunk: self._surrogate(chunk) for chunk in chunks]

    def _surrogate(self, chunk: _Chunk) -> Tensor:
        _set_random_state(chunk.random, self._items[chunk.modality].device)
        again = self._encode(chunk.modality, self._items[chunk.modality][chunk.first : chunk.last])
        # An output that the loss does not use has no gradient, and its head gets none, not zeros.
        parts = [
            (output * leaf.grad[chunk.first : chunk.last]).sum()
            for output, leaf in zip(again, self.embeddings[chunk.modality], strict=True)
            if leaf.grad is not None
        ]
        return torch.stack(parts).sum() if parts else torch.zeros((), requires_grad=True)


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    state = (torch.get_rng_state(),)
    return (*state, torch.cuda.get_rng_state(device)) if device.type == "cuda" else state


def _set_random_state(state: tuple[Any, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
