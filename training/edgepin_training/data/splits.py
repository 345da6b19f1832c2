"""The official split of VoxCeleb1 for cross-modal work (Nagrani et al. 2018), from its lists.

`identity_splits.txt` gives every person a set: 1 to train on, 2 to validate on, 4 unseen and unheard. Of the people to
train on, the recordings that the `veriflist_test_*_seenheard.txt` lists name are kept apart, face and voice: these
people are seen and heard in training, those recordings are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepin._errors import UsageError
from edgepin._pins.lists import read_pairs, read_people

from .layouts import META

SPLITS = ("train", "validation", "unseenunheard", "seenheard")
_FILE = "identity_splits.txt"
_CODES = {"1": "train", "2": "validation", "4": "unseenunheard"}


@dataclass(frozen=True)
class Splits:
    """People's ids by name, the split of every id, and the (id, video) that are kept apart as seen and heard."""

    ids: dict[str, str]
    people: dict[str, str]
    seen_heard: frozenset[tuple[str, str]]

    def of(self, person: str, track: str) -> str | None:
        """The split of a recording of the person, who is an id or a name; None if the lists don't know them."""
        person = self.ids.get(person, person)
        return "seenheard" if (person, track) in self.seen_heard else self.people.get(person)


def read_splits(folder: Path) -> Splits:
    """Reads the folder of the lists. Raises UsageError, which names file and line, for one missing or damaged."""
    for name in (_FILE, META):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}", hint="give the folder of the protocol's lists")
    ids = read_ids(folder / META)
    path = folder / _FILE
    people: dict[str, str] = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 2 or parts[1] not in _CODES:
            raise UsageError(
                f"{path}, line {number}: a name and 1, 2 or 4 are needed; found {ascii(line)[:80]}"
            )
        if parts[0] not in ids:
            raise UsageError(f"{path}, line {number}: {META} does not know {ascii(parts[0])[:80]}")
        if ids[parts[0]] in people:
            raise UsageError(f"{path}, line {number}: {ascii(parts[0])[:80]} came before")
        people[ids[parts[0]]] = _CODES[parts[1]]
    if not people:
        raise UsageError(f"{path} holds nobody")
    apart = set()
    for listed in sorted(folder.glob("veriflist_test_*_seenheard.txt")):
        pairs = read_pairs(listed)
        for capture in (*pairs.voices, *pairs.faces):
            person, _, rest = capture.partition("/")
            # Voices are <name>/<video>_<number>.wav, faces <name>/<video>/<frame>.jpg.
            track = rest.split("/")[-2] if "/" in rest else rest.rpartition("_")[0]
            if person not in ids or not track:
                raise UsageError(f"{listed}: {ascii(capture)[:120]} is no capture of a person in {META}")
            apart.add((ids[person], track))
    return Splits(ids, people, frozenset(apart))


def read_ids(path: Path) -> dict[str, str]:
    """VGGFace name -> VoxCeleb1 id, from `vox1_meta.csv`. Raises UsageError naming file and line."""
    return {person.name: person.id for person in read_people(path).values()}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
