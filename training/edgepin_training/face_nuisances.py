"""What a capture of a face may look like on another day: `augment.augment_face` in batches, on any device.

All chance comes from the generator that is given, on whose device everything is made. `strength` is as in `augment`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Generator, Tensor

# Quantization of JPEG at quality 50 for luma and for chroma (ITU-T T.81, tables K.1 and K.2), by rows.
_LUMA = """
    16 11 10 16  24  40  51  61  12 12 14 19  26  58  60  55  14 13 16 24  40  57  69  56  14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77  24 35 55 64  81 104 113  92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103  99
"""
_CHROMA = "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66" + 38 * " 99"
# RGB -> Y, Cb, Cr without their offset (ITU-T T.871, section 7).
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def moves(count: int, side: int, generator: Generator, strength: float) -> Tensor:
    """Maps (count, 2, 3) from pixels of what is seen to pixels of a crop: flipped, rolled, scaled and shifted."""
    angle = math.radians(5 * strength) * normal(generator, (count,))
    scale = torch.exp(-0.07 * strength * normal(generator, (count,)))
    shift = 0.035 * strength * side * normal(generator, (count, 2))
    flip = torch.where(happens(generator, count, 0.5), -1.0, 1.0)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    middle = (side - 1) / 2
    # Flipped first, then turned and scaled about the middle.
    rows = [
        cos * flip,
        -sin,
        middle - cos * flip * middle + sin * middle + shift[:, 0],
        sin * flip,
        cos,
        middle - sin * flip * middle - cos * middle + shift[:, 1],
    ]
    return torch.stack(rows, dim=-1).view(-1, 2, 3)


def degrade(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Lit, blurred, at a lower resolution, noisy, partly covered, compressed: (n, 3, S, S) float -> (n, S, S, 3) uint8."""
    if strength > 0:
        images = light(images, generator, strength)
        lens = lenses(len(images), images.shape[2], generator, strength)[:, None]
        images = lens @ images @ lens.transpose(2, 3)
        level = uniform(generator, (len(images),), 2, 10) * happens(generator, len(images), 0.3 * strength)
        images = images + _each(level) * normal(generator, images.shape)
        images = cover(images, happens(generator, len(images), 0.3 * strength), generator)
        quality = uniform(generator, (len(images),), 25, 80)
        coded = happens(generator, len(images), 0.15 * strength)
        images = torch.where(_each(coded), compress(images.clamp(0, 255), quality), images)
    return images.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def light(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Brighter, of another color temperature and contrast, lit from a side, paler or gray; 0-255."""
    count, side = len(images), images.shape[2]
    gain = 0.15 * normal(generator, (count, 1)) + 0.05 * normal(generator, (count, 3))
    gamma = torch.exp(0.2 * strength * normal(generator, (count,)))
    levels = (images * torch.exp(strength * gain)[:, :, None, None] / 255).clamp(0, 1)
    images = 255 * levels ** _each(gamma)
    ramp = torch.linspace(-1, 1, side, device=images.device) * (
        20 * strength * normal(generator, (count, 1, 1, 1))
    )
    sideways = _each(happens(generator, count, 0.5))
    images = images + torch.where(sideways, ramp, ramp.transpose(2, 3))
    gray = images.mean(dim=1, keepdim=True)
    keep = uniform(generator, (count,), 0.3, 1.5)
    keep = torch.where(happens(generator, count, 0.4), 0.0, keep)
    keep = torch.where(happens(generator, count, 0.3 * strength), keep, 1.0)
    return torch.lerp(gray, images, _each(keep))


def lenses(count: int, side: int, generator: Generator, strength: float) -> Tensor:
    """Matrices (count, side, side) that blur a line of pixels, or bring it to a lower resolution and back."""
    spread = uniform(generator, (count,), 0.4, 1.4)
    spread = torch.where(happens(generator, count, 0.3 * strength), spread, 0.0)
    factor = uniform(generator, (count,), 0.4, 0.8)
    factor = torch.where(happens(generator, count, 0.15 * strength), factor, 1.0)
    return shrinking(side, (side * factor).round()) @ blurring(side, spread)


def blurring(side: int, spread: Tensor) -> Tensor:
    """Gaussian blur of a line by a standard deviation (n,) in px, 0 for none: (n, side, side)."""
    line = torch.arange(side, dtype=torch.float32, device=spread.device)
    distance = (line[:, None] - line).square()
    weights = torch.exp(-distance / (2 * spread.square()[:, None, None]).clamp(min=1e-3))
    return weights / weights.sum(dim=2, keepdim=True)


def shrinking(side: int, sizes: Tensor) -> Tensor:
    """A line averaged over `sizes` (n,) longer pixels and interpolated between their centers: (n, side, side)."""
    line = torch.arange(side, dtype=torch.float32, device=sizes.device)
    scale = (sizes / side)[:, None, None]
    # How much of the long pixel i each pixel j fills, then how near each pixel is to the center of a long one.
    start, end = line[:, None] / scale, (line[:, None] + 1) / scale
    filled = (torch.minimum(end, line + 1) - torch.maximum(start, line)).clamp(min=0) * scale
    place = ((line[:, None] + 0.5) * scale - 0.5).clamp(min=0)
    place = torch.minimum(place, sizes[:, None, None] - 1)
    near = (1 - (place - line).abs()).clamp(min=0)
    return near @ filled


def cover(images: Tensor, chosen: Tensor, generator: Generator) -> Tensor:
    """A box of one color over a part of the chosen (n,): a hand, a scarf, the edge of a cap."""
    count, side = len(images), images.shape[2]
    size = (uniform(generator, (count, 2), 0.12, 0.42) * side).floor()
    start = (uniform(generator, (count, 2), 0, 1) * (side - size)).floor()
    line = torch.arange(side, dtype=torch.float32, device=images.device)
    inside = (line >= start[..., None]) & (line < (start + size)[..., None])  # (n, 2, S)
    color = uniform(generator, (count, 3), 0, 255)
    color = torch.where(happens(generator, count, 0.5)[:, None], color, color[:, :1])
    box = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen[:, None, None]
    return torch.where(box[:, None], color[:, :, None, None], images)


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """What JPEG's quantization of 8x8 blocks leaves, (n, 3, S, S) 0-255, of quality (n,) 1-100; S a multiple of 8."""
    count, _, side, _ = images.shape
    cosines, tables, colors, back = _jpeg(images.device)
    # How the Independent JPEG Group's coder takes a quality.
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    tables = (tables * percent[:, None, None, None, None, None]).round().clamp(1, 255)
    ycc = torch.einsum("kc,nchw->nkhw", colors, images - 128)
    blocks = ycc.view(count, 3, side // 8, 8, side // 8, 8).transpose(3, 4)
    waves = cosines @ blocks @ cosines.T
    blocks = cosines.T @ ((waves / tables).round() * tables) @ cosines
    ycc = blocks.transpose(3, 4).reshape(count, 3, side, side)
    return torch.einsum("ck,nkhw->nchw", back, ycc) + 128


def uniform(generator: Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def normal(generator: Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def happens(generator: Generator, count: int, probability: float) -> Tensor:
    """(count,) bool."""
    return torch.rand(count, generator=generator, device=generator.device) < probability


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


@functools.lru_cache(maxsize=4)
def _jpeg(device: torch.device) -> tuple[Tensor, ...]:
    """The orthonormal cosine transform (8, 8), the tables (3, 1, 1, 8, 8), the colors (3, 3) and back (3, 3)."""
    line = torch.arange(8, dtype=torch.float64)
    cosines = torch.cos(math.pi / 8 * line[:, None] * (line + 0.5)) / 2
    cosines[0] /= math.sqrt(2)
    rows = [[int(value) for value in table.split()] for table in (_LUMA, _CHROMA, _CHROMA)]
    tables = torch.tensor(rows).view(3, 1, 1, 8, 8)
    colors = torch.tensor(_YCBCR)
    return tuple(made.float().to(device) for made in (cosines, tables, colors, torch.linalg.inv(colors)))
