"""What runs the encoders: a small protocol, and ONNX Runtime behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._errors import BundleError, EdgePinError, EnvironmentFault, UsageError

INPUT_NAMES = {"face": "face", "voice": "log_mel"}
OUTPUT_NAMES = ("identity", "pin")
BACKENDS = ("auto", "onnxruntime")


class Runtime(Protocol):
    """Runs both encoders. Implementations must be callable from several threads."""

    @property
    def name(self) -> str:
        """What reports call it, such as `onnxruntime-cpu`."""
        ...

    def encode(self, modality: str, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Face (N, S, S, 3) uint8 or log-mel (N, T, M) float32 -> identity (N, 256), pin (N, 256), float32."""
        ...


class OnnxRuntime:
    """The encoders on ONNX Runtime's CPU provider.

    `models` are ONNX bytes by modality, `threads` is per call. Raises `EnvironmentFault` where onnxruntime is missing
    and `BundleError` where it refuses a model.
    """

    name = "onnxruntime-cpu"

    def __init__(self, models: Mapping[str, bytes], *, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EnvironmentFault("onnxruntime is not installed", hint="pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._sessions = {}
        for modality, model in models.items():
            try:
                self._sessions[modality] = onnxruntime.InferenceSession(
                    model, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's errors share no base below Exception
                raise BundleError(
                    f"ONNX Runtime refuses the {modality} encoder: {_first_line(error)}"
                ) from error

    def encode(self, modality: str, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            identity, pin = self._sessions[modality].run(OUTPUT_NAMES, {INPUT_NAMES[modality]: batch})
        except Exception as error:
            raise EdgePinError(f"the {modality} encoder failed: {_first_line(error)}") from error
        return identity, pin


def choose_backend(backend: str, require: str | None) -> str:
    """The backend that will run. Chosen once; a later failure is an error, never a slower answer."""
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", hint=f"choose one of: {', '.join(BACKENDS)}")
    if require not in (None, "onnxruntime"):
        raise EnvironmentFault(f"{require} is required, and this version runs encoders on ONNX Runtime only")
    return "onnxruntime"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
