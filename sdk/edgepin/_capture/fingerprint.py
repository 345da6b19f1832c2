"""Knowing a sample again: a file or a stream that was captured before and is played into the system once
more.

A fingerprint survives what a copy goes through (another gain, another encoding, another size, a cut), and
not what makes two captures two: the same face a moment later, the same words said again. It is for
telling copies, not people, and no proof of liveness: a screen before the camera makes a new capture.
How often either goes wrong is in docs/liveness.md.

Voice: bits that say whether the slope of the spectrum rises or falls (after Haitsma and Kalker, "A Highly
Robust Audio Fingerprinting System", ISMIR 2002), for windows of 256 ms every 40 ms, compared at every shift
of up to 0.52 s. Face: DCT coefficients of the gray values' ranks, in a band where a head's turn of two
degrees shows and a JPEG file's loss hardly does.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from .._errors import UsageError
from .audio import SAMPLE_RATE
from .crop import Face
from .image import check_image

MAX_BYTES = 255
_VOICE, _FACE = b"v", b"f"

MAX_VOICE_ERROR = 0.30
"""Part of the bits that differ, up to which one sound is a copy of another: copies have up to 0.27, others
0.38.
"""
MIN_FACE_COSINE = 0.985
"""From here on one crop is a copy of another."""

_HOP = SAMPLE_RATE // 25
_WINDOW = 4096
_BANDS = 16  # bits a frame: between 17 bands
_LOWEST, _HIGHEST = 200.0, 3800.0  # Hz: telephone sound keeps it
_TWO_BYTES = np.uint16  # a frame's bits
_FRAMES = 127
_SHIFT = 13  # frames
_LEAST_OVERLAP = 16  # frames, of bits: 0.64 s

_SIDE = 64
_LOW = 18.0  # half periods over the crop's side
_COEFFICIENTS = 254

_REGION = 2.6  # distances between the eyes, at the middle of a size's range
_SIZES = 2  # for each doubling
_CELLS = 4  # places over the region's side


def voice_fingerprint(pcm: npt.NDArray[np.int16]) -> bytes:
    """Of trimmed speech, int16 `(samples,)` at 16 kHz: at most 255 bytes, of its first 5.4 s. Under 1 s there
    is too little to know it again by. Raises `UsageError` for another dtype or shape.
    """
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
        raise UsageError("the voice must be int16 samples, (samples,): see `prepare`")
    sound = pcm[: _FRAMES * _HOP + _WINDOW].astype(np.float32)
    if sound.shape[0] < _WINDOW + _HOP:
        return _VOICE
    window, bands = _voice_tables()
    frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP] * window
    spectrum = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32)
    levels = np.log(np.square(spectrum) @ bands + 1e-3)
    slopes = np.diff(levels, axis=1)
    return _VOICE + np.packbits(np.diff(slopes, axis=0) > 0.0, axis=1).tobytes()


def face_fingerprint(crop: npt.NDArray[np.uint8]) -> bytes:
    """Of a face crop, or of a `face_region`, uint8 `(size, size, 3)`: 255 bytes.

    Raises `UsageError` for another dtype or shape.
    """
    check_image(crop)
    import cv2

    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if gray.shape != (_SIDE, _SIDE):
        how = cv2.INTER_AREA if min(gray.shape) > _SIDE else cv2.INTER_CUBIC
        gray = cv2.resize(gray, (_SIDE, _SIDE), interpolation=how)
    window, order, weights = _face_tables()
    # Ranks instead of values: a change of brightness, contrast or gamma leaves them.
    counts = np.bincount(gray.ravel(), minlength=256)
    ranks = ((np.cumsum(counts) - 0.5 * counts) / gray.size - 0.5).astype(np.float32)[gray]
    values = cv2.dct(ranks * window).ravel()[order] * weights
    values = np.sign(values) * np.sqrt(np.abs(values))
    largest = float(np.abs(values).max())
    scaled = np.rint(values * (127.0 / largest)) if largest > 1e-6 else np.zeros(_COEFFICIENTS)
    return _FACE + scaled.astype(np.int8).tobytes()


def face_region(rgb: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.uint8]:
    """What to take the fingerprint of, of an image in which a face was found: uint8 `(64, 64, 3)` around it.

    A finder puts the eyes elsewhere by a pixel or two when the image was encoded anew, and the crop moves
    with them. So this part of the image is on a coarse grid of places and sizes, relative to the image's own.
    Where the face lies at the edge of two cells, a copy may still fall into the other one.
    """
    check_image(rgb)
    import cv2

    width = rgb.shape[1]
    apart = max(face.eye_distance / width, 1.0 / 256.0)
    side = _REGION * width * 2.0 ** (round(_SIZES * math.log2(apart)) / _SIZES)
    cell = side / _CELLS
    x = cell * round((face.left_eye[0] + face.right_eye[0] + 1.0) / 2.0 / cell)
    y = cell * round(((face.left_eye[1] + face.right_eye[1] + 1.0) / 2.0 + 0.2 * side) / cell)
    # A large region is warped to a multiple of the size and averaged down, as a crop is.
    multiple = min(16, max(1, math.ceil(side / _SIDE)))
    scale = _SIDE * multiple / side
    matrix = np.array(
        [[scale, 0.0, (side / 2 - x + 0.5) * scale - 0.5], [0.0, scale, (side / 2 - y + 0.5) * scale - 0.5]]
    )
    size = (_SIDE * multiple, _SIDE * multiple)
    region = cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if multiple > 1:
        region = cv2.resize(region, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(region, dtype=np.uint8)


def is_replay(one: bytes, other: bytes) -> bool:
    """Whether two fingerprints are of one sample. Those of a face and a voice never are.

    Raises `UsageError` for bytes that are no fingerprint.
    """
    kind = _kind(one)
    if kind != _kind(other):
        return False
    return _same_voice(one, other) if kind == _VOICE else _same_face(one, other)


def _same_voice(one: bytes, other: bytes) -> bool:
    first, second = (np.frombuffer(data, dtype=np.uint8, offset=1).reshape(-1, 2) for data in (one, other))
    if len(first) > len(second):
        first, second = second, first
    frames = len(first)
    if frames < _LEAST_OVERLAP:
        return False
    # `second` among bits that are neither; row s of the windows lays `first` over it, shifted by s - _SHIFT.
    ground = np.zeros(len(second) + 2 * _SHIFT, dtype=_TWO_BYTES)
    ground[_SHIFT:-_SHIFT] = 0xFFFF
    there = _windows(ground, frames).copy()
    ground[_SHIFT:-_SHIFT] = second.view(_TWO_BYTES)[:, 0]
    wrong = _set_bits().take((_windows(ground, frames) ^ first.view(_TWO_BYTES)[:, 0]) & there)
    errors = wrong @ np.ones(frames, dtype=np.float32)
    starts = np.arange(len(errors)) - _SHIFT
    overlap = np.minimum(starts + frames, len(second)) - np.maximum(starts, 0)
    return bool(((errors <= MAX_VOICE_ERROR * _BANDS * overlap) & (overlap >= _LEAST_OVERLAP)).any())


def _windows(ground: npt.NDArray[np.uint16], frames: int) -> npt.NDArray[np.uint16]:
    """The first windows of `frames`, as rows of a view."""
    rows = min(2 * _SHIFT, len(ground) - frames) + 1
    return np.lib.stride_tricks.as_strided(ground, (rows, frames), ground.strides * 2, writeable=False)


def _same_face(one: bytes, other: bytes) -> bool:
    first, second = (np.frombuffer(data, dtype=np.int8, offset=1).astype(np.float32) for data in (one, other))
    lengths = float(first @ first) * float(second @ second)
    # A crop of one value has no fingerprint, and is like no other.
    return lengths > 0.0 and float(first @ second) >= MIN_FACE_COSINE * lengths**0.5


def _kind(fingerprint: bytes) -> bytes:
    if isinstance(fingerprint, (bytes, bytearray, memoryview)):
        data = bytes(fingerprint)
        whole = len(data) % 2 == 1 and len(data) <= 1 + 2 * _FRAMES
        if (data[:1] == _VOICE and whole) or (data[:1] == _FACE and len(data) == 1 + _COEFFICIENTS):
            return data[:1]
    raise UsageError("this is no fingerprint of a face or a voice")


@functools.lru_cache(maxsize=1)
def _voice_tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The window, and the bands as a (bins, bands) matrix: spaced evenly in the logarithm of the frequency."""
    frequencies = np.fft.rfftfreq(_WINDOW, 1.0 / SAMPLE_RATE)
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 2)
    bands = (frequencies[:, None] >= edges[:-1]) & (frequencies[:, None] < edges[1:])
    return np.hanning(_WINDOW).astype(np.float32), bands.astype(np.float32)


@functools.lru_cache(maxsize=1)
def _face_tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The window over the crop, the places of the band's coefficients, and what evens them out (natural
    images fall off by the frequency)."""
    radius = np.hypot(*np.mgrid[:_SIDE, :_SIDE]).ravel()
    order = np.argsort(radius, kind="stable")
    order = order[np.searchsorted(radius[order], _LOW) :][:_COEFFICIENTS]
    taper = np.sqrt(np.hanning(_SIDE + 2)[1:-1])
    return np.outer(taper, taper).astype(np.float32), order, radius[order].astype(np.float32)


@functools.lru_cache(maxsize=1)
def _set_bits() -> npt.NDArray[np.float32]:
    """How many bits are set in each 16-bit number."""
    bytes_ = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.asarray(np.unpackbits(bytes_, axis=1).sum(axis=1), dtype=np.float32)
