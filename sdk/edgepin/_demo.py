"""The whole story on a folder of people: enroll, then every kind of attempt, counted.

The people must be none of those that the bundle was trained or calibrated on. Nothing here chooses a threshold:
every attempt is an ordinary `Verifier.verify` at the bundle's default policy, after which what the guard remembers of
the target is forgotten: nobody is locked out, and captures may be used again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._decision.decision import Decision
from ._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from ._enrollment import Enrolled
from ._errors import CaptureError, UsageError
from ._pipeline import ImageSource, SoundSource
from ._verifier import Verifier
from .metrics import binomial_interval

KINDS = {
    "genuine": "right person",
    "other_voice": "right face, another's voice",
    "other_face": "another's face, right voice",
    "stranger": "a stranger",
    "silence": "right face, silence",
    "blank": "blank image, right voice",
}
ENROLLED_CAPTURES = 3  # of each modality; the rest are for attempts


@dataclass(frozen=True)
class Person:
    name: str
    faces: tuple[Path, ...]
    voices: tuple[Path, ...]


@dataclass(frozen=True)
class Attempt:
    """One attempt on `target`'s enrollment: the decision, or the verdict that refused the capture."""

    kind: str
    target: str
    decision: Decision | None
    refusal: str | None

    @property
    def accepted(self) -> bool:
        return self.decision is not None and self.decision.accepted


@dataclass(frozen=True)
class Rate:
    """Wrong decisions of one kind: genuine attempts not accepted, all others accepted."""

    kind: str
    wrong: int
    attempts: int
    refused: int
    low: float
    high: float


def list_people(root: Path) -> list[Person]:
    """People under `root/faces/<name>` and `root/voices/<name>`, with captures to enroll and to attempt with."""

    def files(folder: Path, suffixes: frozenset[str]) -> tuple[Path, ...]:
        return tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes))

    if not os.path.isdir(root / "faces") or not os.path.isdir(root / "voices"):
        raise UsageError(f"{root} is no folder of people", hint="it needs faces/<name>/… and voices/<name>/…")
    people = [
        Person(
            folder.name,
            files(folder, IMAGE_SUFFIXES),
            files(root / "voices" / folder.name, SOUND_SUFFIXES),
        )
        for folder in sorted((root / "faces").iterdir())
    ]
    people = [person for person in people if min(len(person.faces), len(person.voices)) > ENROLLED_CAPTURES]
    if len(people) < 4:
        raise UsageError(f"{root} has {len(people)} people with enough captures; four are needed")
    return people


def enroll(verifier: Verifier, person: Person) -> Enrolled | None:
    """Enrolls the first usable captures; None if they do not agree, so that nobody was enrolled."""
    session = verifier.enroll(person.name, consent="demonstration")
    for modality, paths in (("face", person.faces), ("voice", person.voices)):
        for path in paths[:ENROLLED_CAPTURES]:
            with suppress(CaptureError):
                session.add_face(path) if modality == "face" else session.add_voice(path)
    with suppress(CaptureError):
        return session.commit()
    return None


def attempt(verifier: Verifier, kind: str, target: Person, other: Person, number: int) -> Attempt:
    """The `number`-th attempt of a kind: which captures it uses follows from it."""

    def pick(paths: tuple[Path, ...]) -> Path:
        left = paths[ENROLLED_CAPTURES:]
        return left[number % len(left)]

    face: ImageSource = pick((other if kind in ("stranger", "other_face") else target).faces)
    voice: SoundSource = pick((other if kind in ("stranger", "other_voice") else target).voices)
    if kind == "silence":
        voice = np.zeros(3 * 16000, np.int16)
    if kind == "blank":
        face = np.full((240, 240, 3), 128, np.uint8)
    try:
        # A door of its own: those who fail at one must not keep the next ones waiting.
        door = f"{kind}-{number}-{target.name}"[:64]
        decision = verifier.verify(target.name, face=face, voice=voice, sample_rate=16000, door=door)
    except CaptureError as error:
        return Attempt(kind, target.name, None, f"{error.code}: {error}")
    finally:
        # Every attempt is to be decided by its captures alone: not by how often others failed before it, nor by
        # whether they brought the same files.
        verifier.guard.forget(target.name)
    return Attempt(kind, target.name, decision, None)


def attempts(
    verifier: Verifier, people: list[Person], kind: str, count: int, progress: Callable[[str, int, int], None]
) -> Iterator[Attempt]:
    """`count` attempts of a kind, spread over targets and impostors."""

    def one(number: int) -> Attempt:
        target = number % len(people)
        other = (target + 1 + (number // len(people)) % (len(people) - 1)) % len(people)
        return attempt(verifier, kind, people[target], people[other], number // len(people))

    with ThreadPoolExecutor() as pool:
        for done, made in enumerate(pool.map(one, range(count)), start=1):
            progress(f"attempts: {KINDS[kind]}", done, count)
            yield made


def rate(kind: str, made: list[Attempt]) -> Rate:
    """Wrong decisions with their exact 95 % interval (Clopper and Pearson 1934)."""
    wrong = sum(one.accepted == (kind != "genuine") for one in made)
    low, high = binomial_interval(wrong, len(made))
    return Rate(kind, wrong, len(made), sum(one.refusal is not None for one in made), low, high)
