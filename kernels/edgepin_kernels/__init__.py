"""The log-mel spectrogram: one definition, `LogMelSpec`, and what computes it.

from edgepin_kernels import LogMel, LogMelSpec

log_mel = LogMel(LogMelSpec.preset("kaldi"))
log_mel(pcm)          # (samples,) -> (frames, mels); (batch, samples) -> (batch, frames, mels)
"""

from __future__ import annotations

from edgepin_kernels._compiled import available_kernels
from edgepin_kernels._log_mel import LogMel
from edgepin_kernels._onnx import log_mel_onnx, prepend_log_mel
from edgepin_kernels._reference import reference_log_mel
from edgepin_kernels._spec import LogMelSpec

__all__ = [
    "LogMel",
    "LogMelSpec",
    "available_kernels",
    "log_mel_onnx",
    "prepend_log_mel",
    "reference_log_mel",
]
