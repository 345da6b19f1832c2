"""Pins for encoders that are done: only the last linear map is trained, on people whose face and voice are both there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import UsageError
from edgepin_kernels import LogMel, LogMelSpec

from .augment import augment_face, augment_voice
from .corpus import Modality
from .losses import symmetric_info_nce

STEPS = 1500
COPIES = 3  # of each capture, each augmented in another way
MILD = 0.5  # strength of that
_SHARE_KEPT = 0.2  # of the people, on whom the pins are measured


def train_pins(
    face: nn.Module,
    voice: nn.Module,
    faces: Modality,
    voices: Modality,
    *,
    log_mel: str,
    seed: int = 0,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Trains `heads.pin` of both encoders by symmetric InfoNCE between the two modalities of people of equal names.

    The rest of the encoders stays as it is, bit for bit. Every fifth person is kept apart; returned is what the pins do
    for those: `people`, and `auc` of face against voice, which tells of such people only.

    Raises UsageError where fewer than 10 people have both.
    """
    names = sorted(set(faces.names) & set(voices.names))
    if len(names) < 10:
        raise UsageError(f"pins need 10 people with a face and a voice; {len(names)} found")
    kept = set(names[:: round(1 / _SHARE_KEPT)])
    mel = LogMel(LogMelSpec.preset(log_mel))
    rng = np.random.default_rng((seed, 3))
    pooled = {
        "face": _pool(face, faces, lambda crop: augment_face(crop, rng, MILD), names),
        "voice": _pool(voice, voices, lambda pcm: mel(augment_voice(*_twice(pcm), rng, MILD)), names),
    }
    heads = {"face": face.get_submodule("heads.pin"), "voice": voice.get_submodule("heads.pin")}
    parameters = [p for head in heads.values() for p in head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.1)
    training = [name for name in names if name not in kept]
    for step in range(steps):
        people = rng.permutation(len(training))[:128]
        pins = {
            modality: functional.normalize(
                heads[modality](
                    torch.stack([_one(pooled[modality][training[person]], rng) for person in people])
                ),
                dim=1,
            )
            for modality in heads
        }
        loss = symmetric_info_nce(pins["face"], pins["voice"], torch.arange(len(people)), temperature=0.1)
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {
        "people": len(training),
        "kept_people": len(kept),
        "auc": round(_auc(heads, pooled, sorted(kept)), 4),
    }


def _pool(
    encoder: nn.Module, modality: Modality, augment: Callable[[Any], NDArray[Any]], names: list[str]
) -> dict[str, Tensor]:
    """What the `pin` map takes of every capture, by person: (captures x copies, features)."""
    owners = modality.of()
    return {
        name: seen_by_pin(
            encoder,
            (torch.from_numpy(augment(modality.items[index]))[None] for index in owners[name] * COPIES),
        )
        for name in names
    }


def seen_by_pin(encoder: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """What the `pin` map of an encoder, in evaluation mode, takes of inputs of batch 1: (inputs, features)."""
    taken: list[Tensor] = []
    hook = encoder.get_submodule("heads.pin").register_forward_pre_hook(
        lambda _, given: taken.append(given[0])
    )
    encoder.eval()
    try:
        with torch.no_grad():
            for item in inputs:
                encoder(item)
    finally:
        hook.remove()
    return torch.cat(taken)


def _twice(pcm: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    voice = pcm.astype(np.float32)
    return voice, voice[::-1].copy()


def _one(rows: Tensor, rng: np.random.Generator) -> Tensor:
    return rows[int(rng.integers(len(rows)))]


def _auc(heads: dict[str, nn.Module], pooled: dict[str, dict[str, Tensor]], names: list[str]) -> float:
    from edgepin.metrics import auc

    with torch.no_grad():
        means = {
            modality: torch.cat(
                [functional.normalize(head(pooled[modality][name][:1]), dim=1) for name in names]
            )
            for modality, head in heads.items()
        }
    scores = (means["face"] @ means["voice"].T).numpy()
    return auc(scores.ravel(), np.eye(len(names), dtype=bool).ravel())
