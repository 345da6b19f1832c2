"""Several processes that train one model: started by `torchrun`, each with its share of every batch.

Each process computes the loss of the whole batch, from all embeddings: its own, with their graph, and the others',
gathered. So every row is held against the negatives of all processes, and the loss is the one that a single process with the
whole batch would compute. Its gradient reaches a process's own rows only; `DistributedDataParallel` adds these up.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgepin._errors import EdgePinError, EnvironmentFault, UsageError

from .data.loader import Raised
from .norms import depends_on_the_batch

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: as long as rank 0 may take to read a corpus that the others have read."""


@dataclass(frozen=True)
class Team:
    """The processes that train together; one that is alone makes a team, too."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gather(self, rows: Tensor, counts: list[int]) -> Tensor:
        """The rows of all processes, (sum of counts, D), of which `rows` are this one's, (counts[rank], D).

        The gradient goes to this process's rows, times the number of processes: all of them compute the same loss of what is
        gathered, and `DistributedDataParallel` will divide the sum of their gradients by that number.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self.rank, counts)
        return gathered

    def first(self, what: Callable[[], T]) -> T:
        """What rank 0 gets of `what()`, in all processes; an error of ours is raised in all of them."""
        if self.size == 1:
            return what()
        box: list[Any] = [None]
        if self.leads:
            try:
                box[0] = what()
            except EdgePinError as error:
                box[0] = Raised.of(error)
        distributed.broadcast_object_list(box, src=0, device=self.device)
        if isinstance(box[0], Raised):
            raise box[0].error()
        found: T = box[0]
        return found

    def agree(self, value: str, complaint: EdgePinError) -> None:
        """Raises `complaint` in all processes unless all give the same value."""
        if self.size == 1:
            return
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise complaint


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, counts: list[int]) -> Tensor:
        ctx.rank, ctx.counts = rank, counts
        # A collective wants the same shape everywhere.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        first = sum(ctx.counts[: ctx.rank])
        own = gradients[0][first : first + ctx.counts[ctx.rank]]
        return own * len(ctx.counts), None, None


class Replica(nn.Module):
    """The modules of one process, whose gradients become the mean over all processes in the backward pass of what it returns.

    `Replica(modules, team)(compute)` is `compute()`. Within `alone()` gradients add up in this process and stay there, until
    the next backward pass outside takes them along. `spares` says that there may be parameters which a step does not use.
    """

    def __init__(self, modules: nn.Module, team: Team, *, spares: bool = True) -> None:
        super().__init__()
        graph = _Computation(modules)
        self._shared: nn.Module = graph
        if team.size > 1:
            self._shared = DistributedDataParallel(graph, find_unused_parameters=spares)

    def forward(self, compute: Callable[[], T]) -> T:
        found: T = self._shared(compute)
        return found

    def alone(self) -> AbstractContextManager[None]:
        shared = self._shared
        return shared.no_sync() if isinstance(shared, DistributedDataParallel) else nullcontext()


class _Computation(nn.Module):
    def __init__(self, modules: nn.Module) -> None:
        super().__init__()
        self.parts = modules

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()


def synchronized(modules: nn.Module, team: Team, chunk: int) -> nn.Module:
    """Modules in training mode, fit for several processes: batch normalization takes its statistics from all of them.

    Raises UsageError where that cannot be, which is on processors, and chunk by chunk.
    """
    if team.size == 1 or not depends_on_the_batch(modules):
        return modules
    if team.device.type == "cpu" or chunk:
        where = "with a gradient cache" if chunk else "without GPUs"
        raise UsageError(
            f"batch normalization cannot be shared by processes {where}",
            hint='set norm = "group", or norm = "frozen" to go on from trained encoders (--init)',
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(modules)


@contextmanager
def joined(device: str = "auto") -> Iterator[Team]:
    """The team that `torchrun` put this process into, or this process alone. `device`: "auto", "cpu" or "cuda".

    Raises:
        UsageError: the launch cannot be right.
        EnvironmentFault: the device or its communication is not there, or another process does not answer any more.
    """
    rank, size, local = launched()
    here = pick_device(device, local)
    if size == 1:
        yield Team(device=here)
        return
    backend = "nccl" if here.type == "cuda" else "gloo"
    if not distributed.is_available() or not distributed.is_backend_available(backend):
        raise EnvironmentFault(
            f"this PyTorch has no {backend}", hint="train in one process, or install another build"
        )
    if here.type == "cuda":
        torch.cuda.set_device(here)
    try:
        distributed.init_process_group(backend, timeout=TIMEOUT, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"the {size} processes do not find each other: {str(error)[:200]}",
            hint="start them with torchrun, which says where they meet",
        ) from error
    try:
        with warnings.catch_warnings():
            # Of a depthwise kernel with one channel, whose strides can be read in two ways.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield Team(rank, size, here)
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise EnvironmentFault(
                "another process of this training has ended, or does not answer",
                hint="its own message says why; the same call goes on from the last checkpoint",
            ) from error
        raise
    finally:
        distributed.destroy_process_group()


def launched() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine), as `torchrun` says; (0, 1, 0) without it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = {name: os.environ.get(name) for name in names}
    if given["RANK"] is None and given["WORLD_SIZE"] is None:
        return 0, 1, 0
    try:
        rank, size, local = (int(given[name] or "") for name in names)
    except ValueError:
        rank, size, local = -1, -1, -1
    if not 0 <= local <= rank < size:
        said = ", ".join(f"{name}={ascii(value)[:20]}" for name, value in given.items())
        raise UsageError(
            f"this cannot be one of several processes: {said}",
            hint="start them with torchrun, or unset these variables",
        )
    return rank, size, local


def pick_device(name: str, local: int = 0) -> torch.device:
    """What "auto", "cpu" or "cuda" means here; `local` is the rank on this machine.

    Raises EnvironmentFault where there is no GPU, and UsageError where there is none for this process.
    """
    there = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    if not there:
        raise EnvironmentFault(
            "PyTorch finds no GPU", hint="edgepin doctor says what is missing; or train on the CPU"
        )
    if local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local} of this machine has no GPU of its own",
            hint=f"torchrun --nproc-per-node {torch.cuda.device_count()}",
        )
    return torch.device("cuda", local)
