"""A speech detector by a Silero VAD file (ONNX, version 5) that the user gives, for `VoiceStream(detector=...)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import EnvironmentFault
from .audio import SAMPLE_RATE

_CONTEXT = 64  # samples of the window before, which the model wants again
_OFF = 0.15  # under the threshold: what ends speech
_HINT = "give the path of a Silero VAD ONNX file, version 5"


class SileroDetector:
    """Tells speech from other sounds better than a level does. Keeps state: one for each stream.

    Raises `EnvironmentFault` if the file is missing or is not such a model.
    """

    window = 512

    def __init__(self, path: str | Path, *, threshold: float = 0.5) -> None:
        """`threshold`: the model's probability from which on a window of 32 ms is speech; 0.15 less keeps it going."""
        if not Path(path).is_file():
            raise EnvironmentFault(f"no speech detector at {path}", hint=_HINT)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._threshold, self._speaking = threshold, False
        self._state = np.zeros((2, 1, 128), dtype=np.float32)
        self._sound = np.zeros((1, _CONTEXT + self.window), dtype=np.float32)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            self._probability(np.zeros(self.window, dtype=np.int16))
        except Exception as error:  # whatever another file makes the runtime trip over
            raise EnvironmentFault(f"{path} is not a Silero VAD model: {error}", hint=_HINT) from None
        self._state[:] = 0.0

    def is_speech(self, pcm: npt.NDArray[np.int16]) -> bool:
        """See `SpeechDetector`."""
        limit = self._threshold - _OFF if self._speaking else self._threshold
        self._speaking = self._probability(pcm) >= limit
        return self._speaking

    def _probability(self, pcm: npt.NDArray[np.int16]) -> float:
        self._sound[0, :_CONTEXT] = self._sound[0, -_CONTEXT:]
        self._sound[0, _CONTEXT:] = pcm.astype(np.float32) / 32768.0
        feeds = {"input": self._sound, "state": self._state, "sr": np.array(SAMPLE_RATE, dtype=np.int64)}
        probability, self._state = self._session.run(None, feeds)
        return float(probability[0, 0])
