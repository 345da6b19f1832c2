"""Normalizations in the place of batch normalization: what a row becomes does not depend on its batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from edgepin_training.checkpoint import build_encoders, load_run
from edgepin_training.config import TrainConfig
from edgepin_training.norms import depends_on_the_batch, with_norm
from edgepin_training.trainer import train

from .test_trainer import TINY, toy


def items(count: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    faces = torch.randint(0, 255, (count, 64, 64, 3), dtype=torch.uint8)
    return {"face": faces, "voice": torch.randn(count, 48, 80)}


@pytest.mark.parametrize("kind", ["small", "edge"])
@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_a_row_is_embedded_alike_in_any_batch(kind: str, norm: str) -> None:
    config = TrainConfig.from_json(
        {**TINY.to_json(), "encoders": kind, "norm": norm, "init": "x", "dropout": 0.0}
    )
    for name, encoder in build_encoders(config, {}).items():
        encoder.train()
        assert not depends_on_the_batch(encoder)
        rows = items(4)[name]
        for whole, alone in zip(encoder(rows), encoder(rows[:2]), strict=True):
            torch.testing.assert_close(whole[:2], alone, rtol=1e-4, atol=1e-5)
        plain = build_encoders(dataclasses.replace(config, norm="batch"), {})[name].train()
        assert depends_on_the_batch(plain)
        assert not torch.allclose(plain(rows)[0][:2], plain(rows[:2])[0], atol=1e-3)


def test_groups_are_of_sixteen_channels_where_they_divide() -> None:
    def groups(norm: nn.Module) -> int:
        made = with_norm(nn.Sequential(norm), "group")[0]
        assert isinstance(made, nn.GroupNorm)
        return made.num_groups

    assert groups(nn.BatchNorm2d(64)) == 4
    assert groups(nn.BatchNorm2d(24)) == 1
    assert groups(nn.BatchNorm1d(64)) == 1
    kept = nn.BatchNorm2d(8)
    assert with_norm(kept, "batch") is kept


def test_a_frozen_normalization_keeps_its_statistics_and_trains_the_rest(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=2, save_every=2)
    train(toy(), config, tmp_path / "first", device="cpu")
    frozen = dataclasses.replace(config, norm="frozen", init=str(tmp_path / "first"))
    train(toy(), frozen, tmp_path / "second", device="cpu")
    before, after = (load_run(tmp_path / name).face.state_dict() for name in ("first", "second"))
    assert before.keys() == after.keys(), "the same encoder, for the export"
    for name, value in before.items():
        still = "running" in name or "num_batches" in name
        assert torch.equal(value, after[name]) == still, name


def test_group_normalization_is_not_exported(tmp_path: Path) -> None:
    export = pytest.importorskip("edgepin_export._cli", reason="the export package is not here").export
    train(toy(), dataclasses.replace(TINY, steps=1, norm="group"), tmp_path / "run", device="cpu")
    result = CliRunner().invoke(export, [str(tmp_path / "run"), "--out", str(tmp_path / "x.pin")])
    assert result.exit_code == 2
    assert "group normalization" in result.stderr
