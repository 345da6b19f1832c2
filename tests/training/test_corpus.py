"""Folder corpora: who is in them, what is left out, and who is kept from training."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepin._capture.faces import FaceSpec
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin._errors import UsageError
from edgepin_training.corpus import (
    MIN_HELD_OUT,
    Corpus,
    Modality,
    hold_out,
    list_captures,
    load_faces,
    load_voices,
    match_people,
    one_each,
    read_pairs,
)


def write_sound(path: Path, seed: int, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 3000, int(16000 * seconds)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(noise.tobytes())


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Faces of ann, bob and cid; voices of ann, bob and dan, dan's in a session's folder."""
    for number, name in enumerate(("ann", "bob", "cid")):
        write_image(tmp_path / "faces" / name / "1.jpg", number)
        write_image(tmp_path / "faces" / name / "2.PNG", 10 + number)
    for number, name in enumerate(("ann", "bob")):
        write_sound(tmp_path / "voices" / name / "1.wav", number)
    write_sound(tmp_path / "voices" / "dan" / "monday" / "1.wav", 5)
    return tmp_path


def load(folder: Path) -> tuple[Modality, Modality]:
    return (
        load_faces(list_captures(folder / "faces", IMAGE_SUFFIXES), FaceSpec(), cropped=True),
        load_voices(list_captures(folder / "voices", SOUND_SUFFIXES)),
    )


def test_folders_are_people(folder: Path) -> None:
    faces, voices = load(folder)
    assert faces.names == ("ann", "bob", "cid")
    assert voices.names == ("ann", "bob", "dan")
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert voices.of() == {"ann": [0], "bob": [1], "dan": [2]}
    assert {(item.shape, item.dtype.name) for item in faces.items} == {((64, 64, 3), "uint8")}
    assert {item.dtype.name for item in voices.items} == {"int16"}
    assert faces.refused == voices.refused == {}


def test_items_lie_beside_their_owner(folder: Path) -> None:
    _, voices = load(folder)
    for item, seed in zip(voices.items, (0, 1, 5), strict=True):
        expected = np.random.default_rng(seed).normal(0, 3000, 8000).astype("<i2")
        assert np.array_equal(item, expected)


def test_people_are_paired_by_name(folder: Path) -> None:
    faces, voices = load(folder)
    assert match_people(voices.names, set(faces.names), None) == {"ann": "ann", "bob": "bob"}


def test_people_are_paired_by_a_file(folder: Path) -> None:
    faces, voices = load(folder)
    (folder / "pairs.tsv").write_text(
        "face\tspeaker\tnote\ncid\tdan\t\nnobody\tann\t\nann\tghost\t\n", "utf-8"
    )
    wanted = read_pairs(folder / "pairs.tsv")
    assert wanted == {"dan": "cid", "ann": "nobody", "ghost": "ann"}
    assert match_people(voices.names, set(faces.names), wanted) == {"dan": "cid"}


@pytest.mark.parametrize(
    "data", [b"", b"speaker\tface\n", b"speaker,face\na,b\n", b"a\tb\n1\t2\n", b"\xff\xfe\n\n"]
)
def test_wrong_pairing_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "pairs.tsv").write_bytes(data)
    with pytest.raises(UsageError, match="pairing file"):
        read_pairs(tmp_path / "pairs.tsv")


def test_missing_pairing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_pairs(tmp_path / "none.tsv")


def test_refused_captures_are_counted_and_left_out(folder: Path) -> None:
    (folder / "faces" / "ann" / "3.jpg").write_bytes(b"no image")
    whole = (folder / "voices" / "ann" / "1.wav").read_bytes()
    (folder / "voices" / "bob" / "2.wav").write_bytes(whole[:5000])
    (folder / "voices" / "bob" / "3.wav").write_bytes(b"no sound")
    (folder / "voices" / "eve").mkdir()
    (folder / "voices" / "eve" / "1.wav").write_bytes(b"")
    faces, voices = load(folder)
    assert faces.refused == {"damaged": 1}
    assert voices.refused == {"damaged": 3}
    assert (len(faces.items), len(voices.items)) == (6, 3)
    assert voices.names == ("ann", "bob", "dan"), "who has no usable capture is nobody"
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_images_without_faces_are_refused_by_the_finder(folder: Path) -> None:
    with pytest.raises(UsageError, match="at least two people") as caught:
        load_faces(list_captures(folder / "faces", IMAGE_SUFFIXES), FaceSpec(), cropped=False)
    assert "no_face" in (caught.value.hint or "")


def test_one_person_is_too_few(folder: Path) -> None:
    people = list_captures(folder / "voices", SOUND_SUFFIXES)
    with pytest.raises(UsageError, match="at least two people are needed, 1 found"):
        load_voices({"ann": people["ann"]})


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        list_captures(tmp_path / "faces", IMAGE_SUFFIXES)
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    (tmp_path / "faces" / "ann" / "1.txt").write_text("no capture")
    (tmp_path / "faces" / "loose.jpg").write_bytes(b"of nobody")
    with pytest.raises(UsageError, match="no captures") as caught:
        list_captures(tmp_path / "faces", IMAGE_SUFFIXES)
    assert ".jpg" in (caught.value.hint or "")


def test_progress_counts_every_capture(folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    load_voices(list_captures(folder / "voices", SOUND_SUFFIXES), progress=lambda *step: seen.append(step))
    assert seen == [("voices", 1, 3), ("voices", 2, 3), ("voices", 3, 3)]


def test_one_each_draws_by_seed() -> None:
    people = {f"p{i}": [Path(f"{i}/{j}.wav") for j in range(4)] for i in range(9)}
    drawn = one_each(people, 5, 1)
    assert drawn == one_each(people, 5, 1) != one_each(people, 5, 2)
    assert len(drawn) == 5
    assert all(len(files) == 1 and files[0] in people[name] for name, files in drawn.items())
    assert set(one_each(people, 50, 1)) == set(people)


def simulated(people: int, *, faces: int = 2, voices: int = 3) -> Corpus:
    """Pairs f000-v000, f001-v001, ... and one unpaired person of each; an item tells whose it is."""

    def modality(prefix: str, captures: int, dtype: type) -> Modality:
        labels = np.repeat(np.arange(people + 1), captures)
        items = [np.full(4, label, dtype) for label in labels]
        return Modality(tuple(f"{prefix}{i:03d}" for i in range(people + 1)), labels, items, {"damaged": 2})

    pairs = {f"v{i:03d}": f"f{i:03d}" for i in range(people)}
    return Corpus(
        modality("f", faces, np.uint8), modality("v", voices, np.int16), pairs, sources={"faces": "x"}
    )


def test_nobody_is_both_held_out_and_trained_on() -> None:
    whole = simulated(60)
    corpus = hold_out(whole, 0.25, 0)
    assert len(corpus.held_out) == 15
    assert corpus.held_out.items() <= whole.pairs.items()
    assert not set(corpus.held_out) & (set(corpus.pairs) | set(corpus.voices.names))
    assert not set(corpus.held_out.values()) & (set(corpus.pairs.values()) | set(corpus.faces.names))
    assert corpus.pairs | corpus.held_out == whole.pairs
    assert {"f060", "v060"} <= {*corpus.faces.names, *corpus.voices.names}, "the unpaired stay"
    for modality, captures in ((corpus.faces, 2), (corpus.voices, 3)):
        assert len(modality.items) == len(modality.labels) == 46 * captures
        assert modality.refused == {"damaged": 2}
        for item, label in zip(modality.items, modality.labels, strict=True):
            assert int(modality.names[label][1:]) == item[0], "an item has changed hands"


def test_hold_out_depends_on_the_seed_alone() -> None:
    whole = simulated(60)
    reversed_pairs = Corpus(whole.faces, whole.voices, dict(reversed(whole.pairs.items())))
    first = hold_out(whole, 0.25, 0).held_out
    assert first == hold_out(whole, 0.25, 0).held_out == hold_out(reversed_pairs, 0.25, 0).held_out
    assert first != hold_out(whole, 0.25, 1).held_out


def test_fewer_than_a_calibration_needs_are_not_held_out() -> None:
    for people, share in ((4 * (MIN_HELD_OUT - 1), 0.25), (60, 0.0), (0, 0.5)):
        whole = simulated(people)
        assert hold_out(whole, share, 0) is whole
    assert len(hold_out(simulated(4 * MIN_HELD_OUT), 0.25, 0).held_out) == MIN_HELD_OUT


def test_who_has_one_capture_is_not_held_out() -> None:
    for whole in (simulated(60, faces=1), simulated(60, voices=1)):
        assert hold_out(whole, 0.5, 0) is whole


def test_a_person_of_several_speakers_is_not_held_out() -> None:
    whole = simulated(60)
    doubled = Corpus(whole.faces, whole.voices, {**whole.pairs, "v001": "f000", "v060": "f002"})
    corpus = hold_out(doubled, 0.9, 0)
    assert len(corpus.held_out) == round(0.9 * 57)
    assert not {"v000", "v001", "v002", "v060"} & set(corpus.held_out)
    assert set(corpus.pairs.values()) <= set(corpus.faces.names)
