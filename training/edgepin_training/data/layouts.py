"""Where a data set keeps its captures: plain folders, VoxCeleb1 and VoxCeleb2.

    folders     faces/<person>/…/*.jpg                            voices/<speaker>/…/*.wav
    voxceleb1   unzippedFaces/<Name or id>/[<detector>/]<video>/*.jpg   wav/<id>/<video>/*.wav
    voxceleb2   the same faces                                    dev/aac/<id>/<video>/*.m4a, or wav

A folder of captures is one recording (VoxCeleb's video): its name, the track, holds a face and a voice together
without a label of who it is.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import UsageError
from edgepin._safe_text import unsafe_character

LAYOUTS = ("folders", "voxceleb1", "voxceleb2")
SUFFIXES = {"face": IMAGE_SUFFIXES, "voice": SOUND_SUFFIXES | {".m4a"}}
META = "vox1_meta.csv"

_VOXCELEB_ID = re.compile(r"id(\d{5})")
_FIRST_OF_VOXCELEB1 = 10001
_VOICE_PLACES = (
    "wav",
    "aac",
    "dev/wav",
    "test/wav",
    "dev/aac",
    "test/aac",
    "vox1_dev_wav/wav",
    "vox1_test_wav/wav",
)
_FACE_PLACES = ("unzippedFaces", "faces", "VGGFace/unzippedFaces", "dev/faces", "test/faces")


@dataclass(frozen=True)
class Layout:
    """A data set's kind, and the folders in it whose sub-folders are people."""

    name: str
    root: Path
    faces: tuple[Path, ...]
    voices: tuple[Path, ...]

    def places(self) -> Iterator[tuple[str, Path]]:
        for modality, places in (("face", self.faces), ("voice", self.voices)):
            for place in places:
                yield modality, place


@dataclass(frozen=True)
class Folder:
    """The captures of one modality in one folder. `path` is under the root, `track` empty for the person's own folder."""

    modality: str
    person: str
    track: str
    path: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What is in a layout, nothing opened yet.

    `folders` gives the time of the last change of every folder that was looked into; `broken` are (path, code) of what
    cannot be part of the data set; `ignored` counts files by suffix that are no captures.
    """

    found: list[Folder] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def find_layout(root: Path, name: str = "auto", *, faces: Path | None = None) -> Layout:
    """The layout of `root`: the named one, or what its folders look like; `faces` lie there instead, under `root` too.

    Raises UsageError if it is none.
    """
    if not root.is_dir():
        raise UsageError(f"no such folder: {root}")
    root = root.resolve()
    voices = tuple(root / place for place in _VOICE_PLACES if (root / place).is_dir())
    if name == "auto":
        name = _looks_like(root, voices)
    if name not in LAYOUTS:
        raise UsageError(f"the layout must be auto or one of {', '.join(LAYOUTS)}, not {name!r}")
    if name == "folders":
        voices = (root / "voices",) if (root / "voices").is_dir() else ()
        places: tuple[Path, ...] = (root / "faces",) if (root / "faces").is_dir() else ()
    else:
        places = tuple(root / place for place in _FACE_PLACES if (root / place).is_dir())
    if faces is not None:
        places = (faces.resolve(),)
        if not places[0].is_dir() or not places[0].is_relative_to(root):
            raise UsageError(f"the faces {faces} are no folder under {root}", hint="link them into it")
    if not voices and not places:
        expected = (
            "faces/ or voices/"
            if name == "folders"
            else f"{', '.join(_VOICE_PLACES[:4])} or {_FACE_PLACES[0]}"
        )
        raise UsageError(f"{root} does not look like {name}", hint=f"expected {expected} in it")
    return Layout(name, root, places, voices)


def list_layout(layout: Layout) -> Listing:
    """Every folder with captures, people and files by name. Links are followed, each folder is entered once."""
    listing = Listing()
    for modality, place in layout.places():
        entered: set[tuple[int, int]] = set()
        for person in _subfolders(layout, place, listing, entered, None):
            if modality == "voice" and layout.name != "folders" and not _VOXCELEB_ID.fullmatch(person.name):
                listing.broken.append((_under(layout, person), "not_an_id"))
                continue
            _walk(layout, modality, person.name, person, "", listing, entered)
    if not listing.found:
        raise UsageError(
            f"no captures under {layout.root}",
            hint="looked in " + ", ".join(_under(layout, place) for _, place in layout.places()),
        )
    return listing


def speakers_of(layout: Layout, listing: Listing, ids: Mapping[str, str]) -> dict[str, str]:
    """Speaker -> the person whose faces are theirs: by equal names, or in VoxCeleb by `ids` (name -> id).

    Raises UsageError where VoxCeleb's faces are named and no name is known.
    """
    faces = {folder.person for folder in listing.found if folder.modality == "face"}
    voices = {folder.person for folder in listing.found if folder.modality == "voice"}
    if layout.name == "folders":
        return {name: name for name in sorted(faces & voices)}
    named = sorted(face for face in faces if not _VOXCELEB_ID.fullmatch(face))
    if named and not ids:
        raise UsageError(
            f"the faces are by name ({named[0]}), and nothing says which ids those are",
            hint=f"give VoxCeleb's {META} with --meta",
        )
    known = {ids.get(face, face): face for face in sorted(faces)}
    return {speaker: known[speaker] for speaker in sorted(voices & known.keys())}


def _looks_like(root: Path, voices: tuple[Path, ...]) -> str:
    if (root / "faces").is_dir() and (root / "voices").is_dir():
        return "folders"
    for place in voices:
        for child in sorted(place.iterdir()):
            if found := _VOXCELEB_ID.fullmatch(child.name):
                return "voxceleb1" if int(found[1]) >= _FIRST_OF_VOXCELEB1 else "voxceleb2"
    raise UsageError(
        f"{root} has no layout that is known",
        hint="expected faces/<person> and voices/<person>, or wav/<id10001>/<video>; or name one with --layout",
    )


def _walk(
    layout: Layout,
    modality: str,
    person: str,
    folder: Path,
    track: str,
    listing: Listing,
    entered: set[tuple[int, int]],
) -> None:
    names: list[str] = []
    for child in _subfolders(layout, folder, listing, entered, (modality, names)):
        _walk(layout, modality, person, child, child.name, listing, entered)
    if names:
        listing.found.append(Folder(modality, person, track, _under(layout, folder), tuple(names)))


def _subfolders(
    layout: Layout,
    folder: Path,
    listing: Listing,
    entered: set[tuple[int, int]],
    captures: tuple[str, list[str]] | None,
) -> list[Path]:
    """The folders in `folder`, by name; its captures are added to `captures` on the way."""
    path = _under(layout, folder)
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in entered:
            return []  # a link back: everything in it is listed already
        entered.add((status.st_dev, status.st_ino))
        listing.folders[path] = status.st_mtime_ns
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        listing.broken.append((path, "unreadable"))
        return []
    folders = []
    for child in children:
        suffix = os.path.splitext(child.name)[1].lower()
        if unsafe_character(child.name) or "\n" in child.name or "\t" in child.name:
            listing.broken.append((ascii(f"{path}/{child.name}")[1:-1], "unsafe_name"))
        elif child.is_dir():
            folders.append(folder / child.name)
        elif captures is not None and suffix in SUFFIXES[captures[0]]:
            captures[1].append(child.name)
        else:
            listing.ignored[suffix] += 1
    return folders


def _under(layout: Layout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()
