"""The packages that presets are named after, each called as its users call it.

Every function takes int16 samples ``(samples,)`` at 16 kHz, returns ``(frames, mels)`` and imports its package when it
is called. None of these packages is needed to run the tests: `golden/` holds what they return.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .parity import Mels
from .sounds import RATE, Pcm, as_float


class Package(NamedTuple):
    """What a preset is held against."""

    preset: str
    distributions: tuple[str, ...]
    """What must be installed."""
    result: Callable[[Pcm], Mels]
    """What its users get: the package's own float32 arithmetic, logarithm and normalization."""
    energies: Callable[[Pcm], Mels]
    """The mel energies before the logarithm, in float64 where the package can compute so."""
    energy_bound: float
    """How far those energies may be from the definition, as a fraction of the frame's largest."""
    own_rounding: Mapping[str, float] = MappingProxyType({})
    """By sound: where float32 in the package alone moves its result by more than 2e-3, and by how much."""

    def missing(self) -> str | None:
        """The name of a distribution that is not installed."""
        for name in self.distributions:
            try:
                importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                return name
        return None


def librosa_energies(pcm: Pcm) -> Mels:
    import librosa

    samples = as_float(pcm)
    return librosa.feature.melspectrogram(
        y=samples, sr=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80
    ).T


def resemblyzer_energies(pcm: Pcm) -> Mels:
    from resemblyzer.audio import wav_to_mel_spectrogram

    return wav_to_mel_spectrogram(as_float(pcm))


def torchaudio_energies(pcm: Pcm) -> Mels:
    import torch

    transform = _torchaudio().transforms.MelSpectrogram(
        RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80
    )
    return transform(_tensor(pcm, torch.get_default_dtype())).T.numpy()


def torchaudio_kaldi(pcm: Pcm, logarithm: bool = True) -> Mels:
    import torch

    _torchaudio()
    from torchaudio.compliance import kaldi

    samples = _tensor(pcm, torch.get_default_dtype()) * 32768
    return kaldi.fbank(samples[None], num_mel_bins=80, dither=0.0, use_log_fbank=logarithm).numpy()


def whisper(pcm: Pcm) -> Mels:
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor()
    made = extract(as_float(pcm), sampling_rate=RATE, padding="do_not_pad", return_tensors="np")
    return made["input_features"][0].T


def whisper_energies(pcm: Pcm) -> Mels:
    # What the extractor calls where there is no torch, up to the logarithm; the last frame is dropped after it.
    from transformers.audio_utils import spectrogram, window_function
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    filters = WhisperFeatureExtractor().mel_filters
    window = window_function(400, "hann")
    return spectrogram(as_float(pcm), window, 400, 160, power=2.0, mel_filters=filters, mel_floor=0.0)[
        :, :-1
    ].T


def nemo(pcm: Pcm, **options: Any) -> Mels:
    import torch

    # As the configurations of its speaker models have it; the padding to a multiple of 16 frames left out.
    features = _nemo_features().FilterbankFeatures(
        n_window_size=400, n_window_stride=160, n_fft=512, nfilt=80, pad_to=0, **options
    )
    values, valid = features.eval()(_tensor(pcm, torch.float32)[None], torch.tensor([len(pcm)]))
    return values[0, :, : int(valid[0])].T.numpy()


def speechbrain(pcm: Pcm, logarithm: bool = True) -> Mels:
    import torch

    _torchaudio()
    from speechbrain.lobes.features import Fbank

    fbank = Fbank(n_mels=80)
    fbank.compute_fbanks.log_mel = logarithm
    return fbank(_tensor(pcm, torch.get_default_dtype())[None])[0].numpy()


def _ln(energies: Callable[[Pcm], Mels]) -> Callable[[Pcm], Mels]:
    """The logarithm that a package leaves to its users, as the preset has it."""
    return lambda pcm: np.log(np.maximum(energies(pcm), np.float32(1e-10)))


@contextmanager
def _float64() -> Iterator[None]:
    """What torch makes by default, windows and filters included, is float64 in here."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _in_float64(call: Callable[..., Mels], **options: Any) -> Callable[[Pcm], Mels]:
    def energies(pcm: Pcm) -> Mels:
        with _float64():
            return call(pcm, **options)

    return energies


def _tensor(pcm: Pcm, dtype: Any) -> Any:
    import torch

    return torch.from_numpy(pcm.astype(np.float64) / 32768).to(dtype)


def _torchaudio() -> Any:
    """torchaudio as it is; beside a torch without CUDA its compiled part does not load, and its mel features, which
    are Python alone, are taken without that part."""
    try:
        import torchaudio
    except OSError:
        part = types.ModuleType("torchaudio._extension")
        part._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        part.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        sys.modules[part.__name__] = part
        import torchaudio
    return torchaudio


def _nemo_features() -> Any:
    """NeMo's module of features; without the packages that NeMo's other modules need, its file alone, in which empty
    modules stand for what reads and augments sound."""
    try:
        from nemo.collections.asr.parts.preprocessing import features
    except ImportError:
        preprocessing = "nemo.collections.asr.parts.preprocessing"
        for module, name, value in (
            (f"{preprocessing}.perturb", "AudioAugmentor", object),
            (f"{preprocessing}.segment", "AudioSegment", object),
            ("nemo.utils", "logging", logging),
        ):
            sys.modules[module] = types.ModuleType(module)
            setattr(sys.modules[module], name, value)
        files = importlib.metadata.files("nemo_toolkit") or []
        path = next(file for file in files if file.as_posix().endswith("preprocessing/features.py")).locate()
        spec = importlib.util.spec_from_file_location("nemo_features", str(path))
        assert spec is not None
        assert spec.loader is not None
        features = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(features)
    return features


PACKAGES = {
    "librosa": Package("librosa", ("librosa",), _ln(librosa_energies), librosa_energies, 1e-6),
    "resemblyzer": Package(
        "resemblyzer", ("Resemblyzer", "librosa"), resemblyzer_energies, resemblyzer_energies, 1e-6
    ),
    "torchaudio": Package(
        "torchaudio",
        ("torchaudio",),
        _ln(torchaudio_energies),
        _in_float64(torchaudio_energies),
        2e-7,
        # Its float32 transform is as far from its own in float64: it loses what is 1e-14 of the frame's energy.
        own_rounding={"square": 0.3},
    ),
    "torchaudio.compliance.kaldi": Package(
        "kaldi",
        ("torchaudio",),
        torchaudio_kaldi,
        _in_float64(torchaudio_kaldi, logarithm=False),
        2e-7,
    ),
    "transformers": Package("whisper", ("transformers", "torch"), whisper, whisper_energies, 1e-6),
    "nemo": Package(
        "nemo",
        ("nemo_toolkit", "librosa", "torch"),
        nemo,
        lambda pcm: nemo(pcm, log=False, normalize=None),
        5e-6,  # float32 in all of it
        # A constant less its float32 mean is a few bits of 16.6, divided by as much again and 1e-5: anything below 1.
        own_rounding={"silence": 1.0},
    ),
    "speechbrain": Package(
        "speechbrain",
        ("speechbrain", "torchaudio"),
        speechbrain,
        _in_float64(speechbrain, logarithm=False),
        2e-7,
    ),
}
