"""The log-mel in float64, one frame at a time: slow, and readable as the specification."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgepin_kernels._spec import LogMelSpec

INT16_SCALE = 32768.0
"""Full scale of int16 samples; float samples have full scale 1."""

STD_GUARD = 1e-5
"""Added to the standard deviation of `normalize="mean_std"`, as NeMo does."""

Array = npt.NDArray[np.float64]


def reference_log_mel(spec: LogMelSpec, pcm: npt.NDArray[np.generic]) -> Array:
    """The definition that every other implementation is held against.

    Args:
        spec: the definition.
        pcm: ``(samples,)``, int16, or float32 or float64 with full scale 1, at ``spec.sample_rate``.

    Returns:
        ``(frames, mels)`` float64, as ``spec`` says.

    Raises:
        TypeError: the samples are of another dtype.
        ValueError: not one-dimensional, or too short for one frame.
    """
    if pcm.dtype not in (np.int16, np.float32, np.float64):
        raise TypeError(f"samples must be int16 or float, not {pcm.dtype}")
    if pcm.ndim != 1 or spec.num_frames(len(pcm)) == 0:
        raise ValueError(f"samples must be one-dimensional and at least {spec.min_samples}, not {pcm.shape}")

    samples = pcm.astype(np.float64) * amplitude_scale(spec, pcm.dtype)
    if spec.preemphasis_over == "utterance":
        samples = samples - spec.preemphasis * np.concatenate([[0.0], samples[:-1]])
    around = (spec.frame_lead, spec.frame_length)
    if spec.padding == "zeros":
        samples = np.pad(samples, around)
    elif spec.padding == "reflect":
        samples = np.pad(samples, around, mode="reflect")

    window, filters = window_function(spec), mel_filters(spec)
    energies = []
    for index in range(spec.num_frames(len(pcm))):
        start = index * spec.hop_length
        frame = samples[start : start + spec.frame_length]
        if spec.remove_dc:
            frame = frame - frame.mean()
        if spec.preemphasis_over == "frame":
            frame = frame - spec.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        spectrum = np.fft.rfft(frame * window, spec.fft_length)
        energies.append((spectrum.real**2 + spectrum.imag**2) @ filters)
    return _normalized(spec, _logarithm(spec, np.stack(energies)))


def _logarithm(spec: LogMelSpec, energies: Array) -> Array:
    if spec.log == "none":
        return energies
    floored = energies + spec.log_floor if spec.floor_mode == "add" else np.maximum(energies, spec.log_floor)
    if spec.log == "ln":
        return np.log(floored)
    return np.asarray(np.log10(floored) * (10.0 if spec.log == "db" else 1.0))


def _normalized(spec: LogMelSpec, values: Array) -> Array:
    if spec.dynamic_range is not None:
        values = np.maximum(values, values.max() - spec.dynamic_range)
    values = (values + spec.output_offset) * spec.output_scale
    if spec.normalize == "none":
        return values
    centered: Array = values - values.mean(axis=0)
    if spec.normalize == "mean":
        return centered
    std = centered.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return np.asarray(centered / (std + STD_GUARD))


def amplitude_scale(spec: LogMelSpec, dtype: np.dtype[np.generic]) -> float:
    """What samples of ``dtype`` are multiplied by to be in the spec's amplitude."""
    full_scale = INT16_SCALE if dtype == np.int16 else 1.0
    return (INT16_SCALE if spec.amplitude == "int16" else 1.0) / full_scale


def window_function(spec: LogMelSpec) -> Array:
    """``(frame_length,)`` float64."""
    if spec.window == "rectangular":
        return np.ones(spec.frame_length)
    period = spec.frame_length if spec.window_periodic else spec.frame_length - 1
    cosine = np.cos(2.0 * math.pi * np.arange(spec.frame_length) / period)
    if spec.window == "hamming":
        return 0.54 - 0.46 * cosine
    hann = 0.5 - 0.5 * cosine
    return np.asarray(hann**0.85 if spec.window == "povey" else hann)


def mel_filters(spec: LogMelSpec) -> Array:
    """``(fft_length / 2 + 1, num_mels)`` float64: what each bin of the power spectrum adds to each mel."""
    to_mel, to_hz = (_slaney_mel, _slaney_hz) if spec.mel_scale == "slaney" else (_htk_mel, _htk_hz)
    feet = np.linspace(to_mel(np.float64(spec.low_hz)), to_mel(np.float64(spec.high_hz)), spec.num_mels + 2)
    feet_hz = to_hz(feet)
    points = np.arange(spec.fft_length // 2 + 1) * (spec.sample_rate / spec.fft_length)
    if spec.triangles == "mel":
        points = to_mel(np.asarray(points))
    elif spec.triangles == "bins":
        feet = np.floor((spec.fft_length + 1) * feet_hz / spec.sample_rate)
        points = np.arange(spec.fft_length // 2 + 1, dtype=np.float64)
    else:
        feet = feet_hz
    left, center, right = feet[:-2], feet[1:-1], feet[2:]
    if spec.triangles == "hz_symmetric":
        right = 2 * center - left

    points = points[:, np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore"):  # two feet may be rounded to the same bin
        rising, falling = (points - left) / (center - left), (right - points) / (right - center)
    filters = np.where(points < center, rising, falling)
    filters = np.where((left < points) & (points < right), np.maximum(filters, 0.0), 0.0)
    if spec.triangles == "bins":  # a center on a foot is still the peak of its falling half
        filters[(points == center) & (center < right)] = 1.0
    if spec.mel_norm == "slaney":
        filters *= 2.0 / (feet_hz[2:] - feet_hz[:-2])
    return filters


def _htk_mel(hz: Array | np.float64) -> Array:
    # O'Shaughnessy 1987 as HTK and Kaldi have it; 2595 log10(1 + f / 700) is the same but for its unit.
    return np.asarray(1127.0 * np.log1p(hz / 700.0))


def _htk_hz(mel: Array) -> Array:
    return np.asarray(700.0 * np.expm1(mel / 1127.0))


# Slaney 1998, Auditory Toolbox (technical report 1998-010): 200/3 Hz a mel up to 1 kHz, above it a factor of 6.4
# in 27 mels.
_LINEAR_HZ = 200.0 / 3.0
_LOG_STEP = math.log(6.4) / 27.0


def _slaney_mel(hz: Array | np.float64) -> Array:
    above = np.maximum(hz, 1000.0)
    return np.where(hz < 1000.0, hz / _LINEAR_HZ, 15.0 + np.log(above / 1000.0) / _LOG_STEP)


def _slaney_hz(mel: Array) -> Array:
    above = np.maximum(mel, 15.0)
    return np.where(mel < 15.0, mel * _LINEAR_HZ, 1000.0 * np.exp(_LOG_STEP * (above - 15.0)))
