"""When somebody speaks: a level over a noise floor that follows the room.

The floor is the least level of the last seconds (after the minimum statistics of Martin 2001, without their
bias correction); a frame is speech when it stands out of it. That tells speech from a steady noise, not from
music or other people's speech; a detector of another kind can be put in.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .audio import SAMPLE_RATE, frame_levels

FRAME = SAMPLE_RATE // 100
"""Samples: 10 ms."""

_QUIET_DBFS = -60.0  # never speech, however still the room is
_ON_DB, _OFF_DB = 9.0, 6.0  # over the floor: what starts speech, and what keeps it going
_ONSET = 3  # frames in a row: a click is no speech
_HANG = 12  # frames: the closure of a stop consonant does not end speech
_SMOOTH = 5  # frames: the floor is of levels over 50 ms
_BLOCK, _BLOCKS = 25, 8  # the floor is the least of the last 8 blocks of 0.25 s


class SpeechDetector(Protocol):
    """Decides, window by window, whether somebody speaks. It keeps state: one for each stream."""

    @property
    def window(self) -> int:
        """Samples at 16 kHz that `is_speech` takes."""
        ...

    def is_speech(self, pcm: npt.NDArray[np.int16]) -> bool:
        """Whether the next window, int16 `(window,)`, is speech."""
        ...


class EnergyDetector:
    """The detector by level: 9 dB over the noise floor start speech, 6 dB keep it going."""

    window = FRAME

    def __init__(self) -> None:
        self.level = -120.0
        """dBFS of the last window."""
        self._recent: deque[float] = deque(maxlen=_SMOOTH)  # powers
        self._blocks: deque[float] = deque(maxlen=_BLOCKS)
        self._block_least, self._in_block = math.inf, 0
        self._run, self._hang = 0, 0

    @property
    def floor(self) -> float:
        """dBFS of the noise; 0 before 50 ms were heard."""
        least = min([self._block_least, *self._blocks])
        return 10.0 * math.log10(least + 1e-12) if least < math.inf else 0.0

    def is_speech(self, pcm: npt.NDArray[np.int16]) -> bool:
        """See `SpeechDetector`. The first windows of a sound are judged late: there is no floor yet."""
        self.level = float(frame_levels(pcm)[0])
        return self._next(self.level)

    def _next(self, level: float) -> bool:
        self._recent.append(10.0 ** (level / 10.0))
        if len(self._recent) == _SMOOTH:
            self._block_least = min(self._block_least, sum(self._recent) / _SMOOTH)
        self._in_block += 1
        if self._in_block == _BLOCK:
            self._blocks.append(self._block_least)
            self._block_least, self._in_block = math.inf, 0
        over = level - max(self.floor, _QUIET_DBFS)
        if self._hang > 0:
            self._hang = _HANG if over >= _OFF_DB else self._hang - 1
        self._run = self._run + 1 if over >= _ON_DB else 0
        if self._run >= _ONSET:
            self._hang = _HANG
        return self._hang > 0
