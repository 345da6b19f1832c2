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
from .crop import MIN_CROP_SIDE, MIN_EYE_DISTANCE, Face
from .image import check_image
from .pose import estimate_pose, symmetry

_FULL_SCALE = 32_200  # of 32,768: resampling rounds the flat tops of clipped sound off by up to 2 %
_FULL_SCALE_RUN = 3  # samples
_MEASURED_SIDE = 64  # px: a crop is measured at this side, or its own if that is smaller
_WHITE = 250
_NOISE_SPAN = 5  # frames of 10 ms: noise is measured over 50 ms
_NOISE_PERCENTILE = 5.0
_MAX_SNR = 60.0  # dB: beyond, digital silence between the words would decide


@dataclass(frozen=True)
class QualityLimits:
    """Where the gate stands; docs/quality.md has what each limit rejects of real captures, and why it stands
    there.

    Raises `ValueError` on a limit that is not a finite number.
    """

    min_seconds: float = 1.0
    """s of sound after trimming, under which it is `too_short`."""
    min_active_seconds: float = 0.5
    """s of sound that is not silence, under which it is `too_short` as well."""
    min_level: float = -55.0
    """dBFS, RMS over the frames that are not silence, under which it is `silent`."""
    max_clipped: float = 0.01
    """Part of the samples that lie in runs at full scale, over which it is `clipped`."""
    min_snr: float = 11.0
    """dB of speech over noise, as `estimate_snr` has it, under which it is `noisy`."""
    min_source_side: int = MIN_CROP_SIDE
    """px, the shorter side of the image that the crop comes from, under which it is `too_small`."""
    min_eye_distance: float = MIN_EYE_DISTANCE
    """px between the eye centers in that image, under which it is `too_small` as well; of found faces only.
    """
    min_contrast: float = 8.0
    """Standard deviation of the crop's gray values (0-255), under which it is `blank`."""
    min_sharpness: float = 0.02
    """Variance of the Laplacian of the crop's gray values over their variance, under which it is `blurred`.
    """
    min_brightness: float = 45.0
    """Mean gray value of the middle of the crop (0-255), under which it is `too_dark`."""
    max_overexposed: float = 0.4
    """Part of the middle of the crop that is white (250 and more), over which it is `too_bright`."""
    max_yaw: float = 50.0
    """Degrees of turn to either side, over which it is `turned`; of faces whose finder gives a nose only."""
    max_roll: float = 40.0
    """Degrees of tilt to either side, over which it is `tilted`; of found faces only."""

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
    """The verdict on trimmed 16 kHz speech, int16 `(samples,)`: measures `seconds`, `active_seconds`,
    `level`, `clipped` and `snr`.

    `silent` is said before `too_short`, since silence cannot be trimmed to a length. Raises `UsageError` for
    another dtype or shape.
    """
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
        raise UsageError("the voice must be int16 samples, (samples,): see `prepare`")
    active = active_frames(pcm)
    levels = frame_levels(pcm)
    power = 10.0 ** (levels[active].astype(np.float64) / 10.0)
    level = 10.0 * math.log10(float(power.mean())) if power.shape[0] else -120.0
    measured = {
        "seconds": pcm.shape[0] / SAMPLE_RATE,
        "active_seconds": float(active.sum()) * 0.01,
        "level": level,
        "clipped": _clipped_part(pcm),
        "snr": estimate_snr(levels),
    }
    code = None
    frames_there = active.shape[0] > 0
    if frames_there and level < limits.min_level:
        code = "silent"
    elif measured["seconds"] < limits.min_seconds or measured["active_seconds"] < limits.min_active_seconds:
        code = "too_short"
    elif measured["clipped"] > limits.max_clipped:
        code = "clipped"
    elif measured["snr"] < limits.min_snr:
        code = "noisy"
    return Quality(code is None, code, measured)


def estimate_snr(levels: npt.NDArray[np.float32]) -> float:
    """Speech over noise in dB, from the levels of 10 ms frames in dBFS `(frames,)`; at most 60, 0 under 50
    ms.

    Noise is the 5th percentile of the power over 50 ms; speech the mean power of the louder half of the
    frames, less the noise. That is 2 dB over the true ratio in steady noise, and 5 dB in noise with pauses.
    """
    power = 10.0 ** (levels.astype(np.float64) / 10.0)
    if power.shape[0] < _NOISE_SPAN:
        return 0.0
    smooth = np.convolve(power, np.full(_NOISE_SPAN, 1.0 / _NOISE_SPAN), "valid")
    noise = max(float(np.percentile(smooth, _NOISE_PERCENTILE)), 1e-12)
    speech = float(np.sort(power)[power.shape[0] // 2 :].mean()) - noise
    return float(np.clip(10.0 * math.log10(max(speech, 1e-12) / noise), -_MAX_SNR, _MAX_SNR))


def face_quality(
    crop: npt.NDArray[np.uint8],
    source_size: tuple[int, int] | None = None,
    limits: QualityLimits = DEFAULT_LIMITS,
    *,
    face: Face | None = None,
) -> Quality:
    """The verdict on a face crop, uint8 `(size, size, 3)`, from an image of `source_size` (height, width) px
    and a found `face`, if known.

    Measures `source_side` (of the crop itself if unknown), `contrast`, `sharpness`, `brightness`,
    `overexposed` and `symmetry`; of a found face `eye_distance` and `roll`, and `yaw` if it has a nose.
    Raises `UsageError` for another dtype or shape.
    """
    check_image(crop)
    import cv2

    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if (
        max(gray.shape) > _MEASURED_SIDE
    ):  # a larger crop of the same image would otherwise pass for a more blurred one
        gray = cv2.resize(gray, (_MEASURED_SIDE, _MEASURED_SIDE), interpolation=cv2.INTER_AREA)
    height, width = gray.shape
    middle = gray[height // 8 : height - height // 16, width // 6 : width - width // 6]
    gray = gray.astype(np.float32)
    contrast = float(gray.std())
    measured = {
        "source_side": float(min(source_size) if source_size is not None else min(crop.shape[:2])),
        "contrast": contrast,
        # Relative to the contrast, so that dim light is not taken for blur.
        "sharpness": float(cv2.Laplacian(gray, cv2.CV_32F).var()) / max(contrast**2, 1e-6),
        "brightness": float(middle.mean()),
        "overexposed": float((middle >= _WHITE).mean()),
        "symmetry": symmetry(gray),
    }
    if face is not None:
        pose = estimate_pose(face)
        measured |= {"eye_distance": face.eye_distance, "roll": pose.roll}
        if pose.yaw is not None:
            measured["yaw"] = pose.yaw
    code = None
    if (
        measured["source_side"] < limits.min_source_side
        or measured.get("eye_distance", limits.min_eye_distance) < limits.min_eye_distance
    ):
        code = "too_small"
    elif contrast < limits.min_contrast:
        code = "blank"
    elif measured["brightness"] < limits.min_brightness:
        code = "too_dark"
    elif measured["overexposed"] > limits.max_overexposed:
        code = "too_bright"
    elif abs(measured.get("yaw", 0.0)) > limits.max_yaw:
        code = "turned"
    elif abs(measured.get("roll", 0.0)) > limits.max_roll:
        code = "tilted"
    elif measured["sharpness"] < limits.min_sharpness:
        code = "blurred"
    return Quality(code is None, code, measured)


_WORDS = {
    "too_short": ("there is too little speech in the sound", "speak for at least 2 seconds"),
    "silent": ("the sound is silent", "check the microphone, and speak closer to it"),
    "clipped": ("the sound is overdriven", "turn the microphone down, or speak further from it"),
    "noisy": (
        "there is too much noise beside the speech",
        "speak closer to the microphone, or where it is quiet",
    ),
    "too_small": ("the face is too small in the image", "come closer to the camera, or give a larger image"),
    "blank": ("the image shows nothing", "check the camera and the light"),
    "too_dark": ("the face is too dark", "turn to the light, or light the face"),
    "too_bright": ("the face is overexposed", "turn from the light, or lower the exposure"),
    "turned": ("the face looks aside", "look at the camera"),
    "tilted": ("the head is tilted", "hold the head upright"),
    "blurred": ("the face is blurred", "hold still, and check the lens and the focus"),
}


def check_voice(pcm: npt.NDArray[np.int16], limits: QualityLimits = DEFAULT_LIMITS) -> Quality:
    """`voice_quality` if good; raises `CaptureError` with its code (`silent`, `too_short`, `clipped`,
    `noisy`) if not.
    """
    return _enforce(voice_quality(pcm, limits))


def check_face_crop(
    crop: npt.NDArray[np.uint8],
    source_size: tuple[int, int] | None = None,
    limits: QualityLimits = DEFAULT_LIMITS,
    *,
    face: Face | None = None,
) -> Quality:
    """`face_quality` if good; raises `CaptureError` with its code (`too_small`, `blank`, `too_dark`,
    `too_bright`, `turned`, `tilted`, `blurred`) if not.
    """
    return _enforce(face_quality(crop, source_size, limits, face=face))


def quality_words(code: str) -> tuple[str, str]:
    """What a verdict's code means, and what to do about it."""
    return _WORDS[code]


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
