"""Peers on numpy arrays: scipy's and FFTW's transforms in the kaldi definition, and librosa in its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from benchmarks.log_mel.method import Floats, Inputs, Method, Pipeline


def methods() -> list[Method]:
    """One row each."""
    shared = "numpy framing, power and dense mel product on float32, arrays reused, utterance by utterance"
    return [
        Method("scipy.fft.rfft", "kaldi", f"{shared}; workers=threads", _scipy, ("scipy",), threaded=True),
        Method("pyFFTW", "kaldi", f"{shared}; a plan by FFTW_MEASURE", _pyfftw, ("pyFFTW",), threaded=True),
        Method(
            "librosa.feature.melspectrogram",
            "librosa",
            "as its users call it (it makes its filters in each call), then ln(max(., 1e-10))",
            _librosa,
            ("librosa",),
        ),
        Method(
            "librosa.stft",
            "librosa",
            "the same steps with the filters made before",
            _librosa_stft,
            ("librosa",),
        ),
    ]


class _Kaldi:
    """The kaldi definition around somebody's transform, in arrays that are made once."""

    def __init__(self, inputs: Inputs, windowed: Floats) -> None:
        self._spec, self._window, self._filters = inputs.spec, inputs.window, inputs.filters
        self._keep = np.float32(1 - inputs.spec.preemphasis)
        self._samples = np.zeros(inputs.pcm.shape[1], np.float32)
        self._emphasized = np.zeros_like(self._samples)
        self._frames = self._framed(self._samples), self._framed(self._emphasized)
        self._windowed = windowed[:, : inputs.spec.frame_length]
        self._power = np.empty((inputs.frames, inputs.spec.fft_length // 2 + 1), np.float32)
        self._squares = np.empty_like(self._power)

    def _framed(self, samples: Floats) -> Floats:
        hop, length = self._spec.hop_length, self._spec.frame_length
        shape = (self._spec.num_frames(len(samples)), length)
        item = samples.itemsize
        return as_strided(samples, shape, (item * hop, item), writeable=False)

    def window(self, samples: Floats) -> None:
        """Fill the windowed frames.

        Pre-emphasis runs once over the samples, and a frame's mean leaves by what that keeps of it: half the time
        of doing both in every frame.
        """
        # Frames are views of an array of its own, so that they are made once: the copy is a few microseconds.
        self._samples[:] = samples
        emphasized = self._emphasized[1:]
        np.multiply(samples[:-1], np.float32(-self._spec.preemphasis), out=emphasized)
        np.add(emphasized, samples[1:], out=emphasized)
        raw, frames = self._frames
        mean = raw.mean(axis=1)
        mean *= self._keep
        np.subtract(frames, mean[:, np.newaxis], out=self._windowed)
        self._windowed[:, 0] = raw[:, 0] * self._keep - mean
        np.multiply(self._windowed, self._window, out=self._windowed)

    def log_mel(self, spectrum: Any, out: Floats) -> None:
        np.square(spectrum.real, out=self._power)
        np.square(spectrum.imag, out=self._squares)
        np.add(self._power, self._squares, out=self._power)
        np.matmul(self._power, self._filters, out=out)
        np.maximum(out, np.float32(self._spec.log_floor), out=out)
        np.log(out, out=out)


def _scipy(inputs: Inputs) -> Pipeline:
    import scipy.fft

    padded = np.zeros((inputs.frames, inputs.spec.fft_length), np.float32)
    kaldi, out = _Kaldi(inputs, padded), inputs.empty_output()

    def call() -> Floats:
        for samples, values in zip(inputs.floats, out, strict=True):
            kaldi.window(samples)
            kaldi.log_mel(scipy.fft.rfft(padded, workers=inputs.threads), values)
        return out

    return Pipeline(call, np.asarray)


def _pyfftw(inputs: Inputs) -> Pipeline:
    import pyfftw

    bins = inputs.spec.fft_length // 2 + 1
    padded = pyfftw.zeros_aligned((inputs.frames, inputs.spec.fft_length), "float32")
    spectrum = pyfftw.empty_aligned((inputs.frames, bins), "complex64")
    plan = pyfftw.FFTW(padded, spectrum, axes=(1,), flags=("FFTW_MEASURE",), threads=inputs.threads)
    padded[:] = 0  # planning overwrites it
    kaldi, out = _Kaldi(inputs, padded), inputs.empty_output()

    def call() -> Floats:
        for samples, values in zip(inputs.floats, out, strict=True):
            kaldi.window(samples)
            plan.execute()
            kaldi.log_mel(spectrum, values)
        return out

    return Pipeline(call, np.asarray)


def _librosa(inputs: Inputs) -> Pipeline:
    import librosa

    spec, floats = inputs.spec, inputs.floats
    floor = np.float32(spec.log_floor)

    def call() -> Any:
        energies = librosa.feature.melspectrogram(
            y=floats,
            sr=spec.sample_rate,
            n_fft=spec.fft_length,
            win_length=spec.frame_length,
            hop_length=spec.hop_length,
            n_mels=spec.num_mels,
        )
        return np.log(np.maximum(energies, floor, out=energies), out=energies)

    return Pipeline(call, _frames_first)


def _librosa_stft(inputs: Inputs) -> Pipeline:
    import librosa

    spec, floats = inputs.spec, inputs.floats
    floor = np.float32(spec.log_floor)
    filters = np.ascontiguousarray(inputs.filters.T)

    def one(samples: Floats) -> Any:
        spectrum = librosa.stft(
            samples, n_fft=spec.fft_length, win_length=spec.frame_length, hop_length=spec.hop_length
        )
        energies = filters @ (np.square(spectrum.real) + np.square(spectrum.imag))
        return np.log(np.maximum(energies, floor, out=energies), out=energies)

    # One after the other is faster than its batch here; for melspectrogram it is the other way round.
    return Pipeline(lambda: [one(samples) for samples in floats], _frames_first)


def _frames_first(log_mel: Any) -> Floats:
    """``(batch, mels, frames)`` -> ``(batch, frames, mels)``"""
    values: Floats = np.asarray(log_mel).swapaxes(1, 2)
    return values
