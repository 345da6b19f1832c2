"""Attempts that a site has recorded: scores from `edgepin verify --json`, and who it really was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._errors import UsageError
from .fusion import FACE, VOICE
from .trial_set import GENUINE, ModalityTrials, TrialSet
from .trials import read_table

COLUMNS = ("enrolled", "face_of", "voice_of", "face", "voice", "face_voice", "voice_face")
"""Whose enrollment it was; whose face and whose voice were captured (empty where none was); the cosines."""


@dataclass(frozen=True)
class Recorded:
    """Attempts as trials: `joint` with face and voice, or None; `alone` by modality; `names` of the people."""

    joint: TrialSet | None
    alone: Mapping[str, ModalityTrials]
    names: tuple[str, ...]


def read_attempts(path: Path, known: tuple[str, ...] = ()) -> Recorded:
    """Reads tab-separated attempts under a header of `COLUMNS`, and optionally `session`.

    Rows with face and voice are of a known kind: both the enrolled person's, both of one other person, or one of
    each. Scores that are not there are empty. Rows of one `session` follow each other on one
    enrollment. People are numbered as in `known`, and then as they come. Raises UsageError, with the line's number, for
    anything else.
    """
    numbers = {name: number for number, name in enumerate(known)}
    joint: list[tuple[float, float, float, float, int, int, str, int]] = []
    alone: dict[str, list[tuple[float, int, int, int]]] = {FACE: [], VOICE: []}
    sessions: dict[str, int] = {}
    header: list[str] = []
    for number, cells in read_table(path, "list of attempts"):
        where = f"{path}, line {number}"
        if not header:
            header = cells
            missing = [name for name in COLUMNS if name not in header]
            if missing or len(set(header)) != len(header) or set(header) - {*COLUMNS, "session"}:
                raise UsageError(
                    f"{where}: the first line must name the columns {', '.join(COLUMNS)}, and may name session"
                )
            continue
        if len(cells) != len(header):
            raise UsageError(f"{where}: {len(header)} fields are expected, not {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        if not row["enrolled"] or not (row["face_of"] or row["voice_of"]):
            raise UsageError(f"{where}: it must say whose enrollment it was, and whose face or voice")
        a, face_of, voice_of = (
            numbers.setdefault(row[name], len(numbers)) if row[name] else None
            for name in ("enrolled", "face_of", "voice_of")
        )
        assert a is not None
        # Rows without a session stand alone: each has a number of its own.
        series = sessions.setdefault(row.get("session") or f"\t{number}", len(sessions))
        scores = {name: _score(row[name], f"{where}: {name}") for name in COLUMNS[3:]}
        for modality, owner in ((FACE, face_of), (VOICE, voice_of)):
            if (owner is None) != (scores[modality] is None):
                raise UsageError(f"{where}: {modality}_of and {modality} go together")
        face, voice = scores["face"], scores["voice"]
        if face is not None and voice is not None:
            assert face_of is not None
            assert voice_of is not None
            kind, b = _kind(a, face_of, voice_of, where)
            face_voice, voice_face = scores["face_voice"], scores["voice_face"]
            if face_voice is None or voice_face is None:
                raise UsageError(f"{where}: with face and voice there are face_voice and voice_face too")
            joint.append((face, voice, face_voice, voice_face, a, b, kind, series))
        elif face is not None:
            assert face_of is not None
            alone[FACE].append((face, a, face_of, series))
        elif voice is not None:
            assert voice_of is not None
            alone[VOICE].append((voice, a, voice_of, series))
    if not joint and not any(alone.values()):
        raise UsageError(f"{path} holds no attempts")
    return Recorded(
        _joint(joint) if joint else None,
        {
            modality: ModalityTrials(*(np.array(column) for column in zip(*rows, strict=True)))
            for modality, rows in alone.items()
            if rows
        },
        tuple(numbers),
    )


def _joint(rows: list[tuple[float, float, float, float, int, int, str, int]]) -> TrialSet:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    face, voice, face_voice, voice_face, subject_a, subject_b, kind, session = columns
    return TrialSet(face, voice, face_voice, voice_face, subject_a, subject_b, kind, enrollment=session)


def _kind(a: int, face_of: int, voice_of: int, where: str) -> tuple[str, int]:
    """The kind of attempt on `a`'s enrollment, and who made it."""
    if face_of == voice_of:
        return (GENUINE, a) if face_of == a else ("stranger", face_of)
    if face_of == a:
        return "other_voice", voice_of
    if voice_of == a:
        return "other_face", face_of
    raise UsageError(f"{where}: the face of one stranger with the voice of another is no kind of attempt")


def _score(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1.001 <= value <= 1.001:
        raise UsageError(f"{where}: a cosine is expected, not {text[:40]!r}")
    return value
