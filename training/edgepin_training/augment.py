"""What a capture may look and sound like on another day: augmentations of crops and of PCM.

All are driven by a generator that the caller seeds by step, so that a resumed run draws what an unbroken one would.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


def augment_face(crop: NDArray[np.uint8], rng: Generator, strength: float) -> NDArray[np.uint8]:
    """A crop (S, S, 3) moved, lit, blurred and partly covered; same shape and dtype."""
    size = crop.shape[0]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if strength <= 0:
        return np.ascontiguousarray(crop)
    # Finders differ and fall back on guessed eyes: scale, shift and roll must not matter much.
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.normal(0, 5 * strength), float(np.exp(rng.normal(0, 0.07 * strength)))
    )
    matrix[:, 2] += rng.normal(0, 0.035 * strength * size, 2)
    image = cv2.warpAffine(
        np.ascontiguousarray(crop),
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    gain = np.exp(rng.normal(0, 0.15 * strength) + rng.normal(0, 0.05 * strength, 3))
    image = 255 * np.clip(image * gain / 255, 0, 1) ** np.exp(rng.normal(0, 0.2 * strength))
    ramp = np.linspace(-1, 1, size, dtype=np.float32) * rng.normal(0, 20 * strength)
    image += ramp[None, :, None] if rng.random() < 0.5 else ramp[:, None, None]
    if rng.random() < 0.2 * strength:
        image[:] = image.mean(axis=2, keepdims=True)
    if rng.random() < 0.3 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.3 * strength:
        image += rng.normal(0, rng.uniform(2, 10), image.shape)
    if rng.random() < 0.3 * strength:
        side = int(size * rng.uniform(0.15, 0.4))
        y, x = rng.integers(0, size - side, 2)
        image[y : y + side, x : x + side] = rng.uniform(0, 255)
    return np.clip(image, 0, 255).astype(np.uint8)


def crop_voice(pcm: NDArray[np.int16], samples: int, rng: Generator) -> NDArray[np.float32]:
    """`samples` of the PCM from a random place; a shorter one is repeated."""
    if len(pcm) < samples:
        pcm = np.tile(pcm, -(-samples // len(pcm)))
    start = int(rng.integers(0, len(pcm) - samples + 1))
    return pcm[start : start + samples].astype(np.float32)


def augment_voice(
    voice: NDArray[np.float32], other: NDArray[np.float32], rng: Generator, strength: float
) -> NDArray[np.int16]:
    """PCM (samples,) in the int16 scale, with a room, noise or another voice behind it, at another level."""
    if strength > 0:
        if rng.random() < 0.4 * strength:
            voice = _reverberate(voice, rng)
        if rng.random() < 0.6 * strength:
            noise = _colored_noise(len(voice), rng) if rng.random() < 0.7 else other
            snr = rng.uniform(5, 25) if noise is not other else rng.uniform(12, 25)
            voice = voice + noise * (_rms(voice) / max(_rms(noise), 1e-3) * 10 ** (-snr / 20))
    level = np.exp(rng.normal(0, 0.5)) * (2000 / max(_rms(voice), 1.0))
    return np.clip(np.rint(voice * level), -32768, 32767).astype(np.int16)


def mask_log_mel(features: NDArray[np.float32], rng: Generator, strength: float) -> None:
    """SpecAugment (Park et al. 2019) in place on (N, T, M): one band and one stretch of each row becomes its mean."""
    for row in features if strength > 0 else ():
        for axis, widest in ((0, 20), (1, 12)):
            width = min(int(rng.integers(0, 1 + int(widest * strength))), row.shape[axis] - 1)
            start = int(rng.integers(0, row.shape[axis] - width))
            row[(slice(None),) * axis + (slice(start, start + width),)] = row.mean()


def _rms(x: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _colored_noise(samples: int, rng: Generator) -> NDArray[np.float32]:
    """Noise whose power falls with frequency to a random power between 0 (white) and 2 (brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** (-rng.uniform(0, 1))
    noise: NDArray[np.float32] = np.fft.irfft(spectrum, samples).astype(np.float32)
    return noise


def _reverberate(voice: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """A direct path and an exponentially decaying tail of noise, 60 dB down after 0.1 to 0.6 s."""
    decay = rng.uniform(0.1, 0.6)
    length = int(16000 * decay)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= rng.uniform(0.1, 0.8) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = len(voice) + length
    wet: NDArray[np.float32] = np.fft.irfft(np.fft.rfft(voice, size) * np.fft.rfft(tail, size), size)
    return wet[: len(voice)].astype(np.float32)
