"""The state of a distillation on disk: weights, their average, the optimizer, the step, and what the run was told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edgepin._errors import IntegrityError, UsageError

from .checkpoint import fill_optimizer

STATE_FILE = "distill.safetensors"


def floats(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What is averaged: weights and running statistics."""
    return ((name, value) for name, value in encoder.state_dict().items() if value.is_floating_point())


def load_average(encoder: nn.Module, out: Path) -> int:
    """Fills `encoder` with the averaged weights of a run's last state, in evaluation mode; returns the step.

    Raises:
        UsageError: there is no state yet, or it is of another encoder.
        IntegrityError: the state is damaged.
    """
    _, step, tensors = _read(out)
    _fill(dict(floats(encoder)), tensors, out)
    encoder.eval()
    return step


def read_told(out: Path) -> dict[str, Any]:
    """What a state was begun with, and only goes on with: options of `distill`, and its `told`.

    Raises:
        UsageError: there is no state yet.
        IntegrityError: the state is damaged.
    """
    return _read(out)[0]


def save_state(
    out: Path,
    step: int,
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    identity: str,
) -> None:
    """Replaces the state in `out`; a kill leaves the old one or the new one."""
    tensors = {f"model.{name}": value for name, value in modules.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    beside = out / (STATE_FILE + ".part")
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        beside,
        metadata={"step": str(step), "identity": identity},
    )
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, out / STATE_FILE)


def load_state(
    out: Path,
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    identity: str,
) -> int:
    """Fills what `save_state` saved, and returns the step.

    Raises:
        UsageError: the state is of a run with another `identity`, or of another encoder.
        IntegrityError: the state is damaged.
    """
    kept, step, tensors = _read(out)
    if kept != json.loads(identity):
        raise UsageError(f"{out} holds a run with other options or data", hint="choose another folder")
    _fill(average, tensors, out)
    try:
        modules.load_state_dict({n[6:]: v for n, v in tensors.items() if n.startswith("model.")})
        fill_optimizer(optimizer, tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise IntegrityError(f"{out / STATE_FILE} is damaged: {error}") from error
    return step


def _fill(average: dict[str, Tensor], tensors: dict[str, Tensor], out: Path) -> None:
    for name, value in average.items():
        kept = tensors.get(f"average.{name}")
        if kept is None or kept.shape != value.shape:
            raise UsageError(f"{out} holds another encoder: its {name} differs", hint="choose another folder")
    with torch.no_grad():
        for name, value in average.items():
            value.copy_(tensors[f"average.{name}"])


def _read(out: Path) -> tuple[dict[str, Any], int, dict[str, Tensor]]:
    """What it was told, the step, and the tensors by name."""
    file = out / STATE_FILE
    if not file.is_file():
        raise UsageError(f"{out} holds no distillation yet", hint="let the training run to its first state")
    try:
        with safe_open(file, "pt") as archive:
            metadata = archive.metadata()
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
            return json.loads(metadata["identity"]), int(metadata["step"]), tensors
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{file} is damaged: {error}") from error
