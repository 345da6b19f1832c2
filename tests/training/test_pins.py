"""Pins for frozen encoders: they learn who belongs together, and nothing else of the encoders moves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgepin._errors import UsageError
from edgepin_training.corpus import Modality
from edgepin_training.encoders import FaceEncoder, VoiceEncoder
from edgepin_training.pins import train_pins


def people(count: int) -> tuple[Modality, Modality]:
    """The brighter the face, the higher the voice: the one thing that can be learned."""
    names = tuple(f"p{number:03}" for number in range(count))
    labels = np.repeat(np.arange(count), 2)
    rng = np.random.default_rng(0)
    tall = np.sin(2 * np.pi * 5 * np.arange(8000) / 16_000) > 0
    faces, voices = [], []
    for label in labels:
        faces.append(np.clip(rng.normal(30 + 200 * label / count, 3, (32, 32, 3)), 0, 255).astype(np.uint8))
        tone = np.sin(2 * np.pi * 200 * 8 ** (label / count) * np.arange(8000) / 16_000)
        voices.append((5000 * tone * tall + rng.normal(0, 30, 8000)).astype(np.int16))
    return Modality(names, labels, faces, {}), Modality(names, labels, voices, {})


def test_they_learn_what_goes_together_and_leave_the_rest() -> None:
    torch.manual_seed(0)
    face, voice = FaceEncoder(0.25, size=32).eval(), VoiceEncoder(0.25).eval()
    before = copy.deepcopy((face.state_dict(), voice.state_dict()))
    told = train_pins(face, voice, *people(40), log_mel="kaldi", steps=150)
    assert (told["people"], told["kept_people"]) == (32, 8)
    assert told["auc"] > 0.75
    for old, encoder in zip(before, (face, voice), strict=True):
        now = encoder.state_dict()
        assert {name for name in old if not torch.equal(old[name], now[name])} == {
            "heads.pin.weight",
            "heads.pin.bias",
        }
        assert not encoder.training


def test_too_few_people_are_refused() -> None:
    with pytest.raises(UsageError, match="10 people"):
        train_pins(FaceEncoder(0.25, size=32), VoiceEncoder(0.25), *people(9), log_mel="kaldi", steps=1)
