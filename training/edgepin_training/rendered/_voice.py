"""Sounding a voice: pulses and noise through moving formants, then a channel, a room and a noise floor.

The source is the derivative of the KLGLOTT88 flow pulse, the filter a cascade of resonances (Klatt and Klatt,
"Analysis, synthesis, and perception of voice quality variations", JASA 87 (1990)), applied frame by frame as a
spectrum and overlapped, so that the work is a few transforms and not a loop over samples.
"""

from __future__ import annotations

import numpy as np

from ._people import Person
from ._speech import HOP, SAMPLE_RATE, Utterance, VoiceShape, utterance, voice_shape

_WINDOW = 2 * HOP
_FFT = 512
_HZ = np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=np.float32)
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)
_OCTAVES = np.log2(np.maximum(_HZ, 500.0) / 500.0)


def render_voice(person: Person, capture_seed: int) -> np.ndarray:
    """Voice one capture: int16 `(samples,)` at 16 kHz, mono, 2.6 to 3.9 s; same arguments, same samples.

    The seed (≥ 0) decides what is said, the channel, the room, the noise and the level, and nothing of who it is.
    """
    rng = np.random.default_rng([0x501CE, capture_seed])
    voice = voice_shape(person)
    said = utterance(voice, rng)
    return _record(_synthesize(voice, said, rng), rng)


def _synthesize(voice: VoiceShape, said: Utterance, rng: np.random.Generator) -> np.ndarray:
    """The sound at the lips: float32 `(frames * HOP,)`, of no particular level."""
    pulses = _pulses(voice, said)
    spectra = np.fft.rfft(_framed(pulses, len(said.pitch)) * _HANN, n=_FFT).astype(np.complex64)
    noise = rng.standard_normal((len(said.pitch), 2 * len(_HZ)), np.float32).view(np.complex64)
    noise *= np.float32(
        np.sqrt(np.square(_HANN).sum() / 2)
    )  # as the transform of windowed white noise of variance 1

    tilt = (10 ** (voice.tilt * _OCTAVES / 20)).astype(np.float32)
    spectra *= tilt
    spectra += noise * (said.breath.astype(np.float32)[:, None] * (0.3 + 0.7 * np.minimum(_HZ / 3000, 1)))
    spectra *= _formants(said, voice)
    frication = said.frication.astype(np.float32)
    some = frication > 1e-3
    octaves = np.log2(np.maximum(_HZ, 50.0) / said.frication_center[some, None].astype(np.float32))
    band = np.exp(-0.5 * (octaves / np.where(octaves < 0, np.float32(0.30), np.float32(0.45))) ** 2)
    spectra[some] += noise[some, ::-1] * (0.22 * frication[some, None] * (band + np.float32(0.01)))
    return _overlapped(np.fft.irfft(spectra, n=_FFT))


def _pulses(voice: VoiceShape, said: Utterance) -> np.ndarray:
    """The derivative of the flow through the glottis: float32 `(frames * HOP,)`."""
    samples = np.arange(len(said.pitch) * HOP)
    knots = (np.arange(len(said.pitch)) + 0.5) * HOP
    step = np.interp(samples, knots, said.pitch) / SAMPLE_RATE
    phase = np.cumsum(step) % 1.0
    quotient = voice.open_quotient
    place = phase / quotient
    wave = np.where(place < 1, 2 * place - 3 * place**2, 0.0)
    # The flow stops at once: a jump from -1 to 0, rounded over two samples (polynomial band-limited step) so that it
    # does not alias.
    before, after = (quotient - phase) / step, (phase - quotient) / step
    wave += np.where((before > 0) & (before <= 1), 0.5 * (1 - before) ** 2, 0.0)
    wave -= np.where((after >= 0) & (after < 1), 0.5 * (1 - after) ** 2, 0.0)
    return np.asarray(wave * np.interp(samples, knots, said.voicing), np.float32)


def _formants(said: Utterance, voice: VoiceShape) -> np.ndarray:
    """The vocal tract's response: complex64 `(frames, bins)`, of peak about 1 to 10.

    A product of second-order resonances F²/(F² - f² + i f B), and in nasal sounds a zero near `nasal_frequency`
    with a pole above it.
    """
    squares = _HZ * _HZ
    centers, widths = said.formants.astype(np.float32), said.bandwidths.astype(np.float32)
    scale = centers**2
    below = np.empty((len(centers), len(_HZ)), np.complex64)
    response = np.ones_like(below)
    for number in range(centers.shape[1]):
        below.real = 1 - squares / scale[:, number, None]
        below.imag = _HZ * (widths[:, number, None] / scale[:, number, None])
        response *= below
    np.reciprocal(response, out=response)
    dip = np.exp(-0.5 * ((_HZ - voice.nasal_frequency) / 170.0) ** 2).astype(np.float32)
    murmur = np.exp(-0.5 * ((_HZ - 260.0) / 120.0) ** 2).astype(np.float32)
    nasality = said.nasality.astype(np.float32)[:, None]
    response *= (1 - 0.85 * nasality * dip) * (1 + 0.8 * nasality * murmur)
    return response


def _record(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a channel and a room, with noise, at some level, as int16."""
    length = len(sound)
    size = _fast_size(length + 4000)
    hz = np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
    spectrum = np.fft.rfft(sound, n=size) * np.fft.rfft(_room(rng), n=size) * _channel(hz, rng)
    heard = np.fft.irfft(spectrum, n=size)[:length]
    heard /= np.sqrt(np.mean(heard**2)) + 1e-9

    white = rng.standard_normal(length, np.float32)
    dull = np.convolve(white, np.full(12, 1 / np.sqrt(12), np.float32), mode="same")
    mix = rng.uniform()
    heard += 10 ** (-rng.uniform(28, 42) / 20) * (np.sqrt(mix) * white + np.sqrt(1 - mix) * dull)
    level = 10 ** (rng.uniform(-32, -18) / 20)
    level = min(level, 0.9 / float(np.abs(heard).max()))  # a recorder that clips is not one of the nuisances
    return np.rint(heard * (level * 32767)).astype(np.int16)


def _channel(hz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A microphone's response: ripples of a few dB over the octaves, and its ends."""
    octaves = np.log2(np.maximum(hz, 60.0) / 60.0) / 7
    decibels = 2.0 * rng.standard_normal() * (octaves - 0.5)
    for ripple in (1, 2, 3):
        decibels = decibels + 1.4 / ripple * rng.standard_normal() * np.cos(
            np.pi * ripple * octaves + rng.uniform(0, 6)
        )
    low, high = rng.uniform(40, 140), rng.uniform(6500, 12000)
    ends = 1 / np.sqrt((1 + (low / np.maximum(hz, 1.0)) ** 4) * (1 + (hz / high) ** 8))
    return np.asarray(10 ** (decibels / 20) * ends)


def _room(rng: np.random.Generator) -> np.ndarray:
    """A room's impulse response of 0.2 s: the direct sound, then noise that dies away."""
    decay = rng.uniform(0.08, 0.35)  # seconds to -60 dB
    wet = 10 ** (-rng.uniform(12, 28) / 20)
    times = np.arange(3200) / SAMPLE_RATE
    tail = rng.standard_normal(3200) * np.exp(-6.91 * times / decay)
    tail *= wet / np.sqrt(np.square(tail).sum())
    tail[:40] = 0.0
    tail[0] = 1.0
    return np.asarray(tail)


def _fast_size(least: int) -> int:
    """The next multiple of 1024 whose factors are small: fast to transform, and close above `least`."""
    for multiple in range(-(-least // 1024), 1000):
        rest = multiple
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return multiple * 1024
    raise ValueError(f"a capture of {least} samples is too long")


def _framed(sound: np.ndarray, frames: int) -> np.ndarray:
    padded = np.concatenate([sound, np.zeros(_WINDOW - HOP, sound.dtype)])
    return np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:frames]


def _overlapped(pieces: np.ndarray) -> np.ndarray:
    """Frames `(frames, _FFT)` laid `HOP` apart and added: float32 `(frames * HOP,)`."""
    frames, steps = len(pieces), _FFT // HOP
    out = np.zeros((frames + steps, HOP), np.float32)
    for step in range(steps):
        out[step : step + frames] += pieces[:, step * HOP : (step + 1) * HOP]
    return out[:frames].reshape(-1)
