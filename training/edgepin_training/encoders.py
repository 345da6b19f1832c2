"""The two encoders: small convolutional networks, each with an `identity` and a `pin` output of 256 dimensions.

Both take what the device has (pixels, log-mel) and hold every normalization of it inside, so that an exported graph
needs no recipe beside it. Only operations that quantize well and that TensorRT and ONNX Runtime fuse are used:
convolution, batch normalization (folded at export), ReLU, and one pooling in floating point.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgepin._bundle.manifest import EMBEDDING_DIM


def channels(count: int, width: float) -> int:
    """`count` scaled by `width`, as a multiple of 8 (what INT8 kernels pack)."""
    return max(8, round(count * width / 8) * 8)


def scaled_pixels(face: Tensor) -> Tensor:
    """Crops, uint8 RGB (N, S, S, 3) -> float32 (N, 3, S, S) in [-2, 2]."""
    return (face.float().permute(0, 3, 1, 2) - 127.5) / 64.0


def attentive_statistics(x: Tensor, attention: Tensor) -> Tensor:
    """Mean and deviation over time, weighted by attention (Okabe et al. 2018): float32 (N, 2C).

    Both arguments are (N, C, 1, T); the weights are the softmax over time of `attention`.
    """
    weights = torch.softmax(attention.float(), dim=3)
    x = x.float()  # in 16 bits the variance would be lost
    mean = (weights * x).sum(dim=3)
    variance = (weights * x * x).sum(dim=3) - mean * mean
    deviation = torch.sqrt(torch.clamp(variance, min=1e-5))
    return torch.cat([mean, deviation], dim=1).flatten(1)


class ConvBlock(nn.Sequential):
    """Convolution, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016), the sum before the last ReLU."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first = ConvBlock(size, size)
        self.second = nn.Sequential(nn.Conv2d(size, size, 3, padding=1, bias=False), nn.BatchNorm2d(size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class TimeBlock(nn.Module):
    """Pointwise, depthwise over time, pointwise, around a shortcut. Written as 2-D convolutions of height 1."""

    def __init__(self, size: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(size, size, 1, bias=False),
            nn.BatchNorm2d(size),
            nn.ReLU(inplace=True),
            nn.Conv2d(
                size, size, (1, 5), padding=(0, 2 * dilation), dilation=(1, dilation), groups=size, bias=False
            ),
            nn.BatchNorm2d(size),
            nn.ReLU(inplace=True),
            nn.Conv2d(size, size, 1, bias=False),
            nn.BatchNorm2d(size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class Heads(nn.Module):
    """Two linear maps to unit vectors: `identity` for this modality alone, `pin` for the shared space."""

    def __init__(self, inputs: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.dropout = nn.Dropout(dropout)
        self.identity = nn.Linear(inputs, EMBEDDING_DIM)
        self.pin = nn.Linear(inputs, EMBEDDING_DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.dropout(self.norm(x))
        return functional.normalize(self.identity(x), dim=1), functional.normalize(self.pin(x), dim=1)


class FaceEncoder(nn.Module):
    """Crop, uint8 RGB (N, S, S, 3) -> identity (N, 256), pin (N, 256), unit vectors. S is a multiple of 16."""

    def __init__(self, width: float = 1.0, dropout: float = 0.0, size: int = 64) -> None:
        super().__init__()
        a, b, c, d = (channels(count, width) for count in (32, 64, 128, 192))
        self.trunk = nn.Sequential(
            ConvBlock(3, a, 2),
            ResidualBlock(a),
            ConvBlock(a, b, 2),
            ResidualBlock(b),
            ConvBlock(b, c, 2),
            ResidualBlock(c),
            ResidualBlock(c),
            ConvBlock(c, d, 2),
        )  # (N, d, S/16, S/16)
        # One weight per place and channel, instead of a mean: where a feature sits tells faces apart
        # (MobileFaceNets, Chen et al. 2018, section 3.1).
        self.pool = nn.Conv2d(d, d, size // 16, groups=d, bias=False)
        self.heads = Heads(d, dropout)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.pool(self.trunk(scaled_pixels(face))).flatten(1))


class VoiceEncoder(nn.Module):
    """Log-mel, float32 (N, T, M) -> identity (N, 256), pin (N, 256), unit vectors. M is a multiple of 8.

    The mean of every mel bin over time is removed first, which takes a microphone's fixed coloring away.
    """

    def __init__(self, width: float = 1.0, dropout: float = 0.0, mels: int = 80) -> None:
        super().__init__()
        a, b, c = channels(32, width), channels(48, width), channels(256, width)
        self.stem = nn.Sequential(
            ConvBlock(1, a, (2, 2)),
            ConvBlock(a, a, (2, 1)),
            ResidualBlock(a),
            ConvBlock(a, b, (2, 1)),
        )  # (N, b, M/8, T/2)
        self.flatten = nn.Sequential(
            nn.Conv2d(b, c, (mels // 8, 1), bias=False), nn.BatchNorm2d(c), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(TimeBlock(c, dilation) for dilation in (1, 2, 3, 4)))
        self.attention = nn.Sequential(nn.Conv2d(c, c // 4, 1), nn.ReLU(), nn.Conv2d(c // 4, c, 1))
        self.heads = Heads(2 * c, dropout)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        x = log_mel - log_mel.mean(dim=1, keepdim=True)
        x = x.transpose(1, 2).unsqueeze(1) / 4.0  # (N, 1, M, T); 4 is about the spread of speech in nats
        x = self.blocks(self.flatten(self.stem(x)))  # (N, c, 1, T/2)
        return self.heads(attentive_statistics(x, self.attention(x)))


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
