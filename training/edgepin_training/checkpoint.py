"""A run on disk: `run.json` (what it was told and trained on) and `checkpoint.safetensors` (where it stands).

The checkpoint is one file, written beside and renamed, so that a killed run leaves a whole older one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edgepin._errors import EnvironmentFault, IntegrityError, UsageError
from edgepin._safe_files import sync_folder, write_atomic
from edgepin_kernels import LogMelSpec

from .config import TrainConfig
from .matching import MatchingHead
from .norms import with_norm
from .registry import build_encoder
from .vggm import BINS

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Run:
    """Trained encoders in evaluation mode, and where they come from."""

    path: Path
    config: TrainConfig
    corpus: dict[str, Any]
    step: int
    face: nn.Module
    voice: nn.Module
    others: dict[str, nn.Module] = field(default_factory=dict)  # of modalities beyond face and voice


def build_encoders(config: TrainConfig, others: dict[str, tuple[int, ...]]) -> dict[str, nn.Module]:
    """New encoders of faces, voices, and of the `others`, given with the shape of one item."""
    frames = int(config.voice_seconds * 100)
    bins = BINS if config.encoders == "vggm" else LogMelSpec.preset(config.log_mel).num_mels
    shapes = {"face": (config.face_size, config.face_size, 3), "voice": (frames, bins), **others}
    encoders = {
        modality: with_norm(build_encoder(modality, config, shape), config.norm)
        for modality, shape in shapes.items()
    }
    if config.matching_head:
        encoders = {modality: MatchingHead(encoder) for modality, encoder in encoders.items()}
    return encoders


def write_run(path: Path, config: TrainConfig, corpus: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": 1, "config": config.to_json(), "corpus": corpus}, indent=2) + "\n"
    write_atomic(path / RUN_FILE, [text.encode()])


def read_run(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    try:
        values = json.loads((path / RUN_FILE).read_text("utf-8"))
        return TrainConfig.from_json(values["config"]), values["corpus"]
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} holds no training run", hint="make one with `edgepin train --out RUN`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path / RUN_FILE} is damaged: {error}") from error


def save_checkpoint(
    path: Path,
    step: int,
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Writes where a run stands; raises EnvironmentFault, and leaves the older checkpoint, where that cannot be written."""
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in modules.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is None:  # momentum that has not begun
                continue
            tensors[f"optimizer.{number}.{name}"] = value
    if scaler is not None:
        for name, value in scaler.state_dict().items():  # nothing where it does nothing
            tensors[f"scaler.{name}"] = torch.tensor(value)
    beside = path / (CHECKPOINT_FILE + ".part")
    try:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            beside,
            metadata={"step": str(step)},
        )
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path / CHECKPOINT_FILE)
        sync_folder(path)
    except (SafetensorError, OSError) as error:
        raise EnvironmentFault(
            f"cannot write {path / CHECKPOINT_FILE}: {error}",
            hint="check its space; then the same call goes on from the checkpoint before",
        ) from error


def load_checkpoint(
    path: Path,
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Fills the modules (those the checkpoint has), the optimizer and the scaler; returns the step."""
    file = path / CHECKPOINT_FILE
    if not file.is_file():
        raise UsageError(
            f"{path} holds no checkpoint yet", hint="let the training run to its first checkpoint"
        )
    try:
        with safe_open(file, "pt") as archive:
            step = int(archive.metadata()["step"])
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
        prefixes = tuple(f"{name}." for name in modules)
        model = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        modules.load_state_dict({name: value for name, value in model.items() if name.startswith(prefixes)})
        if optimizer is not None:
            fill_optimizer(optimizer, tensors)
        if scaler is not None and scaler.is_enabled():
            scaler.load_state_dict({name: tensors[f"scaler.{name}"].item() for name in scaler.state_dict()})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise IntegrityError(f"{file} is damaged, or of other encoders: {error}") from error
    return step


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Its state, from tensors that are called `optimizer.<number of the parameter>.<name>`."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            states.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def load_run(path: str | Path) -> Run:
    """The encoders of a run, as of its last checkpoint, in evaluation mode."""
    path = Path(path)
    config, corpus = read_run(path)
    shapes = {name: tuple(summary["shape"]) for name, summary in corpus.get("others", {}).items()}
    encoders = build_encoders(config, shapes)
    step = load_checkpoint(path, nn.ModuleDict(encoders))
    ready = {modality: encoder.eval() for modality, encoder in encoders.items()}
    return Run(path, config, corpus, step, ready.pop("face"), ready.pop("voice"), ready)
