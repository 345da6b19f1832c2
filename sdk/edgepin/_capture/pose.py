"""How a head is held, from what a finder and a crop show. Estimates of a standard head, not measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .crop import Face

NOSE_DEPTH = 0.55
"""How far the tip of the nose stands before the plane of the eye centers, in distances between them: 35 mm of
63 mm.
"""


@dataclass(frozen=True)
class Pose:
    """Degrees. `roll` is the tilt of the line of the eyes, positive clockwise in the image; `yaw` the turn,
    positive towards the image's right, or None where the finder gives no nose.
    """

    roll: float
    yaw: float | None


def estimate_pose(face: Face) -> Pose:
    """The pose of a found face.

    Seen from afar, a head that turns by `yaw` moves the tip of its nose off the middle of its eyes by
    `NOSE_DEPTH * tan(yaw)` eye distances, along the line of the eyes.
    """
    dx = face.right_eye[0] - face.left_eye[0]
    dy = face.right_eye[1] - face.left_eye[1]
    roll = math.degrees(math.atan2(dy, dx))
    apart = math.hypot(dx, dy)
    if face.nose is None or not apart > 0.0:
        return Pose(roll, None)
    x = face.nose[0] - (face.left_eye[0] + face.right_eye[0]) / 2
    y = face.nose[1] - (face.left_eye[1] + face.right_eye[1]) / 2
    offset = (x * dx + y * dy) / apart**2
    return Pose(roll, math.degrees(math.atan(offset / NOSE_DEPTH)))


def symmetry(gray: npt.NDArray[np.float32]) -> float:
    """How alike a crop's two halves are: the correlation of its gray values with their mirror image, in [-1,
    1].

    0 for a crop of one value. Light from a side lowers it as a turned head does.
    """
    centered = gray - gray.mean()
    power = float((centered * centered).sum())
    return float((centered * centered[:, ::-1]).sum()) / power if power > 1e-6 else 0.0
