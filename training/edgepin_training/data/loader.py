"""Batches made by processes beside the training: which batch a step has does not depend on how many make them."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from edgepin._errors import EdgePinError, EnvironmentFault, UsageError

AHEAD = 2
"""Batches that each worker makes before they are asked for."""

T = TypeVar("T", covariant=True)


class Draws(Protocol[T]):
    """What makes batches: `draw(step)` depends on the step alone."""

    def draw(self, step: int) -> T:
        """The batch of a step."""
        ...


def batches(sampler: Draws[T], start: int, stop: int, workers: int = 0) -> Iterator[T]:
    """The batches of steps `start` to `stop - 1`, in order; decoding, augmentation and features in `workers` processes.

    Every worker gets a copy of the sampler, with all that is in memory of its corpus, and imports the caller's main module:
    a script needs `if __name__ == "__main__":`. Errors of `draw` are raised as they are; EnvironmentFault if a worker is
    ended from outside.
    """
    if workers < 0:
        raise UsageError("workers must not be negative")
    if workers == 0:
        yield from map(sampler.draw, range(start, stop))
        return
    loader = DataLoader(
        _Steps(sampler),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
        # Forked, a worker waits forever for OpenCV's threads, which did not come along.
        multiprocessing_context="spawn",
        generator=torch.Generator(),  # else it would draw from the training's own
    )
    made = iter(loader)
    while True:
        try:
            item = next(made, None)
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise EnvironmentFault(
                    "a worker was ended from outside", hint="give fewer --workers if memory is short"
                ) from error
            raise
        if item is None:
            return
        if isinstance(item, Raised):
            raise item.error()
        yield item


class _Steps(Dataset, Generic[T]):
    def __init__(self, sampler: Draws[T]) -> None:
        self.sampler = sampler

    def __getitem__(self, step: int) -> Any:
        try:
            return self.sampler.draw(step)
        except EdgePinError as error:
            return Raised.of(error)


class Raised:
    """An error on its way out of a process: pickled, it would be rebuilt from its text alone, and lose code and hint."""

    def __init__(self, kind: type[EdgePinError], text: str, values: dict[str, Any]) -> None:
        self.kind, self.text, self.values = kind, text, values

    @classmethod
    def of(cls, error: EdgePinError) -> Raised:
        return cls(type(error), str(error), dict(vars(error)))

    def error(self) -> EdgePinError:
        error = self.kind.__new__(self.kind, self.text)
        error.args = (self.text,)
        vars(error).update(self.values)
        return error


def _as_it_is(item: Any) -> Any:
    return item


def _one_thread(_: int) -> None:
    """There are as many processes as were asked for."""
    import cv2

    cv2.setNumThreads(1)
    worker = get_worker_info()
    if worker is not None:  # a log-mel that outlives its worker is reported as a leak
        atexit.register(vars(worker.dataset).clear)
