"""The log-mel of a `LogMelSpec` in torch, for batches that live on a GPU while an encoder is trained there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgepin._errors import UsageError
from edgepin_kernels import LogMelSpec
from edgepin_kernels._reference import amplitude_scale, mel_filters, window_function


class LogMelTensors(nn.Module):
    """PCM in the int16 scale, float32 (N, samples), at the spec's rate -> log-mel, float32 (N, frames, mels).

    The definition is `edgepin_kernels.reference_log_mel`, in single precision. Specs that pad, or that look at the whole
    utterance, are refused with a UsageError: encoders are trained on the preset `kaldi`, which does neither.
    """

    def __init__(self, spec: LogMelSpec) -> None:
        super().__init__()
        whole = (
            spec.dynamic_range is not None or spec.preemphasis_over == "utterance" or spec.normalize != "none"
        )
        if spec.padding != "none" or spec.log != "ln" or spec.floor_mode != "clamp" or whole:
            raise UsageError(
                "this log-mel is not made on a GPU while training",
                hint='log_mel = "kaldi" is, or train on a CPU',
            )
        self._spec = spec
        self.window: Tensor
        self.filters: Tensor
        window = window_function(spec) * amplitude_scale(spec, mel_filters(spec).dtype) / 32768.0
        self.register_buffer("window", torch.from_numpy(window).float())
        self.register_buffer("filters", torch.from_numpy(mel_filters(spec)).float())

    @torch.no_grad()
    def forward(self, pcm: Tensor) -> Tensor:
        spec = self._spec
        frames = pcm.unfold(1, spec.frame_length, spec.hop_length)
        if spec.remove_dc:
            frames = frames - frames.mean(dim=2, keepdim=True)
        if spec.preemphasis:
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
            frames = frames - spec.preemphasis * before
        spectrum = torch.fft.rfft(frames * self.window, spec.fft_length)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters).clamp_min(spec.log_floor).log() * spec.output_scale + (
            spec.output_offset * spec.output_scale
        )
