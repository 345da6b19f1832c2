"""Trials of chimeric people: a list of voice trials in which every speaker is given a face.

Only the decision is measured by them. They say nothing about whether faces and voices go together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from .._errors import UsageError
from .trials import (
    IMAGE_SUFFIXES,
    SOUND_SUFFIXES,
    Bools,
    Chimera,
    Indices,
    Trials,
    first_few,
    list_captures,
    require_folder,
    require_inside,
    subject_of,
)


@dataclasses.dataclass(frozen=True, eq=False)
class FusedTrials:
    """n trials of a face and a voice on each side, as indices into the names of `FusedTrialSets`.

    labels: bool (n,), true only where face and voice both are the enrolled person's. The others are int64
    (n,); enroll_subject and test_subject index the people, test_subject being whose capture was used where
    it was not the enrolled person's.
    """

    labels: Bools
    enroll_voice: Indices
    enroll_face: Indices
    test_voice: Indices
    test_face: Indices
    enroll_subject: Indices
    test_subject: Indices


@dataclasses.dataclass(frozen=True, eq=False)
class FusedTrialSets:
    """Fused trials and the half-forged variants of their impostor trials.

    voices, faces: distinct capture names, relative to the voice root and the face root. people: the speakers.
    trials: the trials of the list, in its order. other_voice: for each impostor trial, in order, the
    enrolled person's own face (another image of it) with the test voice. other_face: the enrolled person's
    own voice (another clip of it) with the test face. The labels of both variants are false.
    """

    voices: tuple[str, ...]
    faces: tuple[str, ...]
    people: tuple[str, ...]
    trials: FusedTrials
    other_voice: FusedTrials
    other_face: FusedTrials


def fused_trials(
    trials: Trials, voice_root: Path, face_root: Path, chimeras: Mapping[str, Chimera]
) -> FusedTrialSets:
    """Gives each capture of a voice trial a face: the trials of chimeric people, and half-forged ones.

    A speaker's i-th clip, counted from 0 among all that are under the root, sorted by name, goes with image
    i mod n of the n images of the chimera's face, sorted by name. Where the test side would show the very
    capture that is enrolled, the next one (cyclically) is taken: so a genuine trial never compares an image
    with itself, and a half-forged trial shows another image, or another clip, of the enrolled person. There
    the i is that of the test clip.

    Raises UsageError for a speaker without a chimera, a clip that is not under the root, a label that
    contradicts the speakers, and a person with a single image, or a single clip, where another is needed.
    """
    require_folder(voice_root)
    require_folder(face_root)
    require_inside(voice_root, trials.names)
    speakers = [subject_of(name) for name in trials.names]
    people = tuple(sorted(set(speakers)))
    unknown = [person for person in people if person not in chimeras]
    if unknown:
        raise UsageError(f"no face in the chimeras for {first_few(unknown)}")
    clips = [list_captures(voice_root, person, SOUND_SUFFIXES) for person in people]
    images = [list_captures(face_root, chimeras[person].face, IMAGE_SUFFIXES) for person in people]
    imageless = [chimeras[person].face for person, own in zip(people, images, strict=True) if not own]
    if imageless:
        raise UsageError(f"no images under {face_root} for {first_few(imageless)}")

    person_number = {person: number for number, person in enumerate(people)}
    position = {clip: i for own in clips for i, clip in enumerate(own)}
    normal = [PurePosixPath(name).as_posix() for name in trials.names]
    missing = [name for name in normal if name not in position]
    if missing:
        raise UsageError(
            f"not found under {voice_root}: {first_few(missing)}", hint="is this the right root folder?"
        )

    # From here on everything is numbers: per capture its person and its place, per person where its clips
    # and images begin.
    owner = np.array([person_number[speaker] for speaker in speakers], np.int64)
    place = np.array([position[name] for name in normal], np.int64)
    clip_count, image_count = _lengths(clips), _lengths(images)
    first_clip, first_image = np.cumsum(clip_count) - clip_count, np.cumsum(image_count) - image_count

    person_a, person_b = owner[trials.enroll_index], owner[trials.test_index]
    place_a, place_b = place[trials.enroll_index], place[trials.test_index]
    wrong = np.flatnonzero((person_a == person_b) != trials.labels)
    if wrong.size:
        pairs = (
            f"{trials.names[trials.enroll_index[i]]} {trials.names[trials.test_index[i]]}"
            for i in wrong.tolist()
        )
        raise UsageError(f"the label contradicts the speakers of {first_few(pairs)}")

    enroll_face = place_a % image_count[person_a]
    test_face = place_b % image_count[person_b]
    impostor = np.flatnonzero(~trials.labels)
    own_face = _another(place_b % image_count[person_a], enroll_face, image_count[person_a])
    own_clip = _another(place_b % clip_count[person_a], place_a, clip_count[person_a])
    for own, count, what in ((own_face, image_count, "image"), (own_clip[impostor], clip_count, "clip")):
        if np.any(own < 0):
            alone = (person for person, n in zip(people, count.tolist(), strict=True) if n == 1)
            raise UsageError(
                f"trials of one person need two {what}s at least; one only for {first_few(alone)}"
            )
    test_face = np.where(trials.labels, own_face, test_face)

    enroll_voice, test_voice = first_clip[person_a] + place_a, first_clip[person_b] + place_b
    whole = FusedTrials(
        labels=trials.labels,
        enroll_voice=enroll_voice,
        enroll_face=first_image[person_a] + enroll_face,
        test_voice=test_voice,
        test_face=first_image[person_b] + test_face,
        enroll_subject=person_a,
        test_subject=person_b,
    )
    forged = FusedTrials(*(getattr(whole, field.name)[impostor] for field in dataclasses.fields(FusedTrials)))
    sets = (
        whole,
        dataclasses.replace(forged, test_face=(first_image[person_a] + own_face)[impostor]),
        dataclasses.replace(forged, test_voice=(first_clip[person_a] + own_clip)[impostor]),
    )
    voices, sets = _only_used(sets, "voice", [name for own in clips for name in own])
    faces, sets = _only_used(sets, "face", [name for own in images for name in own])
    return FusedTrialSets(voices, faces, people, *sets)


def _only_used(
    sets: tuple[FusedTrials, FusedTrials, FusedTrials], modality: str, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[FusedTrials, FusedTrials, FusedTrials]]:
    """The names that some trial uses, and the sets with indices into those: the rest need not be embedded."""
    sides = (f"enroll_{modality}", f"test_{modality}")
    used = np.unique(np.concatenate([getattr(one, side) for one in sets for side in sides]))
    first, second, third = (
        dataclasses.replace(one, **{side: np.searchsorted(used, getattr(one, side)) for side in sides})
        for one in sets
    )
    return tuple(names[i] for i in used.tolist()), (first, second, third)


def _another(chosen: Indices, enrolled: Indices, count: Indices) -> Indices:
    """The chosen capture, or the next where it is the enrolled one; -1 where there is no other."""
    other = np.where(chosen == enrolled, (chosen + 1) % count, chosen)
    return np.where(other == enrolled, -1, other)


def _lengths(lists: Sequence[Sequence[str]]) -> Indices:
    return np.array([len(own) for own in lists], np.int64)
