"""`edgepin live` with a file as camera and a file as microphone, and what a failing device ends in."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result

from edgepin._capture.camera import Camera
from edgepin._capture.face_stream import FaceStream
from edgepin._capture.faces import FaceSpec, HaarFinder
from edgepin._capture.microphone import DeviceMicrophone, FileMicrophone, open_microphone
from edgepin._capture.session import capture_live
from edgepin._capture.voice_stream import VoiceStream
from edgepin._errors import CaptureError, EnvironmentFault, MissingExtraError, UsageError

from ..commands import CAPTURE, ENVIRONMENT, NO, USAGE, YES, invoke
from ..conftest import Pins
from ..synthetic_captures import voice, write_voice
from ..test_faces import drawn_face

RATE = 20.0


def scene(person: int, step: int) -> np.ndarray:
    """A drawn face under a person's own pattern, moved a little by the step: uint8 RGB (320, 320, 3)."""
    image, _, _ = drawn_face(220)
    pattern = np.random.default_rng((person, 9)).uniform(-45, 45, (10, 10, 3)).astype(np.float32)
    pattern = cv2.resize(pattern, (320, 320), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng((person, step)).normal(0, 6, image.shape)
    image = np.clip(image + pattern + grain, 0, 255).astype(np.uint8)
    return np.roll(image, (step % 5, step % 7), axis=(0, 1))


def video(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def person_video(folder: Path, person: int, take: int = 0, count: int = 20) -> Path:
    return video(folder / f"{person}-{take}.avi", [scene(person, 100 * take + step) for step in range(count)])


def person_voice(folder: Path, person: int, take: int = 0) -> Path:
    quiet = np.random.default_rng(0).normal(0, 8, 6_000).astype(np.int16)
    return write_voice(
        folder / f"{person}-{take}.wav", np.concatenate([quiet, voice(person, take, 7.0), quiet])
    )


@pytest.fixture
def store(device: Path, pins: Pins, tmp_path: Path) -> dict[str, Path]:
    return {"bundle": pins.site, "store": tmp_path / "e.db"}


def live(verb: str, store: dict[str, Path], camera: object, microphone: object, *more: object) -> Result:
    shared = ("--bundle", store["bundle"], "--store", store["store"], "--timeout", 60)
    return invoke("live", verb, "ada", "--camera", camera, "--microphone", microphone, *shared, *more)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_person_is_enrolled_and_verified_and_a_stranger_is_not(
    store: dict[str, Path], tmp_path: Path
) -> None:
    enrolled = live("enroll", store, person_video(tmp_path, 1), person_voice(tmp_path, 1), "--json")
    assert enrolled.exit_code == YES, enrolled.output
    assert lines(enrolled)[-1]["schema"] == "edgepin.enrollment/1"
    assert (lines(enrolled)[-1]["faces"], lines(enrolled)[-1]["voices"]) == (5, 1)

    own = live("verify", store, person_video(tmp_path, 1, 1), person_voice(tmp_path, 1, 1), "--json")
    assert own.exit_code == YES, own.output
    states, decision = lines(own)[:-1], lines(own)[-1]
    assert (decision["schema"], decision["accepted"]) == ("edgepin.decision/1", True)
    assert {state["schema"] for state in states} == {"edgepin.live/1"}
    assert states[0]["face"]["code"] == "waiting"
    assert states[0]["voice"]["code"] == "listening"
    assert states[-1]["face"]["enough"]
    assert states[-1]["voice"]["enough"]
    assert "speak on" in own.stderr

    other = live("verify", store, person_video(tmp_path, 2, 1), person_voice(tmp_path, 2, 1))
    assert other.exit_code == NO, other.output
    assert other.stdout.splitlines() == ["rejected"]


def test_what_was_enrolled_from_is_known_again_as_a_replay(store: dict[str, Path], tmp_path: Path) -> None:
    files = person_video(tmp_path, 1), person_voice(tmp_path, 1)
    assert live("enroll", store, *files).exit_code == YES
    again = live("verify", store, *files)
    assert again.exit_code == NO
    assert "replayed" in again.stderr


def test_a_still_picture_does_not_have_the_motion_that_is_required(
    store: dict[str, Path], tmp_path: Path
) -> None:
    still = video(tmp_path / "still.avi", [scene(1, 0)] * 30)
    result = live("enroll", store, still, "none", "--require-motion")
    assert result.exit_code == CAPTURE
    assert "turn your head" in result.stderr
    assert not store["store"].exists() or live("verify", store, still, "none").exit_code == NO


def test_an_image_sequence_is_a_camera(tmp_path: Path) -> None:
    for step in range(3):
        cv2.imwrite(str(tmp_path / f"{step:03d}.png"), scene(1, step))
    with Camera(str(tmp_path / "%03d.png")) as camera:
        frames = [camera.read() for _ in range(4)]
    assert frames[3] is None
    assert [read[1] for read in frames[:3]] == pytest.approx([0.0, 0.04, 0.08])  # type: ignore[index]
    np.testing.assert_array_equal(frames[0][0], scene(1, 0)[..., ::-1])  # type: ignore[index]


@pytest.mark.parametrize(
    ("camera", "microphone", "code", "says"),
    [
        ("empty room", "speech", CAPTURE, "no_face"),
        ("person", "silence", CAPTURE, "check the microphone"),
        ("person", "half a second", CAPTURE, "speak on"),
        ("three frames", "speech", CAPTURE, "look at the camera"),
        ("no.avi", "speech", USAGE, "no such video file"),
        ("person", "no.wav", USAGE, "no such sound file"),
        ("not a video", "speech", CAPTURE, "is no video"),
        ("none", "none", USAGE, "nothing to capture"),
        ("videotestsrc ! appsink", "none", ENVIRONMENT, ""),
    ],
)
def test_what_cannot_work_ends_with_its_code(
    camera: str, microphone: str, code: int, says: str, store: dict[str, Path], tmp_path: Path
) -> None:
    silence = np.random.default_rng(0).normal(0, 8, 32_000).astype(np.int16)
    files: dict[str, Any] = {
        "empty room": lambda: video(tmp_path / "a.avi", [np.full((240, 320, 3), 99, dtype=np.uint8)] * 30),
        "person": lambda: person_video(tmp_path, 1),
        "three frames": lambda: person_video(tmp_path, 1, count=3),
        "not a video": lambda: (tmp_path / "b.avi").write_bytes(b"RIFF....AVI ") and tmp_path / "b.avi",
        "speech": lambda: person_voice(tmp_path, 1),
        "silence": lambda: write_voice(tmp_path / "c.wav", silence),
        "half a second": lambda: write_voice(tmp_path / "d.wav", np.concatenate([silence, voice(1, 0, 1.0)])),
    }
    given = [files[name]() if name in files else name for name in (camera, microphone)]
    result = live("enroll", store, *given)
    assert result.exit_code == code, result.output
    assert says in result.stderr


class Unplugged:
    """An OpenCV capture that gives some frames, and then none."""

    def __init__(self, *_: object, frames: int = 2) -> None:
        self.left = frames

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, scene(1, 0)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        pass


def test_a_camera_that_is_unplugged_is_a_fault_of_the_environment(
    store: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Unplugged)
    result = live("enroll", store, 0, "none")
    assert result.exit_code == ENVIRONMENT
    assert "plugged in" in result.stderr


def test_a_camera_that_is_not_there_is_a_fault_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unplugged, "isOpened", lambda self: False)
    monkeypatch.setattr(cv2, "VideoCapture", Unplugged)
    with pytest.raises(EnvironmentFault) as caught:
        Camera("7")
    assert caught.value.hint


def test_it_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody(Unplugged):
        def read(self) -> tuple[bool, np.ndarray | None]:
            return True, np.full((60, 80, 3), 90, dtype=np.uint8)

    monkeypatch.setattr(cv2, "VideoCapture", Nobody)
    faces = FaceStream(HaarFinder(), FaceSpec())
    with Camera("0") as camera, pytest.raises(CaptureError) as caught:
        capture_live(camera, faces, None, None, timeout=0.3, tell=lambda seen, heard: None)
    assert caught.value.code == "no_face"
    assert faces.state.code == "closed"


def test_a_capture_is_wiped(tmp_path: Path) -> None:
    microphone = FileMicrophone(person_voice(tmp_path, 1))
    with Camera(str(person_video(tmp_path, 1))) as camera:
        captured = capture_live(
            camera,
            FaceStream(HaarFinder(), FaceSpec(), keep=2),
            microphone,
            VoiceStream(microphone.sample_rate),
            timeout=60.0,
            tell=lambda seen, heard: None,
        )
    assert captured.voice is not None
    assert captured.voice.any()
    captured.wipe()
    microphone.close()
    assert not captured.voice.any()
    assert not any(crop.any() for crop in (*captured.best, *captured.in_order))
    assert not microphone._pcm.any()


class FakeSound(types.ModuleType):
    """`sounddevice` with one microphone that hums, until it is unplugged."""

    class PortAudioError(Exception):
        pass

    chunks = 3

    def query_devices(self, device: object, kind: str) -> dict[str, float]:
        if device == "missing":
            raise ValueError("no input device matching 'missing'")
        return {"default_samplerate": 48_000.0}

    class InputStream:
        def __init__(self, **settings: Any) -> None:
            self.settings = settings

        def start(self) -> None:
            for _ in range(FakeSound.chunks):
                self.settings["callback"](
                    np.full((self.settings["blocksize"], 1), 9, dtype=np.int16), 0, None, None
                )

        def close(self) -> None:
            pass


class TestDeviceMicrophone:
    @pytest.fixture(autouse=True)
    def sounddevice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sounddevice", FakeSound("sounddevice"))

    def test_it_gives_what_was_heard_at_the_devices_rate(self) -> None:
        microphone = open_microphone("default")
        assert microphone.sample_rate == 48_000
        chunk = microphone.read()
        assert chunk is not None
        assert (chunk.shape, chunk.dtype) == ((4_800,), np.int16)
        microphone.close()

    def test_one_that_is_unplugged_is_a_fault_of_the_environment(self) -> None:
        microphone = open_microphone("1")
        for _ in range(FakeSound.chunks):
            microphone.read()
        with pytest.raises(EnvironmentFault, match="no more sound"):
            microphone.read()

    def test_sound_that_was_lost_is_not_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FakeSound, "chunks", 200)
        with pytest.raises(EnvironmentFault, match="in time"):
            DeviceMicrophone().read()

    def test_one_that_is_not_there_is_a_fault_of_the_environment(self) -> None:
        with pytest.raises(EnvironmentFault) as caught:
            open_microphone("device:missing")
        assert caught.value.hint

    def test_without_the_package_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sounddevice", None)
        with pytest.raises(MissingExtraError) as caught:
            DeviceMicrophone()
        assert "edgepin[live]" in str(caught.value.hint)


def test_nothing_to_capture_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        capture_live(None, None, None, None, timeout=1.0, tell=lambda seen, heard: None)
