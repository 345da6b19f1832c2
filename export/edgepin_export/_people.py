"""People to calibrate on: their captures through the device's own pipeline, and the trials among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._decision import draw
from edgepin._decision.calibration import MIN_PEOPLE
from edgepin._decision.draw import CapturedPeople
from edgepin._decision.trial_set import ModalityTrials, TrialSet
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
    """What the encoders take, of people with at least two usable faces and two usable voices each.

    `more`: by modality the captures of further people, numbered from `len(names)` on, of whom the other is not known.
    """

    names: tuple[str, ...]
    faces: list[Batch]
    voices: list[Batch]
    refused: dict[str, int]
    more: dict[str, list[Batch]] = field(default_factory=dict)


@dataclass(frozen=True)
class People:
    """The same captures, embedded."""

    names: tuple[str, ...]
    faces: Captured
    voices: Captured


def prepare_people(
    pipeline: Pipeline,
    faces: Path,
    voices: Path,
    pairs: dict[str, str],
    *,
    cropped: bool,
    further: bool = False,
    progress: Progress,
) -> Prepared:
    """Captures of the paired people (speaker -> face) as inputs. Refused ones are counted and left out.

    `further`: also read who is in the folders and in no pair: evidence for one modality alone.
    """
    face_files, voice_files = list_captures(faces, IMAGE_SUFFIXES), list_captures(voices, SOUND_SUFFIXES)
    speakers = [name for name in sorted(pairs) if name in voice_files and pairs[name] in face_files][
        :MAX_PEOPLE
    ]
    jobs = [("face", speaker, path) for speaker in speakers for path in face_files[pairs[speaker]]]
    jobs += [("voice", speaker, path) for speaker in speakers for path in voice_files[speaker]]
    more: dict[str, list[str]] = {"face": [], "voice": []}
    if further:
        more["face"] = [name for name in face_files if name not in pairs.values()][:MAX_PEOPLE]
        more["voice"] = [name for name in voice_files if name not in pairs][:MAX_PEOPLE]
    jobs += [("more face", name, path) for name in more["face"] for path in face_files[name]]
    jobs += [("more voice", name, path) for name in more["voice"] for path in voice_files[name]]
    refused: Counter[str] = Counter()

    def prepare(job: tuple[str, str, Path]) -> NDArray[Any] | str:
        modality, _, path = job
        try:
            if modality.endswith("face"):
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

    others = {modality: [n for n in more[modality] if (f"more {modality}", n) in found] for modality in more}
    first = {"face": len(able), "voice": len(able) + len(others["face"])}
    return Prepared(
        able,
        gather("face"),
        gather("voice"),
        dict(refused),
        {
            modality: [
                (first[modality] + number, batch)
                for number, name in enumerate(others[modality])
                for batch in found[f"more {modality}", name]
            ]
            for modality in others
        },
    )


def draw_trials(
    people: People, more: Mapping[str, Captured], *, chimeric: bool
) -> tuple[TrialSet, dict[str, ModalityTrials]]:
    """Attempts of every kind among the people, as `edgepin calibrate` draws them at a site, and by modality those of `more`."""
    faces, voices = (
        _joined([captured, more[modality]] if modality in more else [captured])
        for modality, captured in (("face", people.faces), ("voice", people.voices))
    )
    joint, alone = draw.draw_people(faces, voices, chimeric=chimeric)
    assert joint is not None  # `prepare_people` has seen to it
    return joint, alone


def _joined(parts: list[Captured]) -> CapturedPeople:
    return CapturedPeople(
        np.concatenate([part.identity for part in parts]),
        np.concatenate([part.pin for part in parts]),
        np.concatenate([part.owner for part in parts]),
    )
