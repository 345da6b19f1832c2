"""Sound from a microphone, or from a file that stands in for one. Capturing is PortAudio's, through
`sounddevice`.
"""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._errors import EnvironmentFault, MissingExtraError
from .audio import decode_audio

_CHUNK_SECONDS = 0.1
_QUEUE = 100  # chunks that may wait: 10 s


class Microphone(Protocol):
    """What `edgepin live` listens to."""

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    def read(self) -> npt.NDArray[Any] | None:
        """The next samples, up to 0.1 s of them, waiting for them at most 1 s; None at the end."""
        ...

    def close(self) -> None: ...


class FileMicrophone:
    """A sound file in chunks. Raises what `decode_audio` raises."""

    def __init__(self, path: str | Path) -> None:
        self._pcm, self.sample_rate = decode_audio(path)
        self._at = 0

    def read(self) -> npt.NDArray[Any] | None:
        """See `Microphone`."""
        if self._at >= self._pcm.shape[0]:
            return None
        step = max(1, round(self.sample_rate * _CHUNK_SECONDS))
        chunk: npt.NDArray[np.float32] = self._pcm[self._at : self._at + step].copy()
        self._at += step
        return chunk

    def close(self) -> None:
        """Overwrites the sound with zeros."""
        self._pcm[:] = 0


class DeviceMicrophone:
    """A sound device by number or by a part of its name, or the system's own (`device=None`).

    Raises `MissingExtraError` without `sounddevice` (the extra `live`), and `EnvironmentFault` if the device
    does not open.
    """

    def __init__(self, device: int | str | None = None) -> None:
        try:
            import sounddevice
        except ImportError as error:
            raise MissingExtraError(
                f"a microphone needs the `live` extra ({error})",
                hint="pip install 'edgepin[live]'; or give a file",
            ) from error
        except OSError as error:  # the package is there, and PortAudio is not
            raise EnvironmentFault(
                f"a microphone needs PortAudio: {error}", hint="install it: apt install libportaudio2"
            ) from error
        self._chunks: queue.Queue[npt.NDArray[np.int16]] = queue.Queue(maxsize=_QUEUE)
        self._failure: str | None = None
        try:
            about = sounddevice.query_devices(device, "input")
            self.sample_rate = int(about["default_samplerate"])
            self._stream = sounddevice.InputStream(
                device=device,
                channels=1,
                samplerate=self.sample_rate,
                dtype="int16",
                blocksize=round(self.sample_rate * _CHUNK_SECONDS),
                callback=self._take,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise EnvironmentFault(
                f"the microphone does not open: {error}", hint="python -m sounddevice lists the devices"
            ) from error

    def _take(self, samples: Any, frames: int, when: Any, status: Any) -> None:
        try:
            self._chunks.put_nowait(samples[:, 0].copy())
        except queue.Full:
            self._failure = "the sound was not read in time"

    def read(self) -> npt.NDArray[Any] | None:
        """See `Microphone`. Raises `EnvironmentFault` if nothing comes (it was unplugged), or samples were
        lost.
        """
        if self._failure is None:
            try:
                return self._chunks.get(timeout=1.0)
            except queue.Empty:
                self._failure = "the microphone gives no more sound"
        raise EnvironmentFault(self._failure, hint="check that it is plugged in, then try again")

    def close(self) -> None:
        self._stream.close()
        while not self._chunks.empty():
            self._chunks.get_nowait()[:] = 0


def open_microphone(source: str) -> Microphone:
    """`default`, a device's number, `device:NAME`, or a sound file."""
    if source == "default":
        return DeviceMicrophone()
    if source.isdecimal():
        return DeviceMicrophone(int(source))
    if source.startswith("device:"):
        return DeviceMicrophone(source.removeprefix("device:"))
    return FileMicrophone(source)
