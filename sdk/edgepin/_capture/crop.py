"""One crop geometry: where in the crop the two eye centers land, and the two ways of getting there.

Training and the device make crops by this code, so that an encoder sees on the device what it was trained on.
Image coordinates are OpenCV's: the center of the first pixel is (0, 0). `FaceSpec` counts in fractions of the
crop's side from its edge, so that it means the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError
from .image import check_image

Point = tuple[float, float]
Box = tuple[float, float, float, float]

MIN_EYE_DISTANCE = 16.0
"""px: with the eyes closer than this the crop would be twice the source's resolution at the default `FaceSpec`."""

MIN_CROP_SIDE = 40
"""px: the smallest image that is taken as a crop."""

MAX_CROP_ASPECT = 1.5

_MAX_SUPERSAMPLING = 16


@dataclass(frozen=True)
class FaceSpec:
    """The crop: `size` px square, with the eye centers at `left_eye` and `right_eye`.

    The eyes are (x, y) in fractions of the side; `left_eye` is the eye at the image's left (the person's
    right one). The defaults are the mean eye centers of 600 tight crops of faces in the wild, so that aligned
    crops and such crops look alike. Raises `ValueError` on a size outside 16-1024 or eyes that do not lie
    left and right inside the crop.
    """

    size: int = 64
    left_eye: Point = (0.245, 0.24)
    right_eye: Point = (0.755, 0.24)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 16 <= self.size <= 1024:
            raise ValueError(f"size must be a whole number in 16-1024, not {self.size!r:.80}")
        for name in ("left_eye", "right_eye"):
            object.__setattr__(self, name, _fraction_point(name, getattr(self, name)))
        if self.right_eye[0] - self.left_eye[0] < 0.1:
            raise ValueError(
                f"right_eye must lie at least 0.1 right of left_eye, not {self.left_eye}, {self.right_eye}"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"size": self.size, "left_eye": list(self.left_eye), "right_eye": list(self.right_eye)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FaceSpec:
        """The inverse of `to_json`; an unknown or missing key, or a wrong value, raises `ValueError`."""
        if not isinstance(value, dict) or set(value) != {"size", "left_eye", "right_eye"}:
            raise ValueError(
                f"a face spec has exactly the keys size, left_eye and right_eye, not {value!r:.80}"
            )
        return cls(size=value["size"], left_eye=value["left_eye"], right_eye=value["right_eye"])


@dataclass(frozen=True)
class Face:
    """A found face, in px of the image: eye centers (x, y), `box` (x, y, width, height) and the finder's own
    score; the tip of the `nose` and the corners of the `mouth`, where the finder sees them.

    `left_eye` is the eye at the image's left, and so is the first corner of the mouth.
    """

    left_eye: Point
    right_eye: Point
    box: Box
    score: float
    nose: Point | None = None
    mouth: tuple[Point, Point] | None = None

    @property
    def eye_distance(self) -> float:
        """px between the eye centers."""
        return math.hypot(self.right_eye[0] - self.left_eye[0], self.right_eye[1] - self.left_eye[1])

    @property
    def side(self) -> float:
        """px: the longer side of the box."""
        return max(self.box[2], self.box[3])


def similarity(face: Face, spec: FaceSpec, size: int) -> npt.NDArray[np.float64]:
    """The (2, 3) similarity transform from image px to px of a crop of `size`, which maps the eye centers
    onto the spec's.

    Two points fix it: with points as complex numbers, z -> a z + b.
    """
    left, right = complex(*face.left_eye), complex(*face.right_eye)
    if not abs(right - left) >= 1.0:
        raise CaptureError("the eyes lie in one place", code="too_small", hint="come closer to the camera")
    to_left = complex(*spec.left_eye) * size - (0.5 + 0.5j)
    to_right = complex(*spec.right_eye) * size - (0.5 + 0.5j)
    a = (to_right - to_left) / (right - left)
    b = to_left - a * left
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]], dtype=np.float64)


def align(rgb: npt.NDArray[np.uint8], face: Face, spec: FaceSpec) -> npt.NDArray[np.uint8]:
    """The crop that puts the eyes where `spec` wants them: uint8 `(size, size, 3)`.

    What lies outside the image repeats its edge. A large face is warped to a multiple of the size and
    averaged down, so that detail finer than the crop's pixels fades rather than aliasing. Raises
    `CaptureError` (`too_small`) if both eyes lie in one place.
    """
    check_image(rgb)
    import cv2

    scale = float(np.linalg.norm(similarity(face, spec, spec.size)[:, 0]))
    multiple = min(_MAX_SUPERSAMPLING, max(1, math.ceil(1.0 / scale - 0.05)))
    side = spec.size * multiple
    warped = cv2.warpAffine(
        rgb,
        similarity(face, spec, side),
        (side, side),
        flags=cv2.INTER_CUBIC if multiple <= 2 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if multiple > 1:
        warped = cv2.resize(warped, (spec.size, spec.size), interpolation=cv2.INTER_AREA)
    return np.asarray(warped, dtype=np.uint8)


def resize_crop(rgb: npt.NDArray[np.uint8], spec: FaceSpec) -> npt.NDArray[np.uint8]:
    """An image that is a face crop already, at the spec's size: uint8 `(size, size, 3)`; of one not square,
    the centered square.

    Raises `CaptureError` with code `too_small` (a side under 40 px) or `not_a_crop` (one side over 1.5 times
    the other).
    """
    check_image(rgb)
    height, width = rgb.shape[:2]
    side = min(height, width)
    if side < MIN_CROP_SIDE:
        raise CaptureError(
            f"the face crop is {width}x{height} px; at least {MIN_CROP_SIDE} are needed",
            code="too_small",
            hint="give a larger image",
        )
    if max(height, width) > MAX_CROP_ASPECT * side:
        raise CaptureError(
            f"an image of {width}x{height} px is no face crop",
            code="not_a_crop",
            hint="let the face be found in it",
        )
    import cv2

    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    if side == spec.size:
        return square.copy() if square.base is not None or square is rgb else square
    how = cv2.INTER_AREA if side > spec.size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (spec.size, spec.size), interpolation=how), dtype=np.uint8)


def _fraction_point(name: str, value: Any) -> Point:
    """`value` as two floats in [0, 1]; JSON brings lists and whole numbers."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be (x, y), not {value!r:.80}")
    for part in value:
        if isinstance(part, bool) or not isinstance(part, (int, float)) or not 0.0 <= part <= 1.0:
            raise ValueError(f"{name} must be two fractions of the side in 0-1, not {value!r:.80}")
    return float(value[0]), float(value[1])
