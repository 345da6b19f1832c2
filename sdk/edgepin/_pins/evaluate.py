"""All the tables at once, from the lists of a folder and the embeddings of faces and voices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._decision.trials import first_few
from .._errors import UsageError
from ..evaluation import read_embeddings, unit_rows
from .clustering import cluster
from .draws import Floats, Indices, Resampling, numbered
from .lists import Lists, Matching, Pairs, read_lists
from .matching import match
from .naming import name
from .retrieval import retrieve
from .verification import roc, strata_of, verify

QUERIES = 500  # of a direction, drawn by the seed
CLUSTERED = 10  # items of each person, drawn by the seed
SHOTS = (1, 5)
DEFAULT = Resampling()


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Embeddings of one modality by name: unit rows (n, d)."""

    path: Path
    index: dict[str, int]
    rows: Floats

    @classmethod
    def read(cls, path: Path) -> Rows:
        names, embeddings = read_embeddings(path)
        return cls(path, {name: number for number, name in enumerate(names)}, unit_rows(embeddings))

    def of(self, names: Sequence[str], source: Path) -> Floats:
        """The rows of these names, in their order. UsageError, with the line, for a name that is not there."""
        found = [self.index.get(name, -1) for name in names]
        if -1 in found:
            first = found.index(-1)
            raise UsageError(
                f"{self.path} has no embedding of {names[first]!r} ({source.name}, row {first + 1}); "
                f"{found.count(-1)} of {len(found)} are missing",
                hint="names must equal the paths of the lists; a list of which none is there is left out",
            )
        return self.rows[found]

    def knows_none_of(self, names: Sequence[str]) -> bool:
        return not any(name in self.index for name in names)


def evaluate_pins(
    lists: Path, face_npz: Path, voice_npz: Path, resampling: Resampling = DEFAULT
) -> dict[str, Any]:
    """The tables, JSON-able: `verification`, `matching`, `retrieval`, `naming`, `clustering`, `left_out`, `roc`.

    The archives hold `names` (n,) and `embeddings` (n, d), the names being the paths that the lists give. A list of which an
    archive knows no name is left out, with that reason. Rates are fractions; each figure has `value`, `low` and `high`.

    Raises UsageError for a damaged list or archive, a name that is missing, two archives of different dimensions, and where
    nothing can be evaluated.
    """
    read = read_lists(lists)
    faces, voices = Rows.read(face_npz), Rows.read(voice_npz)
    if faces.rows.shape[1] != voices.rows.shape[1]:
        raise UsageError(
            f"faces have {faces.rows.shape[1]} dimensions, voices {voices.rows.shape[1]}",
            hint="both must be of the shared space, such as the `pin` embeddings",
        )
    left_out: dict[str, str] = {}
    verification, curves = _verification(read, faces, voices, resampling, left_out)
    matching = _matching(read, faces, voices, resampling, left_out)
    unseen = next(
        (
            read.pairs[key]
            for key in (("random", "unseenunheard"), ("GNA", "unseenunheard"))
            if key in read.pairs
        ),
        None,
    )
    rest: dict[str, Any] = {"retrieval": {}, "naming": {}, "clustering": {}}
    if unseen is None:
        left_out["retrieval, naming, clustering"] = "no list of unseen and unheard people is in the folder"
    elif unseen.path.name not in left_out:
        rest = _items(unseen, faces, voices, resampling)
    if not verification and not matching:
        raise UsageError("the archives hold no embedding of any list", hint=_example(read))
    return {
        "verification": verification,
        "matching": matching,
        **rest,
        "left_out": left_out,
        "roc": curves,
        "replicates": resampling.replicates,
        "seed": resampling.seed,
    }


def _verification(
    read: Lists, faces: Rows, voices: Rows, resampling: Resampling, left_out: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    found, absent = strata_of(read)
    left_out |= absent
    scores: dict[Path, Floats] = {}
    for pairs in {id(pairs): pairs for pairs, _, _ in found.values()}.values():
        if faces.knows_none_of(pairs.faces) or voices.knows_none_of(pairs.voices):
            left_out[pairs.path.name] = "none of its faces or none of its voices has an embedding"
            continue
        one, other = voices.of(pairs.voices, pairs.path), faces.of(pairs.faces, pairs.path)
        scores[pairs.path] = np.clip(np.einsum("nd,nd->n", one, other), -1.0, 1.0)
    tables: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for (stratum, kind), (pairs, keep, source) in found.items():
        if pairs.path not in scores:
            continue
        table = verify(scores[pairs.path], pairs, keep, resampling)
        tables.setdefault(kind, {})[stratum] = {**table, "source": source}
        curves.setdefault(kind, {})[stratum] = roc(scores[pairs.path][keep], pairs.labels[keep])
    return tables, curves


def _matching(
    read: Lists, faces: Rows, voices: Rows, resampling: Resampling, left_out: dict[str, str]
) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for (direction, kind), rows in read.matching.items():
        probe, answer = (faces, voices) if rows.probe == "face" else (voices, faces)
        if probe.knows_none_of(rows.probes) or answer.knows_none_of(rows.right):
            left_out[rows.path.name] = "none of its probes or none of its answers has an embedding"
            continue
        probes, right, wrong = (
            source.of(names, rows.path)
            for source, names in ((probe, rows.probes), (answer, rows.right), (answer, rows.wrong))
        )
        people, wrong_people = _people_of(rows, read)
        tables.setdefault(kind, {})[direction] = match(probes, right, wrong, people, wrong_people, resampling)
    return tables


def _people_of(rows: Matching, read: Lists) -> tuple[Indices, Indices]:
    """Whose the right and the wrong answers are, numbered alike. UsageError where the probe is not the right one's."""
    names = []
    for number, (probe, right, wrong) in enumerate(
        zip(rows.probes, rows.right, rows.wrong, strict=True), start=1
    ):
        one, same, other = (_person(path, read) for path in (probe, right, wrong))
        if one != same or one == other:
            raise UsageError(
                f"{rows.path}, row {number}: the probe is of {one}, the right answer of {same}, the wrong one of {other}",
                hint="faces are named by name and voices by id: vox1_meta.csv must be in the folder, and know both",
            )
        names.append((one, other))
    _, index = numbered([name for pair in zip(*names, strict=True) for name in pair])
    first, second = np.split(index, 2)
    return first, second


def _person(path: str, read: Lists) -> str:
    folder = path.split("/")[0]
    return read.people[folder].id if folder in read.people else folder


def _items(pairs: Pairs, faces: Rows, voices: Rows, resampling: Resampling) -> dict[str, Any]:
    """What needs no pairs: the faces and the voices of an unseen-unheard list, and whose they are."""
    owner = dict(zip(pairs.faces, pairs.face_people, strict=True))
    speaker = dict(zip(pairs.voices, pairs.voice_people, strict=True))
    both = set(owner.values()) & set(speaker.values())
    listed = {
        "face": [item for item in owner if owner[item] in both],
        "voice": [item for item in speaker if speaker[item] in both],
    }
    _, index = numbered(
        [owner[item] for item in listed["face"]] + [speaker[item] for item in listed["voice"]]
    )
    people = dict(zip(("face", "voice"), np.split(index, [len(listed["face"])]), strict=True))
    rows = {"face": faces.of(listed["face"], pairs.path), "voice": voices.of(listed["voice"], pairs.path)}
    rng = np.random.default_rng(resampling.seed)
    retrieval, naming = {}, {}
    for one, other in (("face", "voice"), ("voice", "face")):
        asked = np.sort(rng.permutation(len(rows[one]))[:QUERIES])
        retrieval[f"{one}_to_{other}"] = retrieve(
            rows[one][asked], people[one][asked], rows[other], people[other], resampling
        )
    for one in ("face", "voice"):
        for other in ("face", "voice"):
            naming[f"{one}_names_{other}"] = {
                str(shots): name(rows[one], people[one], rows[other], people[other], shots, resampling)
                for shots in SHOTS
            }
    chosen = {modality: _some_of_each(people[modality], rng) for modality in rows}
    kept = {modality: (rows[modality][some], people[modality][some]) for modality, some in chosen.items()}
    kept["both"] = tuple(np.concatenate(parts) for parts in zip(kept["face"], kept["voice"], strict=True))  # type: ignore[assignment]
    clustering = {modality: cluster(some, whose, resampling) for modality, (some, whose) in kept.items()}
    return {"retrieval": retrieval, "naming": naming, "clustering": clustering}


def _some_of_each(people: Indices, rng: np.random.Generator) -> Indices:
    """The rows of up to `CLUSTERED` items of each person."""
    order = rng.permutation(len(people))
    shuffled = people[order]
    by_person = np.argsort(shuffled, kind="stable")
    _, starts, counts = np.unique(shuffled[by_person], return_index=True, return_counts=True)
    rank = np.arange(len(people)) - np.repeat(starts, counts)
    return np.sort(order[by_person[rank < CLUSTERED]]).astype(np.int64)


def _example(read: Lists) -> str:
    pairs = next(iter(read.pairs.values()), None)
    if pairs is not None:
        return f"names are such as {first_few([pairs.voices[0], pairs.faces[0]])}"
    rows = next(iter(read.matching.values()))
    return f"names are such as {first_few([rows.probes[0], rows.right[0]])}"
