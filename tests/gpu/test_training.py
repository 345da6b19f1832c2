"""Training on a GPU: that it learns, goes on from its checkpoint, and that a processor reads what it leaves.

Training itself has run on a GPU, these tests have not to their end; what is common to all devices runs in ``tests/training``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not here")

from edgepin_training.checkpoint import CHECKPOINT_FILE, load_run  # noqa: E402
from edgepin_training.config import TrainConfig  # noqa: E402
from edgepin_training.corpus import Corpus, Modality  # noqa: E402
from edgepin_training.trainer import train  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no GPU"),
]

PEOPLE = 12
CONFIG = TrainConfig(
    steps=60,
    batch_size=16,
    save_every=30,
    warmup=5,
    encoders="edge",
    face_width=0.25,
    voice_width=0.25,
    voice_seconds=0.5,
    speeds=(1.0,),
    augment=0.05,
    dropout=0.0,
)


def toy() -> Corpus:
    """People of one color and one tone each, both with noise."""
    rng = np.random.default_rng(0)
    time = np.arange(12_000) / 16_000
    crops, sounds = [], []
    for person in range(PEOPLE):
        color = rng.uniform(30, 225, 3)
        for _ in range(3):
            crops.append(np.clip(color + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8))
            tone = np.sin(2 * np.pi * 200 * 1.2**person * time) * (np.sin(2 * np.pi * 8 * time) > 0)
            sounds.append((6_000 * tone + rng.normal(0, 60, len(time))).astype(np.int16))
    names, labels = tuple(f"p{i:02}" for i in range(PEOPLE)), np.repeat(np.arange(PEOPLE), 3)
    pairs = {name: name for name in names}
    return Corpus(Modality(names, labels, crops, {}), Modality(names, labels, sounds, {}), pairs)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_learns_on_a_gpu_and_the_run_is_read_on_a_processor(tmp_path: Path, precision: str) -> None:
    config, losses = dataclasses.replace(CONFIG, precision=precision), []
    train(toy(), config, tmp_path, report=lambda figures: losses.append(figures["loss"]), device="cuda")
    assert np.all(np.isfinite(losses))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    run = load_run(tmp_path)
    assert run.step == config.steps
    with torch.no_grad():
        _, pin = run.face(torch.from_numpy(np.stack(toy().faces.items[:4])))
    assert pin.device.type == "cpu"
    np.testing.assert_allclose(pin.norm(dim=1).numpy(), 1.0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("other", ["cuda", "cpu"])
def test_a_run_stopped_on_a_gpu_goes_on(tmp_path: Path, precision: str, other: str) -> None:
    if (precision, other) == ("fp16", "cpu"):
        pytest.skip("fp16 is for GPUs")
    config = dataclasses.replace(CONFIG, precision=precision, steps=8, save_every=4)

    def stop(figures: dict[str, float]) -> None:
        if figures["step"] == 5:
            raise Stopped

    with pytest.raises(Stopped):
        train(toy(), config, tmp_path, report=stop, device="cuda")
    assert load_run(tmp_path).step == 4
    steps: list[float] = []
    train(toy(), config, tmp_path, report=lambda figures: steps.append(figures["step"]), device=other)
    assert steps == [5, 6, 7, 8]
    assert (tmp_path / CHECKPOINT_FILE).exists()
    assert load_run(tmp_path).step == 8


def test_the_losses_are_those_of_a_processor(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=3)
    losses: dict[str, list[float]] = {"cuda": [], "cpu": []}
    for device, found in losses.items():
        train(
            toy(),
            config,
            tmp_path / device,
            report=lambda figures, found=found: found.append(figures["loss"]),
            device=device,
        )
    # The first is of the same weights; later ones are of weights that rounding has moved apart.
    np.testing.assert_allclose(losses["cuda"][0], losses["cpu"][0], rtol=5e-3)
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.1)
