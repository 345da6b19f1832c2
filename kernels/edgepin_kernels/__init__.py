"""The log-mel spectrogram: one definition, `LogMelSpec`, and what computes it.

from edgepin_kernels import LogMel, LogMelSpec

log_mel = LogMel(LogMelSpec.preset("kaldi"))
log_mel(pcm)          # (samples,) -> (frames, mels); (batch, samples) -> (batch, frames, mels)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepin_kernels._compiled import available_kernels
from edgepin_kernels._log_mel import LogMel
from edgepin_kernels._onnx import log_mel_onnx, prepend_log_mel
from edgepin_kernels._reference import reference_log_mel
from edgepin_kernels._spec import LogMelSpec

if TYPE_CHECKING:
    from edgepin_kernels._cuda import CudaError, CudaLogMel, CudaUnavailableError, DeviceArray

_ON_A_GPU = ("CudaError", "CudaLogMel", "CudaUnavailableError", "DeviceArray")

__all__ = [
    "CudaError",
    "CudaLogMel",
    "CudaUnavailableError",
    "DeviceArray",
    "LogMel",
    "LogMelSpec",
    "available_kernels",
    "log_mel_onnx",
    "prepend_log_mel",
    "reference_log_mel",
]


def __getattr__(name: str) -> Any:
    # Where there is no GPU, nothing of it is even read.
    if name in _ON_A_GPU:
        from edgepin_kernels import _cuda

        return getattr(_cuda, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
