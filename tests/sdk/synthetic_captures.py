"""Captures of people who do not exist: pictures and voices from numbers alone, good enough for the quality gate.

Two captures of one person differ by noise; two people have nothing in common. The arrays are read-only.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 16_000


@functools.lru_cache(maxsize=64)
def picture(person: int, capture: int = 0, side: int = 128) -> npt.NDArray[np.uint8]:
    """uint8 (side, side, 3): an 8x8 pattern of the person's, and noise of the capture's."""
    pattern = np.random.default_rng((person, 1)).uniform(50.0, 205.0, (8, 8))
    rows = np.arange(side) * 8 // side
    noise = np.random.default_rng((person, capture, 2)).normal(0.0, 8.0, (side, side, 3))
    image = np.clip(pattern[np.ix_(rows, rows)][:, :, None] + noise, 0, 255).astype(np.uint8)
    image.setflags(write=False)
    return image


@functools.lru_cache(maxsize=64)
def voice(person: int, capture: int = 0, seconds: float = 2.0) -> npt.NDArray[np.int16]:
    """int16 (samples,) at 16 kHz: harmonics under the person's own spectral envelope, that swell and fade, each in its
    own way in every capture, with pauses between syllables.
    """
    own = np.random.default_rng((person, 3))
    pitch = own.uniform(90.0, 220.0)
    pitches = pitch * np.arange(1, int(7600 / pitch))
    bands = own.uniform(-45.0, 0.0, 14)  # dB, evenly spaced in mel
    decibels = np.interp(np.log1p(pitches / 700.0), np.linspace(0.0, np.log1p(8000 / 700.0), 14), bands)
    random = np.random.default_rng((person, capture, 4))
    time = np.arange(round(seconds * RATE)) / RATE
    phases = random.uniform(0.0, 2 * np.pi, len(pitches))
    tones = (10 ** (decibels / 20))[:, None] * np.sin(2 * np.pi * pitches[:, None] * time + phases[:, None])
    pace = random.uniform(1.0, 5.0, (len(pitches), 1))
    turn = random.uniform(0.0, 2 * np.pi, (len(pitches), 1))
    sound = (tones * (1.0 + 0.7 * np.sin(2 * np.pi * pace * time + turn))).sum(axis=0)
    syllables = np.sin(2 * np.pi * random.uniform(2.0, 4.0) * time + random.uniform(0.0, 2 * np.pi))
    sound *= 0.02 + np.clip(1.3 * syllables + 0.5, 0.0, 1.0)
    sound += random.normal(0.0, 0.003 * np.abs(sound).max(), len(time))
    samples = np.rint(sound * (0.5 * 32767 / np.abs(sound).max())).astype(np.int16)
    samples.setflags(write=False)
    return samples


def png(image: npt.NDArray[np.uint8]) -> bytes:
    return _encoded(image, "PNG")


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    return _encoded(image, "JPEG")


def write_face(path: Path, person: int, capture: int = 0) -> Path:
    path.write_bytes(png(picture(person, capture)))
    return path


def write_voice(path: Path, samples: npt.NDArray[np.generic], subtype: str = "PCM_16") -> Path:
    import soundfile

    soundfile.write(path, samples, RATE, subtype=subtype, format="WAV")
    return path


def _encoded(image: npt.NDArray[np.uint8], kind: str) -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(image).save(target, kind)
    return target.getvalue()
