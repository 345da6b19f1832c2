from __future__ import annotations

import numpy as np
import pytest
import torch

from edgepin_training.encoders import FaceEncoder, VoiceEncoder


def lived_in(encoder: torch.nn.Module) -> torch.nn.Module:
    """Gives batch normalizations statistics as training would, so that folding them wrongly shows."""
    generator = torch.Generator().manual_seed(7)
    for module in encoder.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
    return encoder.eval()


@pytest.fixture(scope="session")
def encoders() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {"face": lived_in(FaceEncoder(0.25, size=32)), "voice": lived_in(VoiceEncoder(0.25, mels=80))}


@pytest.fixture(scope="session")
def models(encoders: dict[str, torch.nn.Module]) -> dict[str, bytes]:
    from edgepin_export._onnx import to_onnx

    return {"face": to_onnx(encoders["face"], "face", size=32), "voice": to_onnx(encoders["voice"], "voice")}


def make_feed(modality: str, batch: int, frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    if modality == "face":
        return {"face": random.integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)}
    return {"log_mel": random.normal(8.0, 3.0, (batch, frames, 80)).astype(np.float32)}


@pytest.fixture(scope="session")
def feed():
    return make_feed
