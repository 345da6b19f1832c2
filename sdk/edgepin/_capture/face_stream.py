"""A face from a camera: frames in, the best few crops out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, UsageError
from .crop import Face, FaceSpec, align
from .faces import RIVAL_SIDE, FaceFinder, find_face
from .image import check_image
from .quality import DEFAULT_LIMITS, Quality, QualityLimits, face_quality, quality_words

_LARGE_EYES = 60.0  # px between the eyes, and
_SHARP = 0.15  # sharpness: beyond, more of it makes a frame no better (the median of tight crops)
_MAX_KEEP = 32

_HINTS = {
    "waiting": "look at the camera",
    "no_face": "look at the camera",
    "several_faces": "one person at a time",
    "good": "hold on",
    "enough": "thank you, that is enough",
    "closed": "the stream is closed",
}


@dataclass(frozen=True)
class FrameState:
    """What the last frame showed, and what is kept.

    `code`: `waiting` before the first frame, `no_face`, `several_faces`, a quality verdict's (`too_small`,
    `blurred`, …), `good`, `enough` or `closed`; `hint` says in words what the person is to do.
    """

    frames: int
    """Pushed up to now."""
    faces: int
    """In the last frame."""
    kept: int
    enough: bool
    code: str
    hint: str
    measurements: Mapping[str, float] = field(default_factory=dict)
    """As `face_quality` has them, of the last frame's face."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurements", MappingProxyType(dict(self.measurements)))


@dataclass(eq=False)
class _Kept:
    at: float
    score: float
    crop: npt.NDArray[np.uint8]


class FaceStream:
    """Keeps the best few frames that are some time apart. Thread-safe; holds `keep` crops and nothing else.

    A frame counts when it passes the quality gate. The better it is, the likelier it stays: see
    `frame_score`. Crops that fall out are overwritten with zeros, and all of them when the stream is closed.
    """

    def __init__(
        self,
        finder: FaceFinder,
        spec: FaceSpec,
        keep: int = 5,
        *,
        apart: float = 0.15,
        limits: QualityLimits = DEFAULT_LIMITS,
    ) -> None:
        """`apart`: s between two frames that are kept. Raises `UsageError` for a `keep` outside 1-32 or a bad
        `apart`.
        """
        if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= _MAX_KEEP:
            raise UsageError(f"keep must be a whole number in 1-{_MAX_KEEP}, not {keep!r}")
        if not (isinstance(apart, (int, float)) and 0.0 <= apart < math.inf):
            raise UsageError(f"apart must be seconds, not {apart!r}")
        self.keep, self.apart = keep, float(apart)
        self._finder, self._spec, self._limits = finder, spec, limits
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []  # by time
        self._frames = self._faces = 0
        self._code, self._hint = "waiting", _HINTS["waiting"]
        self._measurements: Mapping[str, float] = {}
        self._closed = False
        self._last = -math.inf

    def push(self, rgb: npt.NDArray[np.uint8], *, at: float | None = None) -> FrameState:
        """Looks at a frame, uint8 RGB `(height, width, 3)`, taken at the time `at` in s (default: now).

        Raises `UsageError` for another dtype or shape, for a time before the last frame's, and on a closed
        stream.
        """
        check_image(rgb)
        at = time.monotonic() if at is None else float(at)
        with self._lock:
            if self._closed:
                raise UsageError("the stream is closed")
            if not self._last <= at < math.inf:
                raise UsageError("frames must be pushed in the order of their times")
            self._last = at
            self._frames += 1
            self._measurements = {}
            found = sorted(self._finder.find(rgb), key=lambda face: -face.side)
            self._faces = sum(face.side >= RIVAL_SIDE * found[0].side for face in found)
            try:
                face = find_face(rgb, _Found(self._finder.name, found))
                crop = align(rgb, face, self._spec)
            except CaptureError as error:
                self._code, self._hint = error.code, _HINTS.get(error.code, error.hint or "")
                return self._state()
            verdict = face_quality(crop, (rgb.shape[0], rgb.shape[1]), self._limits, face=face)
            self._measurements = verdict.measurements
            if verdict.code is not None:
                self._code, self._hint = verdict.code, quality_words(verdict.code)[1]
                crop[:] = 0
                return self._state()
            self._keep(_Kept(at, frame_score(verdict), crop))
            self._code = "enough" if len(self._kept) == self.keep else "good"
            self._hint = _HINTS[self._code]
            return self._state()

    @property
    def state(self) -> FrameState:
        """What `push` answered last."""
        with self._lock:
            return self._state()

    def best(self) -> list[npt.NDArray[np.uint8]]:
        """The kept crops, uint8 `(size, size, 3)`, best first; the caller's own copies."""
        with self._lock:
            return [kept.crop.copy() for kept in sorted(self._kept, key=lambda kept: -kept.score)]

    def in_order(self) -> list[npt.NDArray[np.uint8]]:
        """The kept crops by time, as a liveness check wants them; the caller's own copies."""
        with self._lock:
            return [kept.crop.copy() for kept in self._kept]

    def close(self) -> None:
        """Overwrites the crops with zeros. May be called again."""
        with self._lock:
            for kept in self._kept:
                kept.crop[:] = 0
            self._kept.clear()
            self._closed, self._code, self._hint = True, "closed", _HINTS["closed"]

    def __enter__(self) -> FaceStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, new: _Kept) -> None:
        """A frame too near in time to a kept one can only take that one's place; else the worst one's, if all
        are taken.
        """
        rival = None
        if self._kept and new.at - self._kept[-1].at < self.apart:
            rival = self._kept[-1]
        elif len(self._kept) == self.keep:
            rival = min(self._kept, key=lambda kept: kept.score)
        if rival is not None and rival.score >= new.score:
            new.crop[:] = 0
            return
        if rival is not None:
            rival.crop[:] = 0
            self._kept.remove(rival)
        self._kept.append(new)

    def _state(self) -> FrameState:
        return FrameState(
            frames=self._frames,
            faces=self._faces,
            kept=len(self._kept),
            enough=len(self._kept) == self.keep,
            code=self._code,
            hint=self._hint,
            measurements=self._measurements,
        )


def frame_score(verdict: Quality) -> float:
    """How good a frame is, in [0, 1]: the product of how sharp and how large the face is, how far it looks at
    the camera, and how much of it is not white.
    """
    measured = verdict.measurements
    sharp = min(1.0, measured["sharpness"] / _SHARP)
    large = min(1.0, measured.get("eye_distance", _LARGE_EYES) / _LARGE_EYES)
    straight = math.cos(math.radians(measured.get("yaw", 0.0))) * math.cos(
        math.radians(measured.get("roll", 0.0))
    )
    return max(0.0, sharp * large * straight * (1.0 - measured["overexposed"]))


@dataclass(frozen=True)
class _Found:
    """A finder that has found already."""

    name: str
    faces: list[Face]

    def find(self, rgb: npt.NDArray[np.uint8]) -> list[Face]:
        return self.faces
