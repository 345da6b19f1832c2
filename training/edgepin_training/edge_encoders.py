"""The encoders of the edge recipe: residual networks of dense 3x3 convolutions, within 1.5 M parameters each.

Dense convolutions keep both an Orin's tensor cores and a CPU's vector units busy, where depthwise ones wait for
memory, and their INT8 ranges are tame. docs/starter.md has the candidates that these were chosen from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoders import ConvBlock, Heads, attentive_statistics, channels, scaled_pixels

Stride = int | tuple[int, int]


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is projected where size or channels change (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: Stride = 1) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        same = inputs == outputs and stride in (1, (1, 1))
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.second(self.first(x)))


def stage(inputs: int, outputs: int, blocks: int, stride: Stride) -> list[nn.Module]:
    return [Residual(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range(blocks)]


class TimeResidual(nn.Module):
    """A dilated convolution over time and a pointwise one, around a shortcut: (N, C, 1, T), T kept."""

    def __init__(self, size: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(size, size, (1, 3), padding=(0, dilation), dilation=(1, dilation), bias=False),
            nn.BatchNorm2d(size),
            nn.ReLU(inplace=True),
            nn.Conv2d(size, size, 1, bias=False),
            nn.BatchNorm2d(size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class EdgeFaceEncoder(nn.Module):
    """Crop, uint8 RGB (N, S, S, 3) -> identity (N, 256), pin (N, 256), unit vectors. S is a multiple of 16."""

    def __init__(self, width: float = 1.0, dropout: float = 0.0, size: int = 64) -> None:
        super().__init__()
        a, b, c, d = (channels(count, width) for count in (40, 80, 128, 176))
        self.trunk = nn.Sequential(
            ConvBlock(3, a, 2), *stage(a, a, 2, 1), *stage(a, b, 2, 2), *stage(b, c, 2, 2), *stage(c, d, 1, 2)
        )  # (N, d, S/16, S/16)
        # One weight per place and channel: where a feature sits tells faces apart (Chen et al. 2018, section 3.1).
        self.pool = nn.Conv2d(d, d, size // 16, groups=d, bias=False)
        self.heads = Heads(d, dropout)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.pool(self.trunk(scaled_pixels(face))).flatten(1))


class EdgeVoiceEncoder(nn.Module):
    """Log-mel, float32 (N, T, M) -> identity (N, 256), pin (N, 256), unit vectors. M is a multiple of 16.

    The trunk sees two planes: the log-mel without the mean of the whole, which is loudness, and without each band's mean over
    time too, which is the timbre of voice and microphone.
    """

    def __init__(self, width: float = 1.0, dropout: float = 0.0, mels: int = 80) -> None:
        super().__init__()
        a, b, c, d = (channels(count, width) for count in (32, 64, 96, 256))
        self.trunk = nn.Sequential(
            ConvBlock(2, a, 2),
            *stage(a, a, 1, 2),
            *stage(a, b, 1, (2, 1)),
            *stage(b, c, 2, (2, 1)),
            nn.Sequential(
                nn.Conv2d(c, d, (mels // 16, 1), bias=False), nn.BatchNorm2d(d), nn.ReLU(inplace=True)
            ),
            TimeResidual(d, 1),
            TimeResidual(d, 2),
        )  # (N, d, 1, T/4)
        self.attention = nn.Sequential(nn.Conv2d(d, d // 4, 1), nn.ReLU(), nn.Conv2d(d // 4, d, 1))
        self.heads = Heads(2 * d, dropout)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        means = log_mel.mean(dim=1, keepdim=True)
        level = means.mean(dim=2, keepdim=True)
        planes = torch.stack([log_mel - level, log_mel - means], dim=1)  # (N, 2, T, M)
        x = self.trunk(planes.transpose(2, 3) / 4.0)  # 4 is about the spread of speech in nats
        return self.heads(attentive_statistics(x, self.attention(x)))
