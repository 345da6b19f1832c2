"""What happens to a voice between mouth and file: speed, vocal tract, room, noise, telephone, lossy codec.

Every function takes and gives PCM as float32 (samples,) in the int16 scale, at 16 kHz unless it says otherwise, and
keeps the number of samples unless it says otherwise. Chance comes from the generator that the caller seeds.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
SPEED_OF_SOUND = 343.0  # m/s, in air of 20 degrees

Voice = NDArray[np.float32]


def change_speed(pcm: NDArray[np.int16], speed: float) -> NDArray[np.int16]:
    """Played `speed` times as fast, int16 (samples / speed,): pitch, vocal tract and tempo all change (Ko et al. 2015).

    It counts as another speaker. `speed` lies in 0.5-2.
    """
    if not 0.5 <= speed <= 2:
        raise ValueError(f"speed must lie in 0.5-2, not {speed}")
    if speed == 1.0:
        return pcm
    import soxr

    made: NDArray[np.int16] = soxr.resample(pcm, SAMPLE_RATE * speed, SAMPLE_RATE, quality="MQ")
    return made


def shift_formants(pcm: NDArray[np.int16], ratio: float) -> NDArray[np.int16]:
    """The same pitch and tempo from a vocal tract `ratio` times as high in frequency (shorter, if above 1).

    The spectral envelope of each 32 ms frame (its cepstrum below 2 ms, under any pitch period) is stretched by
    `ratio`, and the frame's fine structure and phases are kept. It counts as another speaker. `ratio` lies in 0.7-1.4.
    """
    if not 0.7 <= ratio <= 1.4:
        raise ValueError(f"ratio must lie in 0.7-1.4, not {ratio}")
    if ratio == 1.0 or len(pcm) == 0:
        return pcm
    size, hop, lifter = 512, 128, 32
    window = np.sqrt(np.hanning(size + 1)[:-1])
    padded = np.pad(pcm.astype(np.float64), (size, 2 * size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    spectra = np.fft.rfft(frames, axis=1)
    cepstra = np.fft.irfft(np.log(np.abs(spectra) + 1.0), axis=1)
    cepstra[:, lifter : size - lifter + 1] = 0
    envelope = np.fft.rfft(cepstra, axis=1).real  # in nats
    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / ratio, bins[-1])
    low = np.minimum(source.astype(np.int64), bins[-1] - 1)
    part = source - low
    stretched = envelope[:, low] * (1 - part) + envelope[:, low + 1] * part
    frames = np.fft.irfft(spectra * np.exp(np.clip(stretched - envelope, -5, 5)), axis=1) * window
    out = np.zeros(len(padded))
    for phase in range(size // hop):  # overlapping frames, in groups that do not overlap
        group = frames[phase :: size // hop]
        out[phase * hop : phase * hop + group.size] += group.reshape(-1)
    out = out[size : size + len(pcm)] * (2 * hop / size)
    return np.clip(np.rint(out), -32768, 32767).astype(np.int16)


def level(voice: Voice) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(voice))))


def add_noise(voice: Voice, noise: Voice, snr: float) -> Voice:
    """`noise` (as long) beneath the voice by `snr` dB."""
    return voice + noise * np.float32(level(voice) / max(level(noise), 1e-3) * 10 ** (-snr / 20))


def colored_noise(samples: int, rng: Generator) -> Voice:
    """Noise whose power falls with frequency to a random power between 0 (white) and 2 (brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples, np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** (-rng.uniform(0, 1))
    noise: Voice = np.fft.irfft(spectrum, samples).astype(np.float32)
    return noise


def room_impulse(rng: Generator) -> Voice:
    """The impulse response of a random shoebox room, float32 (samples,): the direct path is 1, at the first sample.

    Reflections up to a distance are placed by the image-source method (Allen and Berkley 1979) with one absorption for
    all walls; behind it a decaying tail of noise goes on at the decay that Sabine's formula gives for the room.
    """
    size = rng.uniform((2.5, 2.5, 2.2), (9.0, 8.0, 3.5))  # m
    absorption = float(np.exp(rng.uniform(np.log(0.12), np.log(0.75))))
    source = size * rng.uniform(0.15, 0.85, 3)
    direction = rng.standard_normal(3)
    away = rng.uniform(0.3, 2.5) * direction / np.linalg.norm(direction)
    microphone = np.clip(source + away, 0.05 * size, 0.95 * size)
    order = 3
    cells = np.stack(np.meshgrid(*(np.arange(-order, order + 1),) * 3, indexing="ij"), -1).reshape(-1, 3)
    images = np.where(cells % 2 == 0, cells * size + source, (cells + 1) * size - source)
    bounces = np.abs(cells).sum(axis=1)
    far = np.linalg.norm(images - microphone, axis=1)
    nearest = far[bounces == 0][0]
    delays = np.rint((far - nearest) / SPEED_OF_SOUND * SAMPLE_RATE).astype(np.int64)
    gains = (1 - absorption) ** (bounces / 2) * nearest / np.maximum(far, 0.05)
    volume = float(np.prod(size))
    surface = 2 * float(size[0] * size[1] + size[1] * size[2] + size[0] * size[2])
    decay = float(np.clip(0.161 * volume / (absorption * surface), 0.05, 0.8))  # s to -60 dB
    length = int(SAMPLE_RATE * decay)
    impulse = np.zeros(length)
    early = (delays >= 0) & (delays < length)
    np.add.at(impulse, delays[early], gains[early] * rng.choice((-1.0, 1.0), early.sum()))
    time = np.arange(length)
    mixing = min(int(SAMPLE_RATE * 0.002 * np.sqrt(volume)), length)  # where single echoes drown in the tail
    reach = np.sqrt(np.mean(impulse[mixing // 2 : mixing] ** 2)) if mixing > 1 else 0.0
    tail = rng.standard_normal(length) * 10 ** (-3 * (time - mixing) / length)
    impulse[mixing:] += (reach * tail)[mixing:]
    impulse[0] = 1.0
    return impulse.astype(np.float32)


def reverberate(voice: Voice, impulse: Voice) -> Voice:
    """The voice in a room; what rings on after its end is cut off."""
    size = _smooth(len(voice) + len(impulse))
    wet: Voice = np.fft.irfft(np.fft.rfft(voice, size) * np.fft.rfft(impulse, size), size)
    return wet[: len(voice)].astype(np.float32)


def telephone(voice: Voice) -> Voice:
    """Only 300-3400 Hz, in 8 bits of mu-law (ITU-T G.711, its continuous form with mu = 255)."""
    size = _smooth(len(voice))
    spectrum = np.fft.rfft(voice, size)
    spectrum *= _telephone_band(size)
    narrow: Voice = np.fft.irfft(spectrum, size)[: len(voice)].astype(np.float32)
    peak = max(float(np.abs(narrow).max()), 1.0)
    code = np.sign(narrow) * np.log1p(255 * np.abs(narrow) / peak) / np.log(256)
    code = np.rint(code * 127) / 127
    return (np.sign(code) * np.expm1(np.log(256) * np.abs(code)) / 255 * peak).astype(np.float32)


def lossy_codec(voice: Voice, quality: float) -> Voice:
    """Through Ogg Vorbis and back; `quality` in 0 (small) - 1 (good)."""
    import soundfile

    pcm = np.clip(np.rint(voice), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", SAMPLE_RATE, 1, "VORBIS", format="OGG", compression_level=1 - float(quality)
    ) as archive:
        archive.write(pcm)
    file.seek(0)
    decoded = soundfile.read(file, dtype="int16")[0].astype(np.float32)
    return np.pad(decoded, (0, max(0, len(pcm) - len(decoded))))[: len(pcm)]


@functools.lru_cache(maxsize=16)
def _telephone_band(size: int) -> Voice:
    """Gains of the bins of `size` samples: flat from 300 to 3400 Hz, falling off as a Butterworth filter does."""
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    low = 1 / np.sqrt(1 + (300 / np.maximum(frequency, 1)) ** 8)
    return (low / np.sqrt(1 + (frequency / 3400) ** 16)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _smooth(least: int) -> int:
    """The smallest size of at least `least`, with no factor above 5, which the Fourier transform is fast for."""
    sizes = (
        2**a * 3**b * 5**c
        for c in range(8)
        for b in range(8)
        for a in range(24)
        if 2**a * 3**b * 5**c >= least
    )
    return min(sizes, default=least)
