"""The log-mel in float64, one frame at a time: slow, and readable as the specification."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgepin_kernels._spec import LogMelSpec

INT16_SCALE = 32768.0
"""Full scale of int16 samples; float samples have full scale 1."""


def reference_log_mel(spec: LogMelSpec, pcm: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The definition that every other implementation is held against.

    Args:
        spec: the definition.
        pcm: ``(samples,)``, int16, or float32 or float64 with full scale 1, at ``spec.sample_rate``.

    Returns:
        ``(frames, mels)`` float64, natural logarithm of mel energies.

    Raises:
        TypeError: the samples are of another dtype.
        ValueError: not one-dimensional, or too short for one frame.
    """
    if pcm.dtype not in (np.int16, np.float32, np.float64):
        raise TypeError(f"samples must be int16 or float, not {pcm.dtype}")
    if pcm.ndim != 1 or spec.num_frames(len(pcm)) == 0:
        raise ValueError(f"samples must be one-dimensional and at least {spec.frame_length}, not {pcm.shape}")
    samples = pcm.astype(np.float64) * amplitude_scale(spec, pcm.dtype)
    window = window_function(spec)
    filters = mel_filters(spec)

    rows = []
    for index in range(spec.num_frames(len(samples))):
        start = index * spec.hop_length
        frame = samples[start : start + spec.frame_length]
        if spec.remove_dc:
            frame = frame - frame.mean()
        before = np.concatenate([frame[:1], frame[:-1]])
        frame = frame - spec.preemphasis * before
        spectrum = np.fft.rfft(frame * window, spec.fft_length)
        power = spectrum.real**2 + spectrum.imag**2
        energies = power @ filters
        rows.append(np.log(np.maximum(energies, spec.log_floor)))
    log_mel = np.stack(rows)
    if spec.mean_normalize:
        log_mel = log_mel - log_mel.mean(axis=0)
    return log_mel


def amplitude_scale(spec: LogMelSpec, dtype: np.dtype[np.generic]) -> float:
    """What samples of ``dtype`` are multiplied by to be in the spec's amplitude."""
    full_scale = INT16_SCALE if dtype == np.int16 else 1.0
    return (INT16_SCALE if spec.amplitude == "int16" else 1.0) / full_scale


def window_function(spec: LogMelSpec) -> npt.NDArray[np.float64]:
    """``(frame_length,)`` float64: the symmetric window, as in Kaldi's ``feature-window.cc``."""
    cosine = np.cos(2.0 * math.pi * np.arange(spec.frame_length) / (spec.frame_length - 1))
    if spec.window == "hamming":
        return 0.54 - 0.46 * cosine
    hann = 0.5 - 0.5 * cosine
    return hann**0.85 if spec.window == "povey" else hann


def mel_filters(spec: LogMelSpec) -> npt.NDArray[np.float64]:
    """``(fft_length / 2 + 1, num_mels)`` float64: triangles of height 1, linear in mel.

    As in Kaldi's ``mel-computations.cc``. The Nyquist bin has no weight: it lies at the last
    foot or beyond it.
    """
    feet = np.linspace(_mel(spec.low_hz), _mel(spec.high_hz), spec.num_mels + 2)
    left, center, right = feet[:-2], feet[1:-1], feet[2:]
    bins = np.arange(spec.fft_length // 2 + 1) * (spec.sample_rate / spec.fft_length)
    mel = _mel(bins)[:, np.newaxis]
    rising = (mel - left) / (center - left)
    falling = (right - mel) / (right - center)
    filters: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    return filters


def _mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    mel: npt.NDArray[np.float64] = 1127.0 * np.log1p(np.asarray(hz, dtype=np.float64) / 700.0)
    return mel
