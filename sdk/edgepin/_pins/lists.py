"""The official lists on VoxCeleb1: verification pairs, matching rows, and who the people are.

Every error names the file and the line.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .._errors import UsageError

STRATA = ("random", "G", "N", "A", "GNA")
SETS = ("seenheard", "unseenunheard")
_HEADER = "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"
_META_COLUMNS = ("VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality")
_PAIRS = re.compile(rf"veriflist_test_({'|'.join(STRATA)})_({'|'.join(SETS)})\.txt")
_MATCHING = re.compile(r"matching_(f2v|v2f)_(\w+)\.csv")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a voice and a face: n names each, n people of each (as the list numbers them), and bool labels."""

    path: Path
    voices: tuple[str, ...]
    faces: tuple[str, ...]
    voice_people: tuple[str, ...]
    face_people: tuple[str, ...]
    labels: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """Rows of a probe, and the right and a wrong answer in the other modality; `probe` is "face" or "voice"."""

    path: Path
    probe: str
    probes: tuple[str, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Person:
    """What `vox1_meta.csv` says of a person."""

    id: str
    name: str
    gender: str
    nationality: str


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """What a folder holds: pairs by (stratum, set), matching by (direction, set), people by id and by name."""

    pairs: dict[tuple[str, str], Pairs]
    matching: dict[tuple[str, str], Matching]
    people: dict[str, Person]


def read_lists(folder: Path) -> Lists:
    """Reads all lists that are in the folder. Raises UsageError where there is none, or for one that is damaged."""
    if not os.path.isdir(folder):
        raise UsageError(f"{folder} is not a folder")
    pairs: dict[tuple[str, str], Pairs] = {}
    matching: dict[tuple[str, str], Matching] = {}
    for path in sorted(folder.iterdir()):
        if found := _PAIRS.fullmatch(path.name):
            pairs[found[1], found[2]] = read_pairs(path)
        elif found := _MATCHING.fullmatch(path.name):
            matching[found[1], found[2]] = read_matching(path, "face" if found[1] == "f2v" else "voice")
    if not pairs and not matching:
        raise UsageError(
            f"{folder} holds none of the lists",
            hint="they are called veriflist_test_random_unseenunheard.txt, matching_f2v_U.csv and so on",
        )
    meta = folder / "vox1_meta.csv"
    return Lists(pairs, matching, read_people(meta) if meta.exists() else {})


def read_pairs(path: Path) -> Pairs:
    """Rows `id,voice-speaker-id,face-speaker-id,label,voice-path,face-path` under that header."""
    rows: list[list[str]] = []
    header = True
    for number, line in _lines(path):
        if header:
            header = False
            if line.replace(" ", "") != _HEADER:
                raise _wrong(path, number, f"the header must be {_HEADER}", line)
            continue
        fields = line.split(",")
        if len(fields) != 6 or not all(fields):
            raise _wrong(path, number, "six values between commas are needed", line)
        if fields[3] not in ("0", "1"):
            raise _wrong(path, number, "the label must be 0 or 1", line)
        if (fields[1] == fields[2]) != (fields[3] == "1"):
            raise _wrong(path, number, "the label contradicts the two people", line)
        rows.append(fields)
    if not rows:
        raise UsageError(f"{path} holds no pairs")
    _, voice_people, face_people, labels, voices, faces = zip(*rows, strict=True)
    return Pairs(path, voices, faces, voice_people, face_people, np.array(labels) == "1")


def read_matching(path: Path, probe: str) -> Matching:
    """Rows of three paths with spaces between: the probe, the right answer, the wrong one."""
    rows = []
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 3:
            raise _wrong(path, number, "three paths are needed: probe, right and wrong answer", line)
        if fields[1] == fields[2]:
            raise _wrong(path, number, "the right and the wrong answer are the same", line)
        rows.append(fields)
    if not rows:
        raise UsageError(f"{path} holds no rows")
    probes, right, wrong = zip(*rows, strict=True)
    return Matching(path, probe, probes, right, wrong)


def read_people(path: Path) -> dict[str, Person]:
    """VoxCeleb1's metadata, tab-separated: each person under the VoxCeleb id and under the VGGFace name."""
    people: dict[str, Person] = {}
    columns: list[int] = []
    for number, line in _lines(path):
        fields = line.split("\t")
        if not columns:
            if not set(_META_COLUMNS) <= set(fields):
                raise _wrong(path, number, f"the columns {', '.join(_META_COLUMNS)} are needed", line)
            columns = [fields.index(name) for name in _META_COLUMNS]
            continue
        if len(fields) <= max(columns):
            raise _wrong(path, number, "values are missing", line)
        person = Person(*(fields[column] for column in columns))
        for key in (person.id, person.name):
            if key in people:
                raise _wrong(path, number, f"{key} came before", line)
            people[key] = person
    return people


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines with their numbers, from 1."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}, line {data.count(10, 0, error.start) + 1}: not UTF-8 text") from error
    # Not splitlines(): it also breaks at characters that a file's name may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _wrong(path: Path, number: int, what: str, line: str) -> UsageError:
    shown = line if len(line) <= 80 else line[:80] + "…"
    return UsageError(f"{path}, line {number}: {what}; found {shown!r}")
