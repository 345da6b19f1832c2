"""Teachers: public encoders, run once over the training captures, whose embeddings the starter is distilled from.

They are extras of training, never dependencies of the package, and nothing of their weights goes into what is trained:
only the numbers that they give for our captures are kept, in a cache beside the run. `FaceTeacher` is the network of
dlib (King 2017) with the models of `face_recognition_models`; `VoiceTeacher` is the encoder of `resemblyzer`, trained
with GE2E (Wan et al. 2018). On a GPU `DlibFaceNetwork` and `Ge2eNetwork` label captures that are made while a student trains.
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
CHIP_PADDING = 0.25  # of the face, on every side of it
LEVEL = 10 ** (-30 / 20)  # of full scale: how loud resemblyzer's encoder expects voices
_LEAST_SIDE = 192  # px: the landmark model was made for faces larger than 64
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


class DlibChips:
    """dlib's chips, faces that stand upright, of tight crops, uint8 RGB (S, S, 3).

    A crop is enlarged, its border repeated, five landmarks are found inside, and the chip is cut by them.
    """

    def __init__(self) -> None:
        self._dlib, models = require("dlib"), require("face_recognition_models")
        self._landmarks = self._dlib.shape_predictor(models.pose_predictor_five_point_model_location())

    def cut(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The chip as dlib cuts it, uint8 (150, 150, 3)."""
        image, landmarks, _, _ = self._found(crop)
        chip: NDArray[np.uint8] = self._dlib.get_face_chip(image, landmarks, CHIP_SIDE, CHIP_PADDING)
        return chip

    def map(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The affine map (2, 3), float32, from pixels of the crop to pixels of the chip, see `FaceChips`.

        dlib turns the chip's rectangle about its middle by its angle; three of the corners fix the map.
        """
        _, landmarks, side, pad = self._found(crop)
        details = self._dlib.get_face_chip_details(landmarks, CHIP_SIDE, CHIP_PADDING)
        rect = details.rect
        left, top, right, bottom = rect.left(), rect.top(), rect.right(), rect.bottom()
        middle = np.array([left + right, top + bottom]) / 2
        cos, sin = np.cos(details.angle), np.sin(details.angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        corners = (np.array([[left, top], [right, top], [right, bottom]]) - middle) @ turn.T + middle
        # Enlarging keeps the outer edges of pixels in place, not their centers.
        seen = (corners - pad + 0.5) * (crop.shape[0] / side) - 0.5
        end = CHIP_SIDE - 1
        chip = np.array([[0, 0], [end, 0], [end, end]], np.float64)
        found = np.linalg.solve(np.column_stack([seen, np.ones(3)]), chip).T
        return np.asarray(found, np.float32)

    def _found(self, crop: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Any, int, int]:
        """The enlarged crop with its border, dlib's landmarks in it, the side of the crop in it and its border's width, px."""
        import cv2

        side = max(crop.shape[0], _LEAST_SIDE)
        pad = int(side * _BORDER)
        large = cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC)
        image = np.asarray(cv2.copyMakeBorder(large, *(pad,) * 4, cv2.BORDER_REPLICATE), np.uint8)
        return (
            image,
            self._landmarks(image, self._dlib.rectangle(pad, pad, pad + side, pad + side)),
            side,
            pad,
        )


class FaceTeacher:
    """dlib's face network: crops, uint8 RGB (S, S, 3) -> float32 (n, 128), as dlib gives them (not unit vectors).

    Chips are dlib's own; the network runs in torch, which gives dlib's embeddings to 1e-6 in a tenth of the time on a CPU, so
    that embeddings that dlib itself made earlier stay valid.
    """

    name = "dlib_face_recognition_resnet_model_v1"
    dimensions = 128

    def __init__(self) -> None:
        self._chips, self._torch = DlibChips(), require("torch")
        from .dlib_network import DlibFaceNetwork

        self._network = DlibFaceNetwork.load()

    def embed(self, captures: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        if not captures:
            return np.zeros((0, self.dimensions), np.float32)
        chips = np.stack([self._chips.cut(crop) for crop in captures])
        with self._torch.no_grad():
            rows: NDArray[np.float32] = self._network(self._torch.from_numpy(chips)).numpy()
        return rows


class VoiceTeacher:
    """resemblyzer's encoder: int16 PCM at 16 kHz, 1.6 s each (`views.WINDOW`) -> float32 (n, 256), unit vectors.

    Its features are 40 mel bands of power, without a logarithm, of speech brought to -30 dBFS.
    """

    name = "resemblyzer"
    dimensions = 256

    def __init__(self) -> None:
        torch, resemblyzer = require("torch"), require("resemblyzer")
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
    return wave * np.float32(LEVEL / level)


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
        hint="pip install dlib face_recognition_models 'setuptools<81' librosa webrtcvad-wheels"
        " && pip install --no-deps resemblyzer",
    )


def require(module: str) -> Any:
    """A teacher's module, imported. Raises EnvironmentFault where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one of them imports the outdated pkg_resources
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing(error.name or module) from error
