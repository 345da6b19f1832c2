"""The scan behind `edgepin index`: every capture opened and decoded once, by several processes, and what is wrong told."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgepin._errors import EnvironmentFault, UsageError

from .check import Checked, check_folder
from .index import Index, Recording
from .layouts import Folder, Layout, Listing, list_layout, speakers_of
from .splits import Splits

EXAMPLES = 5
Progress = Callable[[int, int], None]
_Found = list[tuple[Folder, list[Checked]]]


@dataclass(frozen=True)
class Report:
    """What a scan found. `broken` are (path, code); `one_modality` the people who have only a face or only a voice."""

    usable: dict[str, dict[str, Any]]
    broken: tuple[tuple[str, str], ...]
    one_modality: dict[str, tuple[str, ...]]
    joint_recordings: int
    splits: dict[str, dict[str, int]]
    ignored: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        by_code: dict[str, list[str]] = defaultdict(list)
        for path, code in self.broken:
            by_code[code].append(path)
        return {
            "usable": self.usable,
            "broken": {
                code: {"count": len(paths), "paths": sorted(paths)} for code, paths in sorted(by_code.items())
            },
            "one_modality": {name: list(people) for name, people in self.one_modality.items()},
            "joint_recordings": self.joint_recordings,
            "splits": self.splits,
            "ignored": self.ignored,
            "notes": list(self.notes),
        }


def scan(
    layout: Layout,
    *,
    cropped: bool = False,
    splits: Splits | None = None,
    ids: Mapping[str, str] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Index:
    """Checks every capture and makes an index of the usable ones.

    `cropped`: the images are face crops. `splits`: the official ones, for VoxCeleb1. `ids`: VGGFace name -> VoxCeleb id,
    where no splits say it. `workers` processes (0: this one) decode; with some, a script that calls this needs
    `if __name__ == "__main__":`. `progress(done, total)` counts captures.

    Raises UsageError if there is nothing usable, MissingExtraError if the sounds are AAC and nothing here decodes it.
    """
    if splits is not None and layout.name != "voxceleb1":
        raise UsageError(f"the official splits are of voxceleb1, not of {layout.name}")
    listing = list_layout(layout)
    known = splits.ids if splits is not None else ids or {}
    speakers = speakers_of(layout, listing, known)
    found = list(_checked(layout, listing, cropped, workers, progress))
    refused, twice = _duplicates(found)
    broken = [*listing.broken, *twice]
    recordings = []
    for folder, files in found:
        usable = []
        for file in files:
            path = f"{folder.path}/{file.name}"
            if file.code:
                broken.append((path, file.code))
            elif path not in refused:
                usable.append(file)
        if usable:
            recordings.append(_recording(folder, usable, splits))
    if not recordings:
        raise UsageError(
            f"nothing under {layout.root} can be used", hint=f"{dict(Counter(code for _, code in broken))}"
        )
    report = _report(layout, found, refused, recordings, speakers, broken, listing, splits)
    places: dict[str, list[str]] = {"face": [], "voice": []}
    for modality, place in layout.places():
        places[modality].append(place.relative_to(layout.root).as_posix())
    usable_people = {kind: {r.person for r in recordings if r.modality == kind} for kind in ("face", "voice")}
    both = {
        speaker: face
        for speaker, face in speakers.items()
        if speaker in usable_people["voice"] and face in usable_people["face"]
    }
    return Index(
        str(layout.root),
        layout.name,
        cropped,
        places,
        both,
        tuple(recordings),
        listing.folders,
        report.to_json(),
    )


def _checked(
    layout: Layout, listing: Listing, cropped: bool, workers: int, progress: Progress | None
) -> Iterator[tuple[Folder, list[Checked]]]:
    total, done = sum(len(folder.names) for folder in listing.found), 0
    check = partial(check_folder, layout.root, cropped=cropped)
    if workers:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
        results: Iterator[list[Checked]] = pool.map(check, listing.found, chunksize=4)
    else:
        pool, results = None, map(check, listing.found)
    try:
        for folder, files in zip(listing.found, results, strict=True):
            done += len(files)
            if progress:
                progress(done, total)
            yield folder, files
    except BrokenProcessPool as error:
        raise EnvironmentFault(
            "a process of the scan was ended from outside", hint="give fewer --workers if memory is short"
        ) from error
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """There are as many processes as were asked for."""
    import cv2

    cv2.setNumThreads(1)


def _duplicates(found: _Found) -> tuple[set[str], list[tuple[str, str]]]:
    """Paths to leave out, with why: of one person's equal files all but the first, of several people's all of them."""
    owners: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for folder, files in found:
        for file in files:
            if not file.code:
                owners[folder.modality, file.digest].append((folder.person, f"{folder.path}/{file.name}"))
    broken: list[tuple[str, str]] = []
    for same in owners.values():
        if len({person for person, _ in same}) > 1:
            broken += [(path, "same_of_several_people") for _, path in same]
        else:
            broken += [(path, "duplicate") for _, path in same[1:]]
    return {path for path, _ in broken}, broken


def _recording(folder: Folder, files: list[Checked], splits: Splits | None) -> Recording:
    return Recording(
        folder.modality,
        folder.person,
        folder.track,
        folder.path,
        splits.of(folder.person, folder.track) if splits is not None else None,
        tuple(file.name for file in files),
        tuple(file.size for file in files),
        tuple(file.mtime_ns for file in files),
        tuple(file.samples if folder.modality == "voice" else _listed(file) for file in files),
    )


def _listed(file: Checked) -> list[float] | None:
    return None if file.eyes is None else list(file.eyes)


def _report(
    layout: Layout,
    found: _Found,
    refused: set[str],
    recordings: list[Recording],
    speakers: Mapping[str, str],
    broken: list[tuple[str, str]],
    listing: Listing,
    splits: Splits | None,
) -> Report:
    usable: dict[str, dict[str, Any]] = {}
    people: dict[str, set[str]] = {}
    for modality in ("face", "voice"):
        rows = [row for row in recordings if row.modality == modality]
        files = [
            file
            for folder, checked in found
            if folder.modality == modality
            for file in checked
            if not file.code and f"{folder.path}/{file.name}" not in refused
        ]
        people[modality] = {row.person for row in rows}
        figures: dict[str, Any] = {
            "people": len(people[modality]),
            "recordings": len(rows),
            "captures": len(files),
            "bytes": sum(file.size for file in files),
        }
        if modality == "voice" and files:
            figures |= {
                "hours": round(sum(file.seconds for file in files) / 3600, 3),
                "hours_of_speech": round(sum(file.samples for file in files) / 16000 / 3600, 3),
                "seconds": [round(pick(file.seconds for file in files), 2) for pick in (min, max)],
                "sample_rates": {str(rate): n for rate, n in sorted(Counter(f.rate for f in files).items())},
            }
        elif files:
            figures |= {"side": [pick(file.side for file in files) for pick in (min, max)]}
        usable[modality] = figures
    owner = {face: speaker for speaker, face in speakers.items()}
    tracks = {(owner.get(r.person), r.track) for r in recordings if r.modality == "face"}
    joint = sum(r.modality == "voice" and (r.person, r.track) in tracks for r in recordings)
    counts: dict[str, dict[str, int]] = {}
    for name in sorted({row.split or "none" for row in recordings}) if splits is not None else ():
        rows = [row for row in recordings if (row.split or "none") == name]
        counts[name] = {
            "people": len(
                {owner.get(r.person, r.person) if r.modality == "face" else r.person for r in rows}
            ),
            "faces": sum(len(r.names) for r in rows if r.modality == "face"),
            "voices": sum(len(r.names) for r in rows if r.modality == "voice"),
        }
    notes = []
    if splits is not None and not splits.seen_heard:
        notes.append("there is no seen-heard list: nothing of the training people is kept apart")
    notes += _rendered(layout.root)
    only_face = sorted(p for p in people["face"] if owner.get(p) not in people["voice"])
    only_voice = sorted(p for p in people["voice"] if speakers.get(p) not in people["face"])
    return Report(
        usable,
        tuple(broken),
        {"face": tuple(only_face), "voice": tuple(only_voice)},
        joint,
        counts,
        dict(sorted(listing.ignored.items())),
        tuple(notes),
    )


def _rendered(root: Path) -> list[str]:
    """What is wrong with a rendered corpus, which says of itself whether it is whole."""
    try:
        record = json.loads((root / "corpus.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(record, dict) or record.get("format") != "edgepin-rendered-corpus":
        return []
    if record.get("complete") is True:
        return [
            f"rendered people, difficulty {record.get('difficulty')}: they measure methods, and are nobody"
        ]
    return ["this rendered corpus is not complete: `edgepin render` with the same arguments completes it"]
