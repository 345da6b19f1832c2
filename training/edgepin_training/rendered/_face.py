"""Drawing a face: flat antialiased shapes, then one map of shade over the head, then light and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._face_shape import IMAGE_SIZE, FaceCapture, FaceShape, face_capture, face_shape
from ._people import Person

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_GRID = 96  # the soft shade has no fine detail: cells of about 2 px
_CELL = 5.0 / _GRID  # units
_AXIS = ((np.arange(_GRID) - (_GRID - 1) / 2) * _CELL).astype(np.float32)
_TURN = np.linspace(0.0, 2 * np.pi, 40, endpoint=False)


@dataclass(frozen=True)
class RenderedFace:
    """One capture of a face.

    `image` is uint8 RGB `(192, 192, 3)`; the eye centers are `(x, y)` in px, with pixel centers at whole numbers;
    `left_eye` is the eye at the image's left. `jpeg_quality` is what a corpus stores the capture with.
    """

    image: np.ndarray
    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    jpeg_quality: int


def eye_centers(person: Person, capture_seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """The eye centers of `render_face(person, capture_seed)`, without drawing."""
    return _eyes_of(face_shape(person), face_capture(capture_seed))


def render_face(person: Person, capture_seed: int) -> RenderedFace:
    """Draw one capture: the same person and seed give the same pixels.

    The seed (≥ 0) decides pose, expression, light, background and camera, and nothing of who it is.
    """
    shape, capture = face_shape(person), face_capture(capture_seed)
    picture = _Picture(capture)
    _draw_hair_behind(picture, shape)
    _draw_head(picture, shape)
    for side in (-1.0, 1.0):
        _draw_eye(picture, shape, side)
        _draw_brow(picture, shape, side)
    _draw_mouth(picture, shape)
    _draw_nose(picture, shape)
    _draw_age(picture, shape)
    shade = _shade(picture, shape)
    _draw_hair_before(picture, shape)
    _draw_glasses(picture, shape)
    left, right = _eyes_of(shape, capture)
    return RenderedFace(_expose(picture, shade), left, right, capture.jpeg_quality)


def _eyes_of(shape: FaceShape, capture: FaceCapture) -> tuple[tuple[float, float], tuple[float, float]]:
    eyes = capture.project(np.array([(-shape.eye_x, 0.0), (shape.eye_x, 0.0)])).tolist()
    return (eyes[0][0], eyes[0][1]), (eyes[1][0], eyes[1][1])


class _Picture:
    """A canvas (uint8 RGB) and the strokes on the skin (uint8, 255 where there is none) in a capture's projection."""

    def __init__(self, capture: FaceCapture) -> None:
        import cv2

        self.capture = capture
        self.canvas = cv2.resize(capture.backdrop, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC)
        self.strokes = np.full((IMAGE_SIZE, IMAGE_SIZE), 255, np.uint8)
        self.head = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)

    def fill(self, points: np.ndarray, color: np.ndarray, lift: float = 0.0, *, flat: bool = False,
             mask: bool = False) -> None:  # fmt: skip
        """Fill a polygon `(n, 2)` in unit coordinates; `mask` also marks it as a part of the head."""
        import cv2

        corners = _fixed(self.capture.project(points, lift, flat=flat))
        cv2.fillPoly(self.canvas, [corners], _color(color), cv2.LINE_AA, _SHIFT)
        if mask:
            cv2.fillPoly(self.head, [corners], (255.0,), cv2.LINE_AA, _SHIFT)

    def line(self, points: np.ndarray, color: np.ndarray, width: float, lift: float = 0.0) -> None:
        """An opaque line of `width` units (at least one px)."""
        import cv2

        corners = _fixed(self.capture.project(points, lift))
        thickness = max(1, round(width * self.capture.scale))
        cv2.polylines(self.canvas, [corners], False, _color(color), thickness, cv2.LINE_AA, _SHIFT)

    def stroke(self, points: np.ndarray, depth: float, width: float = 0.03, lift: float = 0.0) -> None:
        """A soft dark line on the skin: `depth` 0 leaves it, 1 makes it black."""
        import cv2

        if depth <= 0.0:
            return
        corners = _fixed(self.capture.project(points, lift))
        thickness = max(1, round(width * self.capture.scale))
        value = 255.0 * (1 - min(depth, 0.9))
        cv2.polylines(self.strokes, [corners], False, (value,), thickness, cv2.LINE_AA, _SHIFT)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(points * (1 << _SHIFT)), np.int32)


def _color(color: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = np.clip(color, 0, 255).tolist()
    return red, green, blue


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return np.stack([x + half_width * np.cos(_TURN), y + half_height * np.sin(_TURN)], axis=1)


def _outline(shape: FaceShape) -> np.ndarray:
    """The head from the skull to the chin: half an ellipse above the eyes, half a superellipse below them."""
    cos, sin = np.cos(_TURN), np.sin(_TURN)
    lower = sin > 0
    x = shape.half_width * np.sign(cos) * np.abs(cos) ** np.where(lower, shape.jaw, 0.9)
    return np.stack([x, np.where(lower, shape.chin, 1.62) * sin], axis=1)


def _draw_hair_behind(picture: _Picture, shape: FaceShape) -> None:
    sides = shape.hair_length + picture.capture.hair_shift[1]
    width = shape.half_width + 0.14 + 0.06 * max(0.0, min(sides, 2.0))
    if sides > 0.2:
        bottom = min(sides, 2.6)
        down = np.array([(width, 0.0), (width * 1.04, bottom * 0.7), (width * 0.9, bottom)])
        arch = np.stack([width * np.cos(_TURN[20:]), 1.78 * np.sin(_TURN[20:])], axis=1)
        picture.fill(np.concatenate([arch, down, down[::-1] * (-1, 1)]), shape.hair * 0.8, flat=True)
    neck = shape.half_width * 0.70
    clothes = picture.capture.clothes
    shoulders = [(-2.6, 4.4), (-2.4, 2.65), (-0.9, 2.1), (0.9, 2.1), (2.4, 2.65), (2.6, 4.4)]
    picture.fill(np.array(shoulders), clothes, flat=True)
    throat = [(-neck, 1.0), (neck, 1.0), (neck * 1.12, 2.15), (0.0, 2.6), (-neck * 1.12, 2.15)]
    picture.fill(np.array(throat), shape.skin * 0.74, flat=True)
    if sides <= 0.9:
        for side in (-1.0, 1.0):
            ear = _ellipse(side * (shape.half_width + 0.05), 0.22, 0.13, shape.ears)
            picture.fill(ear, shape.skin * 0.82, flat=True)


def _draw_head(picture: _Picture, shape: FaceShape) -> None:
    picture.fill(_outline(shape), shape.skin, flat=True, mask=True)
    if 0.2 < np.hypot(*shape.mole) < 1.4:
        picture.fill(_ellipse(*shape.mole, 0.035, 0.035), shape.skin * 0.42)


def _draw_eye(picture: _Picture, shape: FaceShape, side: float) -> None:
    capture = picture.capture
    height = shape.eye_height * capture.eyes_open
    angle = -side * shape.eye_tilt
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    center = np.array([side * shape.eye_x, 0.0])
    along = np.linspace(-1.0, 1.0, 13)
    bulge = np.sqrt(np.clip(1 - along**2, 0, None)) * (1 - 0.15 * along * side)
    upper = np.stack([along * shape.eye_width, -1.05 * height * bulge], axis=1) @ turn + center
    lower = np.stack([along * shape.eye_width, 0.85 * height * bulge], axis=1) @ turn + center
    almond = np.concatenate([upper, lower[::-1]])
    picture.fill(almond, np.array((228.0, 224.0, 220.0)))
    gaze = center + np.array((capture.gaze, 0.0))
    iris = min(0.118, height * 1.08)
    for radius, color in ((iris, shape.iris * 0.7), (iris * 0.52, np.array((10.0, 8.0, 8.0)))):
        picture.fill(_ellipse(gaze[0], gaze[1], radius, radius), color)
    picture.fill(_ellipse(gaze[0] - 0.03, gaze[1] - 0.035, 0.022, 0.022), np.array((235.0, 235.0, 235.0)))
    lash = shape.skin * 0.12 + 10
    picture.line(upper, lash, 0.055)
    picture.line(lower, shape.skin * 0.55, 0.02)
    picture.stroke(upper + np.array((0.0, -0.08)), 0.30, 0.025)


def _draw_brow(picture: _Picture, shape: FaceShape, side: float) -> None:
    along = np.linspace(0.0, 1.0, 9)
    x = side * (shape.eye_x - 0.24 + 0.58 * along)
    middle = (
        shape.brow_y
        - 0.4 * shape.brow_thickness
        + 0.03
        - picture.capture.brow_raise
        + shape.brow_tilt * (0.5 - along)
    )
    middle = middle - shape.brow_arch * np.sin(np.pi * along**1.3)
    half = shape.brow_thickness * (0.5 + 0.1 * np.sin(np.pi * along) - 0.38 * along**3)
    top, bottom = np.stack([x, middle - half], axis=1), np.stack([x, middle + half], axis=1)
    picture.fill(np.concatenate([top, bottom[::-1]]), shape.brow)


def _draw_mouth(picture: _Picture, shape: FaceShape) -> None:
    capture = picture.capture
    smile, opened = capture.smile, capture.mouth_open
    width = shape.mouth_width * (1 + 0.07 * smile)
    along = np.linspace(-1.0, 1.0, 17)
    x, curve = along * width, shape.mouth_y - 0.05 * smile * along**2
    bulge = 1 - along**2
    bow = bulge**0.7 * (1 - 0.28 * np.exp(-((along / 0.16) ** 2)))
    upper = np.stack([x, curve - shape.lips * 0.85 * bow - opened * bulge], axis=1)
    seam_up = np.stack([x, curve - opened * bulge], axis=1)
    seam_down = np.stack([x, curve + opened * bulge], axis=1)
    lower = np.stack([x, curve + opened * bulge + shape.lips * 1.15 * bulge**0.8], axis=1)
    picture.fill(np.concatenate([seam_up, seam_down[::-1]]), np.array((52.0, 22.0, 24.0)))
    picture.fill(np.concatenate([upper, seam_up[::-1]]), shape.lip_color * 0.84)
    picture.fill(np.concatenate([seam_down, lower[::-1]]), shape.lip_color)
    picture.line(seam_up, shape.lip_color * 0.38, 0.03)


def _draw_nose(picture: _Picture, shape: FaceShape) -> None:
    for side in (-1.0, 1.0):
        nostril = _ellipse(
            side * shape.nose_width * 0.48, shape.nose_y + 0.015, shape.nose_width * 0.24, 0.035
        )
        picture.fill(nostril, shape.skin * 0.40, 0.2)
        wing = side * shape.nose_width * np.array([0.86, 1.02, 0.96, 0.7])
        height = shape.nose_y + np.array([-0.19, -0.09, 0.0, 0.035])
        picture.stroke(np.stack([wing, height], axis=1), 0.38, 0.045, 0.15)


def _draw_age(picture: _Picture, shape: FaceShape) -> None:
    """Lines across the forehead, from the nose to the mouth, and at the eyes' outer corners."""
    depth = 0.30 * shape.wrinkles
    along = np.linspace(-1.0, 1.0, 9)
    for row in range(3):
        y = shape.brow_y - 0.17 - 0.13 * row - 0.03 * (1 - along**2)
        picture.stroke(np.stack([along * (0.62 - 0.07 * row), y], axis=1), depth * 0.8, 0.025)
    fold = np.linspace(0.0, 1.0, 7)
    for side in (-1.0, 1.0):
        x = shape.nose_width * 1.05 + (shape.mouth_width * 1.12 - shape.nose_width) * fold**1.3
        y = shape.nose_y - 0.06 + (shape.mouth_y - shape.nose_y + 0.10) * fold
        picture.stroke(np.stack([side * x, y], axis=1), 0.08 + depth + 0.05 * picture.capture.smile, 0.045)
        bag = np.stack([side * (shape.eye_x + 0.22 * along), 0.24 + 0.06 * (1 - along**2)], axis=1)
        picture.stroke(bag, depth * 0.7, 0.03)
        corner = shape.eye_x + shape.eye_width + 0.05
        for rise in (-0.07, 0.0, 0.07):
            crow = np.array([(side * corner, rise * 0.4), (side * (corner + 0.16), rise)])
            picture.stroke(crow, depth * 0.6, 0.02)


def _shade(picture: _Picture, shape: FaceShape) -> np.ndarray:
    """What the head's relief does to its color: float32 `(192, 192)`, 1 outside the head."""
    import cv2

    capture = picture.capture
    nose, mouth, eye, sockets = shape.nose_y, shape.mouth_y, shape.eye_x, shape.sockets
    spots = [  # x, y, sigma x, sigma y, amount, lift: what bulges is bright, what is hollow is dark
        (0.0, 0.15, 0.085, 0.34, 0.20, 0.25),
        (0.0, nose - 0.10, 0.11, 0.11, 0.15, 0.40),
        (0.0, nose + 0.10, shape.nose_width, 0.06, -0.24, 0.1),
        (0.0, -0.78, 0.60, 0.26, 0.10, 0.0),
        (0.0, mouth + shape.lips + 0.17, 0.26, 0.07, -0.14, 0.0),
        (0.0, shape.chin - 0.20, 0.24, 0.14, 0.08, 0.0),
    ]
    for side in (-1.0, 1.0):
        spots += [
            (side * eye, -0.02, 0.40, 0.26, -0.6 * sockets, 0.0),
            (side * (eye - 0.24), -0.05, 0.10, 0.16, -sockets, 0.0),
            (side * 0.60, 0.52, 0.26, 0.20, 0.13 + 0.03 * shape.fullness, 0.0),
            (side * 0.80, 0.98, 0.20, 0.30, -0.13 + 0.09 * shape.fullness, 0.0),
            (side * shape.nose_width * 0.75, nose * 0.55, 0.08, 0.22, -0.16, 0.1),
        ]
    # Computed on a grid that is not turned, where a spot is a product of two curves, and then laid into the image.
    table = np.array(spots)
    relief = 1 + _spots(table, capture.at_rest(table[:, :2], table[:, 5]))
    u, v = _AXIS[None, :], _AXIS[:, None]

    # Lambert's law on the ellipsoid that stands for the head.
    normal_x = (u + np.float32(np.sin(capture.yaw) * 0.9)) / np.float32(1.12 * shape.half_width)
    normal_y = (v + np.float32(np.sin(capture.pitch) * 0.9)) / np.float32(1.12 * shape.chin)
    normal_z = np.sqrt(np.maximum(0.02, 1 - normal_x**2 - normal_y**2))
    light = capture.light.astype(np.float32)
    lit = np.maximum(0, light[0] * normal_x + light[1] * normal_y + light[2] * normal_z)
    relief *= np.float32(capture.ambient) + np.float32(1.08 - capture.ambient) * lit
    if shape.beard > 0:
        jaw = np.clip((v - np.float32(mouth - 0.28) + np.float32(0.25) * np.abs(u)) * 4, 0, 1)
        lips_x, lips_y = u / np.float32(shape.mouth_width), (v - np.float32(mouth)) / np.float32(0.13)
        lips = np.exp(-(lips_x**4)) * np.exp(-(lips_y**4))
        relief *= 1 - np.float32(0.55 * shape.beard) * jaw * (1 - lips)

    cos, sin = np.cos(capture.roll), np.sin(capture.roll)
    turn = capture.scale * _CELL * np.array([(cos, -sin), (sin, cos)])
    place = capture.center - turn @ np.full(2, (_GRID - 1) / 2)
    matrix = np.concatenate([turn, place[:, None]], axis=1)
    full = cv2.warpAffine(relief, matrix, (IMAGE_SIZE, IMAGE_SIZE), borderMode=cv2.BORDER_REPLICATE)
    full *= cv2.GaussianBlur(picture.strokes, (0, 0), 0.8) * np.float32(1 / 255)
    full -= 1
    full *= picture.head * np.float32(1 / 255)
    full += 1
    return np.asarray(full)


def _spots(table: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The sum of the table's Gaussians about their middles `(n, 2)`: float32 `(_GRID, _GRID)`."""
    x = np.exp(-0.5 * ((_AXIS - middle[:, :1]) / table[:, 2:3]) ** 2)
    y = np.exp(-0.5 * ((_AXIS - middle[:, 1:]) / table[:, 3:4]) ** 2)
    return np.asarray((y.T * table[:, 4]) @ x, np.float32)


def _draw_hair_before(picture: _Picture, shape: FaceShape) -> None:
    """The hair between the skull and the hairline, and the temples."""
    line = shape.hairline_y + picture.capture.hair_shift[0]
    width = shape.half_width
    arch = np.stack([(width + 0.12) * np.cos(_TURN[20:]), 1.80 * np.sin(_TURN[20:])], axis=1)
    temple = 0.12 if shape.hair_length > 0.2 else -0.10
    along = np.linspace(0.92, -0.92, 15)
    fringe = line + 0.48 * np.abs(along - 0.35 * np.clip(shape.parting, -0.8, 0.8)) ** 3.2
    hairline = np.stack([along * width, fringe], axis=1)
    right = np.array([(width + 0.12, temple), (width * 0.97, temple)])
    left = np.array([(-width * 0.97, temple), (-width - 0.12, temple)])
    picture.fill(np.concatenate([arch, right, hairline, left]), shape.hair, flat=True)
    start = float(np.clip(shape.parting, -0.45, 0.45)) * width
    for lock in (-0.85, -0.55, -0.25, 0.05, 0.35, 0.65, 0.9):
        strand = np.array(
            [(start, -1.66), (0.5 * start + 0.45 * lock * width, -1.45), (0.9 * lock * width, line - 0.08)]
        )
        picture.line(strand, shape.hair * (0.84 if int(20 * lock) % 2 else 1.14), 0.03)


def _draw_glasses(picture: _Picture, shape: FaceShape) -> None:
    if shape.glasses <= 0:
        return
    color = shape.skin * (
        0.85 - 0.45 * shape.glasses
    )  # wire: heavy frames would hide the eyes from the finder
    for side in (-1.0, 1.0):
        rim = _ellipse(side * (shape.eye_x + 0.02), 0.07, 0.41, 0.34)
        picture.line(np.concatenate([rim, rim[:1]]), color, 0.025, 0.1)
        picture.line(np.array([(side * (shape.eye_x + 0.43), 0.03), (side * 1.1, -0.04)]), color, 0.025)
    inner = shape.eye_x - 0.38
    picture.line(np.array([(-inner, 0.02), (0.0, -0.03), (inner, 0.02)]), color, 0.03, 0.1)


def _expose(picture: _Picture, shade: np.ndarray) -> np.ndarray:
    """The canvas under the shade, as the capture's light and camera show it: uint8 RGB."""
    import cv2

    capture = picture.capture
    ramp = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    across, down = capture.gradient.astype(np.float32)
    shade *= 1 + across * ramp[None, :] + down * ramp[:, None]
    scene = cv2.multiply(picture.canvas, cv2.merge([shade] * 3), dtype=cv2.CV_8U)  # rounds and saturates
    scene = cv2.GaussianBlur(scene, (0, 0), capture.blur)  # the lens comes before the sensor and its noise
    levels = np.arange(256)[:, None] / 255 * capture.gain
    table = (255 * np.clip(levels, 0, 1) ** capture.gamma).astype(np.uint8)
    image = cv2.LUT(scene, np.ascontiguousarray(table[None]))
    rng = np.random.default_rng(capture.noise_seed)
    grain = rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    grain *= np.float32(capture.noise)
    return np.asarray(cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U))
