"""Finding the face: each finder gives eye centers, which fix the crop.

`HaarFinder` comes with OpenCV and needs nothing else; `YuNetFinder` sees more faces (turned, dim, tight) and
needs its model file. Anything with `name` and `find` can stand in for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, EnvironmentFault
from .crop import (
    MIN_CROP_SIDE,
    MIN_EYE_DISTANCE,
    Box,
    Face,
    FaceSpec,
    Point,
    align,
    resize_crop,
)
from .image import check_image

__all__ = [
    "MIN_CROP_SIDE",
    "MIN_EYE_DISTANCE",
    "Face",
    "FaceFinder",
    "FaceSpec",
    "HaarFinder",
    "YuNetFinder",
    "align",
    "find_and_align",
    "find_face",
    "resize_crop",
]

RIVAL_SIDE = 0.5
"""A second face is a rival when its side is at least this part of the largest one's."""

# Chosen on half of 600 aligned 112x112 crops and 150 of 585 tight 64x64 ones, and on 60 scenes with a face blended
# into a photograph of a building or a flower. On all of those crops it finds 94 % and 91 % (so these are no held-out
# figures), in the scenes 95 %. In 18 views of the two photographs alone `default` found 2 to 3 faces, `alt` and
# `alt2` none; `alt2` is the faster one.
_HAAR_CASCADE = "haarcascade_frontalface_alt2.xml"
_HAAR_PAD = 0.3  # of the short side: the cascade wants some forehead and chin around tight crops
_HAAR_SHORT_SIDE = 280.0  # px, border included: the search is on an image no larger
_HAAR_SMALLEST = 0.12  # of the short side: the smallest face that is looked for
_HAAR_NEIGHBORS = 3
_HAAR_EYE_WIDTH = 160.0  # px: the face's width when eyes are looked for
_HAAR_EYE_TOLERANCE = 0.14  # of the face's width: how far a seen eye may lie from its usual place

HAAR_LEFT_EYE: Point = (0.305, 0.393)
HAAR_RIGHT_EYE: Point = (0.698, 0.393)
"""Usual eye centers in fractions of a Haar face box: between YuNet's medians on both kinds of crops."""

_YUNET_PAD = 0.25  # of the long side
_YUNET_LONG_SIDE = 480.0  # px, border included


class FaceFinder(Protocol):
    """What finds faces. `find` takes uint8 RGB `(height, width, 3)` and may be called from several threads."""

    @property
    def name(self) -> str:
        """What the verdicts and records call it."""
        ...

    def find(self, rgb: npt.NDArray[np.uint8]) -> list[Face]:
        """All faces, largest first, one `Face` for each."""
        ...


class HaarFinder:
    """OpenCV's Haar cascades for frontal faces and eyes (Viola and Jones 2001), packaged with it.

    Raises `EnvironmentFault` if OpenCV came without them (version 5 does).
    """

    name = "haar"

    def __init__(self) -> None:
        # A cascade keeps buffers while it runs: one for each call that is under way, kept for the next one.
        self._idle = [_load_cascades()]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def find(self, rgb: npt.NDArray[np.uint8]) -> list[Face]:
        """All faces, largest first; see `FaceFinder`."""
        check_image(rgb)

        with self._cascades() as (faces, eyes):
            return self._find(rgb, faces, eyes)

    def _find(self, rgb: npt.NDArray[np.uint8], faces: Any, eyes: Any) -> list[Face]:
        import cv2

        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        pad = round(_HAAR_PAD * min(gray.shape))
        gray = cv2.copyMakeBorder(gray, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        short = min(gray.shape)
        scale = min(1.0, _HAAR_SHORT_SIDE / short)
        size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        small = cv2.equalizeHist(
            cv2.resize(gray, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else gray
        )
        smallest = max(24, round(min(small.shape) * _HAAR_SMALLEST))
        boxes, _, weights = faces.detectMultiScale3(
            small,
            scaleFactor=1.1,
            minNeighbors=_HAAR_NEIGHBORS,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        found = []
        for box, weight in zip(
            np.asarray(boxes).reshape(-1, 4), np.asarray(weights).reshape(-1), strict=True
        ):
            x, y, width, height = (float(v) / scale for v in box)
            left, right = self._eyes(eyes, gray, (x, y, width, height))
            found.append(
                Face(
                    left_eye=(left[0] - pad, left[1] - pad),
                    right_eye=(right[0] - pad, right[1] - pad),
                    box=(x - pad, y - pad, width, height),
                    score=float(weight),
                )
            )
        return _clean(found, rgb.shape[1], rgb.shape[0])

    def _eyes(self, cascade: Any, gray: npt.NDArray[np.uint8], box: Box) -> tuple[Point, Point]:
        """Eye centers in px: the usual ones of the box, or halfway to those that the eye cascade sees.

        Halfway is for tilted heads. The worse eye is off from YuNet's by this much of the eye distance (median:
        usual, seen, halfway): crops tilted by up to 15 degrees 0.119, 0.114, 0.096 (aligned ones) and 0.153,
        0.138, 0.139 (tight ones); as they are 0.077, 0.103, 0.079 and 0.116, 0.121, 0.112.
        """
        import cv2

        x, y, width, height = box
        top, bottom = max(0, int(y + 0.15 * height)), int(y + 0.62 * height)
        start, end = max(0, int(x)), int(x + width)
        region = gray[top:bottom, start:end]
        usual = (
            (x + HAAR_LEFT_EYE[0] * width, y + HAAR_LEFT_EYE[1] * height),
            (x + HAAR_RIGHT_EYE[0] * width, y + HAAR_RIGHT_EYE[1] * height),
        )
        if min(region.shape) < 16:
            return usual
        zoom = _HAAR_EYE_WIDTH / width
        how = cv2.INTER_AREA if zoom < 1.0 else cv2.INTER_LINEAR
        region = cv2.equalizeHist(cv2.resize(region, None, fx=zoom, fy=zoom, interpolation=how))
        least = round(0.14 * _HAAR_EYE_WIDTH)
        most = round(0.45 * _HAAR_EYE_WIDTH)
        seen = cascade.detectMultiScale(
            region, scaleFactor=1.08, minNeighbors=3, minSize=(least, least), maxSize=(most, most)
        )
        centers = [
            (start + (ex + ew / 2) / zoom - 0.5, top + (ey + eh / 2) / zoom - 0.5)
            for ex, ey, ew, eh in np.asarray(seen, dtype=np.float64).reshape(-1, 4)
        ]
        pair = _plausible_pair(centers, usual, width)
        if pair is None:
            return usual
        return _halfway(pair[0], usual[0]), _halfway(pair[1], usual[1])

    @contextmanager
    def _cascades(self) -> Iterator[tuple[Any, Any]]:
        try:
            pair = self._idle.pop()
        except IndexError:  # others are at it
            pair = _load_cascades()
        try:
            yield pair
        finally:
            self._idle.append(pair)


class YuNetFinder:
    """OpenCV's `FaceDetectorYN` with a YuNet model file (Wu, Peng and Yu 2023).

    Raises `EnvironmentFault` if the file is missing or is not such a model.
    """

    name = "yunet"

    def __init__(self, path: str | Path, *, min_score: float = 0.6) -> None:
        self._path, self._min_score = Path(path), min_score
        self._local = threading.local()  # a detector keeps its input size: one for each thread
        self._detector()

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake_yunet, (self._path, self._min_score)

    def find(self, rgb: npt.NDArray[np.uint8]) -> list[Face]:
        """All faces, largest first; see `FaceFinder`."""
        check_image(rgb)
        import cv2

        # A border lets faces that fill the image be found: the model was trained on whole scenes.
        pad = round(_YUNET_PAD * max(rgb.shape[:2]))
        scale = min(1.0, _YUNET_LONG_SIDE / (max(rgb.shape[:2]) + 2 * pad))
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if scale < 1.0:
            bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        border = round(pad * scale)
        bgr = cv2.copyMakeBorder(bgr, border, border, border, border, cv2.BORDER_REPLICATE)
        detector = self._detector()
        detector.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = detector.detect(bgr)
        found = []
        for row in np.zeros((0, 15)) if rows is None else np.asarray(rows, dtype=np.float64):
            # Box corner, its size, then x and y of two eyes, nose, two corners of the mouth.
            places = [float(v) for v in (row[:14] - border) / scale]
            points = list(zip(places[4::2], places[5::2], strict=True))
            left, right = sorted(points[:2])
            first, second = sorted(points[3:])
            box = (places[0], places[1], float(row[2]) / scale, float(row[3]) / scale)
            found.append(Face(left, right, box, float(row[14]), nose=points[2], mouth=(first, second)))
        return _clean(found, rgb.shape[1], rgb.shape[0])

    def _detector(self) -> Any:
        made = getattr(self._local, "detector", None)
        if made is None:
            made = self._local.detector = self._load()
        return made

    def _load(self) -> Any:
        import cv2

        if not os.path.isfile(self._path):
            raise EnvironmentFault(
                f"no face detector at {self._path}", hint="give the path of a YuNet ONNX file"
            )
        try:
            detector = cv2.FaceDetectorYN.create(str(self._path), "", (320, 320), self._min_score, 0.3, 200)
            # Another network loads as well, and fails only when it runs.
            detector.detect(np.zeros((320, 320, 3), dtype=np.uint8))
            return detector
        except cv2.error:
            raise EnvironmentFault(
                f"{self._path} is not a YuNet model", hint="give the path of a YuNet ONNX file"
            ) from None


def find_and_align(rgb: npt.NDArray[np.uint8], finder: FaceFinder, spec: FaceSpec) -> npt.NDArray[np.uint8]:
    """The one face of an image, cropped: uint8 `(size, size, 3)`. Raises as `find_face`."""
    return align(rgb, find_face(rgb, finder), spec)


def find_face(rgb: npt.NDArray[np.uint8], finder: FaceFinder) -> Face:
    """The one face of an image. Smaller faces in the background are let be.

    Raises `CaptureError` with code `no_face`, `several_faces` (a second one at least half as large as the
    largest: whose template would it be?) or `too_small` (the eyes less than 16 px apart).
    """
    faces = sorted(finder.find(check_image(rgb)), key=lambda face: -face.side)
    if not faces:
        raise CaptureError(
            "no face was found in the image",
            code="no_face",
            hint="face the camera, in even light, without a mask",
        )
    face = faces[0]
    if len(faces) > 1 and faces[1].side >= RIVAL_SIDE * face.side:
        raise CaptureError(
            "several faces of like size are in the image", code="several_faces", hint="one person at a time"
        )
    if not face.eye_distance >= MIN_EYE_DISTANCE:
        raise CaptureError(
            f"the eyes are {face.eye_distance:.0f} px apart; at least {MIN_EYE_DISTANCE:.0f} are needed",
            code="too_small",
            hint="come closer to the camera",
        )
    return face


def _remake_yunet(path: Path, min_score: float) -> YuNetFinder:
    """For `pickle`, which passes no keywords."""
    return YuNetFinder(path, min_score=min_score)


def _load_cascades() -> tuple[Any, Any]:
    return _load_cascade(_HAAR_CASCADE), _load_cascade("haarcascade_eye.xml")


def _load_cascade(file: str) -> Any:
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    path = Path(folder) / file if folder else None
    if path is None or not path.is_file() or not hasattr(cv2, "CascadeClassifier"):
        raise EnvironmentFault(
            "this OpenCV has no Haar cascades",
            hint="install opencv-python-headless>=4.10,<5, or give a YuNet model file",
        )
    return cv2.CascadeClassifier(str(path))


def _halfway(one: Point, other: Point) -> Point:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _plausible_pair(
    centers: list[Point], usual: tuple[Point, Point], width: float
) -> tuple[Point, Point] | None:
    """The best pair of seen eyes: level, the usual distance apart, each near its usual place; None if none
    is.

    Nostrils, brows and spectacle rims are seen as eyes too; a pair far from the usual one is worth less than
    the usual one.
    """
    best, least = None, _HAAR_EYE_TOLERANCE * width
    for left in centers:
        for right in centers:
            if right[0] <= left[0] or abs(right[1] - left[1]) > 0.3 * (right[0] - left[0]):
                continue
            apart = float(np.hypot(right[0] - left[0], right[1] - left[1])) / width
            off = max(
                float(np.hypot(left[0] - usual[0][0], left[1] - usual[0][1])),
                float(np.hypot(right[0] - usual[1][0], right[1] - usual[1][1])),
            )
            if 0.26 <= apart <= 0.56 and off < least:
                best, least = (left, right), off
    return best


def _clean(faces: list[Face], width: int, height: int) -> list[Face]:
    """Each face of an image once, largest first.

    Of two that overlap by half of the smaller one, the one with the better score stays. What is centered
    outside the image goes: it was found in the border that the search adds.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        x, y = face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2
        inside = 0 <= x < width and 0 <= y < height
        if inside and all(_shared(face.box, other.box) < 0.5 for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.side)


def _shared(one: Box, other: Box) -> float:
    """The common area, as a fraction of the smaller box's."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    smaller = min(one[2] * one[3], other[2] * other[3])
    return max(0.0, width) * max(0.0, height) / smaller if smaller > 0 else 0.0
