"""A training that is killed, again and again, ends byte for byte where one that was left alone ends."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch

from edgepin._errors import EnvironmentFault
from edgepin_training import checkpoint
from edgepin_training.checkpoint import CHECKPOINT_FILE
from edgepin_training.trainer import train

from .test_trainer import TINY, toy

CONFIG = dataclasses.replace(TINY, steps=8, save_every=2)


def run(out: Path, steps: Connection | None = None, dies_at_save: int = 0) -> None:
    """Trains, and says each step. Of the saves, the n-th is killed when half of its file is written."""
    torch.set_num_threads(1)  # in another process too
    save, saves = checkpoint.save_file, []

    def dying(values: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save(values, path, metadata)
        saves.append(path)
        if len(saves) == dies_at_save:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    if dies_at_save:
        checkpoint.save_file = dying
    train(toy(), CONFIG, out, report=(lambda row: steps.send(row["step"])) if steps else None, device="cpu")


@pytest.fixture(scope="module")
def forkserver() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edgepin_training.trainer"])
    return context


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("unbroken")
    run(out)
    return (out / CHECKPOINT_FILE).read_bytes()


def killed(context: BaseContext, out: Path, after: int, delay: float) -> int:
    """Trains in another process, kills it `delay` seconds after its `after`-th step; the last step that it finished."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(out, theirs))
    process.start()
    theirs.close()
    done = 0
    try:
        for _ in range(after):
            done = ours.recv()
        time.sleep(delay)
    except EOFError:  # it is through
        pass
    process.kill()
    process.join()
    while ours.poll():
        try:
            done = ours.recv()
        except EOFError:
            break
    return int(done)


def test_killed_at_random_it_ends_with_the_same_bytes(
    tmp_path: Path, unbroken: bytes, forkserver: BaseContext
) -> None:
    rng = random.Random(5)
    ends = [killed(forkserver, tmp_path, rng.randint(1, 3), rng.uniform(0, 0.05)) for _ in range(5)]
    assert 0 < ends[0] < CONFIG.steps, "the first was killed on its way"
    run_to_the_end(tmp_path, unbroken)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [8]


def run_to_the_end(out: Path, unbroken: bytes) -> None:
    run(out)
    assert (out / CHECKPOINT_FILE).read_bytes() == unbroken


@pytest.mark.parametrize("save", [1, 3])
def test_killed_while_it_saves_it_ends_with_the_same_bytes(
    tmp_path: Path, unbroken: bytes, forkserver: BaseContext, save: int
) -> None:
    process = forkserver.Process(target=run, args=(tmp_path, None, save))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / CHECKPOINT_FILE).exists() == (save > 1)
    run_to_the_end(tmp_path, unbroken)
    assert not list(tmp_path.glob("*.part"))


def test_a_checkpoint_that_cannot_be_written_is_an_error_and_leaves_the_older_one(
    tmp_path: Path, unbroken: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        if (tmp_path / CHECKPOINT_FILE).exists():
            raise OSError(28, "No space left on device")
        saved(*_, **__)

    saved = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(EnvironmentFault, match="No space left") as caught:
        run(tmp_path)
    assert "space" in (caught.value.hint or "")
    monkeypatch.undo()
    run_to_the_end(tmp_path, unbroken)
