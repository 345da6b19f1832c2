"""From a capture to its embeddings: the one way that enrollment, verification, calibration and evaluation share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepin_kernels import LogMel, LogMelSpec

from ._bundle.bundle import Bundle
from ._bundle.manifest import EMBEDDING_DIM
from ._capture.audio import decode_audio, prepare, trim_silence
from ._capture.faces import Face, FaceFinder, FaceSpec, HaarFinder, align, find_face, resize_crop
from ._capture.fingerprint import face_fingerprint, face_region, voice_fingerprint
from ._capture.image import check_image, decode_image
from ._capture.quality import Quality, check_face_crop, check_voice
from ._errors import CaptureError, EdgePinError, UsageError
from ._runtime.runtime import Encoded, PcmRuntime, Runtime

ImageSource = str | Path | bytes | NDArray[np.uint8]
SoundSource = str | Path | bytes | NDArray[Any]

MAX_VOICE_SECONDS = 10.0
"""No more than this of a capture is encoded: it costs time and adds little."""

_NO_VERDICT = Quality(True, None)


@dataclass
class Timings:
    """Milliseconds by stage, summed where a stage ran twice."""

    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + 1e3 * (time.perf_counter() - start)


@dataclass(frozen=True)
class Embedding:
    """What an encoder makes of one capture: two unit vectors, float32 (256,)."""

    identity: NDArray[np.float32]
    pin: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Capture:
    """One usable capture: what an encoder makes of it, how good it is, and what it would be known again by.

    `sample`: the face crop, uint8 (S, S, 3), or the trimmed voice, int16 (samples,) at 16 kHz. `fingerprint`: of the
    sample, for telling a replay of it; says nothing about the person that the embedding does not.
    """

    modality: str
    embedding: Embedding
    quality: Quality
    sample: NDArray[Any]
    fingerprint: bytes

    def wipe(self) -> None:
        """Overwrites the sample, which is never the caller's own array, with zeros."""
        self.sample[...] = 0


class _FoundFace(NamedTuple):
    """A crop, uint8 (S, S, 3) RGB, its verdict (an empty one without the gate), and where it comes from."""

    crop: NDArray[np.uint8]
    quality: Quality
    image: NDArray[np.uint8]
    face: Face | None


class Pipeline:
    """Captures to embeddings. Thread-safe where its runtime and finder are."""

    def __init__(
        self, runtime: Runtime, finder: FaceFinder, face_spec: FaceSpec, log_mel: LogMelSpec
    ) -> None:
        self.runtime, self.finder, self.face_spec = runtime, finder, face_spec
        self.log_mel = LogMel(log_mel)

    def face(
        self, source: ImageSource, *, cropped: bool = False, gate: bool = True, timings: Timings | None = None
    ) -> Embedding:
        """Embeds a face. `gate=False` leaves the quality verdicts out (for benchmarks). Raises CaptureError."""
        timings = timings or Timings()
        return self.encode(
            "face", self.face_input(source, cropped=cropped, gate=gate, timings=timings), timings
        )

    def voice(
        self,
        source: SoundSource,
        *,
        sample_rate: int | None = None,
        seconds: float | None = None,
        gate: bool = True,
        timings: Timings | None = None,
    ) -> Embedding:
        """Embeds a voice from a file, bytes, or an array with its `sample_rate`; `seconds` takes the first of it."""
        timings = timings or Timings()
        pcm, _ = self._voice_pcm(source, sample_rate=sample_rate, seconds=seconds, gate=gate, timings=timings)
        return self._encode_pcm(pcm, timings)

    def capture_face(
        self, source: ImageSource, *, cropped: bool = False, timings: Timings | None = None
    ) -> Capture:
        """A face through the quality gate, with all that is kept of it. Raises CaptureError."""
        timings = timings or Timings()
        found = self._face(source, cropped=cropped, gate=True, timings=timings)
        crop = found.crop
        with timings.stage("fingerprint"):
            # Of the image around the face where there is one: a finder moves the eyes of a copy by a pixel, and with
            # them the crop.
            fingerprint = face_fingerprint(
                crop if found.face is None else face_region(found.image, found.face)
            )
        embedding = self.encode("face", crop[None], timings)
        return Capture("face", embedding, found.quality, _own(crop, source), fingerprint)

    def capture_voice(
        self, source: SoundSource, *, sample_rate: int | None = None, timings: Timings | None = None
    ) -> Capture:
        """A voice through the quality gate, with all that is kept of it. Raises CaptureError, UsageError."""
        timings = timings or Timings()
        pcm, quality = self._voice_pcm(
            source, sample_rate=sample_rate, seconds=None, gate=True, timings=timings
        )
        with timings.stage("fingerprint"):
            fingerprint = voice_fingerprint(pcm)
        return Capture("voice", self._encode_pcm(pcm, timings), quality, _own(pcm, source), fingerprint)

    def face_input(
        self, source: ImageSource, *, cropped: bool, gate: bool, timings: Timings
    ) -> NDArray[np.uint8]:
        """What the face encoder takes: uint8 (1, S, S, 3) RGB."""
        return self._face(source, cropped=cropped, gate=gate, timings=timings).crop[None]

    def voice_input(
        self,
        source: SoundSource,
        *,
        sample_rate: int | None,
        seconds: float | None,
        gate: bool,
        timings: Timings,
    ) -> NDArray[np.float32]:
        """What the voice encoder takes: float32 (1, T, M)."""
        pcm, _ = self._voice_pcm(source, sample_rate=sample_rate, seconds=seconds, gate=gate, timings=timings)
        return self._log_mel_of(pcm, timings)

    def _face(self, source: ImageSource, *, cropped: bool, gate: bool, timings: Timings) -> _FoundFace:
        with timings.stage("decode"):
            image = check_image(source) if isinstance(source, np.ndarray) else decode_image(source)
        with timings.stage("find_face"):
            face = None if cropped else find_face(image, self.finder)
            crop = resize_crop(image, self.face_spec) if face is None else align(image, face, self.face_spec)
        quality = _NO_VERDICT
        if gate:
            with timings.stage("quality"):
                quality = check_face_crop(crop, (image.shape[0], image.shape[1]), face=face)
        return _FoundFace(crop, quality, image, face)

    def _voice_pcm(
        self,
        source: SoundSource,
        *,
        sample_rate: int | None,
        seconds: float | None,
        gate: bool,
        timings: Timings,
    ) -> tuple[NDArray[np.int16], Quality]:
        """What the front-end takes: int16 (samples,), enough for a frame; and its verdict, an empty one without the gate."""
        with timings.stage("decode"):
            if isinstance(source, np.ndarray):
                if sample_rate is None:
                    raise UsageError("an array of samples needs its sample_rate")
                samples, rate = source, sample_rate
            else:
                samples, rate = decode_audio(source, seconds=seconds)
            if seconds is not None:
                samples = samples[: round(seconds * rate)]
            pcm = trim_silence(prepare(samples, rate))
        quality = _NO_VERDICT
        if gate:
            with timings.stage("quality"):
                quality = check_voice(pcm)
        spec = self.log_mel.spec
        pcm = pcm[: int(MAX_VOICE_SECONDS * spec.sample_rate)]
        if spec.num_frames(len(pcm)) < 1:
            raise CaptureError("the sound is shorter than one frame", code="too_short")
        return pcm, quality

    def _encode_pcm(self, pcm: NDArray[np.int16], timings: Timings) -> Embedding:
        if isinstance(self.runtime, PcmRuntime) and self.runtime.takes_pcm:
            with timings.stage("encode_voice"):  # the log-mel included
                encoded = self.runtime.encode_pcm(pcm[None])
            return _checked("voice", encoded)
        return self.encode("voice", self._log_mel_of(pcm, timings), timings)

    def _log_mel_of(self, pcm: NDArray[np.int16], timings: Timings) -> NDArray[np.float32]:
        with timings.stage("log_mel"):
            return self.log_mel(pcm)[None]

    def encode(self, modality: str, batch: NDArray[Any], timings: Timings) -> Embedding:
        """Runs one encoder on a batch of one. Values that are not finite are an error, never a score."""
        with timings.stage(f"encode_{modality}"):
            encoded = self.runtime.encode(modality, batch)
        return _checked(modality, encoded)


def _own(sample: NDArray[Any], source: object) -> NDArray[Any]:
    """`sample`, copied if it may be a part of what the caller gave."""
    shared = isinstance(source, np.ndarray) and np.may_share_memory(sample, source)
    return sample.copy() if shared or not sample.flags.writeable else sample


def _checked(modality: str, encoded: Encoded) -> Embedding:
    for embedding in encoded:
        if not np.isfinite(embedding).all():
            raise EdgePinError(f"the {modality} encoder gave values that are not finite")
        if embedding.shape != (1, EMBEDDING_DIM) or abs(float(np.linalg.norm(embedding)) - 1.0) > 0.01:
            raise EdgePinError(f"the {modality} encoder gave no unit vector of {EMBEDDING_DIM} values")
    identity, pin = encoded
    return Embedding(identity[0], pin[0])


def make_pipeline(bundle: Bundle, runtime: Runtime, finder: FaceFinder | None = None) -> Pipeline:
    """A runtime of the bundle's encoders behind the bundle's front-end and crop geometry; Haar finds faces by default."""
    manifest = bundle.manifest
    return Pipeline(runtime, finder or HaarFinder(), manifest.face, manifest.log_mel)
