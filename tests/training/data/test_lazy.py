"""A corpus that stays on disk is the corpus that folders in memory make: the same captures, batches and hold-out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgepin._capture.faces import FaceSpec
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import CaptureError, UsageError
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus, hold_out, list_captures, load_faces, load_voices, match_people
from edgepin_training.data.index import Index
from edgepin_training.data.layouts import find_layout
from edgepin_training.data.lazy import open_corpus
from edgepin_training.data.scan import scan
from edgepin_training.rendered import write_corpus
from edgepin_training.trainer import Batch, Sampler, train

from .voxceleb import image, put, sound

CONFIG = TrainConfig(batch_size=4, voice_seconds=0.5, face_width=0.25, voice_width=0.25, steps=2, warmup=1)


def folders(root: Path, people: int = 4) -> Path:
    for person in range(people):
        for capture in range(3):
            seed = 10 * person + capture
            put(root / "faces" / f"p{person:02d}" / f"{capture}.jpg", image(seed))
            put(
                root / "voices" / f"p{person:02d}" / ("a" if capture else "b") / f"{capture}.wav",
                sound(seed, 0.8),
            )
    put(root / "voices" / "p00" / "loose.wav", sound(999))
    put(root / "faces" / "p01" / "broken.jpg", b"x")
    return root


def eager(root: Path, *, cropped: bool) -> Corpus:
    faces = load_faces(list_captures(root / "faces", IMAGE_SUFFIXES), FaceSpec(), cropped=cropped)
    voices = load_voices(list_captures(root / "voices", SOUND_SUFFIXES))
    return Corpus(faces, voices, match_people(voices.names, set(faces.names), None))


def equal(one: Batch, other: Batch) -> bool:
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return all(a == b if isinstance(a, dict) else torch.equal(a, b) for a, b in pairs)


def same(one: Corpus, other: Corpus) -> None:
    assert (one.pairs, one.held_out) == (other.pairs, other.held_out)
    for a, b in ((one.faces, other.faces), (one.voices, other.voices)):
        assert (a.names, a.refused, a.tracks) == (b.names, b.refused, b.tracks)
        assert np.array_equal(a.labels, b.labels)
        assert len(a.items) == len(b.items)
        assert all(np.array_equal(a.items[i], b.items[i]) for i in range(len(a.items)))


def test_an_index_of_folders_is_the_corpus_of_those_folders(tmp_path: Path) -> None:
    root = folders(tmp_path)
    lazy = open_corpus(scan(find_layout(root), cropped=True), FaceSpec())
    same(lazy, eager(root, cropped=True))
    for config in (
        CONFIG,
        dataclasses.replace(CONFIG, positives="track", identity_weight=0.0, contrastive_weight=0.0),
    ):
        batches = [Sampler(corpus, config).draw(3) for corpus in (lazy, eager(root, cropped=True))]
        assert equal(*batches)


def test_faces_that_are_no_crops_are_aligned_by_the_eyes_in_the_index(tmp_path: Path) -> None:
    write_corpus(tmp_path / "people", people=3, seed=5, faces=2, voices=2)
    same(
        open_corpus(scan(find_layout(tmp_path / "people")), FaceSpec()),
        eager(tmp_path / "people", cropped=False),
    )


def test_holding_out_decodes_nothing_and_keeps_the_same_people(tmp_path: Path) -> None:
    root = folders(tmp_path, people=14)
    lazy = hold_out(open_corpus(scan(find_layout(root), cropped=True), FaceSpec()), 0.8, seed=1)
    assert len(lazy.held_out) == 11
    assert not isinstance(lazy.faces.items, list)
    same(lazy, hold_out(eager(root, cropped=True), 0.8, seed=1))


def test_training_from_an_index_records_what_training_from_folders_does(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    logs = []
    for name, corpus in (
        ("lazy", open_corpus(scan(find_layout(root), cropped=True), FaceSpec())),
        ("eager", eager(root, cropped=True)),
    ):
        train(dataclasses.replace(corpus, sources={}), CONFIG, tmp_path / name)
        logs.append((tmp_path / name / "run.json").read_bytes())
        logs.append((tmp_path / name / "checkpoint.safetensors").read_bytes())
    assert logs[:2] == logs[2:]


def test_a_file_that_no_longer_decodes_is_named(tmp_path: Path) -> None:
    root = folders(tmp_path)
    index = scan(find_layout(root), cropped=True)
    broken = root / "faces" / "p01" / "broken.jpg"
    rows = [
        dataclasses.replace(
            row,
            names=("broken.jpg",),
            sizes=(1,),
            mtimes_ns=(broken.stat().st_mtime_ns,),
            details=(None,),
        )
        if row.folder == "faces/p01"
        else row
        for row in index.recordings
    ]
    corpus = open_corpus(dataclasses.replace(index, recordings=tuple(rows)), FaceSpec())
    with pytest.raises(CaptureError, match=r"faces/p01/broken\.jpg") as raised:
        corpus.faces.items[corpus.faces.of()["p01"][0]]
    assert raised.value.code == "damaged"


@pytest.mark.parametrize(("split", "message"), [("train", "no splits"), ("test", "must be one of")])
def test_a_split_that_is_not_there_is_refused(tmp_path: Path, split: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_corpus(scan(find_layout(folders(tmp_path)), cropped=True), FaceSpec(), split=split)


def test_one_person_is_no_corpus(index: Index) -> None:
    with pytest.raises(UsageError, match="at least two people"):
        open_corpus(index, FaceSpec(), split="validation")
