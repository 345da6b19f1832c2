"""Liveness: what may be asked of a sequence of frames before they are compared.

`LivenessCheck` is the place to put in a check of your own. The built-in one, `FrameMotion`, refuses what does
not move and what moves as a flat picture does. It is no presentation attack detection in the sense of ISO/IEC
30107, and stops nobody who shows a video on a screen: docs/liveness.md says what it stops and what it does
not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._errors import UsageError
from .image import check_image

_SIDE = 64  # px: frames are compared at this size
_SMOOTH = 1.2  # px: the blur that takes the sensor's noise out before a frame is compared
_EDGE = 8  # px: what lies outside the face
_COARSE = 9  # px: the width of the blur under which the registration begins
_ITERATIONS, _EPSILON = 50, 1e-4  # of the registration


@dataclass(frozen=True)
class Liveness:
    """A verdict: `live`, or the `code` of what spoke against it, with what was measured."""

    live: bool
    code: str | None
    measurements: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurements", MappingProxyType(dict(self.measurements)))


class LivenessCheck(Protocol):
    """Says whether captures come from a living person. May be called from several threads."""

    def check(self, frames: Sequence[npt.NDArray[np.uint8]], voice: npt.NDArray[np.int16] | None) -> Liveness:
        """`frames`: face crops in the order of their times, uint8 `(size, size, 3)`; `voice`: int16
        `(samples,)` at 16 kHz, if any.
        """
        ...


@dataclass(frozen=True)
class FrameMotion:
    """Frames of a face must differ, and by more than the movement of a flat picture explains.

    Each frame is laid over the first by the plane transform (homography) that fits best (Evangelidis and
    Psarakis 2008, "Parametric image alignment using enhanced correlation coefficient maximization"), with the
    best gain and offset for the light. What is left over, as a part of the frame's contrast, is its residual;
    of a flat picture it is small however it is moved. The second largest residual decides: one frame that
    cannot be laid over the first proves nothing. Codes: `too_few_frames`, `still` (all frames are one),
    `flat`. Raises `ValueError` on limits that cannot be.
    """

    min_frames: int = 4
    min_difference: float = 0.02
    """Of a frame to the first before they are laid over each other: RMS as a part of the contrast. Under it,
    nothing moved.
    """
    min_residual: float = 0.05
    """Likewise after it; under it, a flat picture would do."""

    def __post_init__(self) -> None:
        if isinstance(self.min_frames, bool) or not isinstance(self.min_frames, int) or self.min_frames < 3:
            raise ValueError(f"min_frames must be a whole number from 3, not {self.min_frames!r}")
        for name in ("min_difference", "min_residual"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")

    def check(
        self, frames: Sequence[npt.NDArray[np.uint8]], voice: npt.NDArray[np.int16] | None = None
    ) -> Liveness:
        """See `LivenessCheck`; the voice is not looked at. Raises `UsageError` for frames that are no images."""
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise UsageError("the frames must be a sequence of images")
        gray = [_smooth_gray(frame) for frame in frames]
        if len(gray) < self.min_frames:
            return Liveness(False, "too_few_frames", {"frames": float(len(gray))})
        differences = [_relative_difference(gray[0], frame) for frame in gray[1:]]
        residuals = [_plane_residual(gray[0], frame) for frame in gray[1:]]
        measured = {
            "frames": float(len(gray)),
            "difference": max(differences),
            "residual": sorted(residuals)[-2],
        }
        code = None
        if not measured["difference"] >= self.min_difference:
            code = "still"
        elif not measured["residual"] >= self.min_residual:
            code = "flat"
        return Liveness(code is None, code, measured)


def _smooth_gray(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    check_image(frame)
    import cv2

    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if gray.shape != (_SIDE, _SIDE):
        how = cv2.INTER_AREA if min(gray.shape) > _SIDE else cv2.INTER_CUBIC
        gray = cv2.resize(gray, (_SIDE, _SIDE), interpolation=how)
    return np.asarray(cv2.GaussianBlur(gray.astype(np.float32), (0, 0), _SMOOTH), dtype=np.float32)


def _relative_difference(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_] | None = None
) -> float:
    """RMS of what of `first` no gain and offset of `second` explains, over the standard deviation of `first`."""
    a, b = (first.ravel(), second.ravel()) if mask is None else (first[mask], second[mask])
    a, b = a - a.mean(), b - b.mean()
    power, other = float(a @ a), float(b @ b)
    if power < 1e-6 * a.size or other < 1e-6 * a.size:  # one color: nothing to see
        return 0.0
    return math.sqrt(max(0.0, 1.0 - float(a @ b) ** 2 / (power * other)))


def _plane_residual(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """`_relative_difference` where the two overlap, after `second` was laid over `first` as a plane.

    If the registration does not converge, the two have little in common; then it is that of the better of
    what it tried.
    """
    import cv2

    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, _EPSILON)
    least = _relative_difference(first, second)
    moved = np.eye(3, dtype=np.float32)
    for kind, blur in (
        (cv2.MOTION_AFFINE, _COARSE),
        (cv2.MOTION_HOMOGRAPHY, _COARSE),
        (cv2.MOTION_HOMOGRAPHY, 1),
    ):
        plane = kind == cv2.MOTION_HOMOGRAPHY
        start = moved if plane else np.ascontiguousarray(moved[:2])
        try:
            _, matrix = cv2.findTransformECC(first, second, start, kind, stop, None, blur)
        except cv2.error:
            continue
        moved[: len(matrix)] = matrix
        size, flags = (_SIDE, _SIDE), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        laid = cv2.warpPerspective(second, moved, size, flags=flags)
        seen = cv2.warpPerspective(np.ones_like(second), moved, size, flags=flags) > 0.999
        seen[:_EDGE], seen[-_EDGE:], seen[:, :_EDGE], seen[:, -_EDGE:] = False, False, False, False
        if seen.mean() > 0.3:
            least = min(least, _relative_difference(first, laid, seen))
    return least
