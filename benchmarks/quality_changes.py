"""What may happen to captures, and models of a face that moves: used by `benchmarks.quality`."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from edgepin._capture.audio import active_frames, frame_levels, prepare

Image, Sound = NDArray[np.uint8], NDArray[np.int16]


def with_noise(pcm: Sound, snr: float, noise: NDArray[np.float64]) -> Sound:
    """Noise `snr` dB under the active frames' power."""
    power = np.mean(10.0 ** (frame_levels(pcm)[active_frames(pcm)].astype(np.float64) / 10.0)) * 32768.0**2
    scaled = noise * np.sqrt(power / 10.0 ** (snr / 10.0) / np.mean(noise**2))
    return np.clip(np.rint(pcm + scaled), -32768, 32767).astype(np.int16)


def babble(clips: list[Sound], length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Six other people at once."""
    voices = [np.resize(clips[i], length).astype(np.float64) for i in rng.integers(0, len(clips), 6)]
    return np.sum([voice / max(1.0, np.sqrt(np.mean(voice**2))) for voice in voices], axis=0)


def opus(pcm: Sound) -> Sound:
    file = io.BytesIO()
    soundfile.write(file, pcm, 16_000, format="OGG", subtype="OPUS")
    file.seek(0)
    samples, rate = soundfile.read(file, dtype="float32")
    return prepare(samples, rate)


def resampled(pcm: Sound, rate: int) -> Sound:
    import soxr

    return prepare(soxr.resample(pcm.astype(np.float32) / 32768.0, 16_000, rate), rate)


def jpeg(image: Image, quality: int) -> Image:
    _, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def scaled(image: Image, factor: float) -> Image:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=how))


def gamma(image: Image, exponent: float) -> Image:
    return np.rint(255.0 * (image / 255.0) ** exponent).astype(np.uint8)


def gain(image: Image, factor: float) -> Image:
    return np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)


def blurred(image: Image, of_64: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), of_64 * min(image.shape[:2]) / 64.0))


def noisy(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    return np.clip(np.rint(image + rng.normal(0.0, sigma, image.shape)), 0, 255).astype(np.uint8)


def rotated(image: Image, degrees: float) -> Image:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))


def turned(image: Image, yaw: float, pitch: float, mouth: float) -> Image:
    """A model of a living face's movement: half an ellipsoid turned by degrees, and a mouth opened by `mouth` px."""
    height, width = image.shape[:2]
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    u, v = (xs - width / 2) / (0.36 * width), (ys - 0.55 * height) / (0.5 * height)
    depth = 0.3 * width * np.sqrt(np.clip(1.0 - u * u - v * v, 0.0, 1.0))
    lips = np.exp(-(((xs - width / 2) / (0.2 * width)) ** 2) - ((ys - 0.85 * height) / (0.12 * height)) ** 2)
    to_x = xs - depth * np.float32(np.sin(np.radians(yaw)))
    to_y = ys - depth * np.float32(np.sin(np.radians(pitch))) - np.float32(mouth) * lips
    how = {"interpolation": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REPLICATE}
    return np.asarray(cv2.remap(image, to_x.astype(np.float32), to_y.astype(np.float32), **how))


def shaken(image: Image, corners: float, rng: np.random.Generator) -> Image:
    """A flat picture held by hand: its corners moved by a normal `corners` px, and its light changed by up to 10 %."""
    height, width = image.shape[:2]
    square = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    moved = (square + rng.normal(0.0, corners, (4, 2))).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(square, moved)
    flat = cv2.warpPerspective(
        image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return gain(np.asarray(flat), rng.uniform(0.9, 1.1))


def face_changes() -> dict[str, Callable[[Image], Image]]:
    """Blur, and less or more light."""
    changes: dict[str, Callable[[Image], Image]] = {"none": lambda face: face}
    for sigma in (1.0, 1.5, 2.0, 3.0):
        changes[f"blur of {sigma:g} px of 64"] = lambda face, sigma=sigma: blurred(face, sigma)
    for exponent in (0.33, 0.5, 2.0, 3.0, 5.0):
        changes[f"gamma {exponent:g}"] = lambda face, exponent=exponent: gamma(face, exponent)
    for factor in (0.5, 0.25, 0.1, 1.5, 2.0, 3.0):
        changes[f"{factor:g} times the light"] = lambda face, factor=factor: gain(face, factor)
    return changes
