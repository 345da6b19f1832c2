"""Real faces and voices through the decoders, the finders and the gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepin._capture.audio import load_voice
from edgepin._capture.faces import FaceFinder, FaceSpec, HaarFinder, YuNetFinder, find_and_align, resize_crop
from edgepin._capture.image import decode_image
from edgepin._capture.quality import face_quality, voice_quality
from edgepin._errors import CaptureError, EnvironmentFault

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real faces and voices are not beside the checkout"),
]

SPEC = FaceSpec()


def files(pattern: str, every: int = 1) -> list[Path]:
    found = sorted(DATA.glob(pattern))[::every]
    assert found, pattern
    return found


def yunet() -> YuNetFinder:
    return YuNetFinder(DATA / "models" / "yunet_n_320_320.onnx")


def found_part(finder: FaceFinder, paths: list[Path]) -> float:
    count = 0
    for path in paths:
        try:
            find_and_align(decode_image(path), finder, SPEC)
        except CaptureError:
            continue
        count += 1
    return count / len(paths)


@pytest.mark.parametrize(
    ("pattern", "every"),
    [
        ("librispeech/calibration/*/*.flac", 1),
        ("librispeech/train/*/*.flac", 5),
        ("speech_unlabelled/*.ogg", 2),
    ],
)
def test_the_gate_rejects_at_most_one_voice_in_a_hundred(pattern: str, every: int) -> None:
    verdicts = [voice_quality(load_voice(path)) for path in files(pattern, every)]
    assert sum(not verdict.ok for verdict in verdicts) <= 0.01 * len(verdicts)


def test_trimming_keeps_nearly_all_of_read_speech() -> None:
    kept = [len(load_voice(path)) / 16_000 for path in files("librispeech/calibration/*/*.flac", 2)]
    assert min(kept) > 3.0
    assert np.mean(kept) > 4.5


@pytest.mark.parametrize("pattern", ["lfwcrop/calibration/*/*", "aligned112/*/*"])
def test_the_gate_rejects_at_most_one_face_in_a_hundred(pattern: str) -> None:
    verdicts = []
    for path in files(pattern, 3):
        image = decode_image(path)
        verdicts.append(face_quality(resize_crop(image, SPEC), (image.shape[0], image.shape[1])))
    assert sum(not verdict.ok for verdict in verdicts) <= 0.01 * len(verdicts)


def test_haar_finds_nine_faces_in_ten() -> None:
    assert found_part(HaarFinder(), files("aligned112/*/*", 6)) >= 0.90


@pytest.mark.parametrize("pattern", ["lfwcrop/calibration/*/*", "aligned112/*/*"])
def test_yunet_finds_nearly_all_faces(pattern: str) -> None:
    assert found_part(yunet(), files(pattern, 3)) >= 0.97


def test_both_finders_place_the_eyes_alike() -> None:
    haar, other = HaarFinder(), yunet()
    worst = []
    for path in files("aligned112/*/*", 6):
        image = decode_image(path)
        one, two = haar.find(image), other.find(image)
        if one and two:
            off = np.hypot(
                *np.subtract([one[0].left_eye, one[0].right_eye], [two[0].left_eye, two[0].right_eye]).T
            )
            worst.append(off.max() / two[0].eye_distance)
    assert np.median(worst) < 0.12


def test_the_default_spec_is_where_tight_crops_have_their_eyes() -> None:
    finder, eyes = yunet(), []
    for path in files("lfwcrop/calibration/*/*", 3):
        image = decode_image(path)
        for flip in (False, True):  # the detector errs by half a pixel to one side
            found = finder.find(np.ascontiguousarray(image[:, ::-1]) if flip else image)
            eyes += [[*face.left_eye, *face.right_eye] for face in found[:1]]
    mean = (np.mean(eyes, axis=0) + 0.5) / 64
    np.testing.assert_allclose(mean, [*SPEC.left_eye, *SPEC.right_eye], atol=0.03)


def test_another_network_is_refused_as_a_face_detector() -> None:
    with pytest.raises(EnvironmentFault):
        YuNetFinder(DATA / "models" / "silero_vad.onnx")
