"""Batches by processes: the same ones in the same order, and errors as they were."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import pytest

from edgepin._capture.faces import FaceSpec
from edgepin._errors import CaptureError, EnvironmentFault, UsageError
from edgepin_training.data.index import Index
from edgepin_training.data.lazy import open_corpus
from edgepin_training.data.loader import batches
from edgepin_training.trainer import Sampler

from .test_lazy import CONFIG, equal


@dataclass
class Steps:
    fail_at: int = -1
    die_at: int = -1

    def draw(self, step: int) -> tuple[int, int]:
        if step == self.fail_at:
            raise CaptureError("wav/x.wav: cut short", code="damaged", hint="record it again")
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step, os.getpid()


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_come_in_order_from_where_training_stands(workers: int) -> None:
    made = list(batches(Steps(), 7, 20, workers))
    assert [step for step, _ in made] == list(range(7, 20))
    assert len({pid for _, pid in made}) == max(1, workers)
    assert (os.getpid() in {pid for _, pid in made}) == (workers == 0)


def test_workers_make_the_batches_that_no_worker_makes(index: Index) -> None:
    corpus = open_corpus(index, FaceSpec(), split="train")
    sampler = Sampler(corpus, CONFIG)
    for step, batch in enumerate(batches(sampler, 3, 8, workers=2), start=3):
        assert equal(batch, sampler.draw(step))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_out_with_its_kind_code_and_hint(workers: int) -> None:
    made = batches(Steps(fail_at=2), 0, 5, workers)
    assert [next(made)[0], next(made)[0]] == [0, 1]
    with pytest.raises(CaptureError, match=r"wav/x\.wav: cut short") as raised:
        next(made)
    assert (raised.value.code, raised.value.hint) == ("damaged", "record it again")


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(EnvironmentFault, match="ended from outside"):
        list(batches(Steps(die_at=1), 0, 5, 1))


def test_fewer_than_no_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        list(batches(Steps(), 0, 1, -1))
