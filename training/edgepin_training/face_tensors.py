"""New faces out of known ones, in batches on any device: warped, of other proportions, of two like halves, blended.

Nobody knows who they are, so a teacher says it, of the same picture that the student is shown. A face is a picture in the
frame of its chip (150x150 px, where dlib's five landmarks stand at fixed places); the teacher's chip and the student's
crop are both sampled from the known crops once, through composed coordinates, which are centers of pixels (x, y).

Points are transformed by sums and not by matrix products, which a GPU may round to 10 bits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from edgepin._errors import UsageError

from .face_nuisances import happens, normal, uniform
from .teachers import CHIP_PADDING, CHIP_SIDE

_NODES = 4  # by 4 displacements of a chip, interpolated in between; even, so that none lies on the axis of symmetry

# Where dlib's chips have the corners of the eyes and the base of the nose: the mean face of its source
# (`get_face_chip_details`), without the chip's padding.
_MEAN_FACE = (
    (0.8595674595992, 0.2134981538014),
    (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
)
LANDMARKS = tuple(
    tuple((CHIP_PADDING + value) / (1 + 2 * CHIP_PADDING) * CHIP_SIDE for value in point)
    for point in _MEAN_FACE
)
_MIDDLE = LANDMARKS[4][0]  # px: where the nose is, so are the halves divided


@dataclass(frozen=True)
class WarpOptions:
    """How much new faces differ from the known ones."""

    plain: float = 0.15  # the share of faces that are not warped
    shift: float = 0.03  # of the chip's side: the standard deviation of displacements in the strongest warp
    width: float = 0.16  # the natural logarithm of the largest change of width
    halves: float = 0.1  # the share of the warped faces that get two like halves
    blend: tuple[float, float] = (0.25, 0.75)  # the partner's weight where two faces are blended

    def __post_init__(self) -> None:
        for name in ("plain", "halves"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in 0-1")
        if not 0 <= self.shift <= 0.1:
            raise UsageError("shift must lie in 0-0.1: further, a face folds over itself")
        if not 0 <= self.width <= 0.5:
            raise UsageError("width must lie in 0-0.5")
        if not 0 <= self.blend[0] <= self.blend[1] <= 1:
            raise UsageError("blend must be a range within 0-1")


@dataclass(frozen=True)
class Warp:
    """Of n faces: where in the known face's chip a point of the new face's chip is."""

    nodes: Tensor  # (n, 2, _NODES, _NODES): displacements in px
    width: Tensor  # (n,): times as wide as it was
    half: Tensor  # (n,): 1 or -1 mirrors the right or left half, 0 none
    upright: Tensor  # (n, 2, 3): brings the landmarks back to where a chip has them

    @classmethod
    def draw(cls, count: int, generator: Generator, options: WarpOptions) -> tuple[Warp, Tensor]:
        """Also says which faces stay as they were: (count,) bool."""
        plain = happens(generator, count, options.plain)
        strength = torch.where(plain, 0.0, uniform(generator, (count,), 0.2, 1.0))
        nodes = normal(generator, (count, 2, _NODES, _NODES))
        # Mostly alike on both sides, as people are.
        mirrored = torch.stack([-nodes[:, 0], nodes[:, 1]], dim=1).flip(3)
        nodes = 0.8 * nodes + 0.6 * mirrored
        nodes = nodes * (options.shift * CHIP_SIDE * strength)[:, None, None, None]
        width = torch.exp(strength * uniform(generator, (count,), -options.width, options.width))
        side = torch.where(happens(generator, count, 0.5), 1.0, -1.0)
        half = torch.where(happens(generator, count, options.halves) & ~plain, side, 0.0)
        return cls.of(nodes, width, half), plain

    @classmethod
    def of(cls, nodes: Tensor, width: Tensor, half: Tensor) -> Warp:
        """Upright, so that no part of the warp is a turn, a zoom or a shift, which dlib's chip would undo."""
        wanted = _landmarks(nodes.device).expand(len(nodes), -1, -1)
        moving = cls(nodes, width, torch.zeros_like(half), _identity(len(nodes), nodes.device))
        found = wanted
        for _ in range(5):  # the point that is displaced to a landmark: a fixed point, which is near
            found = found - (moving(found[:, None])[:, 0] - wanted)
        return replace(moving, half=half, upright=similarity(wanted, found))

    def __call__(self, points: Tensor) -> Tensor:
        """(n, h, w, 2) px of the new chip -> (n, h, w, 2) px of the known one."""
        points = transform(self.upright, points)
        moved = functional.grid_sample(
            self.nodes,
            points * (2 / (CHIP_SIDE - 1)) - 1,
            mode="bicubic",
            padding_mode="border",
            align_corners=True,
        )
        x = points[..., 0] + moved[:, 0] - _MIDDLE
        y = points[..., 1] + moved[:, 1]
        half = self.half[:, None, None]
        x = x / self.width[:, None, None]
        x = torch.where(half == 0, x, half * x.abs())
        return torch.stack([x + _MIDDLE, y], dim=-1)

    def __getitem__(self, rows: slice) -> Warp:
        return Warp(self.nodes[rows], self.width[rows], self.half[rows], self.upright[rows])


@dataclass(frozen=True)
class Known:
    """Faces as they were photographed."""

    crops: Tensor  # (n, S, S, 3) uint8
    maps: Tensor  # (n, 2, 3) float32: px of the crop -> px of the chip, see `FaceChips`

    def __getitem__(self, rows: Tensor | slice) -> Known:
        return Known(self.crops[rows], self.maps[rows])

    def chips(self) -> Tensor:
        """As `NewFaces.chips`."""
        points = pixels(CHIP_SIDE, self.maps.device)
        return self.at(points.expand(len(self.crops), -1, -1, -1)).permute(0, 2, 3, 1)

    def at(self, points: Tensor) -> Tensor:
        """(n, h, w, 2) px of the chips -> float (n, 3, h, w), 0-255; what lies outside of a crop is its edge."""
        images = self.crops.permute(0, 3, 1, 2).float()
        places = transform(inverse(self.maps), points) * (2 / (self.crops.shape[1] - 1)) - 1
        sampled = functional.grid_sample(
            images, places, mode="bicubic", padding_mode="border", align_corners=True
        )
        return sampled.clamp(0, 255)


@dataclass(frozen=True)
class NewFaces:
    """`known` faces, warped; into the last m of them `partners` are blended, m of them or none."""

    known: Known
    warp: Warp
    partners: Known
    weights: Tensor  # (m,): the partners'

    def first(self, count: int) -> NewFaces:
        """The first `count`, none of which is blended."""
        rows = slice(0, count)
        return NewFaces(self.known[rows], self.warp[rows], self.partners[slice(0)], self.weights[:0])

    def chips(self) -> Tensor:
        """What the teacher sees: float (n, 150, 150, 3), RGB 0-255."""
        points = pixels(CHIP_SIDE, self.weights.device)
        return self._at(points.expand(len(self.known.crops), -1, -1, -1)).permute(0, 2, 3, 1)

    def crops(self, moves: Tensor) -> Tensor:
        """What the student sees, in the frame of the known crops after `moves` (n, 2, 3): float (n, 3, S, S)."""
        points = pixels(self.known.crops.shape[1], moves.device).expand(len(moves), -1, -1, -1)
        return self._at(transform(self.known.maps, transform(moves, points)))

    def _at(self, points: Tensor) -> Tensor:
        points = self.warp(points)
        images = self.known.at(points)
        count = len(self.weights)
        if count == 0:
            return images
        single = len(images) - count
        blended = torch.lerp(
            images[single:], self.partners.at(points[single:]), self.weights[:, None, None, None]
        )
        return torch.cat([images[:single], blended])


def pixels(side: int, device: torch.device) -> Tensor:
    """The centers of a square's pixels: (1, side, side, 2), (x, y)."""
    line = torch.arange(side, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def transform(maps: Tensor, points: Tensor) -> Tensor:
    """Affine maps (n, 2, 3) of points (n, h, w, 2)."""
    maps = maps[:, None, None]
    return maps[..., 0] * points[..., :1] + maps[..., 1] * points[..., 1:] + maps[..., 2]


def inverse(maps: Tensor) -> Tensor:
    """Of affine maps (n, 2, 3)."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in maps.unbind(-2))
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    rows = [a, b, -(a * x + b * y), c, d, -(c * x + d * y)]
    return torch.stack(rows, dim=-1).view(-1, 2, 3)


def similarity(points: Tensor, others: Tensor) -> Tensor:
    """The turn, zoom and shift (n, 2, 3) that takes points (n, k, 2) closest to others (n, k, 2), by least squares."""
    middle, goal = points.mean(dim=1), others.mean(dim=1)
    (x, y), (u, v) = (points - middle[:, None]).unbind(-1), (others - goal[:, None]).unbind(-1)
    norm = (x * x + y * y).sum(dim=1)
    real, imaginary = (x * u + y * v).sum(dim=1) / norm, (x * v - y * u).sum(dim=1) / norm
    mx, my = middle.unbind(-1)
    gx, gy = goal.unbind(-1)
    rows = [
        real,
        -imaginary,
        gx - real * mx + imaginary * my,
        imaginary,
        real,
        gy - imaginary * mx - real * my,
    ]
    return torch.stack(rows, dim=-1).view(-1, 2, 3)


@functools.lru_cache(maxsize=4)
def _landmarks(device: torch.device) -> Tensor:
    return torch.tensor(LANDMARKS, device=device)  # kept: a copy to a GPU waits for it


def _identity(count: int, device: torch.device) -> Tensor:
    return torch.eye(2, 3, device=device).expand(count, -1, -1)
