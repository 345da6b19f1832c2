"""Sound in, 16 kHz mono int16 speech out.

`load_voice` is the whole way of a file: `decode_audio` -> `prepare` -> `trim_silence`. A microphone enters at
`prepare`. Decoding is libsndfile's and resampling is libsoxr's; what is here decides what may reach them.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, UsageError
from .media import read_bounded

SAMPLE_RATE = 16_000
"""Hz: the rate of everything behind `prepare`."""

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 192_000
MAX_CHANNELS = 32
MAX_AUDIO_BYTES = 64 << 20

_BLOCK_VALUES = 1 << 20  # decoded at a time, over all channels: bounds the memory whatever the header says

_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's answer for a FLAC stream that was written to a pipe

# Trimming: 10 ms frames; a frame is active when its level is within _ACTIVE_RANGE_DB of the loud ones (their
# 95th percentile) and above _FLOOR_DB. Three active frames of five in a row make an onset, so that one click
# does not.
_FRAME = SAMPLE_RATE // 100
_ACTIVE_RANGE_DB = 35.0
_FLOOR_DB = -65.0
_MARGIN = SAMPLE_RATE // 10

# Format tags of MPEG sound in WAV (RFC 2361): it would bring one more decoder, which is for nothing else here.
_MPEG = (b"\x50", b"\x55")

_PIPED = "the file was cut short, or written to a pipe: write it to a file again"
_RETRY = "record it again as WAV, FLAC or Ogg"


def decode_audio(
    source: str | Path | bytes, *, max_seconds: float = 60.0, seconds: float | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a WAV, FLAC or Ogg (Vorbis, Opus) file to `(pcm, sample_rate)`.

    `pcm` is float32 `(samples,)`, the mean of the channels, in [-1, 1]. With `seconds`, only the beginning is
    decoded (and `max_seconds` bounds `seconds`, not the file).

    Raises `UsageError` where there is no such file, and `CaptureError` with code `damaged` (not such a file,
    cut short, or a header that does not match), `too_large` (over 64 MiB), `too_long`, `too_short` (no
    samples), `unsupported` (a rate outside 8-192 kHz, more than 32 channels) or `not_finite`. Sizes are
    checked on the header, before decoding.
    """
    if seconds is not None and not 0 < seconds <= max_seconds:
        raise UsageError(f"seconds must lie in (0, {max_seconds:g}], not {seconds}")
    data = read_bounded(source, max_bytes=MAX_AUDIO_BYTES, kind="sound")
    _check_container(data)
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            wanted = _frames_wanted(file, max_seconds, seconds)
            pcm = _read_mono(file, wanted)
            sample_rate = int(file.samplerate)
    except CaptureError:
        raise
    # Besides libsndfile's errors its Python layer raises others, on headers that contradict themselves.
    except Exception as error:
        raise CaptureError(f"the sound cannot be decoded: {error}", code="damaged", hint=_RETRY) from None
    if pcm.shape[0] < wanted:
        raise CaptureError(
            f"the sound stops after {pcm.shape[0]} of {wanted} samples",
            code="damaged",
            hint="the file was cut short",
        )
    if not np.isfinite(pcm).all():
        raise CaptureError("the sound has samples that are not finite", code="not_finite", hint=_RETRY)
    np.clip(pcm, -1.0, 1.0, out=pcm)
    return pcm, sample_rate


def prepare(pcm: npt.NDArray[Any], sample_rate: float) -> npt.NDArray[np.int16]:
    """Samples of any usual kind to int16 `(samples,)`, mono, 16 kHz.

    `pcm` is int16, int32, float32 or float64 (floats in [-1, 1]; what is beyond is clipped), `(samples,)` or
    `(samples, channels)`; channels are averaged. int16 mono at 16 kHz comes back unchanged.

    Raises `UsageError` for another dtype, shape or a rate outside 8-192 kHz, and `CaptureError` with code
    `not_finite` or `too_short` (no samples).
    """
    check_pcm(pcm)
    rate = check_sample_rate(sample_rate)
    if pcm.shape[0] == 0:
        raise _no_samples()
    if pcm.ndim == 2 and pcm.shape[1] == 1:
        pcm = pcm[:, 0]
    if pcm.dtype == np.int16 and pcm.ndim == 1 and rate == SAMPLE_RATE:
        return np.ascontiguousarray(pcm, dtype=np.int16)
    unit = to_unit(pcm)
    if rate != SAMPLE_RATE:
        import soxr

        unit = np.asarray(soxr.resample(unit, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)
        if unit.shape[0] == 0:
            raise _no_samples()
    return to_int16(unit)


def check_pcm(pcm: Any) -> None:
    """Raises `UsageError` unless `pcm` has a dtype and a shape that `prepare` takes."""
    if not isinstance(pcm, np.ndarray):
        raise UsageError(f"pcm must be a numpy array, not {type(pcm).__name__}")
    if pcm.dtype.name not in ("int16", "int32", "float32", "float64"):
        raise UsageError(f"pcm must be int16, int32, float32 or float64, not {pcm.dtype}")
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and not 1 <= pcm.shape[1] <= MAX_CHANNELS):
        raise UsageError(f"pcm must be (samples,) or (samples, channels), not {pcm.shape}")


def check_sample_rate(sample_rate: Any) -> int:
    """The rate as a whole number of hertz. Raises `UsageError` for another, or one outside 8-192 kHz."""
    # Sound devices report their rate as a float, so a whole one is taken.
    number = isinstance(sample_rate, (int, float, np.number)) and not isinstance(sample_rate, bool)
    if not number or not float(sample_rate).is_integer():
        raise UsageError(f"sample_rate must be a whole number of hertz, not {sample_rate!r}")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise UsageError(f"sample_rate must lie in {MIN_SAMPLE_RATE}-{MAX_SAMPLE_RATE} Hz, not {sample_rate}")
    return int(sample_rate)


def to_unit(pcm: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Samples that passed `check_pcm` as mono float32 `(samples,)` in [-1, 1], channels averaged.

    Raises `CaptureError` (`not_finite`).
    """
    if pcm.dtype.kind == "f" and not np.isfinite(pcm).all():
        raise CaptureError(
            "the sound has samples that are not finite", code="not_finite", hint="check the source"
        )
    mono = pcm.mean(axis=1, dtype=np.float64) if pcm.ndim == 2 else pcm
    scale = {"int16": 2.0**-15, "int32": 2.0**-31}.get(pcm.dtype.name, 1.0)
    # Clip first: a float of 1e30 would overflow or ring through the resampling filter.
    return np.clip(mono * scale, -1.0, 1.0).astype(np.float32)


def to_int16(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Samples in [-1, 1] as int16; what is beyond is clipped."""
    return np.asarray(np.clip(np.rint(unit * 32768.0), -32768, 32767), dtype=np.int16)


def trim_silence(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Cut leading and trailing silence off 16 kHz speech, leaving 0.1 s of it: int16 `(samples,)`, a view.

    Silence is what lies 35 dB under the loud frames or under -65 dBFS. Sound that is silent throughout comes
    back whole: whether it can be used is for the quality check to say.
    """
    active = active_frames(pcm)
    count = np.concatenate(([0], np.cumsum(np.pad(active, 2).astype(np.int64))))
    onset = count[5:] - count[:-5] >= 3  # of the five frames around each
    where = np.flatnonzero(active & onset)
    if where.shape[0] == 0:
        return pcm
    start = max(0, int(where[0]) * _FRAME - _MARGIN)
    return pcm[start : (int(where[-1]) + 1) * _FRAME + _MARGIN]


def load_voice(source: str | Path | bytes, *, seconds: float | None = None) -> npt.NDArray[np.int16]:
    """A sound file as trimmed speech: int16 `(samples,)`, mono, 16 kHz; with `seconds`, of its beginning
    only.

    Raises what `decode_audio` raises.
    """
    pcm, sample_rate = decode_audio(source, seconds=seconds)
    return trim_silence(prepare(pcm, sample_rate))


def frame_levels(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Level of each whole 10 ms frame, its mean removed, in dBFS (a full-scale square wave is 0)."""
    frames = pcm[: pcm.shape[0] // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float32)
    frames -= frames.mean(axis=1, keepdims=True)
    power = np.einsum("ij,ij->i", frames, frames) / np.float32(_FRAME * 32768.0**2)
    return np.asarray(10.0 * np.log10(power + np.float32(1e-12)), dtype=np.float32)


def active_frames(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Which whole 10 ms frames carry sound: bool `(samples // 160,)`."""
    levels = frame_levels(pcm)
    if levels.shape[0] == 0:
        return np.zeros(0, dtype=np.bool_)
    loud = np.partition(levels, int(0.95 * (levels.shape[0] - 1)))[int(0.95 * (levels.shape[0] - 1))]
    return np.asarray(levels > max(float(loud) - _ACTIVE_RANGE_DB, _FLOOR_DB))


def _check_container(data: bytes) -> None:
    """Let only the three containers through: libsndfile reads 25, most of them never met here."""
    if data[:4] in (b"fLaC", b"OggS"):
        return
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        if data[:4] != b"RF64":  # its sizes are 64 bits wide and in another chunk
            _check_wav_length(data, "<" if data[:4] == b"RIFF" else ">")
        return
    raise CaptureError("the sound is not a WAV, FLAC or Ogg file", code="damaged", hint=_RETRY)


def _check_wav_length(data: bytes, order: str) -> None:
    """Refuse a data chunk that promises more than there is: libsndfile would quietly read what is left."""
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        (length,) = struct.unpack_from(order + "I", data, position + 4)
        if name == b"data":
            if length > len(data) - position - 8:
                raise CaptureError(
                    f"the WAV header promises {length} bytes of sound and {len(data) - position - 8} are there",
                    code="damaged",
                    hint=_PIPED,
                )
            return
        if name == b"fmt " and data[position + 8 : position + 10].strip(b"\0") in _MPEG:
            raise CaptureError("the WAV file holds MPEG sound", code="unsupported", hint=_RETRY)
        position += 8 + length + (length & 1)
    raise CaptureError("the WAV file has no data chunk", code="damaged", hint=_RETRY)


def _frames_wanted(file: Any, max_seconds: float, seconds: float | None) -> int:
    """How many frames to decode, after the header's own words are checked."""
    rate, frames = int(file.samplerate), int(file.frames)
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE or not 1 <= file.channels <= MAX_CHANNELS:
        raise CaptureError(
            f"sound of {rate} Hz and {file.channels} channels is not supported",
            code="unsupported",
            hint=_RETRY,
        )
    if frames <= 0:
        raise _no_samples()
    if frames == _UNKNOWN_FRAMES:  # whether all of it is there could not be told, as with such WAV files
        raise CaptureError("the FLAC file does not state its length", code="damaged", hint=_PIPED)
    if seconds is not None:
        return min(frames, max(1, round(seconds * rate)))
    if frames > max_seconds * rate:
        raise CaptureError(
            f"the sound is longer than {max_seconds:g} s",
            code="too_long",
            hint="a few seconds of speech are enough",
        )
    return frames


def _no_samples() -> CaptureError:
    return CaptureError(
        "the sound has no samples", code="too_short", hint="record at least 2 seconds of speech"
    )


def _read_mono(file: Any, frames: int) -> npt.NDArray[np.float32]:
    """Up to `frames` frames, channels averaged block by block: many channels take no more memory than one."""
    block = max(1, _BLOCK_VALUES // file.channels)
    parts: list[npt.NDArray[np.float32]] = []
    left = frames
    while left > 0:
        part = file.read(min(block, left), dtype="float32", always_2d=True)
        if part.shape[0] == 0:
            break
        left -= part.shape[0]
        with np.errstate(all="ignore"):  # NaN and infinity are refused by the caller
            parts.append(part[:, 0].copy() if part.shape[1] == 1 else part.mean(axis=1, dtype=np.float32))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
