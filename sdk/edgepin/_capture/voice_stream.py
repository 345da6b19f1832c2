"""A voice from a microphone: samples in chunks of any size, until enough speech was heard."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, UsageError
from .activity import EnergyDetector, SpeechDetector
from .audio import SAMPLE_RATE, check_pcm, check_sample_rate, frame_levels, to_int16, to_unit

_MARGIN = SAMPLE_RATE // 4  # samples kept before the first speech
_BLOCKS_A_SECOND = 50
_LEVEL_SPAN = 0.3  # s
_QUIET, _LOUD = -50.0, -6.0  # dBFS of speech: under and over which the person is told

_HINTS = {
    "listening": "speak now",
    "speaking": "speak on",
    "quiet": "speak louder, or closer to the microphone",
    "loud": "speak more quietly, or further from the microphone",
    "enough": "thank you, that is enough",
    "no_speech": "nobody was heard: check the microphone, and speak closer to it",
    "too_short": "too little was said: speak on without long pauses",
    "closed": "the stream is closed",
}


@dataclass(frozen=True)
class VoiceStreamLimits:
    """When it is enough, and when to give up. Raises `ValueError` unless 0 < speech_seconds <= max_seconds <=
    60.
    """

    speech_seconds: float = 3.0
    """s of speech that are enough."""
    max_seconds: float = 15.0
    """s of sound after which it gives up."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        if not 0.0 < self.speech_seconds <= self.max_seconds <= 60.0:
            raise ValueError("speech_seconds and max_seconds must be 0 < speech_seconds <= max_seconds <= 60")


@dataclass(frozen=True)
class StreamState:
    """What was heard up to now.

    `code`: `listening`, `speaking`, `quiet`, `loud` while it goes on; `enough` when it succeeded; `no_speech`
    or `too_short` when it gave up; `closed`. `hint` says in words what the person is to do.
    """

    seconds: float
    """s of sound heard."""
    speech_seconds: float
    """s of it that are speech."""
    enough: bool
    finished: bool
    """Nothing more is taken: enough, given up, or closed."""
    level: float
    """dBFS of the last 0.3 s; -120 for silence."""
    code: str
    hint: str


class VoiceStream:
    """Takes samples until there is enough speech in them, or too much time has passed. Thread-safe.

    However the samples are cut into chunks, the same comes out: they are resampled and judged in blocks of
    the stream's own. It keeps at most `max_seconds` of 16 kHz sound, and overwrites that with zeros when it
    is closed.
    """

    def __init__(
        self,
        sample_rate: float,
        *,
        limits: VoiceStreamLimits | None = None,
        detector: SpeechDetector | None = None,
    ) -> None:
        """`sample_rate` in Hz, 8-192 kHz; `detector` (default: by level) keeps state, so give each stream its
        own.
        """
        self.sample_rate = check_sample_rate(sample_rate)
        self.limits = limits or VoiceStreamLimits()
        self._detector: SpeechDetector = detector or EnergyDetector()
        if not 1 <= self._detector.window <= SAMPLE_RATE:
            raise UsageError(
                f"a detector's window must be 1-{SAMPLE_RATE} samples, not {self._detector.window}"
            )
        self._lock = threading.Lock()
        self._channels: int | None = None
        self._block = max(1, self.sample_rate // _BLOCKS_A_SECOND)
        self._waiting = np.zeros(self._block, dtype=np.float32)
        self._waiting_count = 0
        self._resampler: Any = None
        if self.sample_rate != SAMPLE_RATE:
            import soxr

            self._resampler = soxr.ResampleStream(
                self.sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )
        self._pcm = np.zeros(math.ceil(self.limits.max_seconds * SAMPLE_RATE), dtype=np.int16)
        self._heard = self._judged = self._speech = 0  # samples at 16 kHz
        self._first_speech: int | None = None
        self._speech_power = self._speech_windows = 0.0
        self._code = "listening"

    def push(self, pcm: npt.NDArray[Any]) -> StreamState:
        """Takes a chunk: int16, int32, float32 or float64, `(samples,)` or `(samples, channels)`, of any
        length, 0 included.

        What comes after the end is let go. Raises `UsageError` for another dtype or shape, or another number
        of channels than before, and `CaptureError` (`not_finite`); then nothing of the chunk was taken.
        """
        check_pcm(pcm)
        channels = 1 if pcm.ndim == 1 else int(pcm.shape[1])
        unit = to_unit(pcm)
        with self._lock:
            if self._channels not in (None, channels):
                raise UsageError(f"the stream has {self._channels} channels, and this chunk {channels}")
            self._channels = channels
            taken = 0
            while taken < unit.shape[0] and not self._finished:
                part = unit[taken : taken + self._block - self._waiting_count]
                self._waiting[self._waiting_count : self._waiting_count + part.shape[0]] = part
                self._waiting_count += part.shape[0]
                taken += part.shape[0]
                if self._waiting_count == self._block:
                    self._waiting_count = 0
                    self._take(self._waiting, last=False)
            unit[:] = 0.0
            return self._state()

    def finish(self) -> StreamState:
        """Says that no more will come: what still waited for a whole block is judged, and the stream ends."""
        with self._lock:
            if not self._finished:
                rest, self._waiting_count = self._waiting[: self._waiting_count], 0
                self._take(rest, last=True)
            if not self._finished:
                self._give_up()
            return self._state()

    @property
    def state(self) -> StreamState:
        """What `push` answered last."""
        with self._lock:
            return self._state()

    def take(self) -> npt.NDArray[np.int16]:
        """What was heard, from 0.25 s before the first speech: int16 `(samples,)` at 16 kHz, the caller's own
        copy. The stream is closed by it.

        Raises `CaptureError` unless there was enough: `no_speech` or `too_short`.
        """
        with self._lock:
            if self._code == "closed":
                raise UsageError("the stream is closed")
            if self._code != "enough":
                code = "no_speech" if self._first_speech is None else "too_short"
                raise CaptureError(
                    f"{self._speech / SAMPLE_RATE:.1f} of {self.limits.speech_seconds:g} s of speech were heard",
                    code=code,
                    hint=_HINTS[code],
                )
            start = max(0, (self._first_speech or 0) - _MARGIN)
            pcm: npt.NDArray[np.int16] = self._pcm[start : self._heard].copy()
            self._close()
            return pcm

    def close(self) -> None:
        """Overwrites what was heard with zeros. May be called again."""
        with self._lock:
            self._close()

    def __enter__(self) -> VoiceStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _finished(self) -> bool:
        return self._code in ("enough", "no_speech", "too_short", "closed")

    def _take(self, unit: npt.NDArray[np.float32], *, last: bool) -> None:
        """A block at the source's rate: resample, keep, judge."""
        if self._resampler is not None:
            unit = np.asarray(self._resampler.resample_chunk(unit, last=last), dtype=np.float32)
        samples = to_int16(unit)
        room = samples[: self._pcm.shape[0] - self._heard]
        self._pcm[self._heard : self._heard + room.shape[0]] = room
        self._heard += room.shape[0]
        window = self._detector.window
        while self._heard - self._judged >= window:
            start = self._judged
            part = self._pcm[start : start + window]
            self._judged += window
            if self._detector.is_speech(part):
                if self._first_speech is None:
                    self._first_speech = start
                self._speech += window
                self._speech_power += float(np.mean(part.astype(np.float32) ** 2)) / 32768.0**2
                self._speech_windows += 1.0
            if self._speech >= self.limits.speech_seconds * SAMPLE_RATE:
                self._code = "enough"
                return
        if self._heard == self._pcm.shape[0]:
            self._give_up()

    def _give_up(self) -> None:
        self._code = "no_speech" if self._first_speech is None else "too_short"

    def _state(self) -> StreamState:
        recent = self._pcm[max(0, self._heard - int(_LEVEL_SPAN * SAMPLE_RATE)) : self._heard]
        levels = frame_levels(recent)
        level = 10.0 * math.log10(float(np.mean(10.0 ** (levels / 10.0)))) if levels.shape[0] else -120.0
        code = self._code
        if code == "listening" and self._speech_windows:
            speech = 10.0 * math.log10(self._speech_power / self._speech_windows + 1e-12)
            code = "quiet" if speech < _QUIET else "loud" if speech > _LOUD else "speaking"
        return StreamState(
            seconds=self._heard / SAMPLE_RATE,
            speech_seconds=self._speech / SAMPLE_RATE,
            enough=code == "enough",
            finished=self._finished,
            level=level,
            code=code,
            hint=_HINTS[code],
        )

    def _close(self) -> None:
        self._pcm[:] = 0
        self._waiting[:] = 0.0
        self._resampler = None
        self._heard = self._judged = self._speech = self._waiting_count = 0
        self._first_speech = None
        self._code = "closed"
