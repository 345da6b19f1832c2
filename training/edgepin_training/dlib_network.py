"""dlib's face recognition network (King 2017) in torch, with the weights of its own file.

The layers are those of dlib's public example `dnn_face_recognition_ex.cpp`: a residual network of 29 convolutions, each
followed by a factor and a shift per channel. In torch it embeds thousands of chips a second on a GPU, so that faces which
nobody has photographed can be labeled while a student trains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import EnvironmentFault, IntegrityError

from .teachers import teacher_file

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
DIMENSIONS = 128

# What dlib subtracts of red, green and blue, and divides by: in the file as in its source.
_MEAN = (122.782, 117.001, 104.298)
_DIVISOR = 256.0
# (channels, halves the size) of the residual blocks, from the input on.
_BLOCKS = (
    *[(32, False)] * 3,
    (64, True),
    *[(64, False)] * 3,
    (128, True),
    *[(128, False)] * 2,
    (256, True),
    *[(256, False)] * 2,
    (256, True),
)


class DlibBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; where they halve the size, the shortcut is averaged over 2x2 pixels."""

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        # With a stride dlib pads nothing.
        self.first = nn.Conv2d(inputs, outputs, 3, 2) if halves else nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        made = self.second(functional.relu(self.first(x)))
        if self.halves:
            x = functional.avg_pool2d(x, 2)
        return functional.relu(_add_padded(made, x))


class DlibFaceNetwork(nn.Module):
    """Chips, RGB 0-255, (N, 150, 150, 3) -> float32 (N, 128), as dlib gives them (not unit vectors)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _BLOCKS[0][0], 7, 2)
        widths = [_BLOCKS[0][0], *(channels for channels, _ in _BLOCKS)]
        self.blocks = nn.Sequential(
            *(DlibBlock(widths[i], channels, halves) for i, (channels, halves) in enumerate(_BLOCKS))
        )
        self.embed = nn.Linear(widths[-1], DIMENSIONS, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN), persistent=False)

    def forward(self, chips: Tensor) -> Tensor:
        x = ((chips.float() - self.get_buffer("mean")) / _DIVISOR).permute(0, 3, 1, 2)
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, stride=2)
        x = self.blocks(x)
        embeddings: Tensor = self.embed(x.mean(dim=(2, 3)))
        return embeddings.float()

    @classmethod
    def load(cls, path: Path | None = None) -> DlibFaceNetwork:
        """With the weights of the installed `face_recognition_models`, or of dlib's file at `path`; without gradients.

        Raises:
            EnvironmentFault: neither is there.
            IntegrityError: the file is not that network, whole.
        """
        path = path or teacher_file("face_recognition_models", f"models/{WEIGHTS}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EnvironmentFault(f"the face teacher's {path} cannot be read: {error.strerror}") from error
        network = cls()
        records = _records(data)
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    _fill(layer, records)
            weight = network.embed.weight
            weight.copy_(_next(records, b"fc_2", weight.numel()).view(weight.shape[::-1]).T)
        if next(records, None) is not None:
            raise IntegrityError("the file of dlib's network has more layers than that network")
        return network.eval().requires_grad_(False)


def _add_padded(one: Tensor, other: Tensor) -> Tensor:
    """The sum, where what is missing of either at its right, its bottom and its last channels counts as 0."""
    rows, columns = max(one.shape[2], other.shape[2]), max(one.shape[3], other.shape[3])
    channels = max(one.shape[1], other.shape[1])
    grown = [
        functional.pad(x, (0, columns - x.shape[3], 0, rows - x.shape[2], 0, channels - x.shape[1]))
        for x in (one, other)
    ]
    return grown[0] + grown[1]


def _fill(layer: nn.Conv2d, records: Iterator[tuple[bytes, NDArray[np.float32]]]) -> None:
    """A convolution from dlib's and the factor and shift per channel behind it, which are folded into it."""
    weight, bias = layer.weight, layer.bias
    assert bias is not None
    values = _next(records, b"con_4", weight.numel() + bias.numel())
    gamma, beta = _next(records, b"affine_", 2 * bias.numel()).chunk(2)
    weight.copy_(values[: weight.numel()].view_as(weight) * gamma.view(-1, 1, 1, 1))
    bias.copy_(values[weight.numel() :] * gamma + beta)


def _next(records: Iterator[tuple[bytes, NDArray[np.float32]]], name: bytes, count: int) -> Tensor:
    found, values = next(records, (b"", np.zeros(0, np.float32)))
    if found != name or len(values) != count or not np.isfinite(values).all():
        raise IntegrityError(
            f"not dlib's face network: {name.decode()} of {count} finite weights expected, "
            f"{found.decode() or 'nothing'} of {len(values)} found"
        )
    return torch.from_numpy(values)


# In dlib's format a layer is its name (a length and that many letters), a tensor, and how the tensor is divided.
# A name does not occur within the weights, which are skipped.
_LAYERS = {b"con_4": 0, b"affine_": 0, b"fc_2": 2}  # name -> how many integers lie between it and its tensor
_TENSOR_VERSION = 2


def _records(data: bytes) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """Name and weights of each layer that has any, from the input to the output."""
    marks = re.compile(b"|".join(b"\x01" + bytes([len(name)]) + name for name in _LAYERS))
    position = 0
    while mark := marks.search(data, position):
        name, position = mark[0][2:], mark.end()
        for _ in range(_LAYERS[name]):
            _, position = _integer(data, position)
        version, position = _integer(data, position)
        if version != _TENSOR_VERSION:
            raise IntegrityError(f"a tensor of dlib's network is of version {version}, not {_TENSOR_VERSION}")
        count = 1
        for _ in range(4):  # samples, channels, rows, columns
            size, position = _integer(data, position)
            count *= size
        end = position + 4 * count
        if count < 0 or end > len(data):
            raise IntegrityError("the file of dlib's network is cut off")
        yield name, np.frombuffer(data, "<f4", count, position).astype(np.float32)
        position = end


def _integer(data: bytes, position: int) -> tuple[int, int]:
    """dlib's integer: a byte with its length, 0x80 if it is negative, then so many bytes, the least one first."""
    control = data[position] if position < len(data) else 0xFF
    length = control & 0x0F
    body = data[position + 1 : position + 1 + length]
    if len(body) < length or length > 8:
        raise IntegrityError("the file of dlib's network is cut off")
    value = int.from_bytes(body, "little")
    return (-value if control & 0x80 else value), position + 1 + length
