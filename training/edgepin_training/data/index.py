"""The index: what of a data set can be used, kept so that training opens it without looking at a million files.

A text file of JSON lines (gzip if its name ends in .gz). The first says what it is an index of, and what the scan
reported; then one line for each recording and modality, and one with the time of the last change of every folder. A file
that was added, removed or renamed changes its folder's time, which is compared on opening; one that was rewritten is
noticed when it is read.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgepin._errors import IntegrityError, UsageError
from edgepin._safe_files import write_atomic

from .splits import SPLITS

FORMAT = "edgepin-index"
VERSION = 1
_MAX_LINE = 64 << 20


@dataclass(frozen=True)
class Recording:
    """Usable captures of one modality in one folder: row i is the file `names[i]`.

    `details` are, for a voice, its samples at 16 kHz after trimming; for a face the eyes (x, y, x, y) in px, or None
    where images are crops. `split` is one of `SPLITS`, or None.
    """

    modality: str
    person: str
    track: str
    folder: str
    split: str | None
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    mtimes_ns: tuple[int, ...]
    details: tuple[Any, ...]


@dataclass(frozen=True)
class Index:
    """`root` is the data set's folder, `places` its folders of people by modality (under the root), `speakers` says whose
    face is a speaker's, `folders` when each folder last changed, `report` what the scan found (`Report.to_json`).
    """

    root: str
    layout: str
    face_cropped: bool
    places: dict[str, list[str]]
    speakers: dict[str, str]
    recordings: tuple[Recording, ...]
    folders: dict[str, int]
    report: dict[str, Any]

    @property
    def has_splits(self) -> bool:
        return any(recording.split for recording in self.recordings)


def write_index(index: Index, path: Path) -> None:
    """Writes the file whole or not at all. Raises EnvironmentFault where it cannot be written."""
    write_atomic(path, _compressed(_lines(index)) if path.suffix == ".gz" else _lines(index))


def read_index(path: Path, *, check: bool = True) -> Index:
    """Opens an index; with `check`, compares its folders with those on disk.

    Raises UsageError if there is no such file, and IntegrityError if it is no whole index or is stale.
    """
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            lines = iter(lambda: file.readline(_MAX_LINE), b"")
            index = _read(path, lines)
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise IntegrityError(f"{path} is not an index: {error}") from error
        raise UsageError(f"the index {path} cannot be read: {error.strerror}") from error
    except (EOFError, zlib.error) as error:
        raise IntegrityError(f"the index {path} is cut short or damaged", hint=_again(path)) from error
    if check:
        _check_folders(index, path)
    return index


def _lines(index: Index) -> Iterator[bytes]:
    head = {
        "format": FORMAT,
        "version": VERSION,
        "root": index.root,
        "layout": index.layout,
        "face_cropped": index.face_cropped,
        "places": index.places,
        "speakers": index.speakers,
        "recordings": len(index.recordings),
        "report": index.report,
    }
    for value in (head, {"folders": index.folders}, *map(asdict, index.recordings)):
        yield (json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n").encode()


def _compressed(lines: Iterator[bytes]) -> Iterator[bytes]:
    # No time and no name in it: the same scan gives the same bytes.
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    for line in lines:
        yield packer.compress(line)
    yield packer.flush()


def _read(path: Path, lines: Iterator[bytes]) -> Index:
    head = _json(path, 1, next(lines, b""))
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise IntegrityError(f"{path} is not an index", hint="edgepin index DIR --out INDEX makes one")
    if head.get("version") != VERSION:
        raise IntegrityError(
            f"{path} is an index of version {ascii(head.get('version'))[:20]}, this reads {VERSION}",
            hint=_again(path),
        )
    second = _json(path, 2, next(lines, b""))
    folders = second.get("folders") if isinstance(second, dict) else None
    recordings = tuple(_recording(path, number, line) for number, line in enumerate(lines, start=3))
    good = (
        isinstance(head.get("root"), str)
        and isinstance(head.get("layout"), str)
        and isinstance(head.get("face_cropped"), bool)
        and _is_map(head.get("places"), list)
        and sorted(head["places"]) == ["face", "voice"]
        and all(_all_of(place, str) for place in head["places"].values())
        and _is_map(head.get("speakers"), str)
        and _is_report(head.get("report"))
        and _is_map(folders, int)
        and all(map(_is_under, folders))
    )
    if not good:
        raise IntegrityError(
            f"the index {path} has wrong or missing values in its first lines", hint=_again(path)
        )
    if head.get("recordings") != len(recordings):
        raise IntegrityError(
            f"the index {path} is cut short: {len(recordings)} of {ascii(head.get('recordings'))[:20]} recordings",
            hint=_again(path),
        )
    return Index(
        head["root"],
        head["layout"],
        head["face_cropped"],
        head["places"],
        head["speakers"],
        recordings,
        folders,
        head["report"],
    )


def _recording(path: Path, number: int, line: bytes) -> Recording:
    value = _json(path, number, line)
    try:
        lists = {name: tuple(value.pop(name)) for name in ("names", "sizes", "mtimes_ns", "details")}
        row = Recording(**value, **lists)
        good = (
            row.modality in ("face", "voice")
            and all(isinstance(text, str) for text in (row.person, row.track, row.folder, *row.names))
            and (row.split is None or row.split in SPLITS)
            and all(type(item) is int and item >= 0 for item in (*row.sizes, *row.mtimes_ns))
            and len(row.names) == len(row.sizes) == len(row.mtimes_ns) == len(row.details) > 0
            and _is_under(row.folder)
            and not any("/" in name or name in ("", ".", "..") for name in row.names)
            and all(is_detail(row.modality, detail) for detail in row.details)
        )
    except (TypeError, KeyError, AttributeError):
        good = False
    if not good:
        raise IntegrityError(f"{path}, line {number}: this is no recording", hint=_again(path))
    return row


def is_detail(modality: str, value: Any) -> bool:
    """Whether the value, read from a file, is what `Recording.details` holds."""
    if modality == "voice":
        return type(value) is int and value > 0
    return value is None or (
        isinstance(value, list) and len(value) == 4 and all(type(v) is float and abs(v) < 1e6 for v in value)
    )


def _json(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}, line {number}: damaged or cut short", hint=_again(path)) from error


def _is_map(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(type(item) is kind for item in value.values())


def _is_report(value: Any) -> bool:
    broken = value.get("broken") if isinstance(value, dict) else None
    return _is_map(broken, dict) and all(
        isinstance(entry.get("paths"), list) and _all_of(entry["paths"], str) for entry in broken.values()
    )


def _all_of(value: list[Any], kind: type) -> bool:
    return all(type(item) is kind for item in value)


def _is_under(path: str) -> bool:
    """Whether a relative path stays under its root; an index may come from elsewhere."""
    parts = PurePosixPath(path).parts
    return not path.startswith("/") and ".." not in parts and "\0" not in path


def _check_folders(index: Index, path: Path) -> None:
    if not Path(index.root).is_dir():
        raise IntegrityError(
            f"the index {path} is of {index.root}, which is not there",
            hint="mount or restore it, or index again",
        )
    changed = []
    for folder, mtime_ns in index.folders.items():
        try:
            now = os.stat(os.path.join(index.root, folder)).st_mtime_ns
        except OSError:
            now = -1
        if now != mtime_ns:
            changed.append(folder)
    if changed:
        raise IntegrityError(
            f"the index {path} is stale: {len(changed)} of {len(index.folders)} folders changed since, the first is "
            f"{os.path.join(index.root, changed[0])}",
            hint=_again(path, index.root),
        )


def _again(path: Path, root: str = "DIR") -> str:
    return f"edgepin index {root} --out {path}"
