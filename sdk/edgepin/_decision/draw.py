"""Trials drawn among people whose captures are embedded: what a bundle and a site are calibrated on.

Attempts come in series, as they do at a door: one enrollment, then several attempts by one person with
captures of their own. So sessions can be measured on them. A capture is never compared with itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .policy import DEFAULT_ATTEMPTS
from .trial_set import GENUINE, IMPOSTOR_KINDS, ModalityTrials, TrialSet

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

TRIALS_PER_KIND = 20_000
_CHUNK = 8192  # trials scored at a time: two float64 (8192, 256) blocks are 32 MB


@dataclass(frozen=True, eq=False)
class CapturedPeople:
    """Embedded captures of one modality: float32 (captures, d) `identity` and `pin`, unit rows; `owner` (captures,)
    numbers of people, the same in both modalities.
    """

    identity: NDArray[np.float32]
    pin: NDArray[np.float32]
    owner: IntArray


def draw_trials(
    faces: CapturedPeople,
    voices: CapturedPeople,
    *,
    chimeric: bool,
    attempts: int = DEFAULT_ATTEMPTS,
    seed: int = 0,
) -> TrialSet:
    """Genuine attempts, strangers' and both half-forged kinds, among the people with two captures of each.

    Every ordered pair of people has series of up to `attempts` attempts of each kind, as many as the captures
    allow: three genuine ones take four captures of each modality. Same captures, same trials.
    """
    rng = np.random.default_rng(seed)
    face, voice = _Captures(faces.owner, rng), _Captures(voices.owner, rng)
    people = np.intersect1d(with_two(faces.owner), with_two(voices.owner))
    a, b = _ordered_pairs(people)
    per_pair, per_person = _series(len(people), attempts)
    drawn = []
    for kind in (GENUINE, *IMPOSTOR_KINDS):
        first, second, each = (people, people, per_person) if kind == GENUINE else (a, b, per_pair)
        owner, other = np.repeat(first, each), np.repeat(second, each)
        face_rows, face_there = face.series(
            owner, other if kind in ("stranger", "other_face") else owner, attempts, rng
        )
        voice_rows, voice_there = voice.series(
            owner, other if kind in ("stranger", "other_voice") else owner, attempts, rng
        )
        there = face_there & voice_there
        sides = (face_rows[:, 0], voice_rows[:, 0], owner, other, np.tile(np.arange(each), len(first)))
        drawn.append(
            (
                *(np.broadcast_to(side[:, None], there.shape)[there] for side in sides),
                face_rows[:, 1:][there],
                voice_rows[:, 1:][there],
                np.full(int(there.sum()), kind),
            )
        )
    columns = [np.concatenate(part) for part in zip(*drawn, strict=True)]
    face_a, voice_a, subject_a, subject_b, enrollment, face_b, voice_b, kinds = columns
    return TrialSet(
        face=_dots(faces.identity, face_a, faces.identity, face_b),
        voice=_dots(voices.identity, voice_a, voices.identity, voice_b),
        face_voice=_dots(faces.pin, face_a, voices.pin, voice_b),
        voice_face=_dots(voices.pin, voice_a, faces.pin, face_b),
        subject_a=subject_a,
        subject_b=subject_b,
        kind=kinds,
        chimeric=chimeric,
        enrollment=enrollment,
    )


def draw_modality_trials(
    captured: CapturedPeople, *, attempts: int = DEFAULT_ATTEMPTS, seed: int = 0
) -> ModalityTrials:
    """Genuine attempts and strangers' with one modality, among all people who have a capture of it."""
    rng = np.random.default_rng(seed)
    captures = _Captures(captured.owner, rng)
    people, able = np.unique(captured.owner), with_two(captured.owner)
    a, b = _ordered_pairs(people)
    per_pair, per_person = _series(len(people), attempts)
    owner = np.concatenate([np.repeat(able, per_person), np.repeat(a, per_pair)])
    other = np.concatenate([np.repeat(able, per_person), np.repeat(b, per_pair)])
    enrollment = np.concatenate(
        [np.tile(np.arange(per_person), len(able)), np.tile(np.arange(per_pair), len(a))]
    )
    rows, there = captures.series(owner, other, attempts, rng)
    first, *sides = (
        np.broadcast_to(side[:, None], there.shape)[there] for side in (rows[:, 0], owner, other, enrollment)
    )
    return ModalityTrials(_dots(captured.identity, first, captured.identity, rows[:, 1:][there]), *sides)


def draw_people(
    faces: CapturedPeople, voices: CapturedPeople, *, chimeric: bool, attempts: int = DEFAULT_ATTEMPTS
) -> tuple[TrialSet | None, dict[str, ModalityTrials]]:
    """Attempts of every kind, and by modality those of people who lack the other, or have too little of it.

    None where not even two people have two captures of each.
    """
    able = np.intersect1d(with_two(faces.owner), with_two(voices.owner))
    joint = draw_trials(faces, voices, chimeric=chimeric, attempts=attempts) if len(able) > 1 else None
    alone = {}
    for modality, each in (("face", faces), ("voice", voices)):
        trials = draw_modality_trials(each, attempts=attempts)
        # Pairs of people who have both are in the joint trials already.
        new = ~(np.isin(trials.subject_a, able) & np.isin(trials.subject_b, able))
        if joint is None or new.any():
            alone[modality] = trials if joint is None else trials.subset(new)
    return joint, alone


def with_two(owner: IntArray) -> IntArray:
    """The people who have two captures at least."""
    people, counts = np.unique(owner, return_counts=True)
    return np.asarray(people[counts > 1], dtype=np.int64)


def _series(people: int, attempts: int) -> tuple[int, int]:
    """How many series of attempts for each ordered pair, and for each person on their own enrollment."""
    per_pair = int(np.clip(TRIALS_PER_KIND // max(1, people * (people - 1)), 1, 60))
    per_person = int(np.clip(TRIALS_PER_KIND // max(1, people), 20, 200))
    return -(-per_pair // attempts), -(-per_person // attempts)


def _ordered_pairs(people: IntArray) -> tuple[IntArray, IntArray]:
    a, b = np.repeat(people, len(people)), np.tile(people, len(people))
    different = a != b
    return a[different], b[different]


class _Captures:
    """The captures of each person in an order of chance, so that neighbors in it are a random choice."""

    def __init__(self, owner: IntArray, rng: np.random.Generator) -> None:
        self._order = np.lexsort((rng.random(len(owner)), owner)).astype(np.int64)
        people, self._first, self._count = np.unique(
            np.asarray(owner)[self._order], return_index=True, return_counts=True
        )
        self._people = people.astype(np.int64)

    def series(
        self, owner: IntArray, other: IntArray, attempts: int, rng: np.random.Generator
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """A capture of `owner` that is enrolled, and `attempts` others of `other` (all (series,) people).

        Returns capture numbers (series, 1 + attempts), the enrolled one first, and bool (series, attempts): which of
        the attempts there are; a person has only so many captures.
        """
        mine, theirs = np.searchsorted(self._people, owner), np.searchsorted(self._people, other)
        enrolled = rng.integers(0, self._count[mine])
        own = (owner == other)[:, None]
        start = np.where(own[:, 0], enrolled + 1, rng.integers(0, self._count[theirs]))
        steps = np.arange(attempts)
        count = self._count[theirs][:, None]
        probes = self._order[self._first[theirs][:, None] + (start[:, None] + steps) % count]
        rows = np.column_stack([self._order[self._first[mine] + enrolled], probes])
        return rows, np.asarray(steps < np.where(own, count - 1, count))


def _dots(
    first: NDArray[np.float32], first_rows: IntArray, second: NDArray[np.float32], second_rows: IntArray
) -> FloatArray:
    """(trials,) cosines of unit rows."""
    scores = np.empty(len(first_rows))
    for start in range(0, len(scores), _CHUNK):
        part = slice(start, start + _CHUNK)
        left, right = first[first_rows[part]], second[second_rows[part]]
        scores[part] = np.einsum("nd,nd->n", left.astype(np.float64), right.astype(np.float64))
    return scores
