"""Finding faces and cropping them: the geometry, the finders, the refusals."""

from __future__ import annotations

import math
import pickle
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._capture.crop import similarity
from edgepin._capture.faces import Face, FaceSpec, HaarFinder, YuNetFinder, align, find_and_align, resize_crop
from edgepin._errors import CaptureError, EnvironmentFault, UsageError

SPEC = FaceSpec()


def face(
    left: tuple[float, float], right: tuple[float, float], side: float = 100.0, score: float = 1.0
) -> Face:
    middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
    return Face(left, right, (middle[0] - side / 2, middle[1] - side / 2, side, side), score)


class Finds:
    """A finder that finds what it is told."""

    name = "told"

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def find(self, rgb: np.ndarray) -> list[Face]:
        return self.faces


def drawn_face(
    side: int = 220, canvas: int = 320
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """A face drawn well enough for the cascades, and its eye centers."""
    image = np.full((canvas, canvas, 3), 90, dtype=np.uint8)
    middle, unit = canvas / 2, side / 200

    def ellipse(x: float, y: float, a: float, b: float, color: tuple[int, int, int]) -> None:
        center = (round(middle + x * unit), round(middle + y * unit))
        cv2.ellipse(image, center, (round(a * unit), round(b * unit)), 0, 0, 360, color, -1, cv2.LINE_AA)

    ellipse(0, -10, 82, 112, (60, 40, 30))  # hair
    ellipse(0, 10, 70, 95, (205, 165, 140))
    for x in (-32, 32):
        ellipse(x, -27, 20, 5, (70, 45, 35))  # brow
        ellipse(x, -8, 22, 13, (165, 120, 100))  # socket
        ellipse(x, -7, 15, 8, (245, 240, 235))
        ellipse(x, -7, 8, 8, (50, 35, 30))
    ellipse(0, 20, 9, 26, (222, 185, 160))
    ellipse(0, 40, 15, 7, (160, 115, 98))
    ellipse(0, 66, 28, 9, (150, 70, 70))
    image = cv2.GaussianBlur(image, (0, 0), 1.5 * unit)
    return image, (middle - 32 * unit, middle - 7 * unit), (middle + 32 * unit, middle - 7 * unit)


class TestFaceSpec:
    def test_the_defaults_are_the_mean_eyes_of_tight_crops(self) -> None:
        assert FaceSpec() == FaceSpec(size=64, left_eye=(0.245, 0.24), right_eye=(0.755, 0.24))

    def test_json_brings_it_back(self) -> None:
        spec = FaceSpec(size=112, left_eye=(0.34, 0.46), right_eye=(0.66, 0.46))
        assert FaceSpec.from_json(spec.to_json()) == spec
        assert hash(FaceSpec.from_json(spec.to_json())) == hash(spec)

    @pytest.mark.parametrize(
        "change",
        [
            {"size": 15},
            {"size": 1025},
            {"size": 64.0},
            {"size": True},
            {"left_eye": (0.5, 1.1)},
            {"left_eye": (float("nan"), 0.2)},
            {"left_eye": "ab"},
            {"right_eye": (0.2, 0.24)},
            {"right_eye": (0.7, 0.2, 0.1)},
            {"right_eye": None},
        ],
    )
    def test_impossible_values_are_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(ValueError):
            FaceSpec(**change)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            FaceSpec.from_json({**FaceSpec().to_json(), **change})

    @pytest.mark.parametrize("value", [{}, {"size": 64}, {**FaceSpec().to_json(), "mouth": 1}, [], None])
    def test_json_with_other_keys_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError):
            FaceSpec.from_json(value)  # type: ignore[arg-type]


class TestAlign:
    @given(
        st.floats(0, 500),
        st.floats(0, 500),
        st.floats(10, 300),
        st.floats(-1.2, 1.2),
        st.sampled_from([64, 112]),
    )
    @settings(max_examples=100, deadline=None)
    def test_the_transform_maps_both_eyes_exactly(
        self, x: float, y: float, apart: float, turn: float, size: int
    ) -> None:
        eyes = (x, y), (x + apart * math.cos(turn), y + apart * math.sin(turn))
        matrix = similarity(face(*eyes), SPEC, size)
        for eye, wanted in zip(eyes, (SPEC.left_eye, SPEC.right_eye), strict=True):
            np.testing.assert_allclose(matrix @ [*eye, 1], np.array(wanted) * size - 0.5, atol=1e-6)
        rotation = matrix[:, :2]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(2) * np.linalg.det(rotation), atol=1e-9)

    @pytest.mark.parametrize("apart", [20, 33, 60, 150, 400])
    @pytest.mark.parametrize("turn", [0.0, 0.3, -0.5])
    def test_dots_on_the_eyes_land_where_the_spec_wants_them(self, apart: float, turn: float) -> None:
        left = (300.0, 450.0)
        right = (left[0] + apart * math.cos(turn), left[1] + apart * math.sin(turn))
        image = np.zeros((900, 900, 3), dtype=np.uint8)
        ys, xs = np.mgrid[:900, :900]
        radius = apart / 12
        for channel, (x, y) in ((0, left), (1, right)):
            blob = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * radius**2))
            image[..., channel] = (255 * blob).astype(np.uint8)
        crop = align(image, face(left, right), SPEC).astype(float)
        assert crop.shape == (64, 64, 3)
        rows, columns = np.mgrid[:64, :64]
        for channel, wanted in ((0, SPEC.left_eye), (1, SPEC.right_eye)):
            weight = crop[..., channel] / crop[..., channel].sum()
            found = np.array([(weight * columns).sum(), (weight * rows).sum()])
            np.testing.assert_allclose(found, np.array(wanted) * 64 - 0.5, atol=0.25)

    @pytest.mark.parametrize("apart", [100.0, 330.0, 700.0])
    def test_detail_finer_than_the_crop_fades_and_does_not_alias(self, apart: float) -> None:
        checks = ((np.indices((1600, 1600)).sum(0) % 2) * 255).astype(np.uint8)
        image = np.repeat(checks[..., None], 3, axis=2)
        crop = align(image, face((400.3, 500.7), (400.3 + apart, 500.7)), SPEC)
        assert crop.astype(float).std() < 12

    def test_outside_the_image_its_edge_repeats(self) -> None:
        image = np.full((100, 100, 3), 77, dtype=np.uint8)
        assert (align(image, face((5.0, 5.0), (60.0, 5.0)), SPEC) == 77).all()

    @pytest.mark.parametrize("right", [(50.0, 50.0), (50.5, 50.0), (float("nan"), 50.0)])
    def test_eyes_in_one_place_are_refused(self, right: tuple[float, float]) -> None:
        with pytest.raises(CaptureError) as caught:
            align(np.zeros((100, 100, 3), dtype=np.uint8), face((50.0, 50.0), right), SPEC)
        assert caught.value.code == "too_small"

    def test_another_array_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError):
            align(np.zeros((100, 100), dtype=np.uint8), face((20.0, 20.0), (60.0, 20.0)), SPEC)


class TestResizeCrop:
    rng = np.random.default_rng(0)

    def test_a_crop_of_the_right_size_is_the_same_but_not_the_same_memory(self) -> None:
        image = self.rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        crop = resize_crop(image, SPEC)
        np.testing.assert_array_equal(crop, image)
        assert not np.shares_memory(crop, image)

    @pytest.mark.parametrize("shape", [(40, 40), (50, 60), (112, 112), (300, 200), (200, 300), (1000, 1000)])
    def test_any_size_becomes_the_specs(self, shape: tuple[int, int]) -> None:
        crop = resize_crop(np.full((*shape, 3), 99, dtype=np.uint8), SPEC)
        assert (crop.shape, crop.dtype) == ((64, 64, 3), np.uint8)
        assert (crop == 99).all()

    def test_the_centered_square_of_an_oblong_is_taken(self) -> None:
        image = np.zeros((64, 90, 3), dtype=np.uint8)
        image[:, 13:77] = 200
        assert (resize_crop(image, SPEC) == 200).all()

    @pytest.mark.parametrize(
        ("shape", "code"),
        [
            ((30, 30), "too_small"),
            ((39, 50), "too_small"),
            ((1, 1), "too_small"),
            ((64, 97), "not_a_crop"),
            ((400, 100), "not_a_crop"),
        ],
    )
    def test_what_is_no_crop_is_refused(self, shape: tuple[int, int], code: str) -> None:
        with pytest.raises(CaptureError) as caught:
            resize_crop(np.zeros((*shape, 3), dtype=np.uint8), SPEC)
        assert caught.value.code == code

    def test_shrinking_averages(self) -> None:
        checks = np.repeat(((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
        assert np.abs(resize_crop(checks, SPEC).astype(int) - 127).max() <= 1


class TestFindAndAlign:
    image = np.full((480, 640, 3), 120, dtype=np.uint8)
    near = face((280.0, 200.0), (340.0, 200.0), side=150)

    def refused(self, *faces: Face) -> str:
        with pytest.raises(CaptureError) as caught:
            find_and_align(self.image, Finds(*faces), SPEC)
        assert caught.value.hint
        return caught.value.code

    def test_the_face_is_cropped(self) -> None:
        crop = find_and_align(self.image, Finds(self.near), SPEC)
        np.testing.assert_array_equal(crop, align(self.image, self.near, SPEC))

    def test_no_face_is_refused(self) -> None:
        assert self.refused() == "no_face"

    def test_two_people_before_the_camera_are_refused_in_any_order(self) -> None:
        other = face((80.0, 200.0), (112.0, 200.0), side=75)
        assert self.refused(self.near, other) == "several_faces"
        assert self.refused(other, self.near) == "several_faces"

    def test_people_in_the_background_do_not_matter(self) -> None:
        far = face((80.0, 200.0), (110.0, 200.0), side=74)
        crop = find_and_align(self.image, Finds(far, self.near), SPEC)
        np.testing.assert_array_equal(crop, align(self.image, self.near, SPEC))

    def test_a_face_with_eyes_under_16_px_apart_is_too_small(self) -> None:
        assert self.refused(face((80.0, 80.0), (95.9, 80.0), side=40)) == "too_small"


class TestHaarFinder:
    finder = HaarFinder()

    @pytest.mark.parametrize("side", [90, 160, 220, 280])
    def test_a_drawn_face_is_found_with_its_eyes(self, side: int) -> None:
        image, left, right = drawn_face(side)
        (found,) = self.finder.find(image)
        apart = right[0] - left[0]
        assert math.dist(found.left_eye, left) < 0.2 * apart
        assert math.dist(found.right_eye, right) < 0.2 * apart
        assert find_and_align(image, self.finder, SPEC).shape == (64, 64, 3)

    def test_coordinates_are_of_the_image_however_large_it_is(self) -> None:
        image, left, right = drawn_face()
        large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        found = self.finder.find(np.asarray(large, dtype=np.uint8))[0]
        apart = 4 * (right[0] - left[0])
        assert math.dist(found.left_eye, (4 * left[0], 4 * left[1])) < 0.2 * apart
        assert math.dist(found.right_eye, (4 * right[0], 4 * right[1])) < 0.2 * apart

    def test_two_drawn_faces_are_two_and_refused(self) -> None:
        image = np.hstack([drawn_face()[0], drawn_face()[0]])
        assert len(self.finder.find(image)) == 2
        with pytest.raises(CaptureError) as caught:
            find_and_align(image, self.finder, SPEC)
        assert caught.value.code == "several_faces"

    @pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 2), (30, 30), (64, 64), (480, 640)])
    def test_nothing_is_found_in_nothing(self, shape: tuple[int, int]) -> None:
        assert self.finder.find(np.full((*shape, 3), 128, dtype=np.uint8)) == []

    def test_noise_is_no_face(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
        assert self.finder.find(noise) == []

    def test_threads_find_what_one_finds(self) -> None:
        images = [drawn_face(side)[0] for side in (120, 180, 240)]
        wanted = [self.finder.find(image) for image in images]
        results: list[bool] = []

        def work() -> None:
            results.extend([self.finder.find(image) for image in images] == wanted for _ in range(4))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 16

    def test_it_can_be_sent_to_another_process(self) -> None:
        image, _, _ = drawn_face()
        assert pickle.loads(pickle.dumps(self.finder)).find(image) == self.finder.find(image)

    def test_opencv_without_cascades_is_a_fault_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
        with pytest.raises(EnvironmentFault) as caught:
            HaarFinder()
        assert "opencv-python-headless" in str(caught.value.hint)


class TestYuNetFinder:
    @pytest.mark.parametrize("content", [None, b"", b"not a model"])
    def test_a_missing_or_wrong_model_is_a_fault_of_the_environment(
        self, content: bytes | None, tmp_path: Path
    ) -> None:
        path = tmp_path / "yunet.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EnvironmentFault) as caught:
            YuNetFinder(path)
        assert caught.value.hint
