"""The bytes of a capture to what an encoder's front-end takes, by the device's own code; AAC for VoxCeleb2."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from edgepin._capture.audio import MAX_AUDIO_BYTES, SAMPLE_RATE, decode_audio, prepare, trim_silence
from edgepin._capture.crop import Face, FaceSpec, align, resize_crop
from edgepin._capture.image import decode_image
from edgepin._errors import CaptureError, MissingExtraError

MAX_SECONDS = 600.0  # the longest recordings of VoxCeleb are some minutes
MAX_IMAGE_BYTES = 32 << 20
MAX_BYTES = {"face": MAX_IMAGE_BYTES, "voice": MAX_AUDIO_BYTES}

Eyes = tuple[float, float, float, float]


def decode_voice(data: bytes) -> tuple[NDArray[np.int16], int, float]:
    """A sound file to trimmed speech, int16 (samples,) at 16 kHz; the file's own rate in Hz and seconds.

    Raises CaptureError as `decode_audio`, and MissingExtraError for AAC without PyAV.
    """
    if data[4:8] == b"ftyp":
        pcm, rate, seconds = _decode_aac(data)
    else:
        samples, rate = decode_audio(data, max_seconds=MAX_SECONDS)
        pcm, seconds = prepare(samples, rate), len(samples) / rate
    return trim_silence(pcm), rate, seconds


def decode_face(data: bytes, spec: FaceSpec, eyes: Eyes | None) -> NDArray[np.uint8]:
    """An image to a crop (S, S, 3): aligned by its eyes (x, y, x, y in px), or, without them, a crop already."""
    image = decode_image(data, max_bytes=MAX_IMAGE_BYTES)
    if eyes is None:
        return resize_crop(image, spec)
    return align(image, Face(eyes[:2], eyes[2:], (0.0, 0.0, 0.0, 0.0), 0.0), spec)


def _decode_aac(data: bytes) -> tuple[NDArray[np.int16], int, float]:
    """An MP4 file with AAC, as int16 mono at 16 kHz."""
    if len(data) > MAX_AUDIO_BYTES:
        raise CaptureError("the sound file is too large", code="too_large")
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "reading AAC (.m4a) needs the `aac` extra",
            hint="pip install 'edgepin[aac]', or convert: ffmpeg -i IN.m4a -ac 1 -ar 16000 OUT.wav",
        ) from error
    parts: list[NDArray[np.int16]] = []
    rate, seconds = 0, 0.0
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4") as file:
            if not file.streams.audio:
                raise CaptureError("the file has no sound", code="damaged")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in file.decode(file.streams.audio[0]):
                rate = frame.sample_rate
                seconds += frame.samples / rate
                if seconds > MAX_SECONDS:
                    raise CaptureError(f"the sound is longer than {MAX_SECONDS:g} s", code="too_long")
                parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(frame)]
            parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(None)]
    except CaptureError:
        raise
    except Exception as error:  # FFmpeg's errors, and PyAV's own on what it did not expect
        raise CaptureError(f"the sound cannot be decoded: {error}", code="damaged") from None
    if not parts:
        raise CaptureError("the sound has no samples", code="too_short")
    return np.concatenate(parts).astype(np.int16, copy=False), rate, seconds
