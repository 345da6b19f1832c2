"""What a step minimizes: a loss of identities within each modality, and a joint one of all modalities of who is paired."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .corpus import Corpus
from .grad_cache import Embedded
from .joint import joint_loss
from .losses import additive_margin_softmax, symmetric_info_nce
from .parallel import Team
from .precision import encode
from .sampler import Batch, share


class Objective:
    """The loss of a batch, of which this process of the `team` embeds its own rows."""

    def __init__(self, modules: nn.ModuleDict, config: TrainConfig, team: Team) -> None:
        self.modules, self.config, self.team = modules, config, team

    def spares(self, corpus: Corpus) -> bool:
        """Whether a backward pass may leave parameters out: a head that no loss uses, or pins where hardly anyone is paired."""
        config = self.config
        identities = config.identity_weight > 0 or config.contrastive_weight > 0
        always_paired = len(corpus.pairs) > 0 and len(config.speeds) == 1
        return config.chunk > 0 or not identities or not always_paired or len(corpus.others) > 0

    def items(self, batch: Batch) -> dict[str, Tensor]:
        """What is to be embedded, by modality."""
        others = batch.others if len(batch.paired) > 1 else {}
        return {"face": batch.faces, "voice": batch.log_mels, **others}

    def encode(self, modality: str, items: Tensor) -> Embedded:
        return encode(self.modules[modality], items, self.config.precision)

    def loss(
        self, embeddings: dict[str, Embedded], batch: Batch, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss of the whole batch, a scalar, and what there is to report: scalars, some of them still on a GPU.

        `embeddings` are those of `items`.
        """
        config = self.config
        rows = [len(share(len(batch.face_labels), rank, self.team.size)) for rank in range(self.team.size)]
        # The losses may draw, too (negatives by chance), and every process the same.
        torch.manual_seed(step_seed(config, step))
        loss = torch.zeros((), device=batch.faces.device)
        figures: dict[str, Tensor | float] = {}
        for modality, labels in (("face", batch.face_labels), ("voice", batch.voice_labels)):
            if not (config.identity_weight or config.contrastive_weight):
                continue
            identity = self.team.gather(embeddings[modality][0], rows)
            # The classes tell who; the two captures of a person, held against everyone else's, tell it sooner where
            # most people have one or two captures and a class is hardly ever drawn.
            first, second = identity.chunk(2)
            contrast = symmetric_info_nce(first, second, labels.chunk(2)[0], temperature=config.temperature)
            if config.identity_weight:
                classes, accuracy = additive_margin_softmax(
                    identity,
                    self.modules["centers"][modality],
                    labels,
                    margin=config.margin,
                    scale=config.scale,
                )
                loss = loss + config.identity_weight * classes
                figures |= {
                    f"{modality}_loss": classes.detach(),
                    f"{modality}_accuracy": accuracy.detach(),
                }
            loss = loss + config.contrastive_weight * contrast
            figures[f"{modality}_contrast"] = contrast.detach()
        if len(batch.paired) > 1:
            pins = {
                name: self.team.gather(embeddings[name][1], rows)[batch.paired] for name in ("face", "voice")
            }
            others = {name: embeddings[name][1] for name in batch.others}
            pins |= {name: self.team.gather(pin, self._paired(batch)) for name, pin in others.items()}
            cross, reported = joint_loss(pins, batch.pair_labels, config, step)
            loss = loss + config.cross_modal_weight * cross
            figures |= reported
        return loss, {"loss": loss.detach(), **figures}

    def _paired(self, batch: Batch) -> list[int]:
        """How many pairs each process has."""
        paired = batch.paired.tolist()
        shares = [share(len(batch.face_labels), rank, self.team.size) for rank in range(self.team.size)]
        return [sum(row in own for row in paired) for own in shares]


def step_seed(config: TrainConfig, step: int, rank: int = 0) -> int:
    """What dropout draws at a step depends on the step alone, and in every process on something else."""
    # The generator of processors takes the lower 32 bits.
    return 1_000_003 * config.seed + step + 2_654_435_761 * rank
