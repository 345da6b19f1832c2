"""Sounds to hold implementations against each other on: int16 at 16 kHz, and the same in every run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

Pcm = npt.NDArray[np.int16]

RATE = 16_000
REAL_SPEECH = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "librispeech" / "eval"


def voiced(samples: int) -> Pcm:
    """Like speech: a gliding pitch through three moving formants, in syllables, with breath noise."""
    rng = np.random.default_rng(7)
    time = np.arange(samples) / RATE
    pitch = 120.0 + 30.0 * np.sin(2 * math.pi * 0.7 * time)
    phase = 2 * math.pi * np.cumsum(pitch) / RATE
    formants = [
        500 + 200 * np.sin(5 * time),
        1_500 + 500 * np.sin(3 * time + 1),
        2_600 + 200 * np.sin(7 * time),
    ]
    sound = np.zeros(samples)
    for harmonic in range(1, 40):
        gain = sum(1.0 / (1.0 + ((harmonic * pitch - formant) / 120.0) ** 2) for formant in formants)
        sound += gain * np.sin(harmonic * phase) / math.sqrt(harmonic)
    syllables = np.clip(np.sin(2 * math.pi * 2.5 * time), 0.0, None) ** 2
    sound = syllables * (sound + 0.05 * rng.standard_normal(samples)) + 1e-4 * rng.standard_normal(samples)
    return np.asarray(20_000 * sound / np.abs(sound).max()).astype(np.int16)


def noise(samples: int) -> Pcm:
    """White, and loud enough to be clipped here and there."""
    return np.clip(np.random.default_rng(8).normal(0, 10_000, samples), -32768, 32767).astype(np.int16)


def square(samples: int) -> Pcm:
    """20 Hz at full scale: all energy is far below almost all mels, and only some frames have a step."""
    return np.where(np.arange(samples) // 400 % 2 == 0, 32767, -32768).astype(np.int16)


def impulse(samples: int) -> Pcm:
    """One sample at full scale in digital silence."""
    pcm = np.zeros(samples, np.int16)
    pcm[samples // 2 - 7] = 32767
    return pcm


def silence(samples: int) -> Pcm:
    return np.zeros(samples, np.int16)


SOUNDS: dict[str, Callable[[int], Pcm]] = {
    "voiced": voiced,
    "noise": noise,
    "square": square,
    "impulse": impulse,
    "silence": silence,
}


def as_float(pcm: Pcm) -> npt.NDArray[np.float32]:
    """With full scale 1."""
    return pcm.astype(np.float32) / np.float32(32768)


def real_speech() -> list[Pcm]:
    """Three clips of 4 to 5 s of three speakers. For tests under the mark ``real_data``; skips without the clips."""
    import soundfile

    if not REAL_SPEECH.is_dir():
        pytest.skip("the real voices are not beside the checkout")
    paths = sorted(REAL_SPEECH.rglob("*.flac"))[::100]
    assert paths
    return [soundfile.read(path, dtype="int16")[0] for path in paths]
