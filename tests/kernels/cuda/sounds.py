"""Sounds that a log-mel must survive, as int16 at 16 kHz."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]


def noise(*shape: int, seed: int = 0, level: float = 3_000.0) -> Pcm:
    return np.clip(np.random.default_rng(seed).normal(0.0, level, shape), -32768, 32767).astype(np.int16)


def speech_like(samples: int, seed: int = 1) -> Pcm:
    """A gliding harmonic tone through two resonances, with loud and nearly silent stretches and a quiet floor."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.7 * time)) / 16_000
    voice = np.zeros(samples)
    for harmonic in range(1, 40):
        hz = 120 * harmonic
        gain = 1 / (1 + ((hz - 600) / 200) ** 2) + 0.5 / (1 + ((hz - 2400) / 400) ** 2) + 0.01
        voice += gain * np.sin(harmonic * pitch + harmonic)
    envelope = np.clip(np.sin(2 * np.pi * 3.1 * time), 0.001, 1.0)
    return np.clip(9_000 * envelope * voice + rng.normal(0, 2, samples), -32768, 32767).astype(np.int16)


def square_wave(samples: int) -> Pcm:
    """Full scale, 20 Hz."""
    return np.where(np.arange(samples) // 400 % 2 == 0, 32767, -32768).astype(np.int16)


def impulse(samples: int) -> Pcm:
    pcm = np.zeros(samples, np.int16)
    pcm[samples // 2] = 32767
    return pcm


SOUNDS = {
    "speech": speech_like(8_000),
    "noise": noise(8_000),
    "square wave": square_wave(8_000),
    "impulse": impulse(8_000),
}
