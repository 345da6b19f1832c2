"""Whom a foreign encoder's projections and INT8 ranges are fitted on: never those whom the decision is calibrated on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepin._errors import UsageError
from edgepin_kernels import LogMel
from edgepin_training.corpus import Modality, load_faces, load_voices

from ._foreign_spec import ForeignFace, ForeignVoice
from ._ranges import Feed

Files = dict[str, list[Path]]
Progress = Callable[[str, int, int], None]

MIN_PEOPLE = 10
"""In each modality: fewer say little about the range of an activation."""
MIN_PAIRS_TO_SPLIT = 30
SPLIT_SHARE = 1 / 3
MAX_CAPTURES = 2_000
"""Of each modality: enough for a covariance of 512 dimensions, and they fit into memory."""
MAX_SECONDS = 5.0
"""Of each voice."""


@dataclass(frozen=True)
class FitPeople:
    """Files by person, and `pairs`, (face person, voice person), of those who are known to be one person."""

    faces: Files
    voices: Files
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FitCaptures:
    """What one encoder takes, of batch 1 each, and whose it is: `owner` int64 (n,) into `names`.

    A person's captures do not follow each other: the first n are of as many people as there are.
    """

    names: tuple[str, ...]
    owner: NDArray[np.int64]
    feeds: list[Feed]
    refused: dict[str, int]


def choose_people(
    faces: Files, voices: Files, pairs: dict[str, str], fit: FitPeople | None, seed: int = 0
) -> tuple[dict[str, str], FitPeople]:
    """Whom to calibrate on (speaker -> face), and whom to fit on.

    Args:
        faces, voices: the captures given for calibration; `pairs` says who is who among them.
        fit: people given to fit on. None takes those who are not paired, and where these are too few a third of the
            paired ones, drawn by `seed`.

    Raises:
        UsageError: there is nobody to fit on, or somebody would be both fitted and calibrated on.
    """
    if fit is not None:
        calibrated = {path.resolve() for name in pairs.values() for path in faces[name]}
        calibrated |= {path.resolve() for name in pairs for path in voices[name]}
        fitted = [path for files in (fit.faces, fit.voices) for paths in files.values() for path in paths]
        both = [path for path in fitted if path.resolve() in calibrated]
        if both:
            raise UsageError(
                f"{len(both)} captures would be both fitted and calibrated on, such as {both[0]}",
                hint="give other people to fit on: else the evidence would be better than the encoder",
            )
        _check(fit)
        return pairs, fit
    rest = FitPeople(
        {name: paths for name, paths in faces.items() if name not in set(pairs.values())},
        {name: paths for name, paths in voices.items() if name not in pairs},
        (),
    )
    if min(len(rest.faces), len(rest.voices)) >= MIN_PEOPLE:
        return pairs, rest
    if len(pairs) < MIN_PAIRS_TO_SPLIT:
        raise UsageError(
            f"there is nobody to fit INT8 ranges and projections on: {len(rest.faces)} people with faces and "
            f"{len(rest.voices)} with voices are not calibrated on, and {MIN_PEOPLE} are needed",
            hint=f"give --fit DIR with faces/ and voices/ of others (or {MIN_PAIRS_TO_SPLIT} pairs and more: a third of "
            "them would be fitted on)",
        )
    speakers = sorted(pairs)
    drawn = np.random.default_rng(seed).permutation(len(speakers))[: int(SPLIT_SHARE * len(speakers))]
    taken = {speakers[index]: pairs[speakers[index]] for index in sorted(drawn.tolist())}
    left = {speaker: face for speaker, face in pairs.items() if speaker not in taken}
    # A face that a speaker left for calibration shares is not fitted on.
    own = {speaker: face for speaker, face in taken.items() if face not in set(left.values())}
    people = FitPeople(
        {**rest.faces, **{face: faces[face] for face in own.values()}},
        {**rest.voices, **{speaker: voices[speaker] for speaker in own}},
        tuple((face, speaker) for speaker, face in own.items()),
    )
    _check(people)
    return left, people


def load_fit_faces(
    people: FitPeople, spec: ForeignFace, *, cropped: bool, progress: Progress, seed: int = 0
) -> FitCaptures:
    """Crops, by the device's own finder and geometry. Raises `UsageError` if fewer than two people's can be used."""
    found = load_faces(_drawn(people.faces, seed), spec.crop, cropped=cropped, progress=progress)
    return _captures(found, lambda crop: {"face": crop[None]}, seed)


def load_fit_voices(
    people: FitPeople, spec: ForeignVoice, *, progress: Progress, seed: int = 0
) -> FitCaptures:
    """Log-mels, by the device's own kernel; as `load_fit_faces`."""
    found = load_voices(_drawn(people.voices, seed), progress=progress)
    log_mel = LogMel(spec.log_mel)
    most = int(MAX_SECONDS * spec.log_mel.sample_rate)

    def feed(pcm: NDArray[Any]) -> Feed | None:
        return {"log_mel": log_mel(pcm[:most])[None]} if spec.log_mel.num_frames(len(pcm)) >= 1 else None

    return _captures(found, feed, seed)


def _check(people: FitPeople) -> None:
    for what, files in (("faces", people.faces), ("voices", people.voices)):
        if len(files) < MIN_PEOPLE:
            raise UsageError(
                f"{what} of {len(files)} people are not enough to fit on; {MIN_PEOPLE} are needed",
                hint="give --fit DIR with faces/ and voices/ of more people, who are not calibrated on",
            )


def _drawn(files: Files, seed: int) -> Files:
    """Up to `MAX_CAPTURES` files, over as many people as there are."""
    random = np.random.default_rng(seed)
    turns = [
        (turn, place, name, files[name][index])
        for place, name in zip(random.permutation(len(files)), sorted(files), strict=True)
        for turn, index in enumerate(random.permutation(len(files[name])).tolist())
    ]
    chosen: Files = {}
    for _, _, name, path in sorted(turns, key=lambda row: row[:2])[:MAX_CAPTURES]:
        chosen.setdefault(name, []).append(path)
    return chosen


def _captures(found: Modality, feed: Callable[[NDArray[Any]], Feed | None], seed: int) -> FitCaptures:
    random = np.random.default_rng(seed)
    turn = np.empty(len(found.items), np.int64)
    for indices in found.of().values():
        turn[random.permutation(indices)] = np.arange(len(indices))
    order = np.lexsort((random.permutation(len(turn)), turn))
    made = [(int(found.labels[index]), feed(found.items[index])) for index in order]
    kept = [(owner, capture) for owner, capture in made if capture is not None]
    return FitCaptures(
        found.names, np.array([owner for owner, _ in kept], np.int64), [row for _, row in kept], found.refused
    )
