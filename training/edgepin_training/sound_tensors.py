"""What happens to voices between mouth and file, for whole batches on any device: `sound` and `augment` in torch.

Voices are float32 (N, samples) in the int16 scale at 16 kHz. Chance comes from a generator of the voices' device. What
happens to a share of the voices happens to a fixed number of rows, chosen at random, so that no row waits for the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from .augment import noises, rooms
from .sound import SAMPLE_RATE

_TAPS = 4  # on either side of a sample between samples
_FFT, _HOP, _LIFTER = 512, 128, 32
_KNOTS_HZ = (0.0, 200.0, 500.0, 1000.0, 2000.0, 3500.0, 5500.0, 8000.0)


def play(pcm: Tensor, starts: Tensor, lengths: Tensor, first: Tensor, speed: Tensor, samples: int) -> Tensor:
    """Stretches of clips at other speeds, which change pitch, vocal tract and tempo alike: float32 (N, samples).

    Args:
        pcm: int16 (all samples,), the clips one behind another.
        starts, lengths: int64 (N,), where the clip of each row lies; a clip starts over where it ends.
        first: float64 (N,), where in its clip a row begins, in samples.
        speed: float64 (N,); 1.1 plays faster. In between samples a windowed sinc of eight taps is taken.
        samples: of the result.
    """
    time = torch.arange(samples, dtype=torch.float64, device=pcm.device)
    places = first[:, None] + speed[:, None] * time
    whole = places.floor()
    part = (places - whole).float()
    whole = whole.long()
    cutoff = (1 / speed).clamp(max=1.0).float()[:, None]
    out = torch.zeros_like(part)
    for tap in range(1 - _TAPS, _TAPS + 1):
        away = tap - part
        weight = torch.sinc(cutoff * away) * cutoff * torch.cos(away * (math.pi / (2 * _TAPS))).square()
        out += weight * pcm[starts[:, None] + (whole + tap) % lengths[:, None]]
    return out


def reshape_spectrum(voices: Tensor, formants: Tensor, colors: Tensor) -> Tensor:
    """From another vocal tract, and of another color; same shape.

    Args:
        voices: float32 (N, samples).
        formants: float32 (N,), as in `sound.shift_formants`.
        colors: float32 (N, 257), gains in nats at the bins of a transform of 512 points.
    """
    spectra, envelope = _envelopes(voices)
    bins = torch.arange(_FFT // 2 + 1, device=voices.device, dtype=torch.float32)
    source = (bins / formants[:, None]).clamp(max=float(_FFT // 2))
    low = source.floor().clamp(max=float(_FFT // 2 - 1))
    part = (source - low)[:, :, None]
    index = low.long()[:, :, None].expand_as(envelope)
    stretched = envelope.gather(1, index) * (1 - part) + envelope.gather(1, index + 1) * part
    change = (stretched - envelope).clamp(-5, 5) + colors[:, :, None]
    window = _window(voices.device)
    return torch.istft(spectra * change.exp(), _FFT, _HOP, window=window, center=True, length=voices.shape[1])


def color(voices: Tensor) -> Tensor:
    """The mean spectral envelope of each, without its level: nats, (N, 257), for `reshape_spectrum`."""
    mean = _envelopes(voices)[1].mean(dim=2)
    return mean - mean.mean(dim=1, keepdim=True)


def _envelopes(voices: Tensor) -> tuple[Tensor, Tensor]:
    """The spectra of frames, complex (N, 257, frames), and their envelopes, in nats."""
    window = _window(voices.device)
    spectra = torch.stft(voices, _FFT, _HOP, window=window, center=True, return_complex=True)
    cepstra = torch.fft.irfft((spectra.abs() + 1.0).log(), dim=1)
    cepstra[:, _LIFTER : _FFT - _LIFTER + 1] = 0
    return spectra, torch.fft.rfft(cepstra, dim=1).real


def _window(device: torch.device) -> Tensor:
    return torch.hann_window(_FFT, device=device).sqrt()


def curve(gains: Tensor, bins: Tensor) -> Tensor:
    """Gains in dB at 0, 0.2, 0.5, 1, 2, 3.5, 5.5 and 8 kHz, (N, 8) -> in nats at bins of 512 points, (N, bins)."""
    knots = torch.tensor(_KNOTS_HZ, device=gains.device) * (_FFT / SAMPLE_RATE)
    right = torch.searchsorted(knots, bins, right=True).clamp(1, len(_KNOTS_HZ) - 1)
    part = (bins - knots[right - 1]) / (knots[right] - knots[right - 1])
    return (gains[:, right - 1] * (1 - part) + gains[:, right] * part) * (math.log(10) / 20)


def some(voices: Tensor, share: float, change: Callable[[Tensor], Tensor], chance: Generator) -> Tensor:
    """A copy in which `share` of the rows, chosen at random, are changed."""
    count = round(min(share, 1.0) * len(voices))
    if count == 0:
        return voices
    rows = torch.randperm(len(voices), generator=chance, device=voices.device)[:count]
    return voices.index_copy(0, rows, change(voices[rows]))


def level(voices: Tensor) -> Tensor:
    """Root mean square of each, (N, 1): `sound.level`."""
    return voices.square().mean(dim=1, keepdim=True).sqrt()


class Nuisances:
    """Rooms, noises, other voices, telephones, filters and levels, as `augment.augment_voice` draws them, for batches.

    There is no lossy codec, which no GPU has; filters, which no microphone is without, are more.
    """

    def __init__(self, device: torch.device) -> None:
        impulses = [torch.from_numpy(room) for room in rooms()]
        self._rooms = pad_sequence(impulses, batch_first=True).to(device)
        self._noises = torch.stack([torch.from_numpy(noise) for noise in noises()]).to(device)

    def __call__(self, voices: Tensor, others: Tensor, strength: float, chance: Generator) -> Tensor:
        """PCM in the int16 scale, rounded and clipped, float32 (N, samples); `others` (N, samples) may talk behind."""
        if strength > 0:
            voices = some(voices, 0.4 * strength, lambda rows: self._reverberate(rows, chance), chance)
            voices = voices + self._behind(voices, others, strength, chance)
            voices = some(voices, 0.35 * strength, lambda rows: self._filtered(rows, chance), chance)
            voices = some(voices, 0.06 * strength, _telephone, chance)
        wanted = 2000 * (0.5 * _normal(len(voices), 1, chance)).exp()
        return (voices * (wanted / level(voices).clamp_min(1.0))).round().clamp(-32768, 32767)

    def _reverberate(self, voices: Tensor, chance: Generator) -> Tensor:
        rooms = self._rooms[_integers(len(self._rooms), len(voices), chance)]
        least = voices.shape[1] + rooms.shape[1]
        size = 1 << (least - 1).bit_length()
        if size * 5 // 8 >= least:  # as quick to transform as a power of two, and less
            size = size * 5 // 8
        heard = torch.fft.irfft(torch.fft.rfft(voices, size) * torch.fft.rfft(rooms, size), size)
        return heard[:, : voices.shape[1]]

    def _behind(self, voices: Tensor, others: Tensor, strength: float, chance: Generator) -> Tensor:
        """A noise beneath 0.42, or another voice beneath 0.18 of the rows, at `strength` 1."""
        count, samples = voices.shape
        index = _integers(self._noises.shape[1], count, chance)[:, None] + torch.arange(
            samples, device=voices.device
        )
        noise = self._noises[
            _integers(len(self._noises), count, chance)[:, None], index % self._noises.shape[1]
        ]
        kind = _uniform(count, 1, chance)
        quiet = kind >= 0.6 * strength
        another = kind < 0.18 * strength
        snr = torch.where(another, 10 + 15 * _uniform(count, 1, chance), 3 + 22 * _uniform(count, 1, chance))
        noise = torch.where(another, others, noise)
        gain = level(voices) / level(noise).clamp_min(1e-3) * 10 ** (-snr / 20)
        return torch.where(quiet, 0.0, gain) * noise

    def _filtered(self, voices: Tensor, chance: Generator) -> Tensor:
        gains = 5.0 * _normal(len(voices), len(_KNOTS_HZ), chance)
        return _weighed(voices, gains)


def _weighed(voices: Tensor, gains: Tensor) -> Tensor:
    """Through a filter without a phase, by one transform over the whole."""
    spectra = torch.fft.rfft(voices)
    bins = torch.linspace(0, _FFT / 2, spectra.shape[1], device=voices.device)
    return torch.fft.irfft(spectra * curve(gains, bins).exp(), voices.shape[1])


def _telephone(voices: Tensor) -> Tensor:
    """As `sound.telephone`: 300-3400 Hz in 8 bits of mu-law."""
    spectra = torch.fft.rfft(voices)
    hertz = torch.linspace(0, SAMPLE_RATE / 2, spectra.shape[1], device=voices.device)
    band = 1 / (1 + (300 / hertz.clamp_min(1)) ** 8).sqrt() / (1 + (hertz / 3400) ** 16).sqrt()
    narrow = torch.fft.irfft(spectra * band, voices.shape[1])
    peak = narrow.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    code = narrow.sign() * torch.log1p(255 * narrow.abs() / peak) / math.log(256)
    code = (code * 127).round() / 127
    return code.sign() * torch.expm1(math.log(256) * code.abs()) / 255 * peak


def mask(features: Tensor, strength: float, chance: Generator) -> Tensor:
    """SpecAugment (Park et al. 2019) on (N, T, M): one band and one stretch of each row becomes its mean."""
    if strength <= 0:
        return features
    mean = features.mean(dim=(1, 2), keepdim=True)
    for axis, widest in ((1, 20), (2, 12)):
        size = features.shape[axis]
        width = (_uniform(len(features), 1, chance) * (1 + widest * strength)).floor().clamp(max=size - 1)
        start = (_uniform(len(features), 1, chance) * (size - width)).floor()
        place = torch.arange(size, device=features.device)
        covered = (place >= start) & (place < start + width)  # (N, size)
        features = torch.where(covered[:, :, None] if axis == 1 else covered[:, None, :], mean, features)
    return features


def _uniform(rows: int, columns: int, chance: Generator) -> Tensor:
    return torch.rand(rows, columns, generator=chance, device=chance.device)


def _normal(rows: int, columns: int, chance: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=chance, device=chance.device)


def _integers(below: int, count: int, chance: Generator) -> Tensor:
    return torch.randint(below, (count,), generator=chance, device=chance.device)
