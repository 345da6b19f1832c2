"""A live capture: camera and microphone at once, until both have enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, UsageError
from .camera import Camera
from .face_stream import FaceStream, FrameState
from .microphone import Microphone
from .voice_stream import StreamState, VoiceStream

FILE_STEP = 0.1  # s of a file's frames for each 0.1 s of sound


@dataclass(frozen=True, eq=False)
class LiveCapture:
    """What a live capture brought: face crops, uint8 `(size, size, 3)`, best first and by time, and the
    voice, int16 `(samples,)` at 16 kHz. None or empty for what was not asked for. `wipe` overwrites all with
    zeros.
    """

    best: list[npt.NDArray[np.uint8]]
    in_order: list[npt.NDArray[np.uint8]]
    voice: npt.NDArray[np.int16] | None

    def wipe(self) -> None:
        for crop in (*self.best, *self.in_order):
            crop[:] = 0
        if self.voice is not None:
            self.voice[:] = 0


def capture_live(
    camera: Camera | None,
    faces: FaceStream | None,
    microphone: Microphone | None,
    voice: VoiceStream | None,
    *,
    timeout: float,
    tell: Callable[[FrameState | None, StreamState | None], None],
) -> LiveCapture:
    """Reads both sources until both streams have enough, and closes the streams. `tell` is called after each
    step.

    Raises `CaptureError` with the stream's own code when a file ends, the voice gives up, or `timeout` s have
    passed (`no_face`, `no_speech`, `too_short`, `blurred`, …), `EnvironmentFault` when a device fails, and
    `UsageError` without a source.
    """
    if faces is None and voice is None:
        raise UsageError("nothing to capture", hint="give a camera, a microphone, or both")
    until = time.monotonic() + timeout
    with ExitStack() as stack:
        for stream in (faces, voice):
            if stream is not None:
                stack.enter_context(stream)
        frames = _frames(camera) if camera is not None else iter(())
        while True:
            seen = faces.state if faces is not None else None
            heard = voice.state if voice is not None else None
            tell(seen, heard)
            face_done = seen is None or seen.enough
            voice_done = heard is None or heard.enough
            if face_done and voice_done:
                break
            if heard is not None and heard.finished and not heard.enough:
                raise CaptureError(_why("the voice", heard), code=heard.code, hint=heard.hint)
            if time.monotonic() > until:
                _give_up(seen, heard, f"within {timeout:g} s")
            if faces is not None and not face_done:
                batch = next(frames, None)
                if batch is None:
                    _give_up(faces.state, None, "before the end of the file")
                for rgb, at in batch:
                    faces.push(rgb, at=at)
                    rgb[:] = 0
            if voice is not None and microphone is not None and not voice_done:
                chunk = microphone.read()
                if chunk is None:
                    voice.finish()
                else:
                    voice.push(chunk)
                    chunk[:] = 0
        best = faces.best() if faces is not None else []
        in_order = faces.in_order() if faces is not None else []
        return LiveCapture(best, in_order, voice.take() if voice is not None else None)


def _frames(camera: Camera) -> Iterator[list[tuple[npt.NDArray[np.uint8], float]]]:
    """Frames by what is read of the microphone meanwhile: one of a camera, which sets the pace, or 0.1 s of a
    file.
    """
    batch: list[tuple[npt.NDArray[np.uint8], float]] = []
    while (read := camera.read()) is not None:
        batch.append(read)
        if not camera.is_file or read[1] - batch[0][1] >= FILE_STEP:
            yield batch
            batch = []
    if batch:
        yield batch


def _give_up(seen: FrameState | None, heard: StreamState | None, when: str) -> NoReturn:
    if seen is not None and not seen.enough:
        code = seen.code if seen.code not in ("good", "waiting") else "too_few_frames"
        raise CaptureError(
            f"{seen.kept} good frames of the face were seen {when}: {code}", code=code, hint=seen.hint
        )
    assert heard is not None
    code = "too_short" if heard.speech_seconds > 0.0 else "no_speech"
    raise CaptureError(_why("the voice", heard) + f" {when}", code=code, hint=heard.hint)


def _why(what: str, heard: StreamState) -> str:
    return f"of {what} {heard.speech_seconds:.1f} s of speech were heard in {heard.seconds:.1f} s"
