"""Two processes that share every batch: the loss, the weights and the errors are those of one process."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import EnvironmentFault, UsageError
from edgepin_training import registry
from edgepin_training.checkpoint import CHECKPOINT_FILE, build_encoders
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus, Modality
from edgepin_training.objective import step_seed
from edgepin_training.parallel import Team, joined, launched, synchronized
from edgepin_training.sampler import Batch, Sampler, share
from edgepin_training.trainer import train

from .test_trainer import PEOPLE, TINY, toy

# Plain SGD: Adam divides a gradient by its size, and with it what rounding leaves of a gradient that is zero.
CONFIG = dataclasses.replace(
    TINY, steps=3, save_every=3, norm="group", dropout=0.0, optimizer="sgd", learning_rate=0.01
)
MINED = dataclasses.replace(
    CONFIG,
    batch_size=12,
    cross_modal_loss="contrastive",
    cross_modal_margin=2.0,
    mining="random",
    orthogonality_weight=0.5,
    chunk=3,
)
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Gait(nn.Module):
    """A third modality, whose `identity` no loss uses."""

    def __init__(self) -> None:
        super().__init__()
        self.identity, self.pin = nn.Linear(6, 256), nn.Linear(6, 256)

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor]:
        return functional.normalize(self.identity(item), dim=1), functional.normalize(self.pin(item), dim=1)


def walking() -> Corpus:
    corpus = toy()
    gaits = list(np.eye(PEOPLE, dtype=np.float32).repeat(2, axis=0))
    others = {"gait": Modality(corpus.faces.names, np.repeat(np.arange(PEOPLE), 2), gaits, {})}
    return dataclasses.replace(corpus, others=others)


Figures = list[dict[str, float]]


def run(corpus: Corpus, config: TrainConfig, out: Path) -> Figures:
    torch.set_num_threads(1)  # in another process too
    registry.register_encoder("gait", lambda config, shape: Gait())
    figures: Figures = []
    train(corpus, config, out, report=figures.append, device="cpu")
    return figures


def compared(corpus: Corpus, config: TrainConfig, out: Path, *, alike: bool = True) -> Figures:
    """As `run`; unless `alike`, rank 1 is told something else."""
    rank = int(os.environ["RANK"])
    return run(corpus, config if alike or rank == 0 else dataclasses.replace(config, seed=7), out)


def gathered(counts: list[int]) -> tuple[list[list[float]], list[list[float]]]:
    """What a process sees of all rows, and the gradient of sum(weight * row^2) that reaches its own."""
    with joined("cpu") as team:
        own = torch.full((counts[team.rank], 2), float(team.rank + 1), requires_grad=True)
        whole = team.gather(own, counts)
        weights = torch.arange(1.0, sum(counts) + 1)[:, None]
        (weights * whole.square()).sum().backward()
        assert own.grad is not None
        return whole.tolist(), own.grad.tolist()


def ended() -> None:
    """One process ends while the other waits for it, and exits as a command would."""
    try:
        with joined("cpu") as team:
            if team.rank == 1:
                os._exit(3)
            team.agree("", UsageError("never"))
    except EnvironmentFault as error:
        sys.exit(error.exit_code if "another process" in str(error) else 1)


def on_first(team_error: bool) -> int:
    def what() -> int:
        if int(os.environ["RANK"]):
            raise AssertionError("rank 1 is not to do it")
        if team_error:
            raise UsageError("no", hint="yes")
        return 42

    with joined("cpu") as team:
        return team.first(what)


def as_rank(rank: int, port: int, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    values = (str(rank), str(rank), "2", "127.0.0.1", str(port))
    os.environ.update(zip(VARIABLES, values, strict=True))
    return work(*arguments, **options)


Pair = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def forkserver() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edgepin_training.trainer"])
    return context


@pytest.fixture(scope="module")
def pair(forkserver: BaseContext) -> Iterator[Pair]:
    """Calls a function in two processes at once; their results, or the errors that they ended with."""
    with ProcessPoolExecutor(2, mp_context=forkserver) as pool:

        def call(work: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            futures = [pool.submit(as_rank, rank, port, work, *arguments, **options) for rank in range(2)]
            return [future.exception(timeout=120) or future.result() for future in futures]

        yield call


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        registry, "_ENCODERS", {key: dict(value) for key, value in registry._ENCODERS.items()}
    )


def tensors(out: Path) -> dict[str, Tensor]:
    return load_file(out / CHECKPOINT_FILE)


def assert_same_training(one: tuple[Path, Figures], two: tuple[Path, Figures]) -> None:
    for row, other in zip(one[1], two[1], strict=True):
        losses = {name for name in row if "loss" in name or "contrast" in name or "accuracy" in name}
        assert len(losses) >= 6
        for name in losses:
            assert other[name] == pytest.approx(row[name], rel=1e-4), name
    before, after, untrained = tensors(one[0]), tensors(two[0]), initial()
    assert before.keys() == after.keys()
    moved = max(float((before[name] - value).abs().max()) for name, value in untrained.items())
    assert moved > 0.005
    # A unit on the edge of its ReLU, over a flat face, makes more of a rounding than the roundings are.
    for name, value in before.items():
        if name.startswith("model."):
            assert float((value - after[name]).abs().max()) < 0.03 * moved, name


def assert_same_gradient(one: Path, two: Path) -> None:
    """After one step the momentum is the gradient."""
    before, after = ({n: v for n, v in tensors(out).items() if "momentum" in n} for out in (one, two))
    assert before.keys() == after.keys()
    assert len(before) > 50
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=2e-5 * float(value.abs().max()) + 1e-7)


def initial() -> dict[str, Tensor]:
    """The weights of face and voice before the first step."""
    torch.manual_seed(CONFIG.seed)
    encoders = nn.ModuleDict(build_encoders(CONFIG, {}))
    return {f"model.{name}": value for name, value in encoders.state_dict().items()}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    out = tmp_path_factory.mktemp("single")
    return out, run(toy(), CONFIG, out)


def test_two_processes_with_half_a_batch_each_train_as_one_with_the_whole(
    tmp_path: Path, pair: Pair, single: tuple[Path, Figures]
) -> None:
    figures, silent = pair(compared, toy(), CONFIG, tmp_path / "three")
    assert silent == [], "only the first process reports"
    assert_same_training(single, (tmp_path / "three", figures))
    once = dataclasses.replace(CONFIG, steps=1)
    pair(compared, toy(), once, tmp_path / "once")
    run(toy(), once, tmp_path / "alone")
    assert_same_gradient(tmp_path / "alone", tmp_path / "once")


def test_so_do_they_with_chance_negatives_a_third_modality_and_a_gradient_cache(
    tmp_path: Path, pair: Pair
) -> None:
    for steps in (3, 1):
        config = dataclasses.replace(MINED, steps=steps)
        both, plain = tmp_path / f"both{steps}", tmp_path / f"plain{steps}"
        figures, _ = pair(compared, walking(), config, both)
        uncached = run(walking(), dataclasses.replace(config, chunk=0), plain)
        if steps == 1:
            assert_same_gradient(plain, both)
        else:
            assert_same_training((plain, uncached), (both, figures))


def test_a_run_goes_on_in_another_number_of_processes(
    tmp_path: Path, pair: Pair, single: tuple[Path, Figures]
) -> None:
    config = dataclasses.replace(CONFIG, save_every=1)

    def stop(figures: dict[str, float]) -> None:
        if figures["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy(), config, tmp_path, report=stop, device="cpu")
    figures, _ = pair(compared, toy(), config, tmp_path)
    assert [row["step"] for row in figures] == [3]
    assert_same_training((single[0], single[1][2:]), (tmp_path, figures))


def test_every_process_drops_other_units_and_mines_alike() -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.rand(3)

    assert not torch.equal(drawn(step_seed(CONFIG, 5)), drawn(step_seed(CONFIG, 5, rank=1)))
    assert not torch.equal(drawn(step_seed(CONFIG, 5)), drawn(step_seed(CONFIG, 6)))


def test_the_gradient_of_gathered_rows_is_scaled_for_the_mean_over_processes(pair: Pair) -> None:
    (whole, first), (also, second) = pair(gathered, [1, 2])
    assert whole == also == [[1, 1], [2, 2], [2, 2]]
    # d/dx w x^2 = 2 w x, twice: the mean over two processes halves it again.
    assert first == [[4, 4]]
    assert second == [[16, 16], [24, 24]]


def test_what_the_first_process_gets_or_raises_all_get_or_raise(pair: Pair) -> None:
    assert pair(on_first, False) == [42, 42]
    for error in pair(on_first, True):
        assert isinstance(error, UsageError)
        assert (str(error), error.hint) == ("no", "yes")


def test_a_launch_that_cannot_be_right_is_refused_in_every_process(
    tmp_path: Path, pair: Pair, single: tuple[Path, Figures]
) -> None:
    batch = dataclasses.replace(CONFIG, norm="batch")
    for config, out, alike, words in (
        (batch, tmp_path, True, "batch normalization"),
        (CONFIG, tmp_path, False, "other options or data than each other"),
        (dataclasses.replace(CONFIG, seed=3), single[0], True, "other options or data"),
    ):
        for error in pair(compared, toy(), config, out, alike=alike):
            assert isinstance(error, UsageError), error
            assert words in str(error)
            assert error.hint
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_shares_follow_one_another_and_make_up_the_batch() -> None:
    corpus = toy()
    sampler = Sampler(corpus, CONFIG)
    for size in (2, 3):
        whole, parts = sampler.draw(1), []
        for rank in range(size):
            own = Sampler(corpus, CONFIG)
            own.part = (rank, size)
            parts.append(own.draw(1))
        assert {len(part.faces) for part in parts} == {len(share(8, rank, size)) for rank in range(size)}
        for name in ("faces", "log_mels"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        for field in dataclasses.fields(Batch):
            if field.name in ("face_labels", "voice_labels", "paired", "pair_labels"):
                assert all(
                    torch.equal(getattr(part, field.name), getattr(whole, field.name)) for part in parts
                )


@pytest.mark.parametrize(
    "given",
    [
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    ],
    ids=str,
)
def test_half_a_launch_is_refused(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="cannot be one of several processes"), joined("cpu"):
        pass


def test_one_process_is_a_team_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == (0, 1, 0)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with joined("cpu") as team:
        rows = torch.ones(2, 3)
        assert team.leads
        assert team.gather(rows, [2]) is rows
        assert team.first(lambda: 5) == 5


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match="no GPU"), joined("cuda"):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="no GPU of its own") as caught, joined("auto"):
        pass
    assert caught.value.hint == "torchrun --nproc-per-node 2"


def test_batch_normalization_is_synchronized_on_gpus_and_refused_elsewhere() -> None:
    def modules() -> nn.Module:
        return nn.ModuleDict({"face": nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))})

    gpu = Team(0, 2, torch.device("cuda", 0))
    assert isinstance(synchronized(modules(), gpu, 0)["face"][1], nn.SyncBatchNorm)
    assert type(synchronized(modules(), Team(), 0)["face"][1]) is nn.BatchNorm1d
    assert type(synchronized(modules().eval(), Team(0, 2), 0)["face"][1]) is nn.BatchNorm1d
    for team, chunk in ((Team(0, 2), 0), (gpu, 4)):
        with pytest.raises(UsageError, match="batch normalization"):
            synchronized(modules(), team, chunk)


def test_a_process_whose_peer_has_ended_says_so(forkserver: BaseContext) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forkserver.Process(target=as_rank, args=(rank, port, ended)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [EnvironmentFault.exit_code, 3]
