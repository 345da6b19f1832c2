"""People to calibrate on: their captures through the device's own pipeline, and the trials among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgepin._decision import draw
from edgepin._decision.calibration import MIN_PEOPLE
from edgepin._decision.draw import CapturedPeople
from edgepin._decision.trial_set import TrialSet
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import CaptureError, UsageError
from edgepin._pipeline import Pipeline, Timings
from edgepin_training.corpus import list_captures

from ._parity import Captured

MAX_PEOPLE = 400
"""More would make more evidence than the ladder of policies needs, and matrices that do not fit."""

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


def draw_trials(people: People, *, chimeric: bool) -> TrialSet:
    """Attempts of every kind among the people, as `edgepin calibrate` draws them at a site."""
    faces, voices = (
        CapturedPeople(captured.identity, captured.pin, captured.owner)
        for captured in (people.faces, people.voices)
    )
    return draw.draw_trials(faces, voices, chimeric=chimeric)
