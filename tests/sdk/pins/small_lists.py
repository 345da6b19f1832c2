"""A small folder in the form of the official lists, and embeddings of a known structure for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

PEOPLE, FACES, VOICES = 12, 8, 8


@dataclasses.dataclass(frozen=True)
class Small:
    """A folder of lists, two archives, and what went into them."""

    lists: Path
    faces: Path
    voices: Path
    vectors: dict[str, np.ndarray]


def name_of(person: int) -> str:
    return f"Person_{person:02d}"


def id_of(person: int) -> str:
    return f"id1{person:04d}"


def make_small(folder: Path, *, noise: float = 1.0, seed: int = 0) -> Small:
    """Lists of twelve people, even ones of one gender, every third of one nationality."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(PEOPLE, 16))
    lists = folder / "lists"
    lists.mkdir()
    vectors: dict[str, np.ndarray] = {}

    def vector(person: int) -> np.ndarray:
        return centers[person] + noise * rng.normal(size=16)

    faces, voices = {}, {}
    for person in range(PEOPLE):
        for item in range(max(FACES, VOICES)):
            face = f"{name_of(person)}/video{item}/000{item}.jpg"
            voice = f"{name_of(person)}/video{item}_0000001.wav"
            faces[person, item], voices[person, item] = face, voice
            vectors[face], vectors[voice] = vector(person), vector(person)
            vectors[f"{name_of(person)}/1.6/video{item}/1.jpg"] = vector(person)
            vectors[f"{id_of(person)}/video{item}/1.wav"] = vector(person)
    rows = ["id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"]
    for number in range(600):
        a, b = (int(value) for value in rng.choice(PEOPLE, 2, replace=False))
        b = a if number % 2 == 0 else b
        i, j = (int(value) for value in rng.integers(0, FACES, 2))
        rows.append(f"{number + 1},{a},{b},{int(a == b)},{voices[a, i]},{faces[b, j]}")
    (lists / "veriflist_test_random_unseenunheard.txt").write_text("\n".join(rows) + "\n")
    (lists / "veriflist_test_GNA_unseenunheard.txt").write_text("\n".join(rows[:201]) + "\n")
    for direction in ("f2v", "v2f"):
        lines = []
        for _ in range(300):
            a, b = (int(value) for value in rng.choice(PEOPLE, 2, replace=False))
            i, j, k = (int(value) for value in rng.integers(0, FACES, 3))
            face = [f"{name_of(p)}/1.6/video{n}/1.jpg" for p, n in ((a, i), (a, j), (b, k))]
            voice = [f"{id_of(p)}/video{n}/1.wav" for p, n in ((a, i), (a, j), (b, k))]
            lines.append(" ".join([face[0], *voice[1:]] if direction == "f2v" else [voice[0], *face[1:]]))
        (lists / f"matching_{direction}_U.csv").write_text("\n".join(lines) + "\n")
    meta = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    meta += [
        f"{id_of(p)}\t{name_of(p)}\t{'mf'[p % 2]}\t{'land' if p % 3 else 'isle'}\tdev" for p in range(PEOPLE)
    ]
    (lists / "vox1_meta.csv").write_text("\n".join(meta) + "\n")
    for kind, suffix in (("faces", ".jpg"), ("voices", ".wav")):
        names = [name for name in vectors if name.endswith(suffix)]
        np.savez(
            folder / f"{kind}.npz", names=np.array(names), embeddings=np.array([vectors[n] for n in names])
        )
    return Small(lists, folder / "faces.npz", folder / "voices.npz", vectors)
