"""The log-mels of well-known packages, by name. `tests/kernels/test_*_parity.py` hold each against its package."""

from __future__ import annotations

import dataclasses

from edgepin_kernels._spec import LogMelSpec

# Kaldi's compute-fbank-feats, kaldi-native-fbank, torchaudio.compliance.kaldi: dither 0, int16-scale samples.
_KALDI = LogMelSpec()

# librosa.feature.melspectrogram(n_fft=512, win_length=400, hop_length=160, n_mels=80), then ln(max(., 1e-10)).
_LIBROSA = LogMelSpec(
    amplitude="unit",
    padding="zeros",
    window="hann",
    window_periodic=True,
    remove_dc=False,
    preemphasis=0.0,
    low_hz=0.0,
    mel_scale="slaney",
    triangles="hz",
    mel_norm="slaney",
    log_floor=1e-10,
)

PRESETS = {
    "kaldi": _KALDI,
    # Its training and runtime: Hamming, int16 scale, the utterance's mean removed.
    "wespeaker": dataclasses.replace(_KALDI, window="hamming", normalize="mean"),
    # speakerlab's FBank: samples in [-1, 1], the utterance's mean removed.
    "3d-speaker": dataclasses.replace(_KALDI, amplitude="unit", normalize="mean"),
    "librosa": _LIBROSA,
    # torchaudio.transforms.MelSpectrogram(n_fft=512, win_length=400, hop_length=160, n_mels=80), then ln(max(., 1e-10)).
    "torchaudio": dataclasses.replace(_LIBROSA, padding="reflect", mel_scale="htk", mel_norm="none"),
    # openai/whisper, transformers' WhisperFeatureExtractor without its padding to 30 s.
    "whisper": dataclasses.replace(
        _LIBROSA,
        fft_length=400,
        padding="reflect",
        drop_last_frame=True,
        log="log10",
        dynamic_range=8.0,
        output_offset=4.0,
        output_scale=0.25,
    ),
    # NeMo's AudioToMelSpectrogramPreprocessor without dither, over the valid frames.
    "nemo": dataclasses.replace(
        _LIBROSA,
        drop_last_frame=True,
        window_periodic=False,
        preemphasis=0.97,
        preemphasis_over="utterance",
        log_floor=2.0**-24,
        floor_mode="add",
        normalize="mean_std",
    ),
    # speechbrain.lobes.features.Fbank(n_mels=80), as its ECAPA-TDNN is fed before its own normalization.
    "speechbrain": dataclasses.replace(
        _LIBROSA,
        fft_length=400,
        window="hamming",
        mel_scale="htk",
        triangles="hz_symmetric",
        mel_norm="none",
        log="db",
        dynamic_range=80.0,
    ),
    # resemblyzer.audio.wav_to_mel_spectrogram: 40 mels, no logarithm.
    "resemblyzer": dataclasses.replace(_LIBROSA, fft_length=400, num_mels=40, log="none"),
}
