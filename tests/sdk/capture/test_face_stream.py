"""Frames pushed from a camera: which are kept, and what the person is told."""

from __future__ import annotations

import itertools
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._capture.crop import Face, FaceSpec
from edgepin._capture.face_stream import FaceStream
from edgepin._errors import UsageError

SPEC = FaceSpec()


def frame(sharp: float = 1.0, seed: int = 0) -> np.ndarray:
    """A textured picture; a lower `sharp` is more blurred."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(
        rng.uniform(40, 220, (20, 20, 3)).astype(np.float32), (240, 240), interpolation=cv2.INTER_CUBIC
    )
    image += cv2.resize(rng.normal(0, 25, (90, 90, 3)).astype(np.float32), (240, 240))
    if sharp < 1.0:
        image = cv2.GaussianBlur(image, (0, 0), 4.0 * (1.0 - sharp))
    return np.clip(image, 0, 255).astype(np.uint8)


class Finds:
    name = "told"

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def find(self, rgb: np.ndarray) -> list[Face]:
        return self.faces


def face(x: float = 120.0, apart: float = 60.0, side: float = 150.0, nose: float | None = None) -> Face:
    tip = None if nose is None else (x + nose * apart, 130.0)
    return Face(
        (x - apart / 2, 100.0), (x + apart / 2, 100.0), (x - side / 2, 50.0, side, side), 1.0, nose=tip
    )


def stream(*faces: Face, keep: int = 3) -> FaceStream:
    return FaceStream(Finds(*faces), SPEC, keep=keep)


def test_it_has_enough_when_the_wanted_number_is_kept() -> None:
    seen = stream(face())
    states = [seen.push(frame(seed=i), at=0.2 * i) for i in range(5)]
    assert [state.kept for state in states] == [1, 2, 3, 3, 3]
    assert [state.code for state in states] == ["good", "good", "enough", "enough", "enough"]
    crops = seen.best()
    assert len(crops) == 3
    assert all((crop.shape, crop.dtype) == ((64, 64, 3), np.uint8) for crop in crops)


def test_frames_that_are_close_in_time_count_once_and_the_better_one_stays() -> None:
    seen = stream(face())
    for i, sharp in enumerate((0.6, 1.0, 0.7)):
        state = seen.push(frame(sharp), at=0.01 * i)
    assert state.kept == 1
    only = stream(face())
    only.push(frame(1.0), at=0.0)
    np.testing.assert_array_equal(seen.best()[0], only.best()[0])


def test_the_sharpest_are_kept_and_come_first() -> None:
    sharp = [0.62, 1.0, 0.66, 0.8, 0.7]
    seen = stream(face(), keep=2)
    for i, value in enumerate(sharp):
        seen.push(frame(value), at=float(i))

    def variance(crop: np.ndarray) -> float:
        return float(cv2.Laplacian(crop, cv2.CV_32F).var())

    best, second = seen.best()
    assert variance(best) > variance(second)
    everything = stream(face(), keep=5)
    for i, value in enumerate(sharp):
        everything.push(frame(value), at=float(i))
    np.testing.assert_array_equal(everything.best()[:2], [best, second])
    assert len(everything.in_order()) == 5


def test_frames_in_order_are_in_the_order_of_time() -> None:
    seen = stream(face(), keep=3)
    for i in range(3):
        seen.push(frame(1.0 - 0.1 * i, seed=i), at=float(i))
    wanted = stream(face(), keep=1)
    wanted.push(frame(1.0, seed=0), at=0.0)
    np.testing.assert_array_equal(seen.in_order()[0], wanted.best()[0])


@pytest.mark.parametrize(
    ("faces", "code", "count"),
    [
        ([], "no_face", 0),
        ([face(), face(x=60.0, side=100.0)], "several_faces", 2),
        ([face(apart=12.0)], "too_small", 1),
        ([face(nose=0.9)], "turned", 1),
    ],
)
def test_what_is_wrong_is_said_and_not_kept(faces: list[Face], code: str, count: int) -> None:
    state = stream(*faces).push(frame(), at=0.0)
    assert (state.code, state.faces, state.kept, state.enough) == (code, count, 0, False)
    assert state.hint


def test_a_blurred_frame_is_said_to_be_and_not_kept() -> None:
    soft = np.random.default_rng(0).uniform(0, 255, (4, 4, 3)).astype(np.float32)
    soft = (
        np.asarray(cv2.resize(soft, (240, 240), interpolation=cv2.INTER_CUBIC)).clip(0, 255).astype(np.uint8)
    )
    state = stream(face()).push(soft, at=0.0)
    assert state.code == "blurred"
    assert state.measurements["sharpness"] < 0.02


def test_people_in_the_background_do_not_matter() -> None:
    state = stream(face(), face(x=30.0, side=40.0)).push(frame(), at=0.0)
    assert (state.code, state.faces) == ("good", 1)


@given(
    st.lists(st.tuples(st.floats(0.0, 0.5), st.sampled_from([0.6, 0.8, 1.0])), max_size=30), st.integers(1, 4)
)
@settings(max_examples=15, deadline=None)
def test_it_keeps_no_more_than_it_was_told_and_these_are_apart_in_time(
    steps: list[tuple[float, float]], keep: int
) -> None:
    seen, at = stream(face(), keep=keep), 0.0
    for step, sharp in steps:
        at += step
        state = seen.push(frame(sharp), at=at)
        assert state.kept <= keep
    times = [kept.at for kept in seen._kept]
    assert all(later - earlier >= seen.apart - 1e-9 for earlier, later in itertools.pairwise(times))


def test_closing_zeroes_the_crops() -> None:
    seen = stream(face())
    seen.push(frame(), at=0.0)
    (kept,) = [kept.crop for kept in seen._kept]
    assert kept.any()
    seen.close()
    assert not kept.any()
    assert (seen.state.code, seen.best()) == ("closed", [])
    with pytest.raises(UsageError):
        seen.push(frame(), at=1.0)


def test_a_crop_that_falls_out_is_zeroed() -> None:
    seen = stream(face(), keep=1)
    seen.push(frame(0.2), at=0.0)
    (kept,) = [kept.crop for kept in seen._kept]
    seen.push(frame(1.0), at=1.0)
    assert not kept.any()
    assert seen.best()[0].any()


@pytest.mark.parametrize(
    "arguments", [{"keep": 0}, {"keep": 33}, {"keep": True}, {"apart": -1.0}, {"apart": float("nan")}]
)
def test_impossible_settings_are_a_usage_error(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        FaceStream(Finds(), SPEC, **arguments)  # type: ignore[arg-type]


def test_frames_must_come_in_order() -> None:
    seen = stream(face())
    seen.push(frame(), at=1.0)
    for at in (0.5, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            seen.push(frame(), at=at)
    with pytest.raises(UsageError):
        seen.push(frame()[..., 0], at=2.0)


def test_threads_push_into_one_stream() -> None:
    seen = stream(face())
    threads = [
        threading.Thread(target=lambda: [seen.push(frame(), at=0.0) for _ in range(10)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen.state.frames, seen.state.kept) == (40, 1)
