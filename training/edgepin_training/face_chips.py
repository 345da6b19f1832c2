"""Where a teacher's chip lies in a crop, for many crops in one file, so that new faces can be made without dlib.

`DlibChips` finds five landmarks in a crop and cuts an upright face by them: an affine map, found once for each crop. The
file of crops and maps is all that a machine with a GPU needs to make chips of new faces.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._errors import IntegrityError
from edgepin._safe_files import write_atomic

from .teachers import Progress

Finder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Crop (S, S, 3) -> the map (2, 3) to its chip: `DlibChips.map`."""


@dataclass(frozen=True)
class FaceChips:
    """Crops (n, S, S, 3) uint8; people (n,) int64, -1 for an unknown one; maps (n, 2, 3) float32.

    A map takes (x, y, 1) in pixels of the crop to (x, y) in pixels of its chip; the first pixel's center is (0, 0).
    """

    crops: NDArray[np.uint8]
    labels: NDArray[np.int64]
    maps: NDArray[np.float32]

    def __post_init__(self) -> None:
        count, side = len(self.labels), self.crops.shape[1]
        if self.crops.dtype != np.uint8 or self.crops.shape != (count, side, side, 3):
            raise IntegrityError(
                f"crops of {count} people are uint8 (n, S, S, 3), not {self.crops.dtype} {self.crops.shape}"
            )
        if self.maps.shape != (count, 2, 3) or not np.isfinite(self.maps).all():
            raise IntegrityError(f"maps of {count} crops are finite and (n, 2, 3), not {self.maps.shape}")


def load_or_make(
    path: Path,
    crops: Sequence[NDArray[Any]],
    labels: NDArray[np.int64],
    *,
    files: Iterable[Path] = (),
    finder: Callable[[], Finder],
    progress: Progress | None = None,
) -> FaceChips:
    """The chips of these crops, from `path` (`.npz`) if it has them, else found and kept there.

    Where a crop is what one of `files` shows, the file's own bytes are kept: a JPEG is a third of the size. `finder` is
    called only to find.

    Raises:
        IntegrityError: `path` is damaged or holds other crops or people.
        EnvironmentFault: the maps have to be found and what `finder` needs is not installed.
    """
    stacked = np.stack([np.asarray(crop, np.uint8) for crop in crops])
    labels = np.asarray(labels, np.int64)
    if path.exists():
        kept = read_chips(path)
        if not (np.array_equal(kept.crops, stacked) and np.array_equal(kept.labels, labels)):
            raise IntegrityError(f"{path} holds the chips of other crops", hint="choose another folder")
        return kept
    find = finder()
    maps = np.zeros((len(stacked), 2, 3), np.float32)
    for index, crop in enumerate(stacked):
        maps[index] = find(crop)
        if progress and (index + 1) % 50 == 0:
            progress("finding chips", index + 1, len(stacked))
    made = FaceChips(stacked, labels, maps)
    write_chips(path, made, files)
    return made


def write_chips(path: Path, chips: FaceChips, files: Iterable[Path] = ()) -> None:
    """Packs the crops without loss into an `.npz`; see `load_or_make` for `files`."""
    originals = _originals(files)
    pieces = [originals.get(crop.tobytes()) or _lossless(crop) for crop in chips.crops]
    file = io.BytesIO()
    np.savez(
        file,
        data=np.frombuffer(b"".join(pieces), np.uint8),
        sizes=np.array([len(piece) for piece in pieces], np.int64),
        labels=chips.labels,
        maps=chips.maps,
        digest=_digest(chips),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [file.getbuffer()])


def read_chips(path: Path) -> FaceChips:
    """What `write_chips` wrote.

    Raises:
        IntegrityError: the file is damaged, or is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data, sizes = file["data"].tobytes(), file["sizes"]
            labels, maps, digest = file["labels"], file["maps"], file["digest"]
        ends = np.cumsum(sizes)
        if len(sizes) == 0 or (sizes <= 0).any() or ends[-1] != len(data):
            raise IntegrityError(f"{path} is damaged: its crops do not fill it")
        pieces = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        chips = FaceChips(np.stack([_decode(piece) for piece in pieces]), labels, maps)
    except (KeyError, OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{path} is damaged: {error}") from error
    if not np.array_equal(digest, _digest(chips)):
        raise IntegrityError(f"{path} is damaged, or its pictures decode to others here")
    return chips


def _originals(files: Iterable[Path]) -> dict[bytes, bytes]:
    """Pixels -> the bytes of the file that shows them."""
    found = {}
    for file in files:
        data = file.read_bytes()
        with suppress(ValueError):  # no picture, so no crop was taken from it
            found[_decode(data).tobytes()] = data
    return found


def _decode(data: bytes) -> NDArray[np.uint8]:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError("a picture cannot be decoded")
    return np.ascontiguousarray(image[:, :, ::-1], np.uint8)


def _lossless(crop: NDArray[np.uint8]) -> bytes:
    import cv2

    beyond = 101  # a quality above 100 is without loss
    _, data = cv2.imencode(".webp", crop[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, beyond])
    return data.tobytes()


def _digest(chips: FaceChips) -> NDArray[np.uint8]:
    """Of everything that a file of chips says: uint8 (32,)."""
    digest = hashlib.sha256()
    for values in (chips.crops, chips.labels.astype("<i8"), chips.maps.astype("<f4")):
        digest.update(f"{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return np.frombuffer(digest.digest(), np.uint8)
