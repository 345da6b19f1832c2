"""Tar shards of recordings, as the `webdataset` package writes and reads them, and the file that says what is in them.

A sample is some captures of one recording, of face and voice: `00000012.json` says whose and where the eyes are, and
`00000012.face00.jpg`, `00000012.voice00.wav` … are the files as they were. Any reader of WebDataset shards reads them.
`shards.json` names the shards with the number of their samples, which is what makes a position in them exact.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepin._errors import EnvironmentFault, IntegrityError, MissingExtraError, UsageError
from edgepin._safe_files import write_atomic

from .index import Index, Recording, is_detail
from .lazy import of_split, read_capture, sources_of

FORMAT = "edgepin-shards"
VERSION = 1
MANIFEST = "shards.json"
VOICES_A_SAMPLE = 8
"""A long recording becomes several samples of at most about so many voices: two of them are used at a time."""

_MAX_MANIFEST = 64 << 20
_SHARD = re.compile(r"shard-\d{6}\.tar")
_URL = re.compile(r"https?://[\w.:~/%-]+")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shard:
    name: str
    samples: int
    size: int  # bytes


@dataclass(frozen=True)
class ShardSet:
    """What `shards.json` says. `place` is a folder or an http(s) URL.

    `sources` says where the captures were read from, as `Corpus.sources`. `faces` and `voices` give everyone's number of
    captures, `speakers` whose face is a speaker's, `voice_samples` how much sound there is, in samples at 16 kHz.
    """

    place: str
    sources: dict[str, Any]
    faces: dict[str, int]
    voices: dict[str, int]
    speakers: dict[str, str]
    voice_samples: int
    shards: tuple[Shard, ...]

    def url(self, number: int) -> str:
        return f"{self.place}/{self.shards[number].name}"


@dataclass(frozen=True)
class Capture:
    """One file of a sample: its bytes, and `detail` as in `Recording.details`."""

    name: str
    data: bytes
    detail: Any


@dataclass(frozen=True)
class Sample:
    """Captures of one recording. `number` counts all samples of all shards."""

    number: int
    speaker: str
    face: str
    track: str
    faces: tuple[Capture, ...]
    voices: tuple[Capture, ...]


def write_shards(
    index: Index,
    out: Path,
    *,
    shard_bytes: int,
    seed: int = 0,
    split: str | None = None,
    progress: Progress | None = None,
) -> ShardSet:
    """Writes the recordings that have a face and a voice, in an order drawn by `seed`, so that a shard is a mix of people.

    The same index gives the same bytes. `shards.json` comes last: without it the folder is no set of shards. Raises
    UsageError if the folder holds something or no recording has both, IntegrityError if a file is not as indexed.
    """
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise lacking_webdataset() from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder", hint="name a new one")
    plans = _plan(index, split)
    if len({plan[0] for plan in plans}) < 2:
        raise UsageError(
            "recordings with a face and a voice of at least two people are needed for shards",
            hint="without them train from the index itself: edgepin train --index INDEX",
        )
    order = np.random.default_rng(seed).permutation(len(plans))
    out.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    faces: Counter[str] = Counter()
    voices: Counter[str] = Counter()
    samples, file, writer, part, path = 0, None, None, out, out
    try:
        for done, chosen in enumerate(order, start=1):
            speaker, face, track, seen, heard = plans[chosen]
            if writer is None:
                path = out / f"shard-{len(shards):06d}.tar"
                part = path.with_suffix(".part")
                file, count = part.open("wb"), 0
                writer = webdataset.TarWriter(file, encoder=False, mtime=0, user="", group="")
            writer.write(_sample(index, done - 1, speaker, face, track, seen, heard))
            count += 1
            faces[face] += len(seen)
            voices[speaker] += len(heard)
            samples += sum(detail for *_, detail in heard)
            if file.tell() >= shard_bytes or done == len(plans):
                writer.close()
                file.flush()
                os.fsync(file.fileno())
                shards.append(Shard(path.name, count, file.tell()))
                file.close()
                os.replace(part, path)
                writer = None
            if progress:
                progress(done, len(plans))
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write {path}: {error.strerror or error}", hint="check its space"
        ) from error
    finally:
        if writer is not None:  # an error is on its way, and its shard stays a .part
            with suppress(OSError):
                writer.close()
        if file is not None:
            file.close()
    speakers = {speaker: index.speakers[speaker] for speaker in sorted(voices)}
    made = ShardSet(
        str(out),
        sources_of(index, split),
        dict(sorted(faces.items())),
        dict(sorted(voices.items())),
        speakers,
        samples,
        tuple(shards),
    )
    record = {"format": FORMAT, "version": VERSION, **asdict(made)}
    del record["place"]
    write_atomic(out / MANIFEST, [(json.dumps(record, indent=1) + "\n").encode()])
    return made


def open_shards(place: str | Path) -> ShardSet:
    """Opens a folder of shards, or one behind http(s), by its `shards.json`.

    Raises UsageError if there is none, IntegrityError if it is damaged or a shard of the folder has another size.
    """
    text = str(place).rstrip("/")
    if "://" in text:
        data = _fetch(text)
    else:
        text = os.path.abspath(text)
        try:
            with open(os.path.join(text, MANIFEST), "rb") as file:
                data = file.read(_MAX_MANIFEST)
        except OSError as error:
            raise UsageError(
                f"{text} holds no {MANIFEST}: {error.strerror}",
                hint="edgepin index DIR --out I --shards OUT makes shards",
            ) from error
    found = _manifest(text, data)
    for shard in found.shards if "://" not in text else ():
        path = os.path.join(text, shard.name)
        if not os.path.isfile(path) or os.path.getsize(path) != shard.size:
            raise IntegrityError(
                f"{path} is not there, or not {shard.size} bytes long", hint="write or copy it again"
            )
    return found


def read_shard(shards: ShardSet, number: int, skip: int = 0) -> Iterator[Sample]:
    """The samples of a shard from the `skip`-th on, as they come from the disk or the net.

    Raises IntegrityError, naming the shard, if it is damaged, cut short, or not what `shards.json` says.
    """
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise lacking_webdataset() from error
    url = shards.url(number)
    samples = iter(webdataset.tariterators.tarfile_samples(iter([{"url": url}])))
    seen = 0
    while True:
        try:
            sample = next(samples, None)
        except Exception as error:  # tarfile's errors, the opener's, and webdataset's own on names
            raise IntegrityError(
                f"{url} is damaged after {seen} samples: {_short(error)}", hint=_AGAIN
            ) from error
        if sample is None:
            break
        seen += 1
        if seen > skip:
            yield _parse(url, sample)
    if seen != shards.shards[number].samples:
        raise IntegrityError(f"{url} has {seen} samples, not {shards.shards[number].samples}", hint=_AGAIN)


def lacking_webdataset() -> MissingExtraError:
    return MissingExtraError("shards need the `shards` extra", hint="pip install 'edgepin[shards]'")


_AGAIN = "write or copy the shards again"
_File = tuple[str, int, int, Any]  # path under the root, size, mtime_ns, detail
_Plan = tuple[str, str, str, list[_File], list[_File]]  # speaker, face, track, face files, voice files


def _plan(index: Index, split: str | None) -> list[_Plan]:
    """What each sample holds: captures of both modalities of one recording, a few of a long one."""
    found: dict[tuple[str, str, str], list[_File]] = defaultdict(list)
    for row in sorted(of_split(index, split), key=lambda row: row.folder):
        found[row.modality, row.person, row.track] += _files(row)
    plans: list[_Plan] = []
    for (modality, speaker, track), heard in sorted(found.items()):
        face = index.speakers.get(speaker)
        if modality != "voice" or face is None or not (seen := found.get(("face", face, track), [])):
            continue
        pieces = max(1, min(-(-len(heard) // VOICES_A_SAMPLE), len(heard) // 2, len(seen) // 2))
        plans += [(speaker, face, track, seen[i::pieces], heard[i::pieces]) for i in range(pieces)]
    return plans


def _files(row: Recording) -> list[_File]:
    return [
        (f"{row.folder}/{name}", size, mtime_ns, detail)
        for name, size, mtime_ns, detail in zip(row.names, row.sizes, row.mtimes_ns, row.details, strict=True)
    ]


def _sample(
    index: Index, number: int, speaker: str, face: str, track: str, seen: list[_File], heard: list[_File]
) -> dict[str, Any]:
    sample: dict[str, Any] = {"__key__": f"{number:08d}"}
    record: dict[str, Any] = {"speaker": speaker, "face": face, "track": track, "captures": {}}
    for modality, files in (("face", seen), ("voice", heard)):
        for i, (path, size, mtime_ns, detail) in enumerate(files):
            member = f"{modality}{i:04d}{os.path.splitext(path)[1].lower()}"
            sample[member] = read_capture(os.path.join(index.root, path), size, mtime_ns)
            record["captures"][member] = [path, detail]
    sample["json"] = json.dumps(record, ensure_ascii=False).encode()
    return sample


def _parse(url: str, sample: dict[str, Any]) -> Sample:
    key = str(sample.get("__key__"))
    try:
        record = json.loads(sample["json"])
        captures: dict[str, list[Capture]] = {"face": [], "voice": []}
        for member, (path, detail) in record["captures"].items():
            modality = "face" if member.startswith("face") else "voice"
            if not isinstance(path, str) or not is_detail(modality, detail):
                raise ValueError(f"wrong values of {member}")
            captures[modality].append(Capture(f"{url}, {key}.{member} ({path})", sample[member], detail))
        texts = [record[name] for name in ("speaker", "face", "track")]
        if not all(isinstance(text, str) for text in texts) or not all(captures.values()):
            raise ValueError("no owner, or not both modalities")
        return Sample(int(key), *texts, tuple(captures["face"]), tuple(captures["voice"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{url}: sample {ascii(key)[:40]} is damaged: {_short(error)}", hint=_AGAIN
        ) from error


def _manifest(place: str, data: bytes) -> ShardSet:
    where = f"{place}/{MANIFEST}"
    try:
        record = json.loads(data)
        if record.pop("format") != FORMAT or record.pop("version") != VERSION:
            raise ValueError(f"it is of another format or version; this reads {FORMAT} {VERSION}")
        record["shards"] = tuple(Shard(**shard) for shard in record["shards"])
        found = ShardSet(place=place, **record)
        good = (
            isinstance(found.sources, dict)
            and isinstance(found.sources.get("face_cropped"), bool)
            and all(isinstance(found.sources.get(name), str) for name in ("faces", "voices"))
            and all(
                type(count) is int and count > 0 for count in (*found.faces.values(), *found.voices.values())
            )
            and type(found.voice_samples) is int
            and len(found.faces) > 1
            and len(found.voices) > 1
            and found.speakers.keys() == found.voices.keys()
            and set(found.speakers.values()) <= found.faces.keys()
            and len(found.shards) > 0
            # A name is joined to the place and opened: nothing but our own pattern.
            and all(_SHARD.fullmatch(shard.name) for shard in found.shards)
            and all(type(n) is int and n > 0 for shard in found.shards for n in (shard.samples, shard.size))
        )
        if not good:
            raise ValueError("wrong values")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{where} is damaged: {_short(error)}", hint=_AGAIN) from error
    return found


def _fetch(place: str) -> bytes:
    if not _URL.fullmatch(place):
        raise UsageError(f"{ascii(place)[:200]} is no folder and no plain http(s) address of one")
    try:
        with urllib.request.urlopen(f"{place}/{MANIFEST}", timeout=30) as answer:
            return bytes(answer.read(_MAX_MANIFEST))
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"cannot get {place}/{MANIFEST}: {_short(error)}") from error


def _short(error: Exception) -> str:
    return ascii(f"{type(error).__name__}: {error}")[1:-1][:200]
