"""Distillation on a GPU, from captures that are made there: batches repeat, a killed run goes on, a processor reads it.

These tests have not run on a GPU yet; what is common to all devices runs in ``tests/training``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not here")

from edgepin_training.distill import DistillBatch, DistillOptions, distill  # noqa: E402
from edgepin_training.distill_state import load_average  # noqa: E402
from edgepin_training.edge_encoders import EdgeFaceEncoder, EdgeVoiceEncoder  # noqa: E402
from edgepin_training.face_chips import FaceChips  # noqa: E402
from edgepin_training.online_faces import OnlineFaceOptions, OnlineFaceSource  # noqa: E402
from edgepin_training.online_voices import Clips, OnlineVoiceSource  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no GPU"),
]

DEVICE = torch.device("cuda")
OPTIONS = DistillOptions(
    steps=12, batch_size=16, warmup=2, save_every=5, learning_rate=1e-3, class_weight=0.0, bfloat16=True
)


class Colors(torch.nn.Module):  # type: ignore[misc]
    def forward(self, chips: Any) -> Any:
        parts = torch.nn.functional.adaptive_avg_pool2d(chips.float().permute(0, 3, 1, 2), 4)
        return parts.flatten(1) / 255


class Bands(torch.nn.Module):  # type: ignore[misc]
    def forward(self, voices: Any) -> Any:
        power = torch.fft.rfft(voices).abs()[:, : 256 * 32].reshape(len(voices), 256, 32).mean(dim=2)
        return torch.nn.functional.normalize((power + 1).log(), dim=1)


def faces(people: int, seed: int) -> FaceChips:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 235, (2 * people, 4, 4, 3))
    crops = np.kron(coarse, np.ones((1, 16, 16, 1))).astype(np.uint8)
    maps = np.tile(np.array([[2.35, 0, 0], [0, 2.35, 0]], np.float32), (2 * people, 1, 1))
    return FaceChips(crops, np.repeat(np.arange(people), 2), maps)


def made(modality: str) -> tuple[Any, Any]:
    """A source on the GPU and a new encoder."""
    torch.manual_seed(0)
    if modality == "face":
        known = faces(12, 1), faces(4, 2)
        source = OnlineFaceSource(*known, Colors(), OnlineFaceOptions(), batch_size=16, device=DEVICE)
        return source, EdgeFaceEncoder(0.25)
    rng = np.random.default_rng(3)
    pcm = [rng.normal(0, 900 * (1 + i), 40_000 + 9_000 * i).astype(np.int16) for i in range(6)]
    clips = Clips(pcm, np.arange(6))
    return OnlineVoiceSource([clips], (1.0,), Bands(), batch_size=16, device=DEVICE), EdgeVoiceEncoder(0.25)


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_a_batch_is_made_on_the_gpu_and_depends_on_the_step_alone(modality: str) -> None:
    source, _ = made(modality)
    first = source.draw(3)
    source.draw(4)
    again = source.draw(3)
    assert {x.device.type for x in (first.inputs, first.targets, first.labels, first.groups)} == {DEVICE.type}
    torch.testing.assert_close(first.targets, again.targets, atol=1e-3, rtol=0)
    assert torch.equal(first.groups, again.groups)


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_a_killed_run_goes_on_to_where_an_unbroken_one_ends(tmp_path: Path, modality: str) -> None:
    source, encoder = made(modality)
    distill(encoder, source, OPTIONS, tmp_path / "unbroken", told={})

    class Killed:
        classes, center = source.classes, source.center

        def draw(self, step: int) -> DistillBatch:
            if step == 8:
                raise KeyboardInterrupt
            batch: DistillBatch = source.draw(step)
            return batch

    with pytest.raises(KeyboardInterrupt):
        distill(made(modality)[1], Killed(), OPTIONS, tmp_path / "killed", told={})
    resumed, read = made(modality)[1], made(modality)[1]
    distill(resumed, source, OPTIONS, tmp_path / "killed", told={})
    assert load_average(read, tmp_path / "unbroken") == OPTIONS.steps
    inputs = source.draw(99).inputs.cpu()
    with torch.no_grad():
        one, other, there = (network.eval()(inputs)[0] for network in (encoder, resumed, read))
    assert one.device.type == "cpu"
    torch.testing.assert_close(there, one, atol=1e-5, rtol=0)
    assert (one * other).sum(dim=1).min() > 0.99
