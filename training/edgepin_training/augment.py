"""What a capture may look and sound like on another day: augmentations of crops, of PCM and of features.

All are driven by a generator that the caller seeds by step, so that a resumed run draws what an unbroken one would.
`strength` is 0 for none and 1 for what cameras and microphones in the wild do; more is allowed.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .sound import add_noise, colored_noise, level, lossy_codec, reverberate, room_impulse, telephone

Image = NDArray[np.float32]

ROOMS = 128
NOISES = 32
_NOISE_SECONDS = 20


def augment_face(crop: NDArray[np.uint8], rng: Generator, strength: float) -> NDArray[np.uint8]:
    """A crop (S, S, 3) flipped, moved, lit, blurred, compressed and partly covered; same shape and dtype."""
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if strength <= 0:
        return np.ascontiguousarray(crop)
    image = light(move(np.ascontiguousarray(crop), rng, strength).astype(np.float32), rng, strength)
    if rng.random() < 0.3 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.15 * strength:
        image = shrink(image, rng.uniform(0.4, 0.8))
    if rng.random() < 0.3 * strength:
        image += np.float32(rng.uniform(2, 10)) * rng.standard_normal(image.shape, np.float32)
    if rng.random() < 0.3 * strength:
        cover(image, rng)
    made = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.15 * strength:
        made = compress(made, int(rng.integers(25, 80)))
    return made


def move(crop: NDArray[np.uint8], rng: Generator, strength: float) -> NDArray[np.uint8]:
    """Rolled, scaled and shifted a little: finders differ and fall back on guessed eyes. Edges repeat."""
    size = crop.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.normal(0, 5 * strength), float(np.exp(rng.normal(0, 0.07 * strength)))
    )
    matrix[:, 2] += rng.normal(0, 0.035 * strength * size, 2)
    moved = cv2.warpAffine(
        crop, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def light(image: Image, rng: Generator, strength: float) -> Image:
    """Brighter, of another color temperature and contrast, lit from a side, paler or gray."""
    size = image.shape[0]
    gain = np.exp(rng.normal(0, 0.15 * strength) + rng.normal(0, 0.05 * strength, 3)).astype(np.float32)
    gamma = float(np.exp(rng.normal(0, 0.2 * strength)))
    # A table for each of 256 levels: a power for every pixel would take longer than the rest.
    levels = np.clip(np.arange(256, dtype=np.float32)[:, None] * gain / 255, 0, 1) ** np.float32(gamma) * 255
    image = np.stack([levels[:, c][image[..., c].astype(np.uint8)] for c in range(3)], axis=2)
    ramp = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(rng.normal(0, 20 * strength))
    image += ramp[None, :, None] if rng.random() < 0.5 else ramp[:, None, None]
    if rng.random() < 0.3 * strength:
        gray = image.mean(axis=2, keepdims=True)
        keep = np.float32(0.0 if rng.random() < 0.4 else rng.uniform(0.3, 1.5))
        image = gray + keep * (image - gray)
    return image


def shrink(image: Image, factor: float) -> Image:
    """At a lower resolution and back: a face far from the camera."""
    size = image.shape[0]
    small = cv2.resize(image, (max(8, round(size * factor)),) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def cover(image: Image, rng: Generator) -> None:
    """A box of one color over a part, in place: a hand, a scarf, the edge of a cap."""
    size = image.shape[0]
    height, width = (int(size * rng.uniform(0.12, 0.42)) for _ in range(2))
    y, x = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
    image[y : y + height, x : x + width] = rng.uniform(0, 255, 3 if rng.random() < 0.5 else 1)


def compress(crop: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Through JPEG of that quality (1-100) and back."""
    done, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8) if done else crop


def crop_voice(pcm: NDArray[np.int16], samples: int, rng: Generator) -> NDArray[np.float32]:
    """`samples` of the PCM from a random place; a shorter one is repeated."""
    if len(pcm) < samples:
        pcm = np.tile(pcm, -(-samples // len(pcm)))
    start = int(rng.integers(0, len(pcm) - samples + 1))
    return pcm[start : start + samples].astype(np.float32)


def augment_voice(
    voice: NDArray[np.float32], other: NDArray[np.float32], rng: Generator, strength: float
) -> NDArray[np.int16]:
    """PCM (samples,) in the int16 scale: in a room, with noise or another voice behind it, through a codec, at another
    level."""
    if strength > 0:
        if rng.random() < 0.4 * strength:
            voice = reverberate(voice, rooms()[int(rng.integers(ROOMS))])
        if rng.random() < 0.6 * strength:
            if rng.random() < 0.7:
                voice = add_noise(voice, _noise(len(voice), rng), rng.uniform(3, 25))
            else:
                voice = add_noise(voice, other, rng.uniform(10, 25))
        if rng.random() < 0.06 * strength:
            voice = telephone(voice)
        if rng.random() < 0.04 * strength:
            voice = lossy_codec(voice, rng.uniform(0, 0.5))
    gain = np.float32(np.exp(rng.normal(0, 0.5)) * (2000 / max(level(voice), 1.0)))
    return np.clip(np.rint(voice * gain), -32768, 32767).astype(np.int16)


def mask_log_mel(features: NDArray[np.float32], rng: Generator, strength: float) -> None:
    """SpecAugment (Park et al. 2019) in place on (N, T, M): one band and one stretch of each row becomes its mean."""
    for row in features if strength > 0 else ():
        for axis, widest in ((0, 20), (1, 12)):
            width = min(int(rng.integers(0, 1 + int(widest * strength))), row.shape[axis] - 1)
            start = int(rng.integers(0, row.shape[axis] - width))
            row[(slice(None),) * axis + (slice(start, start + width),)] = row.mean()


@functools.lru_cache(maxsize=1)
def rooms() -> tuple[NDArray[np.float32], ...]:
    """The same rooms in every run: to make one takes as long as to train on a crop of a voice."""
    rng = np.random.default_rng(20_150_416)
    return tuple(room_impulse(rng) for _ in range(ROOMS))


@functools.lru_cache(maxsize=1)
def noises() -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(20_190_418)
    return tuple(colored_noise(16_000 * _NOISE_SECONDS, rng) for _ in range(NOISES))


def _noise(samples: int, rng: Generator) -> NDArray[np.float32]:
    """A stretch of one of the noises, which start over where they end."""
    noise = noises()[int(rng.integers(NOISES))]
    return np.take(noise, np.arange(samples) + int(rng.integers(len(noise))), mode="wrap")
