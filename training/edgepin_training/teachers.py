"""Teachers: public encoders, run once over the training captures, whose embeddings the starter is distilled from.

They are extras of training, never dependencies of the package, and nothing of their weights goes into what is trained:
only the numbers that they give for our captures are kept, in a cache beside the run. `FaceTeacher` is the network of
dlib (King 2017) with the models of `face_recognition_models`; `VoiceTeacher` is the encoder of `resemblyzer`, trained
with GE2E (Wan et al. 2018).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgepin._errors import EnvironmentFault, IntegrityError
from edgepin._safe_files import write_atomic

CHIP_SIDE = 150  # px: what dlib's network takes
_CHIP_PADDING = 0.25
_ZOOM = 3  # the landmark model was made for faces larger than 64 px
_BORDER = 0.3  # of the side, repeated around a tight crop, so that the chip's padding shows no black

Progress = Callable[[str, int, int], None]


class Teacher(Protocol):
    """What distillation learns from."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, captures: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """A row of `dimensions` for each capture."""
        ...


class FaceTeacher:
    """dlib's face network: crops, uint8 RGB (S, S, 3) -> float32 (n, 128), as dlib gives them (not unit vectors).

    A crop is enlarged, its border repeated, five landmarks are found inside, and dlib's own chip is cut by them.
    """

    name = "dlib_face_recognition_resnet_model_v1"
    dimensions = 128

    def __init__(self) -> None:
        dlib, models = _require("dlib"), _require("face_recognition_models")
        self._dlib = dlib
        self._network = dlib.face_recognition_model_v1(models.face_recognition_model_location())
        self._landmarks = dlib.shape_predictor(models.pose_predictor_five_point_model_location())

    def embed(self, captures: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        chips = [self.chip(crop) for crop in captures]
        return np.array(self._network.compute_face_descriptor(chips), np.float32).reshape(-1, self.dimensions)

    def chip(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The aligned face, uint8 (150, 150, 3), that dlib's network sees of a tight crop."""
        import cv2

        side = max(crop.shape[0], 64 * _ZOOM)
        pad = int(side * _BORDER)
        image = cv2.copyMakeBorder(
            cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC),
            *(pad,) * 4,
            cv2.BORDER_REPLICATE,
        )
        face = self._dlib.rectangle(pad, pad, pad + side, pad + side)
        chip: NDArray[np.uint8] = self._dlib.get_face_chip(
            image, self._landmarks(image, face), CHIP_SIDE, _CHIP_PADDING
        )
        return chip


class VoiceTeacher:
    """resemblyzer's encoder: int16 PCM at 16 kHz, 1.6 s each -> float32 (n, 256), unit vectors.

    Its features are 40 mel bands of power, without a logarithm, of speech brought to -30 dBFS.
    """

    name = "resemblyzer"
    dimensions = 256
    samples = 25_440  # 160 frames of 10 ms, centered: what it was trained on

    def __init__(self) -> None:
        torch, resemblyzer = _require("torch"), _require("resemblyzer")
        self._torch = torch
        self._audio = importlib.import_module("resemblyzer.audio")
        self._encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, captures: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        if not captures:
            return np.zeros((0, self.dimensions), np.float32)
        mels = np.stack([self._audio.wav_to_mel_spectrogram(loudness(pcm)) for pcm in captures])
        with self._torch.no_grad():
            rows: NDArray[np.float32] = self._encoder(self._torch.from_numpy(mels)).numpy()
        return rows


def loudness(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """PCM as float32 in [-1, 1] whose level is -30 dBFS: what resemblyzer's encoder expects."""
    wave = pcm.astype(np.float32) / 32768
    level = math.sqrt(float(np.mean(np.square(wave)))) + 1e-9
    return wave * np.float32(10 ** (-30 / 20) / level)


def embed_cached(
    path: Path,
    teacher: Callable[[], Teacher],
    captures: Sequence[Any],
    load: Callable[[Any], NDArray[Any]] = lambda capture: capture,
    *,
    identity: str,
    batch: int = 32,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embeddings of all captures, float32 (n, dimensions), kept in `path` (`.npy`) as they come.

    A call that was killed goes on where it stood: rows not yet made are NaN. `teacher` is called only where a row is
    missing. `identity` says what the captures are; a cache of others is an `IntegrityError` and is left as it is.
    """
    label = path.with_suffix(".json")
    meant = {"rows": len(captures), "captures": hashlib.sha256(identity.encode()).hexdigest()}
    if label.exists():
        if json.loads(label.read_text("utf-8")) != meant:
            raise IntegrityError(
                f"{path} holds a teacher's embeddings of other captures", hint="choose another folder"
            )
        rows = np.lib.format.open_memmap(path, mode="r+")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(captures), teacher().dimensions)
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        rows[:] = np.nan
        rows.flush()
        write_atomic(label, [json.dumps(meant, indent=2).encode()])
    if rows.ndim != 2 or len(rows) != len(captures):
        raise IntegrityError(f"{path} is damaged: {rows.shape}", hint="remove it and its .json")
    missing = np.flatnonzero(np.isnan(rows[:, 0]))
    for start in range(0, len(missing), batch):
        chosen = missing[start : start + batch]
        rows[chosen] = teacher().embed([load(captures[index]) for index in chosen])
        rows.flush()
        if progress:
            progress(
                f"embedding with {teacher().name}", len(rows) - len(missing) + start + len(chosen), len(rows)
            )
    return np.array(rows)


def teacher_file(package: str, name: str) -> Path:
    """A file of an installed teacher, without importing it. Raises EnvironmentFault where the package is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise _missing(package)
    return Path(found.origin).parent / name


def _missing(module: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"the teacher needs {module}, which is not installed",
        hint="pip install dlib face_recognition_models 'setuptools<81' resemblyzer librosa webrtcvad-wheels",
    )


def _require(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one of them imports the outdated pkg_resources
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing(error.name or module) from error
