"""The gradient cache: the step of the whole batch, made of chunks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgepin_training.checkpoint import CHECKPOINT_FILE
from edgepin_training.config import TrainConfig
from edgepin_training.grad_cache import Embedded, GradientCache
from edgepin_training.losses import symmetric_info_nce
from edgepin_training.trainer import train

from .test_trainer import TINY, toy

ROWS = 10


class Encoder(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), middle, nn.Tanh())
        self.identity, self.pin = nn.Linear(8, 4), nn.Linear(8, 4)
        self.rows: list[tuple[int, bool]] = []  # of each call: how many, and whether with a graph

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(item)
        self.rows.append((len(item), x.requires_grad))
        return functional.normalize(self.identity(x), dim=1), functional.normalize(self.pin(x), dim=1)


def encoders(middle: type[nn.Module], *options: object) -> nn.ModuleDict:
    torch.manual_seed(3)
    made = nn.ModuleDict({name: Encoder(middle(*options)) for name in ("face", "voice")})
    return made.double().train()


def items() -> dict[str, Tensor]:
    torch.manual_seed(4)
    return {name: torch.randn(ROWS, 5, dtype=torch.float64) for name in ("face", "voice")}


def loss_of(embeddings: dict[str, Embedded]) -> Tensor:
    """Of the pins alone: `identity` gets no gradient."""
    pins = [pin for _, pin in embeddings.values()]
    return symmetric_info_nce(*pins, torch.arange(ROWS), temperature=0.1)


def gradients(modules: nn.ModuleDict) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in modules.named_parameters()}


def cached_step(modules: nn.ModuleDict, chunk: int) -> tuple[Tensor, dict[str, Tensor | None]]:
    cache = GradientCache(lambda name, rows: modules[name](rows), modules, items(), chunk)
    loss = loss_of(cache.embeddings)
    loss.backward()
    for part in cache.surrogates():
        part().backward()
    return loss.detach(), gradients(modules)


def plain_step(modules: nn.ModuleDict) -> tuple[Tensor, dict[str, Tensor | None]]:
    loss = loss_of({name: modules[name](rows) for name, rows in items().items()})
    loss.backward()
    return loss.detach(), gradients(modules)


def assert_same(
    one: tuple[Tensor, dict[str, Tensor | None]], two: tuple[Tensor, dict[str, Tensor | None]]
) -> None:
    torch.testing.assert_close(one[0], two[0])
    for name, gradient in one[1].items():
        if gradient is None:
            assert two[1][name] is None, name
        else:
            torch.testing.assert_close(gradient, two[1][name])


@pytest.mark.parametrize("chunk", [1, 3, 4, ROWS, 100])
def test_the_gradient_is_that_of_the_whole_batch(chunk: int) -> None:
    plain, modules = plain_step(encoders(nn.GroupNorm, 2, 8)), encoders(nn.GroupNorm, 2, 8)
    assert_same(plain, cached_step(modules, chunk))
    assert any(gradient is None for gradient in plain[1].values()), "an unused head has none, not zeros"
    for encoder in modules.values():
        assert max(count for count, _ in encoder.rows) <= chunk
        assert sum(count for count, graph in encoder.rows if graph) == ROWS


def test_no_chunk_is_left_with_a_single_row() -> None:
    modules = encoders(nn.GroupNorm, 2, 8)
    cached_step(modules, 3)
    assert sorted(count for count, graph in modules["face"].rows if graph) == [2, 2, 3, 3]


def test_random_layers_draw_the_same_in_both_passes() -> None:
    modules = encoders(nn.Dropout, 0.5)
    made = items()
    torch.manual_seed(9)
    cache = GradientCache(lambda name, rows: modules[name](rows), modules, made, 4)
    loss_of(cache.embeddings).backward()
    torch.manual_seed(77)  # whatever was drawn in between
    for part in cache.surrogates():
        part().backward()
    # The same chunks with their graphs kept: what the cache is to be equal to.
    whole = encoders(nn.Dropout, 0.5)
    torch.manual_seed(9)
    kept = {name: [whole[name](part) for part in rows.tensor_split(3)] for name, rows in made.items()}
    loss_of(
        {name: tuple(map(torch.cat, zip(*parts, strict=True))) for name, parts in kept.items()}
    ).backward()
    expected, got = gradients(whole), gradients(modules)
    assert expected["face.body.0.weight"].abs().max() > 0
    for name, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(got[name], gradient)


def test_running_statistics_move_once() -> None:
    modules, other = encoders(nn.BatchNorm1d, 8), encoders(nn.BatchNorm1d, 8)
    cached_step(modules, ROWS)
    plain_step(other)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(modules.state_dict()[name], value)
    assert modules["face"].body[1].num_batches_tracked == 1


def test_training_by_chunks_is_training_on_the_whole(tmp_path: Path) -> None:
    config: TrainConfig = dataclasses.replace(
        TINY, steps=3, norm="group", dropout=0.0, optimizer="sgd", learning_rate=0.01
    )
    reports: list[list[dict[str, float]]] = []
    for chunk in (0, 3):
        figures: list[dict[str, float]] = []
        changed = dataclasses.replace(config, chunk=chunk)
        train(toy(), changed, tmp_path / str(chunk), report=figures.append, device="cpu")
        reports.append(figures)
    for plain, cached in zip(*reports, strict=True):
        assert cached["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    one, other = (load_file(tmp_path / name / CHECKPOINT_FILE) for name in ("0", "3"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-5)
