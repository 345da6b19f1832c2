"""People to calibrate on: their captures through the device's own pipeline, and the trials among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._decision.calibration import MIN_PEOPLE, TrialSet
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import CaptureError, UsageError
from edgepin._pipeline import Pipeline, Timings
from edgepin_training.corpus import list_captures

from ._parity import Captured

MAX_PEOPLE = 400
"""More would make more evidence than the ladder of policies needs, and matrices that do not fit."""
TRIALS_PER_KIND = 20_000

Progress = Callable[[str, int, int], None]


Batch = tuple[int, NDArray[Any]]
"""A person's number, and an encoder's input of batch 1."""


@dataclass(frozen=True)
class Prepared:
    """What the encoders take, of people with at least two usable faces and two usable voices each."""

    names: tuple[str, ...]
    faces: list[Batch]
    voices: list[Batch]
    refused: dict[str, int]


@dataclass(frozen=True)
class People:
    """The same captures, embedded."""

    names: tuple[str, ...]
    faces: Captured
    voices: Captured


def prepare_people(
    pipeline: Pipeline, faces: Path, voices: Path, pairs: dict[str, str], *, cropped: bool, progress: Progress
) -> Prepared:
    """Captures of the paired people (speaker -> face) as inputs. Refused ones are counted and left out."""
    face_files, voice_files = list_captures(faces, IMAGE_SUFFIXES), list_captures(voices, SOUND_SUFFIXES)
    speakers = [name for name in sorted(pairs) if name in voice_files and pairs[name] in face_files][
        :MAX_PEOPLE
    ]
    jobs = [("face", speaker, path) for speaker in speakers for path in face_files[pairs[speaker]]]
    jobs += [("voice", speaker, path) for speaker in speakers for path in voice_files[speaker]]
    refused: Counter[str] = Counter()

    def prepare(job: tuple[str, str, Path]) -> NDArray[Any] | str:
        modality, _, path = job
        try:
            if modality == "face":
                return pipeline.face_input(path, cropped=cropped, gate=True, timings=Timings())
            return pipeline.voice_input(path, sample_rate=None, seconds=None, gate=True, timings=Timings())
        except CaptureError as error:
            return error.code

    found: dict[tuple[str, str], list[NDArray[Any]]] = {}
    with ThreadPoolExecutor() as pool:
        for done, ((modality, speaker, _), made) in enumerate(
            zip(jobs, pool.map(prepare, jobs), strict=True), start=1
        ):
            if isinstance(made, str):
                refused[made] += 1
            else:
                found.setdefault((modality, speaker), []).append(made)
            progress("reading calibration captures", done, len(jobs))
    able = tuple(
        name for name in speakers if all(len(found.get((kind, name), ())) > 1 for kind in ("face", "voice"))
    )
    if len(able) < MIN_PEOPLE:  # calibration would refuse them too, but only when all else is done
        raise UsageError(
            f"calibration needs {MIN_PEOPLE} people with two usable faces and voices each; {len(able)} found",
            hint=f"refused captures: {dict(refused)}",
        )

    def gather(modality: str) -> list[Batch]:
        return [(number, batch) for number, name in enumerate(able) for batch in found[modality, name]]

    return Prepared(able, gather("face"), gather("voice"), dict(refused))


def draw_trials(people: People, *, chimeric: bool, seed: int = 0) -> TrialSet:
    """Genuine attempts, strangers' and both half-forged kinds; never a capture against itself."""
    rng = np.random.default_rng(seed)
    count = len(people.names)
    faces = [np.flatnonzero(people.faces.owner == number) for number in range(count)]
    voices = [np.flatnonzero(people.voices.owner == number) for number in range(count)]
    per_pair = int(np.clip(TRIALS_PER_KIND // (count * (count - 1)), 2, 60))
    per_person = int(np.clip(TRIALS_PER_KIND // count, 20, 200))
    rows: list[tuple[int, int, int, int, int, int, str]] = []

    def attempt(a: int, b: int, kind: str) -> None:
        """One of `b` against `a`'s enrollment: which captures are the forged ones is the kind's."""
        face, voice = _two(faces[a], rng), _two(voices[a], rng)
        test_face = int(rng.choice(faces[b])) if kind in ("stranger", "other_face") else face[1]
        test_voice = int(rng.choice(voices[b])) if kind in ("stranger", "other_voice") else voice[1]
        rows.append((face[0], voice[0], test_face, test_voice, a, b, kind))

    for a in range(count):
        for _ in range(per_person):
            attempt(a, a, "genuine")
        for b in range(count):
            for kind in ("stranger", "other_voice", "other_face") if a != b else ():
                for _ in range(per_pair):
                    attempt(a, b, kind)
    face, voice, test_face, test_voice, a, b = (
        np.array(column) for column in list(zip(*rows, strict=True))[:6]
    )
    dot = _row_dots
    return TrialSet(
        face=dot(people.faces.identity[face], people.faces.identity[test_face]),
        voice=dot(people.voices.identity[voice], people.voices.identity[test_voice]),
        face_voice=dot(people.faces.pin[face], people.voices.pin[test_voice]),
        voice_face=dot(people.voices.pin[voice], people.faces.pin[test_face]),
        subject_a=a,
        subject_b=b,
        kind=np.array([row[6] for row in rows]),
        chimeric=chimeric,
    )


def _two(captures: NDArray[np.int64], rng: np.random.Generator) -> tuple[int, int]:
    first, second = rng.choice(captures, 2, replace=False)
    return int(first), int(second)


def _row_dots(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
