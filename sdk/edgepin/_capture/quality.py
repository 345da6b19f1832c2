"""Whether a capture is good enough to be compared: the gate before the encoders.

A verdict is measured first (`voice_quality`, `face_quality`: nothing is raised for a bad capture) and
enforced second (`check_voice`, `check_face_crop`). The gate is for captures that cannot work, not for hard
ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, UsageError
from .audio import SAMPLE_RATE, active_frames, frame_levels
from .crop import MIN_CROP_SIDE
from .image import check_image

_FULL_SCALE = 32_200  # of 32,768: resampling rounds the flat tops of clipped sound off by up to 2 %
_FULL_SCALE_RUN = 3  # samples
_MEASURED_SIDE = 64  # px: contrast and sharpness are measured on a crop no larger


@dataclass(frozen=True)
class QualityLimits:
    """Where the gate stands. Raises `ValueError` on a limit that is not a finite number.

    What the defaults reject, as measured on data that they were set by: none of 200 LibriSpeech clips of 4-5 s
    and none of 351 of up to 12 s; 4 of 619 short spoken commands (0.6 %, all `too_short`); none of 585 tight
    64x64 face crops, none of 600 aligned 112x112 ones as they are, and 1 of the 593 that YuNet finds in them.
    Of 9,371 more tight crops it rejects 5 (0.05 %, `blurred`). Blurred by a Gaussian of 1, 2 and 3 px of 64, of
    the 585 it rejects 5, 94 and 99 %, of the 600 it rejects 9, 99 and 100 %.
    """

    min_seconds: float = 1.0
    """s of sound after trimming, under which it is `too_short`."""
    min_active_seconds: float = 0.5
    """s of sound that is not silence, under which it is `too_short` as well."""
    min_level: float = -55.0
    """dBFS, RMS over the frames that are not silence, under which it is `silent`."""
    max_clipped: float = 0.01
    """Part of the samples that lie in runs at full scale, over which it is `clipped`."""
    min_source_side: int = MIN_CROP_SIDE
    """px, the shorter side of the image that the crop comes from, under which it is `too_small`."""
    min_contrast: float = 8.0
    """Standard deviation of the crop's gray values (0-255), under which it is `blank`."""
    min_sharpness: float = 0.02
    """Variance of the Laplacian of the crop's gray values over their variance, under which it is `blurred`."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")


DEFAULT_LIMITS = QualityLimits()


@dataclass(frozen=True)
class Quality:
    """A verdict: `ok`, or the `code` of what is wrong, with what was measured (units as in `QualityLimits`)."""

    ok: bool
    code: str | None
    measurements: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurements", MappingProxyType(dict(self.measurements)))


def voice_quality(pcm: npt.NDArray[np.int16], limits: QualityLimits = DEFAULT_LIMITS) -> Quality:
    """The verdict on trimmed 16 kHz speech, int16 `(samples,)`: measures `seconds`, `active_seconds`, `level`
    and `clipped`.

    `silent` is said before `too_short`, since silence cannot be trimmed to a length. Raises `UsageError` for
    another dtype or shape.
    """
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
        raise UsageError("the voice must be int16 samples, (samples,): see `prepare`")
    active = active_frames(pcm)
    power = 10.0 ** (frame_levels(pcm)[active].astype(np.float64) / 10.0)
    level = 10.0 * math.log10(float(power.mean())) if power.shape[0] else -120.0
    measured = {
        "seconds": pcm.shape[0] / SAMPLE_RATE,
        "active_seconds": float(active.sum()) * 0.01,
        "level": level,
        "clipped": _clipped_part(pcm),
    }
    code = None
    frames_there = active.shape[0] > 0
    if frames_there and level < limits.min_level:
        code = "silent"
    elif measured["seconds"] < limits.min_seconds or measured["active_seconds"] < limits.min_active_seconds:
        code = "too_short"
    elif measured["clipped"] > limits.max_clipped:
        code = "clipped"
    return Quality(code is None, code, measured)


def face_quality(
    crop: npt.NDArray[np.uint8],
    source_size: tuple[int, int] | None = None,
    limits: QualityLimits = DEFAULT_LIMITS,
) -> Quality:
    """The verdict on a face crop, uint8 `(size, size, 3)`, from an image of `source_size` (height, width) px,
    if known.

    Measures `source_side` (of the crop itself if unknown), `contrast` and `sharpness`. Raises `UsageError`
    for another dtype or shape.
    """
    check_image(crop)
    import cv2

    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if (
        max(gray.shape) > _MEASURED_SIDE
    ):  # a larger crop of the same image would otherwise pass for a more blurred one
        gray = cv2.resize(gray, (_MEASURED_SIDE, _MEASURED_SIDE), interpolation=cv2.INTER_AREA)
    gray = gray.astype(np.float32)
    contrast = float(gray.std())
    # Relative to the contrast, so that dim light is not taken for blur.
    sharpness = float(cv2.Laplacian(gray, cv2.CV_32F).var()) / max(contrast**2, 1e-6)
    side = min(source_size) if source_size is not None else min(crop.shape[:2])
    measured = {"source_side": float(side), "contrast": contrast, "sharpness": sharpness}
    code = None
    if side < limits.min_source_side:
        code = "too_small"
    elif contrast < limits.min_contrast:
        code = "blank"
    elif sharpness < limits.min_sharpness:
        code = "blurred"
    return Quality(code is None, code, measured)


_WORDS = {
    "too_short": ("there is too little speech in the sound", "speak for at least 2 seconds"),
    "silent": ("the sound is silent", "check the microphone, and speak closer to it"),
    "clipped": ("the sound is overdriven", "turn the microphone down, or speak further from it"),
    "too_small": ("the image is too small", "give a larger image"),
    "blank": ("the image shows nothing", "check the camera and the light"),
    "blurred": ("the face is blurred", "hold still, and check the lens and the focus"),
}


def check_voice(pcm: npt.NDArray[np.int16], limits: QualityLimits = DEFAULT_LIMITS) -> Quality:
    """`voice_quality` if good; raises `CaptureError` with its code (`silent`, `too_short`, `clipped`) if not."""
    return _enforce(voice_quality(pcm, limits))


def check_face_crop(
    crop: npt.NDArray[np.uint8],
    source_size: tuple[int, int] | None = None,
    limits: QualityLimits = DEFAULT_LIMITS,
) -> Quality:
    """`face_quality` if good; raises `CaptureError` with its code (`too_small`, `blank`, `blurred`) if not."""
    return _enforce(face_quality(crop, source_size, limits))


def _enforce(quality: Quality) -> Quality:
    if quality.code is not None:
        message, hint = _WORDS[quality.code]
        raise CaptureError(message, code=quality.code, hint=hint)
    return quality


def _clipped_part(pcm: npt.NDArray[np.int16]) -> float:
    """Part of the samples in runs of three or more at full scale; a lone peak is no clipping."""
    if pcm.shape[0] < _FULL_SCALE_RUN:
        return 0.0
    full = (pcm >= _FULL_SCALE) | (pcm <= -_FULL_SCALE)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], full, [False])).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= _FULL_SCALE_RUN].sum() / pcm.shape[0])
