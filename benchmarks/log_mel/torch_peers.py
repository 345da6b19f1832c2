"""Peers on torch: the kaldi definition by torch.fft, the usual torch.stft pipeline, and torchaudio's two formulas.

torchaudio itself does not load beside a torch without CUDA, so its `compliance.kaldi.fbank` and `MelSpectrogram` are
written here as they are documented, with window and filters made before the call, which `fbank` makes in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.log_mel.method import Inputs, Method, Pipeline


def methods() -> list[Method]:
    """One row each."""
    torch = ("torch",)
    return [
        Method(
            "torch.fft.rfft",
            "kaldi",
            "unfold, mean, pre-emphasis, window, rfft, power, dense mel product, log in inference mode",
            _torch_fft,
            torch,
            threaded=True,
        ),
        Method(
            "torch.stft",
            "torchaudio",
            "torch.stft, power, dense mel product, log in inference mode",
            _torch_stft,
            torch,
            threaded=True,
        ),
        Method(
            "torchaudio MelSpectrogram (formula)",
            "torchaudio",
            "torch.stft, abs, pow(2), mel product on the transposed, as documented; then ln(max(., 1e-10))",
            _mel_spectrogram,
            torch,
            threaded=True,
        ),
        Method(
            "torchaudio kaldi.fbank (formula)",
            "kaldi",
            "the steps of compliance.kaldi.fbank as documented, log energy included; it takes one utterance",
            _kaldi_fbank,
            torch,
            threaded=True,
        ),
    ]


def _torch_fft(inputs: Inputs) -> Pipeline:
    import torch

    spec = inputs.spec
    samples = torch.from_numpy(inputs.floats)
    window, filters = torch.from_numpy(inputs.window), torch.from_numpy(inputs.filters)
    keep = 1 - spec.preemphasis

    @torch.inference_mode()
    def one(samples: Any) -> Any:
        # Pre-emphasis once over the samples; a frame's mean leaves by what that keeps of it.
        emphasized = torch.zeros_like(samples)
        torch.sub(samples[1:], samples[:-1], alpha=spec.preemphasis, out=emphasized[1:])
        raw = samples.unfold(0, spec.frame_length, spec.hop_length)
        mean = raw.mean(1, keepdim=True).mul_(keep)
        frames = emphasized.unfold(0, spec.frame_length, spec.hop_length) - mean
        frames[:, :1] = raw[:, :1] * keep - mean
        spectrum = torch.fft.rfft(frames.mul_(window), spec.fft_length)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ filters).clamp_min_(spec.log_floor).log_()

    # One after the other: intermediate arrays of a whole batch do not fit into the cache.
    return Pipeline(lambda: [one(row) for row in samples], _stacked)


def _torch_stft(inputs: Inputs) -> Pipeline:
    import torch

    spec = inputs.spec
    samples, window = torch.from_numpy(inputs.floats), torch.from_numpy(inputs.window)
    filters = torch.from_numpy(np.ascontiguousarray(inputs.filters.T))

    @torch.inference_mode()
    def one(samples: Any) -> Any:
        spectrum = _stft(spec, samples, window)
        power = spectrum.real.square() + spectrum.imag.square()
        return (filters @ power).clamp_min_(spec.log_floor).log_()

    return Pipeline(lambda: [one(row) for row in samples], _stacked_transposed)


def _mel_spectrogram(inputs: Inputs) -> Pipeline:
    import torch

    spec = inputs.spec
    samples, window = torch.from_numpy(inputs.floats), torch.from_numpy(inputs.window)
    filters = torch.from_numpy(inputs.filters)

    @torch.inference_mode()
    def one(samples: Any) -> Any:
        power = _stft(spec, samples, window).abs().pow(2.0)
        energies = torch.matmul(power.transpose(-1, -2), filters).transpose(-1, -2)
        return energies.clamp_min_(spec.log_floor).log_()

    # It takes batches too, at more than twice the time.
    return Pipeline(lambda: [one(row) for row in samples], _stacked_transposed)


def _stft(spec: Any, samples: Any, window: Any) -> Any:
    import torch

    return torch.stft(
        samples,
        spec.fft_length,
        spec.hop_length,
        spec.frame_length,
        window,
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )


def _kaldi_fbank(inputs: Inputs) -> Pipeline:
    import torch

    spec = inputs.spec
    samples, window = torch.from_numpy(inputs.floats), torch.from_numpy(inputs.window)
    filters = torch.from_numpy(np.ascontiguousarray(inputs.filters.T))
    least = torch.tensor(spec.log_floor)
    padding = (0, spec.fft_length - spec.frame_length)

    @torch.inference_mode()
    def one(samples: Any) -> Any:
        frames = samples.unfold(0, spec.frame_length, spec.hop_length)
        frames = frames - frames.mean(dim=1).unsqueeze(1)
        # The energy of each frame is computed whether or not it is asked for.
        torch.max(frames.pow(2).sum(1), least).log()
        before = torch.nn.functional.pad(frames.unsqueeze(0), (1, 0), mode="replicate").squeeze(0)
        frames = frames - spec.preemphasis * before[:, :-1]
        frames = torch.nn.functional.pad(frames * window.unsqueeze(0), padding)
        power = torch.fft.rfft(frames).abs().pow(2.0)
        return torch.max(torch.mm(power, filters.T), least).log()

    return Pipeline(lambda: [one(row) for row in samples], _stacked)


def _stacked(log_mels: Any) -> Any:
    return np.stack([row.numpy() for row in log_mels])


def _stacked_transposed(log_mels: Any) -> Any:
    return _stacked(log_mels).swapaxes(1, 2)
