"""Verification trials: the list files, and the paths that they name.

A trial list has one trial per line, `label enroll test`: label 1 or `target` for the same person, 0 or
`nontarget` for different people, and two paths relative to a root folder whose first part is the person
(`speaker/clip.flac`). Names with spaces need tabs between the three fields. Empty lines are skipped.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from .._errors import UsageError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg"})

_LABELS = {"1": True, "target": True, "0": False, "nontarget": False}
_CHIMERA_HEADER = ["speaker", "sex", "face"]

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Trials:
    """A list of n trials over m captures.

    labels: bool (n,), true for the same person. names: the m distinct captures, in order of appearance.
    enroll_index, test_index: int64 (n,), into names.
    """

    labels: Bools
    names: tuple[str, ...]
    enroll_index: Indices
    test_index: Indices

    @property
    def enroll(self) -> list[str]:
        """The enrolled capture of each trial."""
        return [self.names[i] for i in self.enroll_index.tolist()]

    @property
    def test(self) -> list[str]:
        """The capture that each trial verifies."""
        return [self.names[i] for i in self.test_index.tolist()]

    @classmethod
    def of(cls, labels: Sequence[bool] | Bools, enroll: Sequence[str], test: Sequence[str]) -> Trials:
        """Trials from three sequences of one length; UsageError where the lengths differ."""
        if not len(labels) == len(enroll) == len(test):
            raise UsageError(
                f"{len(labels)} labels, {len(enroll)} enrolled and {len(test)} test names are no trials"
            )
        index: dict[str, int] = {}
        first = [index.setdefault(name, len(index)) for name in enroll]
        second = [index.setdefault(name, len(index)) for name in test]
        return cls(
            np.asarray(labels, np.bool_), tuple(index), np.array(first, np.int64), np.array(second, np.int64)
        )


@dataclasses.dataclass(frozen=True)
class Chimera:
    """A person put together from one person's voice and another's face, of the same sex."""

    speaker: str
    sex: str
    face: str


def subject_of(name: str) -> str:
    """Whose capture it is: the first folder of a name relative to its root."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2:
        raise UsageError(
            f"{name!r} is not in a folder of a person", hint="names are person/file, relative to the root"
        )
    return parts[0]


def first_few(names: Iterable[str], limit: int = 5) -> str:
    """Names for a message: the first of them, quoted, and how many more there are."""
    listed = list(names)
    shown = ", ".join(repr(name if len(name) <= 200 else name[:200] + "…") for name in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"


def read_trials(path: Path) -> Trials:
    """Reads a trial list. Raises UsageError, with the line's number, for what is not one."""
    labels: list[bool] = []
    enroll: list[str] = []
    test: list[str] = []
    for number, line in _lines(path, "trial list"):
        fields = line.split("\t") if "\t" in line else line.split()
        label = _LABELS.get(fields[0])
        if len(fields) != 3 or label is None or not fields[1] or not fields[2]:
            raise UsageError(
                f"{path}, line {number}: expected `label enroll test`, found {_shortened(line)!r}",
                hint="the label, first, is 1, 0, target or nontarget; names with spaces need tabs between",
            )
        labels.append(label)
        enroll.append(fields[1])
        test.append(fields[2])
    if not labels:
        raise UsageError(f"{path} holds no trials", hint="one trial per line: label enroll test")
    return Trials.of(labels, enroll, test)


def read_chimeras(path: Path) -> dict[str, Chimera]:
    """Reads `speaker<TAB>sex<TAB>face` lines, with or without that header, as a mapping from the speaker.

    Raises UsageError, with the line's number, for another form, for a name that is not a plain folder name,
    and for a speaker or a face that comes twice: two people with one face would make impostors genuine.
    """
    chimeras: dict[str, Chimera] = {}
    faces: set[str] = set()
    for number, line in _lines(path, "list of chimeras"):
        fields = [field.strip() for field in line.split("\t")]
        if number == 1 and fields == _CHIMERA_HEADER:
            continue
        if len(fields) != 3 or not all(fields):
            raise UsageError(
                f"{path}, line {number}: expected `speaker sex face` between tabs, found {_shortened(line)!r}"
            )
        chimera = Chimera(*fields)
        for name in (chimera.speaker, chimera.face):
            if name in (".", "..") or "/" in name or "\0" in name:
                raise UsageError(f"{path}, line {number}: {_shortened(name)!r} is not the name of a folder")
        if chimera.speaker in chimeras or chimera.face in faces:
            raise UsageError(f"{path}, line {number}: {_shortened(line)!r} has a name that came before")
        chimeras[chimera.speaker] = chimera
        faces.add(chimera.face)
    if not chimeras:
        raise UsageError(f"{path} holds no chimeras", hint="one per line: speaker, sex and face between tabs")
    return chimeras


def read_table(path: Path, what: str) -> Iterable[tuple[int, list[str]]]:
    """The fields between tabs of each line that is not empty, stripped, with the line's number from 1.

    Raises UsageError for a file that cannot be read or is not UTF-8 text; `what` is what it should be.
    """
    for number, line in _lines(path, what):
        yield number, [field.strip() for field in line.split("\t")]


def paths_under(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """The file of each name under the root folder.

    Raises UsageError, naming the first few, for names that could lead out of the root (absolute, or with
    `..`) and for files that are not there. Symbolic links inside the root are followed: they are its
    owner's.
    """
    require_folder(root)
    listed = list(names)
    require_inside(root, listed)
    paths = {name: root / name for name in listed}
    missing = [name for name, path in paths.items() if not os.path.isfile(path)]  # a name may be too long
    if missing:
        raise UsageError(
            f"not found under {root}: {first_few(missing)}", hint="is this the right root folder?"
        )
    return paths


def list_captures(root: Path, subject: str, suffixes: frozenset[str]) -> tuple[str, ...]:
    """The sorted names, relative to root, of the files under root/subject with these suffixes.

    Hidden files are left out. UsageError where there is no such folder.
    """
    folder = root / subject
    if not os.path.isdir(folder):
        raise UsageError(f"{root} has no folder {subject!r}")
    found = (path.relative_to(root) for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return tuple(
        sorted(name.as_posix() for name in found if not any(part.startswith(".") for part in name.parts))
    )


def require_inside(root: Path, names: Iterable[str]) -> None:
    """UsageError where a name could lead out of the root: absolute, with `..`, empty, or with a NUL."""
    escaping = [name for name in names if not _is_inside(name)]
    if escaping:
        raise UsageError(
            f"not inside {root}: {first_few(escaping)}", hint="names must be relative, without `..`"
        )


def require_folder(root: Path) -> None:
    """UsageError where there is no such folder."""
    if not os.path.isdir(root):
        raise UsageError(f"{root} is not a folder")


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _shortened(line: str) -> str:
    return line if len(line) <= 80 else line[:80] + "…"


def _lines(path: Path, what: str) -> Iterable[tuple[int, str]]:
    """Non-empty lines with their numbers, from 1."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the {what} {path}: {error}") from error
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {number}: not UTF-8 text", hint=f"is this a {what}?") from error
    # Not splitlines(): it also breaks at characters that a file's name may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip("\r ")
        if stripped.strip():
            yield number, stripped
