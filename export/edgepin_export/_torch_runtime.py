"""The trained encoders behind the device's `Runtime` protocol: what every exported form is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepin_training.checkpoint import Run


class TorchRuntime:
    """Runs a run's encoders in PyTorch, on the CPU."""

    name = "torch"

    def __init__(self, run: Run) -> None:
        self._encoders = {"face": run.face, "voice": run.voice}

    def encode(self, modality: str, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            identity, pin = self._encoders[modality](torch.from_numpy(np.ascontiguousarray(batch)))
        return identity.numpy(), pin.numpy()
