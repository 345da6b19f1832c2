"""Encoders in 16 bits: near what 32 bits give, losses in 32, and the scale of gradients kept over a kill."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgepin._errors import UsageError
from edgepin_training.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from edgepin_training.config import TrainConfig
from edgepin_training.precision import encode, gradient_scaler
from edgepin_training.registry import build_encoder
from edgepin_training.trainer import train

from .test_trainer import TINY, toy


@pytest.mark.parametrize("kind", ["small", "edge"])
def test_embeddings_in_bfloat16_are_float32_units_near_the_exact_ones(kind: str) -> None:
    config = dataclasses.replace(TINY, encoders=kind)
    torch.manual_seed(0)
    for modality, item in (
        ("face", torch.randint(0, 255, (4, 64, 64, 3), dtype=torch.uint8)),
        ("voice", 3 * torch.randn(4, 48, 80)),
    ):
        encoder = build_encoder(modality, config, tuple(item.shape[1:])).eval()
        seen: list[torch.dtype] = []
        first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.dtype))
        with torch.no_grad():
            exact, reduced = encode(encoder, item, "fp32"), encode(encoder, item, "bf16")
        assert seen == [torch.float32, torch.bfloat16]
        for one, other in zip(exact, reduced, strict=True):
            assert other.dtype == torch.float32
            assert not torch.equal(one, other)
            torch.testing.assert_close(other.norm(dim=1), torch.ones(4))
            assert (one * other).sum(dim=1).min() > 0.995


def test_training_in_bfloat16_follows_training_in_float32(tmp_path: Path) -> None:
    losses: list[list[float]] = []
    for precision in ("fp32", "bf16"):
        config = dataclasses.replace(TINY, precision=precision, steps=4, dropout=0.0)
        seen: list[float] = []
        train(
            toy(),
            config,
            tmp_path / precision,
            report=lambda row, seen=seen: seen.append(row["loss"]),
            device="cpu",
        )
        losses.append(seen)
    assert losses[0] != losses[1]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.01)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    saved = load_file(tmp_path / "bf16" / CHECKPOINT_FILE)
    assert {value.dtype for value in saved.values()} <= {torch.float32, torch.int64}


def test_float16_is_refused_on_a_processor(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="GPU") as caught:
        train(toy(), dataclasses.replace(TINY, precision="fp16"), tmp_path, device="cpu")
    assert "bf16" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_the_scale_of_gradients_is_kept_in_the_checkpoint(tmp_path: Path) -> None:
    """torch's scaler works on processors, too; only a few kernels lack float16 there."""

    def scaled(grow: float) -> tuple[nn.ModuleDict, torch.optim.Optimizer, torch.amp.GradScaler]:
        torch.manual_seed(0)
        modules = nn.ModuleDict({"face": nn.Linear(3, 1)})
        scaler = torch.amp.GradScaler("cpu", init_scale=grow, growth_interval=3)
        return modules, torch.optim.SGD(modules.parameters(), lr=0.1), scaler

    def step(made: tuple[nn.ModuleDict, torch.optim.Optimizer, torch.amp.GradScaler], x: Tensor) -> None:
        modules, optimizer, scaler = made
        optimizer.zero_grad()
        scaler.scale(modules["face"](x).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    made = scaled(1024.0)
    before = made[0]["face"].weight.clone()
    step(made, torch.full((1, 3), float("inf")))
    assert torch.equal(made[0]["face"].weight, before), "a step that overflows is left out"
    step(made, torch.ones(1, 3))
    assert not torch.equal(made[0]["face"].weight, before)
    assert (made[2].get_scale(), made[2].state_dict()["_growth_tracker"]) == (512.0, 1)
    save_checkpoint(tmp_path, 2, *made)
    resumed = scaled(4.0)
    assert load_checkpoint(tmp_path, *resumed) == 2
    assert resumed[2].state_dict() == made[2].state_dict()
    for _ in range(2):
        step(made, torch.ones(1, 3))
        step(resumed, torch.ones(1, 3))
    assert made[2].get_scale() == resumed[2].get_scale() == 1024.0
    assert torch.equal(made[0]["face"].weight, resumed[0]["face"].weight)
    assert gradient_scaler("bf16", torch.device("cpu")).state_dict() == {}


@pytest.mark.parametrize(
    "change", [{"precision": "int8"}, {"chunk": -1}, {"norm": "layer"}, {"norm": "frozen"}]
)
def test_options_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TrainConfig.from_json(change)
