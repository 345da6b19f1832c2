"""Frames that must differ as a living face does."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from edgepin._capture.liveness import FrameMotion
from edgepin._errors import UsageError

from .test_fingerprint import textured

RNG = np.random.default_rng(0)
LARGE = textured(3, 96)


def noisy(image: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    return np.clip(image + RNG.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def flat_picture(shake: float, rng: np.random.Generator) -> np.ndarray:
    """A photograph held by hand: the middle of the picture, its corners moved at random."""
    square = np.array([[16, 16], [80, 16], [80, 80], [16, 80]], dtype=np.float32)
    moved = (square + rng.normal(0, shake, (4, 2))).astype(np.float32)
    target = np.array([[0, 0], [64, 0], [64, 64], [0, 64]], dtype=np.float32)
    out = cv2.warpPerspective(
        LARGE, cv2.getPerspectiveTransform(moved, target), (64, 64), flags=cv2.INTER_CUBIC
    )
    return noisy(out)


def living(amount: float) -> np.ndarray:
    """The middle of the picture, in which one part moves against the rest, as a nose does before a turning head."""
    ys, xs = np.mgrid[:96, :96].astype(np.float32)
    hill = np.exp(-(((xs - 48) / 14) ** 2) - ((ys - 48) / 18) ** 2).astype(np.float32)
    out = cv2.remap(
        LARGE, xs - np.float32(amount) * hill, ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return noisy(out[16:80, 16:80])


def test_frames_of_a_living_face_pass() -> None:
    verdict = FrameMotion().check([living(amount) for amount in (0, 3, -3, 5, -5)])
    assert verdict.live
    assert verdict.code is None
    assert verdict.measurements["residual"] > 0.05


def test_one_image_again_and_again_is_still() -> None:
    assert FrameMotion().check([LARGE[16:80, 16:80]] * 5).code == "still"
    assert FrameMotion().check([noisy(LARGE[16:80, 16:80], 1.0) for _ in range(5)]).code == "still"


@pytest.mark.parametrize("shake", [1.0, 2.0])
def test_a_flat_picture_that_is_moved_is_flat(shake: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        verdict = FrameMotion().check([flat_picture(shake, rng) for _ in range(5)])
        assert (verdict.live, verdict.code) == (False, "flat")
        assert verdict.measurements["difference"] > 0.1


def test_a_change_of_light_alone_is_still() -> None:
    still = LARGE[16:80, 16:80].astype(np.float32)
    frames = [np.clip(0.8 * light * still + 10, 0, 255).astype(np.uint8) for light in (1.0, 0.7, 0.9, 1.05)]
    assert FrameMotion().check(frames).code == "still"


def test_frames_of_one_color_are_still() -> None:
    frames = [np.full((64, 64, 3), value, dtype=np.uint8) for value in (10, 90, 160, 250)]
    assert FrameMotion().check(frames).code == "still"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_frames_are_no_evidence(count: int) -> None:
    assert FrameMotion().check([living(i) for i in range(count)]).code == "too_few_frames"


@pytest.mark.parametrize(
    "change",
    [{"min_frames": 2}, {"min_frames": 4.0}, {"min_residual": float("nan")}, {"min_difference": True}],
)
def test_impossible_limits_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        FrameMotion(**change)  # type: ignore[arg-type]


def test_the_default_limits() -> None:
    assert dataclasses.asdict(FrameMotion()) == {
        "min_frames": 4,
        "min_difference": 0.02,
        "min_residual": 0.05,
    }


def test_what_is_no_image_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        FrameMotion().check([np.zeros((64, 64), dtype=np.uint8)] * 4)
    with pytest.raises(UsageError):
        FrameMotion().check(np.zeros((64, 64, 3), dtype=np.uint8))


def test_a_verdict_cannot_be_changed() -> None:
    verdict = FrameMotion().check([])
    with pytest.raises(TypeError):
        verdict.measurements["residual"] = 1.0  # type: ignore[index]
