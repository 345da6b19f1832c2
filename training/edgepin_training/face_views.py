"""Views of training faces: other proportions, and two like halves, which makes new people of few.

As with voices (`views`), the teacher embeds every view itself, so that nobody has to know who that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FaceView:
    """How a crop is changed: `width` times as wide about its middle (edges repeat), then one half mirrored, or none."""

    width: float = 1.0
    half: str = ""  # "", "left" or "right"

    def __post_init__(self) -> None:
        if not 0.7 <= self.width <= 1.4:
            raise ValueError(f"width must lie in 0.7-1.4, not {self.width}")
        if self.half not in ("", "left", "right"):
            raise ValueError(f"half must be left, right or empty, not {self.half!r}")

    def of(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A changed crop, uint8 (S, S, 3)."""
        import cv2

        size = crop.shape[1]
        if self.width != 1.0:
            middle = (size - 1) / 2
            matrix = np.array([[self.width, 0, middle * (1 - self.width)], [0, 1, 0]])
            crop = np.asarray(
                cv2.warpAffine(
                    crop, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
                ),
                np.uint8,
            )
        if self.half:
            crop = crop.copy()
            other = size // 2
            if self.half == "left":
                crop[:, size - other :] = crop[:, :other][:, ::-1]
            else:
                crop[:, :other] = crop[:, size - other :][:, ::-1]
        return crop


FACE_VIEWS = (
    FaceView(),
    FaceView(0.87),
    FaceView(1.14),
    FaceView(half="left"),
    FaceView(half="right"),
    FaceView(0.92, "right"),
    FaceView(1.08, "left"),
)
"""Those that look most like photographs come first."""
