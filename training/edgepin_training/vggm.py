"""The encoders of Learnable PINs: two VGG-M streams (Chatfield et al. 2014, CNN-M), for pixels and for spectrograms.

The face stream takes 224x224 RGB, the voice stream 512 frequencies by the frames of 3 s, as in VoxCeleb (Nagrani et
al. 2017, table 4): its last convolution spans all frequencies, and a mean over time lets it take any length. Both end in
the two heads that all encoders here have; the paper uses `pin` alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .encoders import Heads, channels, scaled_pixels

WINDOW, HOP, BINS = (
    400,
    160,
    512,
)  # samples at 16 kHz: 25 ms and 10 ms; of 1024 points, without the Nyquist bin


def spectrogram(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Magnitudes, float32 (N, S // 160, 512), of int16 PCM (N, S) at 16 kHz: Hamming windows of 25 ms every 10 ms.

    3 s are 300 frames; the last window is filled up with zeros. The mean and variance of every frequency are removed by
    the encoder.
    """
    frames = pcm.shape[1] // HOP
    padded = np.pad(pcm.astype(np.float32), ((0, 0), (0, WINDOW - HOP)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::HOP][:, :frames]
    spectra = np.fft.rfft(windows * np.hamming(WINDOW).astype(np.float32), n=2 * BINS, axis=2)
    return np.abs(spectra[:, :, :BINS]).astype(np.float32)


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),  # in the place of CNN-M's local response normalization
        nn.ReLU(inplace=True),
    )


def _trunk(
    inputs: int, sizes: tuple[int, int, int], pooling: tuple[int, int], stride: tuple[int, int], ceil: bool
) -> nn.Sequential:
    """conv1 to pool5; `sizes` are the channels of conv1, conv2 and of conv3 to conv5, `ceil` how poolings end."""
    first, second, rest = sizes
    return nn.Sequential(
        _block(inputs, first, 7, 2, 1),
        nn.MaxPool2d(3, 2),
        _block(first, second, 5, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=ceil),
        _block(second, rest, 3, 1, 1),
        _block(rest, rest, 3, 1, 1),
        _block(rest, rest, 3, 1, 1),
        nn.MaxPool2d(pooling, stride, ceil_mode=ceil),
    )


class VggmFace(nn.Module):
    """Crop, uint8 RGB (N, S, S, 3) -> identity (N, 256), pin (N, 256), unit vectors. S is 224 in the paper, at least 64."""

    def __init__(self, width: float = 1.0, dropout: float = 0.5, size: int = 224) -> None:
        super().__init__()
        sizes = (channels(96, width), channels(256, width), channels(512, width))
        wide = channels(4096, width)
        self.trunk = _trunk(3, sizes, (3, 3), (2, 2), True)
        with torch.no_grad():
            side = self.trunk.eval()(torch.zeros(1, 3, size, size)).shape[2]
        self.trunk.train()
        self.fc6 = _block(sizes[2], wide, side)
        self.fc7 = nn.Sequential(nn.Dropout(dropout), nn.Linear(wide, wide), nn.ReLU(inplace=True))
        self.heads = Heads(wide, dropout)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.fc7(self.fc6(self.trunk(scaled_pixels(face))).flatten(1)))


class VggmVoice(nn.Module):
    """Spectrogram, float32 (N, T, F) -> identity (N, 256), pin (N, 256), unit vectors. (T, F) is (300, 512) in the paper."""

    def __init__(self, width: float = 1.0, dropout: float = 0.5, bins: int = BINS) -> None:
        super().__init__()
        sizes = (channels(96, width), channels(256, width), channels(256, width))
        wide, narrow = channels(4096, width), channels(1024, width)
        self.trunk = _trunk(1, sizes, (5, 3), (3, 2), False)
        with torch.no_grad():
            height = self.trunk.eval()(torch.zeros(1, 1, bins, 300)).shape[2]
        self.trunk.train()
        self.fc6 = nn.Sequential(
            nn.Conv2d(sizes[2], wide, (height, 1), bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)
        )
        self.fc7 = nn.Sequential(nn.Dropout(dropout), nn.Linear(wide, narrow), nn.ReLU(inplace=True))
        self.heads = Heads(narrow, dropout)

    def forward(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        centered = magnitudes - magnitudes.mean(dim=1, keepdim=True)
        x = centered / (centered.square().mean(dim=1, keepdim=True).sqrt() + 1e-3)
        x = self.fc6(self.trunk(x.transpose(1, 2).unsqueeze(1)))  # (N, wide, 1, T')
        return self.heads(self.fc7(x.mean(dim=(2, 3))))
