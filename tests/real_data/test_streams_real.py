"""Real speech through the stream and the fingerprints, real faces through fingerprints and the landmarks."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from edgepin._capture.audio import decode_audio, load_voice, prepare
from edgepin._capture.crop import FaceSpec
from edgepin._capture.faces import YuNetFinder, resize_crop
from edgepin._capture.fingerprint import face_fingerprint, is_replay, voice_fingerprint
from edgepin._capture.image import decode_image
from edgepin._capture.pose import estimate_pose
from edgepin._capture.silero import SileroDetector
from edgepin._capture.voice_stream import VoiceStream, VoiceStreamLimits
from edgepin._errors import EnvironmentFault

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real faces and voices are not beside the checkout"),
]


def files(pattern: str, every: int) -> list[Path]:
    found = sorted(DATA.glob(pattern))[::every]
    assert found, pattern
    return found


def test_read_speech_is_heard_as_speech() -> None:
    parts = []
    for path in files("librispeech/calibration/*/*.flac", 5):
        pcm, rate = decode_audio(path)
        stream = VoiceStream(rate, limits=VoiceStreamLimits(speech_seconds=15.0))
        stream.push(pcm)
        state = stream.finish()
        parts.append(state.speech_seconds / state.seconds)
    assert min(parts) > 0.5
    assert np.mean(parts) > 0.75


def test_two_seconds_of_speech_are_found_in_nearly_every_clip() -> None:
    enough = []
    for path in files("librispeech/calibration/*/*.flac", 5):
        pcm, rate = decode_audio(path)
        stream = VoiceStream(rate, limits=VoiceStreamLimits(speech_seconds=2.0))
        enough.append(stream.push(pcm).enough)
    assert np.mean(enough) >= 0.97


def test_silero_hears_speech_and_no_noise() -> None:
    model = DATA / "models" / "silero_vad.onnx"
    limits = VoiceStreamLimits(speech_seconds=2.0, max_seconds=6.0)
    for path in files("librispeech/calibration/*/*.flac", 40):
        pcm, rate = decode_audio(path)
        assert VoiceStream(rate, limits=limits, detector=SileroDetector(model)).push(pcm).enough
    noise = np.random.default_rng(0).normal(0, 3_000, 96_000).astype(np.int16)
    assert VoiceStream(16_000, limits=limits, detector=SileroDetector(model)).push(noise).code == "no_speech"


@pytest.mark.parametrize("file", ["models/yunet_n_320_320.onnx", "speakers.tsv", "models/none.onnx"])
def test_another_file_is_no_silero_model(file: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        SileroDetector(DATA / file)
    assert caught.value.hint


def test_no_two_recordings_are_copies_and_every_reencoded_one_is() -> None:
    voices = [load_voice(path) for path in files("librispeech/calibration/*/*.flac", 4)]
    prints = [voice_fingerprint(pcm) for pcm in voices]
    assert not any(is_replay(one, other) for one, other in itertools.combinations(prints, 2))
    for pcm, own in zip(voices[::5], prints[::5], strict=True):
        file = io.BytesIO()
        soundfile.write(file, (pcm[4_000:] * 0.5).astype(np.int16), 16_000, format="OGG", subtype="OPUS")
        file.seek(0)
        copy, rate = soundfile.read(file, dtype="float32")
        assert is_replay(own, voice_fingerprint(prepare(copy, rate)))


def test_no_two_faces_of_one_person_are_copies_and_nearly_every_reencoded_crop_is() -> None:
    for folder in files("aligned112/*", 4):
        crops = [resize_crop(decode_image(path), FaceSpec()) for path in sorted(folder.iterdir())]
        prints = [face_fingerprint(crop) for crop in crops]
        assert not any(is_replay(one, other) for one, other in itertools.combinations(prints, 2))
        known = []
        for crop, own in zip(crops, prints, strict=True):
            _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 92])
            known.append(is_replay(own, face_fingerprint(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))))
        assert np.mean(known) >= 0.9


def test_the_turn_of_a_mirrored_face_is_the_opposite() -> None:
    finder, pairs = YuNetFinder(DATA / "models" / "yunet_n_320_320.onnx"), []
    for path in files("aligned112/*/*", 20):
        image = decode_image(path)
        both = [finder.find(each) for each in (image, np.ascontiguousarray(image[:, ::-1]))]
        if all(both):
            pairs.append([estimate_pose(found[0]).yaw for found in both])
    yaw, mirrored = np.array(pairs, dtype=float).T
    assert len(yaw) >= 25
    assert np.corrcoef(yaw, -mirrored)[0, 1] > 0.9
