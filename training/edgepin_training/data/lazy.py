"""A corpus whose captures stay on disk: `Corpus` as the trainer takes it, of an index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._capture.crop import FaceSpec
from edgepin._errors import CaptureError, IntegrityError, UsageError

from ..corpus import Corpus, Modality
from .index import Index, Recording
from .media import decode_face, decode_voice
from .splits import SPLITS


class Captures(Sequence):
    """Captures of one modality, decoded when they are asked for. An item is an array as in `Modality.items`.

    Reading raises IntegrityError if the file is not the one that was indexed, and CaptureError if it cannot be decoded,
    with the file's name.
    """

    def __init__(
        self,
        root: str,
        modality: str,
        paths: NDArray[np.bytes_],
        sizes: NDArray[np.int64],
        mtimes_ns: NDArray[np.int64],
        details: NDArray[Any],
        spec: FaceSpec,
    ) -> None:
        # Arrays, not objects: there may be a million, and each worker gets a copy.
        self._columns = paths, sizes, mtimes_ns, details
        self._root, self._modality, self._spec = root, modality, spec

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> NDArray[np.generic]:
        path = os.path.join(self._root, os.fsdecode(bytes(self._columns[0][index])))
        data = self.read(index)
        detail = self._columns[3][index]
        try:
            if self._modality == "voice":
                return decode_voice(data)[0]
            eyes = None if np.isnan(detail[0]) else tuple(map(float, detail))
            return decode_face(data, self._spec, eyes)
        except CaptureError as error:
            raise CaptureError(f"{path}: {error}", code=error.code, hint=error.hint) from error

    def read(self, index: int) -> bytes:
        """The bytes of the file, which is the one that was indexed."""
        paths, sizes, mtimes_ns, _ = self._columns
        path = os.path.join(self._root, os.fsdecode(bytes(paths[index])))
        return read_capture(path, int(sizes[index]), int(mtimes_ns[index]))

    def take(self, indices: Sequence[int]) -> Captures:
        """These captures only."""
        columns = tuple(column[np.asarray(indices, np.int64)] for column in self._columns)
        return Captures(self._root, self._modality, *columns, self._spec)

    @property
    def lengths(self) -> list[int]:
        """Of voices: samples at 16 kHz, without decoding one."""
        return [int(samples) for samples in self._columns[3]]


def read_capture(path: str, size: int, mtime_ns: int) -> bytes:
    """The bytes of a file, which must be the one that was indexed. Raises IntegrityError otherwise."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
                raise IntegrityError(
                    f"{path} was changed since it was indexed", hint="run edgepin index again"
                )
            return file.read()
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be read: {error.strerror}", hint="restore it, or run edgepin index again"
        ) from error


def open_corpus(index: Index, spec: FaceSpec, *, split: str | None = None) -> Corpus:
    """The corpus of an index, or of one of its splits (`SPLITS`), in the order in which folders would be read.

    Nothing is decoded. Raises UsageError if the index has no such split, or fewer than two people of either modality.
    """
    chosen = of_split(index, split)
    faces = _modality(index, chosen, "face", spec)
    voices = _modality(index, chosen, "voice", spec)
    known = set(faces.names)
    pairs = {who: index.speakers[who] for who in voices.names if index.speakers.get(who) in known}
    return Corpus(faces, voices, pairs, sources=sources_of(index, split))


def of_split(index: Index, split: str | None) -> list[Recording]:
    """The recordings of a split; without one, all."""
    if split is not None and split not in SPLITS:
        raise UsageError(f"the split must be one of {', '.join(SPLITS)}, not {split!r}")
    if split is not None and not index.has_splits:
        raise UsageError(
            "this index has no splits",
            hint="give edgepin index the folder of the official lists with --splits",
        )
    return [row for row in index.recordings if split is None or row.split == split]


def sources_of(index: Index, split: str | None) -> dict[str, Any]:
    """Where the captures came from, for the run's record: the first folder of people of each modality."""
    return {
        "faces": os.path.join(index.root, *index.places["face"][:1]),
        "voices": os.path.join(index.root, *index.places["voice"][:1]),
        "face_cropped": index.face_cropped,
        "layout": index.layout,
        "split": split,
    }


def _modality(index: Index, recordings: Iterable[Recording], modality: str, spec: FaceSpec) -> Modality:
    rows = sorted(
        (
            (row.person, f"{row.folder}/{name}", row.track, size, mtime, detail)
            for row in recordings
            if row.modality == modality
            for name, size, mtime, detail in zip(
                row.names, row.sizes, row.mtimes_ns, row.details, strict=True
            )
        ),
        key=lambda row: (row[0], row[1].split("/")),
    )
    names = tuple(sorted({row[0] for row in rows}))
    if len(names) < 2:
        raise UsageError(f"{modality}s of at least two people are needed, the index has {len(names)}")
    number = {name: label for label, name in enumerate(names)}
    eyes = [(np.nan,) * 4 if row[5] is None else row[5] for row in rows] if modality == "face" else []
    captures = Captures(
        index.root,
        modality,
        np.array([os.fsencode(row[1]) for row in rows]),
        np.array([row[3] for row in rows], np.int64),
        np.array([row[4] for row in rows], np.int64),
        np.array(eyes, np.float64) if modality == "face" else np.array([row[5] for row in rows], np.int64),
        spec,
    )
    labels = np.array([number[row[0]] for row in rows], np.int64)
    refused = {
        code: count
        for code, paths in index.report.get("broken", {}).items()
        if (count := sum(_in(path, index.places[modality]) for path in paths["paths"]))
    }
    return Modality(names, labels, captures, refused, tuple(row[2] for row in rows))


def _in(path: str, places: list[str]) -> bool:
    return any(path.startswith(f"{place}/") for place in places)
