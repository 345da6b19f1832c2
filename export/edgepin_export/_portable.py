"""The voice encoder with its front-end in the graph: PCM in, embeddings out.

* *portable*: the log-mel in plain operators, for anyone's runtime and compiler;
* *plugin*: the log-mel as one node `LogMel` of the domain `edgepin`, for a TensorRT plugin. Without the plugin it does
  not load.

Input `pcm`, float32 `(N, samples)` at 16 kHz with full scale 1 (TensorRT has no int16 tensors); outputs `identity` and
`pin`, float32 `(N, 256)`, unit norm. `N` and `samples` are free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from edgepin_kernels import LogMel, LogMelSpec
from edgepin_kernels._onnx import prepend_log_mel

from ._parity import Feed

FULL_SCALE = 32768.0


def portable_voice(encoder: bytes, spec: LogMelSpec) -> bytes:
    """A voice encoder that takes PCM, in standard operators only. The same arguments give the same bytes.

    Raises:
        ValueError: the encoder takes another number of mels than `spec` makes, or another type or opset.
    """
    return _in_front(encoder, spec, "inlined")


def plugin_voice(encoder: bytes, spec: LogMelSpec) -> bytes:
    """The same with the node `LogMel` in place of its operators; needs a plugin of that name. Raises as above."""
    return _in_front(encoder, spec, "node")


def pcm_feeds(clips: Sequence[NDArray[np.int16]]) -> list[Feed]:
    """Captures as the portable encoder takes them, of batch 1."""
    return [{"pcm": (clip.astype(np.float32) / np.float32(FULL_SCALE))[np.newaxis]} for clip in clips]


def log_mel_feeds(clips: Sequence[NDArray[np.int16]], spec: LogMelSpec) -> list[Feed]:
    """The same captures as the encoder takes them, through the kernel that the device runs."""
    log_mel = LogMel(spec)
    return [{"log_mel": log_mel(clip[np.newaxis])} for clip in clips]


def _in_front(encoder: bytes, spec: LogMelSpec, form: str) -> bytes:
    model = prepend_log_mel(onnx.load_model_from_string(encoder), spec, samples="float32", form=form)  # type: ignore[arg-type]
    # The type of `log_mel` stays in the model: nothing else says what the plugin's node gives.
    return bytes(model.SerializeToString(deterministic=True))
