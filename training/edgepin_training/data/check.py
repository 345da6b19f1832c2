"""Whether a capture can be trained on: opened, decoded and, for faces, searched once, so that training needn't."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepin._capture.audio import SAMPLE_RATE, active_frames
from edgepin._capture.crop import FaceSpec, resize_crop
from edgepin._capture.faces import HaarFinder, find_face
from edgepin._capture.image import decode_image
from edgepin._errors import CaptureError

from .layouts import Folder
from .media import MAX_BYTES, MAX_IMAGE_BYTES, Eyes, decode_voice

MIN_SAMPLES = SAMPLE_RATE * 3 // 10
"""Less speech than 0.3 s tells nothing of a speaker."""


@dataclass(frozen=True)
class Checked:
    """A file as it was found. `code` says why it cannot be used; without one it can.

    `samples` is the length of a voice at 16 kHz after trimming, `eyes` where a face has them in px, unless the images
    are crops already. `rate` (Hz), `seconds` and `side` (px, the shorter one) are the file's own.
    """

    name: str
    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    code: str | None = None
    samples: int = 0
    eyes: Eyes | None = None
    rate: int = 0
    seconds: float = 0.0
    side: int = 0


def check_folder(root: Path, folder: Folder, cropped: bool) -> list[Checked]:
    """Every capture of a folder. MissingExtraError, for AAC that nothing here decodes, is raised, not recorded."""
    return [_check(root / folder.path / name, folder.modality, cropped) for name in folder.names]


def _check(path: Path, modality: str, cropped: bool) -> Checked:
    limit = MAX_BYTES[modality]
    try:
        # Not blocking: a pipe that has a capture's name must not hold the scan.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(limit + 1)
    except OSError:
        return Checked(path.name, code="unreadable")
    found = {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if not data:
        return Checked(**found, code="empty")
    if len(data) > limit:
        return Checked(**found, code="too_large")
    found["digest"] = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        if modality == "voice":
            return _voice(found, data)
        return _face(found, data, cropped)
    except CaptureError as error:
        return Checked(**found, code=error.code)


def _voice(found: dict, data: bytes) -> Checked:
    pcm, rate, seconds = decode_voice(data)
    code = None
    if not active_frames(pcm).any():
        code = "silent"
    elif len(pcm) < MIN_SAMPLES:
        code = "too_short"
    return Checked(**found, code=code, samples=len(pcm), rate=rate, seconds=seconds)


def _face(found: dict, data: bytes, cropped: bool) -> Checked:
    image = decode_image(data, max_bytes=MAX_IMAGE_BYTES)
    side = int(min(image.shape[:2]))
    if cropped:
        resize_crop(image, FaceSpec())  # too small, or no crop
        return Checked(**found, side=side)
    face = find_face(image, _finder())
    eyes = np.array([*face.left_eye, *face.right_eye], np.float64).tolist()
    return Checked(**found, side=side, eyes=(eyes[0], eyes[1], eyes[2], eyes[3]))


def _finder() -> HaarFinder:
    """One for each process: the cascades take a while to read."""
    global _FINDER
    if _FINDER is None:
        _FINDER = HaarFinder()
    return _FINDER


_FINDER: HaarFinder | None = None
