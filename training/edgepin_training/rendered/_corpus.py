"""A corpus of rendered people on disk: `faces/<name>/NN.jpg`, `voices/<name>/NN.wav` and `corpus.json`.

`corpus.json` is written first with `"complete": false`, so that an interrupted corpus knows what it was to be, and
last with everything in it. Every file is written beside its place and then renamed: a file that has its name is whole.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgepin._errors import UsageError

from ._face import eye_centers, render_face
from ._people import (
    FACE_FACTORS,
    GENERATOR_VERSION,
    SETTINGS,
    SHARED_FACTORS,
    VOICE_FACTORS,
    Setting,
    capture_seed,
    make_people,
    make_person,
)
from ._speech import SAMPLE_RATE
from ._voice import render_voice

_RECORD = "corpus.json"
_FEW = 8  # people: fewer are rendered sooner here than by processes that must start first


def write_corpus(
    out: Path,
    *,
    people: int,
    seed: int,
    first: int = 0,
    faces: int = 8,
    voices: int = 8,
    setting: Setting = SETTINGS["standard"],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render people `first` to `first + people - 1` of the population `seed` into the folder `out`.

    Each has `faces` images (192x192 JPEG) and `voices` sounds (16 kHz mono 16-bit WAV, about 3 s). The same arguments
    give the same bytes under the same versions of numpy, OpenCV and this generator. A corpus that was interrupted is
    completed, a complete one is left as it is. `progress(done, people)` is called as people are done.

    The work is spread over the processors by `multiprocessing` with the `spawn` method: a script that calls this needs
    the usual `if __name__ == "__main__":`.

    Raises `UsageError` if `out` holds something that is not this corpus, or if a count is out of range.
    """
    if people < 1 or seed < 0 or first < 0 or faces < 0 or voices < 0 or faces + voices == 0:
        raise UsageError("a corpus needs at least one person and one capture, and no negative numbers")
    wanted = {
        "format": "edgepin-rendered-corpus",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "first": first,
        "people": people,
        "faces": faces,
        "voices": voices,
        "difficulty": setting.difficulty,
        "private": setting.private,
    }
    if _begin(out, wanted):
        if progress:
            progress(people, people)
        return
    jobs = [(str(out), seed, index, faces, voices, setting) for index in range(first, first + people)]
    for done, _ in enumerate(_each(jobs), start=1):
        if progress:
            progress(done, people)
    _write(out / _RECORD, _json(wanted | {"complete": True} | _truth(wanted)))


def _begin(out: Path, wanted: dict[str, Any]) -> bool:
    """Claim the folder. True if this corpus is complete there."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    record = out / _RECORD
    if out.is_dir() and any(out.iterdir()):
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("format") != wanted["format"]:
            raise UsageError(
                f"{out} is not empty and is not a rendered corpus", hint="name a new or empty folder"
            )
        other = [key for key, value in wanted.items() if found.get(key) != value]
        if other:
            raise UsageError(
                f"{out} holds another rendered corpus: "
                + ", ".join(f"{key} is {found.get(key)}, not {wanted[key]}" for key in other),
                hint="name a new folder, or give the parameters of that corpus",
            )
        if found.get("complete") is True and _all_there(out, wanted):
            return True
    out.mkdir(parents=True, exist_ok=True)
    _write(record, _json(wanted | {"complete": False}))
    return False


def _all_there(out: Path, wanted: dict[str, Any]) -> bool:
    return all(
        path.is_file()
        for index in range(wanted["first"], wanted["first"] + wanted["people"])
        for path in _paths(out, index, wanted["faces"], wanted["voices"])
    )


def _paths(out: Path, index: int, faces: int, voices: int) -> list[Path]:
    """A person's files: the faces, then the voices."""
    name = f"person-{index:04d}"
    return [out / "faces" / name / f"{capture:02d}.jpg" for capture in range(faces)] + [
        out / "voices" / name / f"{capture:02d}.wav" for capture in range(voices)
    ]


def _each(jobs: list[tuple[str, int, int, int, int, Setting]]) -> Iterator[None]:
    """Do the jobs, in order, over the processors."""
    workers = min(os.cpu_count() or 1, len(jobs))
    if workers == 1 or len(jobs) < _FEW:
        yield from map(_render_person, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(_render_person, jobs, chunksize=4)


def _one_thread() -> None:
    """There is a process for each processor already."""
    import cv2

    cv2.setNumThreads(1)


def _render_person(job: tuple[str, int, int, int, int, Setting]) -> None:
    """Write the files of one person that are not there yet."""
    import cv2

    out, seed, index, faces, voices, setting = job
    person = make_person(seed, index, setting)
    paths = _paths(Path(out), index, faces, voices)
    for capture, path in enumerate(paths[:faces]):
        if path.is_file():
            continue
        drawn = render_face(person, capture_seed(seed, index, "face", capture))
        quality = [cv2.IMWRITE_JPEG_QUALITY, drawn.jpeg_quality]
        _, encoded = cv2.imencode(".jpg", drawn.image[:, :, ::-1], quality)
        _write(path, encoded.tobytes())
    for capture, path in enumerate(paths[faces:]):
        if not path.is_file():
            _write(path, _wav(render_voice(person, capture_seed(seed, index, "voice", capture))))


def _wav(pcm: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.astype("<i2").tobytes())
    return buffer.getvalue()


def _truth(wanted: dict[str, Any]) -> dict[str, Any]:
    """What only the generator knows: everyone's factors, and where the eyes are (px: left x, y, right x, y)."""
    seed, setting = wanted["seed"], Setting(wanted["difficulty"], wanted["private"])
    known = {}
    for person in make_people(wanted["people"], seed, wanted["first"], setting):
        eyes = []
        for capture in range(wanted["faces"]):
            left, right = eye_centers(person, capture_seed(seed, person.index, "face", capture))
            eyes.append([round(value, 3) for value in (*left, *right)])
        known[person.name] = {
            "shared": person.shared.tolist(),
            "face": person.face.tolist(),
            "voice": person.voice.tolist(),
            "eyes": eyes,
        }
    names = {"shared": list(SHARED_FACTORS), "face": list(FACE_FACTORS), "voice": list(VOICE_FACTORS)}
    return {"factors": names, "expression": list(setting.expression), "truth": known}


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    """Write beside the place, then rename: an interruption leaves no half file under the real name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
