"""The file of crops and their chips: found once, kept without loss, refused where it is damaged or another's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgepin._capture.image import decode_image
from edgepin._errors import IntegrityError
from edgepin_training.face_chips import FaceChips, load_or_make, read_chips, write_chips

LABELS = np.array([0, 0, 1, -1])


def crops(seed: int = 0) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(seed).integers(0, 256, (len(LABELS), 16, 16, 3)).astype(np.uint8))


def by_brightness(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.array([[1, 0, crop.mean()], [0, 1, 2]], np.float32)


def never() -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    raise AssertionError("the chips are there already")


def test_chips_are_found_once_and_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "faces" / "chips.npz"
    made = load_or_make(path, crops(), LABELS, finder=lambda: by_brightness)
    kept = load_or_make(path, crops(), LABELS, finder=never)
    for one in (made, kept, read_chips(path)):
        np.testing.assert_array_equal(one.crops, np.stack(crops()))
        np.testing.assert_array_equal(one.labels, LABELS)
        np.testing.assert_array_equal(one.maps, np.stack([by_brightness(crop) for crop in crops()]))


def test_a_file_that_shows_the_crop_is_kept_as_it_is(tmp_path: Path) -> None:
    photo, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(crops()[0]).save(photo, quality=40)
    Image.fromarray(crops(1)[0]).save(other, quality=40)
    items = [decode_image(photo), *crops()[1:]]
    chips = FaceChips(np.stack(items), LABELS, np.zeros((4, 2, 3), np.float32))
    write_chips(tmp_path / "chips.npz", chips, [other, photo])
    assert photo.read_bytes() in (tmp_path / "chips.npz").read_bytes()
    assert other.read_bytes() not in (tmp_path / "chips.npz").read_bytes()
    np.testing.assert_array_equal(read_chips(tmp_path / "chips.npz").crops, chips.crops)


def test_chips_of_other_crops_or_people_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chips.npz"
    load_or_make(path, crops(), LABELS, finder=lambda: by_brightness)
    for others, labels in ((crops(1), LABELS), (crops(), LABELS[::-1]), (crops()[:3], LABELS[:3])):
        with pytest.raises(IntegrityError, match="other crops"):
            load_or_make(path, others, labels, finder=never)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chips.npz"
    load_or_make(path, crops(), LABELS, finder=lambda: by_brightness)
    data = path.read_bytes()
    whole = dict(np.load(path))
    for share in (0.0, 0.2, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(IntegrityError):
            read_chips(path)
    for wrong in (
        {"sizes": whole["sizes"] + 1},
        {"sizes": whole["sizes"][:0], "data": whole["data"][:0]},
        {"data": whole["data"][::-1]},
        {"labels": whole["labels"][1:]},
        {"labels": whole["labels"][::-1]},
        {"maps": whole["maps"] + 1},
        {"maps": whole["maps"] * np.nan},
        {"labels": np.array([None] * 4, object)},
    ):
        np.savez(path, **{**whole, **wrong})
        with pytest.raises(IntegrityError):
            read_chips(path)
    np.savez(path, data=whole["data"])
    with pytest.raises(IntegrityError):
        read_chips(path)


def test_the_found_map_cuts_the_teachers_chip() -> None:
    if (
        importlib.util.find_spec("dlib") is None
        or importlib.util.find_spec("face_recognition_models") is None
    ):
        pytest.skip("dlib and face_recognition_models, the peer, are not installed")
    import cv2

    from edgepin._capture.faces import Face, FaceSpec, align
    from edgepin_training.rendered import capture_seed, make_person, render_face
    from edgepin_training.teachers import DlibChips

    drawn = render_face(make_person(8, 0), capture_seed(8, 0, "face", 0))
    eyes = Face(drawn.left_eye, drawn.right_eye, (0.0, 0.0, 192.0, 192.0), 1.0)
    crop = align(drawn.image, eyes, FaceSpec())
    chips = DlibChips()
    chip = chips.cut(crop)
    made = cv2.warpAffine(
        crop, chips.map(crop), (150, 150), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(made.astype(int) - chip).mean() < 3
