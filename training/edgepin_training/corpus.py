"""Folder corpora: `faces/<person>/*.jpg` and `voices/<speaker>/**/*.flac|wav|ogg`, read with the device's own code.

Faces become crops by the device's finder and geometry, voices become trimmed int16 at 16 kHz by the device's decoder,
so what is trained on is what is verified. A capture that cannot be decoded, or shows no face, is left out and counted.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._capture.audio import load_voice
from edgepin._capture.faces import FaceSpec, HaarFinder, find_and_align, resize_crop
from edgepin._capture.image import decode_image
from edgepin._errors import CaptureError, UsageError

MIN_HELD_OUT = 10
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Modality:
    """Captures of one modality: `items[i]` belongs to `names[labels[i]]`."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    # Crops (S, S, 3) uint8, or PCM (samples,) int16. In memory a list; what stays on disk has `take` and, of voices, `lengths`.
    items: Sequence[NDArray[np.generic]]
    refused: dict[str, int]  # verdict -> how many captures
    # By item, the recording that it is from; empty where captures lie in their person's folder itself.
    tracks: tuple[str, ...] = ()

    def of(self) -> dict[str, list[int]]:
        """Person -> indices of their captures."""
        found: dict[str, list[int]] = {name: [] for name in self.names}
        for index, label in enumerate(self.labels):
            found[self.names[label]].append(index)
        return found


@dataclass(frozen=True)
class Corpus:
    """Faces, voices, and who is who: `pairs` maps a speaker to the person whose face is theirs.

    `others` are further modalities by name, whose people are named as the faces' are; their items are arrays of one shape.

    `held_out` are pairs whose captures are not among the faces and voices, kept for calibration.
    `sources` says where all of them were read from.
    """

    faces: Modality
    voices: Modality
    pairs: dict[str, str]
    held_out: dict[str, str] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Modality] = field(default_factory=dict)


def list_captures(root: Path, suffixes: frozenset[str]) -> dict[str, list[Path]]:
    """Person -> files under `root/<person>/`, both sorted by name. An empty or missing root is a UsageError."""
    if not root.is_dir():
        raise UsageError(f"no such folder: {root}")
    people = {
        folder.name: sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }
    people = {name: files for name, files in people.items() if files}
    if not people:
        raise UsageError(
            f"no captures under {root}",
            hint=f"expected {root}/<person>/…, files ending in {', '.join(sorted(suffixes))}",
        )
    return people


def one_each(people: dict[str, list[Path]], count: int, seed: int) -> dict[str, list[Path]]:
    """One capture each of up to `count` people, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(sorted(people))[:count]
    return {str(name): [people[name][int(rng.integers(len(people[name])))]] for name in chosen}


def load_faces(
    people: dict[str, list[Path]], spec: FaceSpec, *, cropped: bool, progress: Progress | None = None
) -> Modality:
    """Crops of images, as `list_captures` lists them. `cropped` says that the images are crops already."""
    finder = HaarFinder()

    def load(path: Path) -> NDArray[np.uint8]:
        image = decode_image(path)
        return resize_crop(image, spec) if cropped else find_and_align(image, finder, spec)

    return _load("faces", people, load, progress)


def load_voices(people: dict[str, list[Path]], *, progress: Progress | None = None) -> Modality:
    """Trimmed int16 PCM at 16 kHz of sounds, as `list_captures` lists them."""
    return _load("voices", people, load_voice, progress)


def read_pairs(path: Path) -> dict[str, str]:
    """A tab-separated file with the columns `speaker` and `face`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"the pairing file {path} cannot be read: {error}") from error
    if not rows or not {"speaker", "face"} <= set(rows[0]):
        raise UsageError(f"the pairing file {path} has no columns `speaker` and `face`")
    return {row["speaker"]: row["face"] for row in rows}


def match_people(speakers: Iterable[str], people: set[str], wanted: dict[str, str] | None) -> dict[str, str]:
    """Speaker -> face, where both are there: as `wanted` says, else by equal names."""
    return {
        speaker: face
        for speaker in speakers
        if (face := (speaker if wanted is None else wanted.get(speaker, ""))) in people
    }


def _load(
    what: str,
    people: dict[str, list[Path]],
    load: Callable[[Path], NDArray[np.generic]],
    progress: Progress | None,
) -> Modality:
    jobs = [(name, path) for name, paths in people.items() for path in paths]
    items: list[NDArray[np.generic]] = []
    owners: list[str] = []
    tracks: list[str] = []
    refused: Counter[str] = Counter()

    def attempt(job: tuple[str, Path]) -> NDArray[np.generic] | str:
        try:
            return load(job[1])
        except CaptureError as error:
            return error.code

    with ThreadPoolExecutor() as pool:  # the decoders and the finder release the interpreter's lock
        for done, ((name, path), result) in enumerate(
            zip(jobs, pool.map(attempt, jobs), strict=True), start=1
        ):
            if isinstance(result, str):
                refused[result] += 1
            else:
                items.append(result)
                owners.append(name)
                tracks.append("" if path.parent.name == name else path.parent.name)
            if progress:
                progress(what, done, len(jobs))
    names = tuple(sorted(set(owners)))
    if len(names) < 2:
        raise UsageError(
            f"{what} of at least two people are needed, {len(names)} found usable",
            hint=f"refused: {dict(refused)}",
        )
    index = {name: number for number, name in enumerate(names)}
    labels = np.array([index[name] for name in owners], np.int64)
    return Modality(names, labels, items, dict(refused), tuple(tracks))


def hold_out(corpus: Corpus, share: float, seed: int) -> Corpus:
    """Sets `share` of the paired people aside, of those with two faces and two voices at least.

    Whose face is shared by several speakers is not: the others of them would stay in training.

    An encoder is overconfident of people that it was trained on, so a calibration needs others. Fewer than
    `MIN_HELD_OUT` are no calibration: then nobody is set aside.
    """
    faces, voices = corpus.faces.of(), corpus.voices.of()
    speakers = Counter(corpus.pairs.values())
    able = sorted(
        speaker
        for speaker, face in corpus.pairs.items()
        if len(voices[speaker]) > 1 and len(faces[face]) > 1 and speakers[face] == 1
    )
    count = round(share * len(able))
    if count < MIN_HELD_OUT:
        return corpus
    chosen = np.random.default_rng(seed).choice(len(able), count, replace=False)
    held_out = {able[index]: corpus.pairs[able[index]] for index in sorted(chosen.tolist())}
    return replace(
        corpus,
        faces=_without(corpus.faces, set(held_out.values())),
        voices=_without(corpus.voices, set(held_out)),
        pairs={speaker: face for speaker, face in corpus.pairs.items() if speaker not in held_out},
        held_out=held_out,
        others={name: _without(other, set(held_out.values())) for name, other in corpus.others.items()},
    )


def tracks_of(corpus: Corpus) -> list[tuple[str, list[int], list[int]]]:
    """The recordings in which a face and its voice were both captured: the face's name, face and voice indices.

    A recording is a sub-folder that both have, such as VoxCeleb's of a video; captures that lie in the person's own folder
    are one recording. No label of identity enters, but that a name holds a recording's two halves together.
    """
    faces, voices = corpus.faces.of(), corpus.voices.of()
    found = []
    for speaker, face in sorted(corpus.pairs.items()):
        seen, heard = _by_track(corpus.faces, faces[face]), _by_track(corpus.voices, voices[speaker])
        found += [(face, seen[track], heard[track]) for track in sorted(seen.keys() & heard.keys())]
    return found


def sound_lengths(items: Sequence[NDArray[np.generic]]) -> list[int]:
    """Samples of each voice, without decoding what stays on disk."""
    return list(map(len, items)) if isinstance(items, list) else items.lengths


class Mapped(Sequence):
    """`items`, each changed by `change` when it is asked for."""

    def __init__(self, items: Sequence[NDArray[Any]], change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._items, self._change = items, change

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self._change(self._items[index])


def _by_track(modality: Modality, indices: list[int]) -> dict[str, list[int]]:
    tracks: dict[str, list[int]] = {}
    for index in indices:
        tracks.setdefault(modality.tracks[index] if modality.tracks else "", []).append(index)
    return tracks


def _without(modality: Modality, people: set[str]) -> Modality:
    names = tuple(name for name in modality.names if name not in people)
    number = {name: index for index, name in enumerate(names)}
    kept = [i for i, label in enumerate(modality.labels) if modality.names[label] not in people]
    labels = np.array([number[modality.names[modality.labels[i]]] for i in kept], np.int64)
    tracks = tuple(modality.tracks[i] for i in kept) if modality.tracks else ()
    return Modality(names, labels, _take(modality.items, kept), modality.refused, tracks)


def _take(items: Sequence[NDArray[np.generic]], kept: list[int]) -> Sequence[NDArray[np.generic]]:
    return [items[i] for i in kept] if isinstance(items, list) else items.take(kept)
