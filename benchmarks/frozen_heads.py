"""Heads on frozen encoders: what a loss and a way of mining reach where only the shared space is learned.

The two-stage form of the joint training: both encoders are done, what their pin map sees of every capture is computed once, and
two layers a modality learn who belongs together. A run takes seconds, so that every combination can be tried with several seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.rendered_people import Floats, owners
from edgepin.metrics import auc
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training.checkpoint import Run
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus
from edgepin_training.joint import joint_loss
from edgepin_training.pins import seen_by_pin

BATCH = 128
LEARNING_RATE = 1e-3
HIDDEN, PIN = 256, 256


@dataclass(frozen=True)
class Features:
    """What the pin maps see: float32 (captures, features) by modality, standardized, and whose each capture is."""

    rows: dict[str, Tensor]
    people: dict[str, NDArray[np.int64]]

    @classmethod
    def of(cls, run: Run, corpus: Corpus) -> Features:
        """All captures of `corpus`; standardized by themselves."""
        faces, voices = owners(corpus)
        names = sorted(set(faces.tolist()) & set(voices.tolist()))
        log_mel = LogMel(LogMelSpec.preset(run.config.log_mel))
        rows = {
            "face": seen_by_pin(
                run.face, [torch.from_numpy(np.asarray(item))[None] for item in corpus.faces.items]
            ),
            "voice": seen_by_pin(
                run.voice, [torch.from_numpy(log_mel(item[None])) for item in corpus.voices.items]
            ),
        }
        people = {
            modality: np.array([names.index(name) for name in side.tolist()], np.int64)
            for modality, side in (("face", faces), ("voice", voices))
        }
        return cls({name: (row - row.mean(0)) / (row.std(0) + 1e-3) for name, row in rows.items()}, people)


def train_heads(features: Features, config: TrainConfig) -> dict[str, nn.Module]:
    """Two layers a modality, by the cross-modal loss and mining of `config` over its `steps`, from its `seed`."""
    torch.manual_seed(config.seed)
    heads = {
        name: nn.Sequential(
            nn.Linear(row.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, PIN)
        )
        for name, row in features.rows.items()
    }
    rng = np.random.default_rng(config.seed)
    of_person = {
        name: [np.flatnonzero(people == person) for person in range(int(people.max()) + 1)]
        for name, people in features.people.items()
    }
    parameters = [parameter for head in heads.values() for parameter in head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    for step in range(config.steps):
        drawn = rng.permutation(len(of_person["face"]))[:BATCH]
        pins = {
            name: functional.normalize(
                head(features.rows[name][[rng.choice(of_person[name][person]) for person in drawn]]), dim=1
            )
            for name, head in heads.items()
        }
        loss, _ = joint_loss(pins, torch.from_numpy(drawn), config, step)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / config.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: head.eval() for name, head in heads.items()}


def cross_modal_auc(heads: dict[str, nn.Module], features: Features) -> float:
    """Every face against every voice, single captures."""
    with torch.no_grad():
        face, voice = (
            functional.normalize(heads[name](features.rows[name]), dim=1).numpy().astype(np.float64)
            for name in ("face", "voice")
        )
    scores: Floats = face @ voice.T
    same: NDArray[Any] = features.people["face"][:, None] == features.people["voice"][None, :]
    return auc(scores.ravel(), same.ravel())
