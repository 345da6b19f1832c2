"""Starting from encoders that were trained before: `init` of the configuration."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgepin._errors import IntegrityError, UsageError

from .checkpoint import CHECKPOINT_FILE
from .matching import MatchingHead


def start_from(init: Path, encoders: dict[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Fills encoders with the tensors of `init` that have their names and shapes.

    `init` is a run's folder, or a safetensors file with names such as `face.trunk.0.0.weight`. Returns, by modality, how many
    tensors were filled, and of how many. Raises UsageError where none fits, or not all of an encoder that stays frozen;
    IntegrityError for a damaged file.
    """
    file = init / CHECKPOINT_FILE if init.is_dir() else init
    if not file.is_file():
        raise UsageError(f"init: there is no checkpoint at {init}", hint="give a run that has been trained")
    try:
        tensors = {name.removeprefix("model."): value for name, value in load_file(file).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise IntegrityError(f"{file} is damaged: {error}") from error
    filled = {}
    for modality, encoder in encoders.items():
        inner = encoder.encoder if isinstance(encoder, MatchingHead) else encoder
        own = inner.state_dict()
        fitting = {
            name: found
            for name, value in own.items()
            if (found := tensors.get(f"{modality}.{name}")) is not None and found.shape == value.shape
        }
        if not fitting or (isinstance(encoder, MatchingHead) and len(fitting) < len(own)):
            raise UsageError(
                f"init: {len(fitting)} of {len(own)} tensors of the {modality} encoder are in {file}",
                hint="give the widths and the kind of encoder that it was trained with",
            )
        inner.load_state_dict(own | fitting)
        filled[modality] = (len(fitting), len(own))
    return filled
