"""The rendered corpus: what a person is, what a capture shows, and what is on disk."""

from __future__ import annotations

import hashlib
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from edgepin._capture.faces import Face, FaceSpec, HaarFinder, align
from edgepin._errors import UsageError
from edgepin.metrics import eer
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training import rendered
from edgepin_training.rendered import (
    EXPRESSION,
    Person,
    capture_seed,
    eye_centers,
    make_people,
    make_person,
    render_face,
    render_voice,
    write_corpus,
)

SMALL = {"people": 2, "seed": 5, "faces": 2, "voices": 1}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same(one: Person, other: Person) -> bool:
    return all(np.array_equal(getattr(one, k), getattr(other, k)) for k in ("shared", "face", "voice"))


def test_everything_exported_is_there_and_listed():
    assert sorted(rendered.__all__, key=str) == sorted(set(rendered.__all__))
    assert all(hasattr(rendered, name) for name in rendered.__all__)


def test_a_person_depends_on_seed_and_number_alone():
    late = make_people(3, seed=9, first=4)
    assert [person.name for person in late] == ["person-0004", "person-0005", "person-0006"]
    assert all(same(one, other) for one, other in zip(late, make_people(7, seed=9)[4:], strict=True))
    assert not same(make_person(9, 4), make_person(10, 4))
    assert not same(make_person(9, 4), make_person(9, 5))


def test_factors_are_standard_normal_and_correlate_across_modalities_as_documented():
    people = make_people(4000, seed=2)
    factors = np.array([np.concatenate([p.shared, p.face, p.voice]) for p in people])
    assert np.abs(factors.mean(axis=0)).max() < 0.07
    assert np.abs(factors.std(axis=0) - 1).max() < 0.06
    face, voice = (np.array([p.expressed(modality) for p in people]) for modality in ("face", "voice"))
    for k, a in enumerate(EXPRESSION):
        assert np.corrcoef(face[:, k], voice[:, k])[0, 1] == pytest.approx(a * a, abs=0.04)


def test_a_person_cannot_be_changed_or_of_the_wrong_shape():
    person = make_person(1, 0)
    with pytest.raises(ValueError, match="read-only"):
        person.face[0] = 1.0
    with pytest.raises(ValueError, match="shared must have shape"):
        Person(shared=np.zeros(3), face=person.face, voice=person.voice)
    with pytest.raises(ValueError, match="negative"):
        make_person(-1, 0)
    with pytest.raises(ValueError, match="modality"):
        person.expressed("gait")


def test_captures_repeat_by_seed_and_differ_between_seeds():
    person = make_person(1, 0)
    assert np.array_equal(render_face(person, 3).image, render_face(person, 3).image)
    assert np.array_equal(render_voice(person, 3), render_voice(person, 3))
    assert not np.array_equal(render_face(person, 3).image, render_face(person, 4).image)
    assert not np.array_equal(render_voice(person, 3)[:40000], render_voice(person, 4)[:40000])
    seeds = {
        capture_seed(1, i, modality, k) for i in range(5) for modality in ("face", "voice") for k in range(5)
    }
    assert len(seeds) == 50


def test_private_factors_of_one_modality_do_not_show_in_the_other():
    one, other = make_people(2, seed=1)
    mixed = Person(shared=one.shared, face=other.face, voice=one.voice)
    assert np.array_equal(render_voice(mixed, 1), render_voice(one, 1))
    assert not np.array_equal(render_face(mixed, 1).image, render_face(one, 1).image)


@pytest.mark.parametrize("factor", range(len(rendered.SHARED_FACTORS)))
def test_each_shared_factor_shows_in_both_modalities(factor: int):
    person = make_person(1, 0)
    shared = person.shared.copy()
    shared[factor] += 1.0
    moved = Person(shared=shared, face=person.face, voice=person.voice)
    assert np.abs(render_face(moved, 2).image.astype(int) - render_face(person, 2).image).max() > 20
    assert not np.array_equal(render_voice(moved, 2), render_voice(person, 2))


@pytest.mark.parametrize("extreme", [-4.0, 4.0])
def test_the_most_extreme_people_can_be_rendered(extreme: float):
    person = make_person(1, 0)
    person = Person(
        *(np.full_like(factors, extreme) for factors in (person.shared, person.face, person.voice))
    )
    for seed in range(3):
        assert render_face(person, seed).image.std() > 10
        assert np.abs(render_voice(person, seed).astype(int)).max() > 300


def test_a_voice_is_sixteen_kilohertz_speech_of_about_three_seconds_that_never_clips():
    for person in make_people(6, seed=4):
        pcm = render_voice(person, person.index)
        assert pcm.dtype == np.int16
        assert pcm.ndim == 1
        assert 2.5 * 16000 <= len(pcm) <= 4 * 16000
        assert 500 < np.abs(pcm.astype(int)).max() < 32000


def test_a_face_is_where_it_says_and_the_packaged_finder_sees_it():
    finder = HaarFinder()
    found, near = 0, 0
    for person in make_people(40, seed=6):
        face = render_face(person, person.index)
        assert face.image.shape == (192, 192, 3)
        assert face.image.dtype == np.uint8
        assert (face.left_eye, face.right_eye) == eye_centers(person, person.index)
        seen = finder.find(face.image)
        found += len(seen) == 1
        gap = np.hypot(*np.subtract(face.right_eye, face.left_eye))
        assert 25 < gap < 60
        if seen:
            errors = np.subtract([seen[0].left_eye, seen[0].right_eye], [face.left_eye, face.right_eye])
            near += np.hypot(*errors.T).max() < 0.25 * gap
    assert found >= 39  # 99.9 % over 2,000 captures
    assert near >= 38


def test_pixels_and_sound_tell_strangers_apart_better_than_captures_differ():
    """A nearest-neighbor look at raw features, nothing learned: far from chance, and far from trivial."""
    spec, log_mel = FaceSpec(), LogMel(LogMelSpec.preset("kaldi"))
    faces, voices, labels = [], [], []
    for person in make_people(24, seed=8):
        for capture in range(3):
            drawn = render_face(person, capture_seed(8, person.index, "face", capture))
            eyes = Face(drawn.left_eye, drawn.right_eye, (0.0, 0.0, 192.0, 192.0), 1.0)
            faces.append(align(drawn.image, eyes, spec)[::2, ::2].astype(float).ravel())
            mel = log_mel(render_voice(person, capture_seed(8, person.index, "voice", capture))).astype(float)
            voices.append(np.concatenate([mel.mean(axis=0) - mel.mean(), mel.std(axis=0)]))
            labels.append(person.index)
    upper = np.triu_indices(len(labels), 1)
    genuine = np.equal.outer(labels, labels)[upper]
    for features in (np.array(faces), np.array(voices)):
        features = features - features.mean(axis=1, keepdims=True)
        features = features / features.std(axis=1, keepdims=True)
        features = features - features.mean(axis=0)
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        assert 0.02 < eer((features @ features.T)[upper], genuine) < 0.42


def test_a_corpus_has_its_files_and_its_truth(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    write_corpus(tmp_path / "c", **SMALL, first=7, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert sorted(digests(tmp_path / "c")) == [
        "corpus.json",
        "faces/person-0007/00.jpg", "faces/person-0007/01.jpg",
        "faces/person-0008/00.jpg", "faces/person-0008/01.jpg",
        "voices/person-0007/00.wav", "voices/person-0008/00.wav",
    ]  # fmt: skip
    record = json.loads((tmp_path / "c" / "corpus.json").read_text())
    assert (record["complete"], record["seed"], record["first"], record["people"]) == (True, 5, 7, 2)
    person = make_person(5, 7)
    truth = record["truth"]["person-0007"]
    assert np.array_equal(truth["shared"], person.shared)
    assert np.array_equal(truth["face"], person.face)
    assert np.array_equal(truth["voice"], person.voice)
    expected = np.ravel(eye_centers(person, capture_seed(5, 7, "face", 1)))
    assert truth["eyes"][1] == pytest.approx(expected, abs=1e-3)
    with wave.open(str(tmp_path / "c" / "voices" / "person-0007" / "00.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(pcm, render_voice(person, capture_seed(5, 7, "voice", 0)))


def test_equal_arguments_give_equal_bytes_and_an_interrupted_corpus_is_completed(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    write_corpus(one, **SMALL)
    write_corpus(other, **SMALL)
    whole = digests(one)
    assert digests(other) == whole

    (other / "faces" / "person-0001" / "01.jpg").unlink()
    untouched = (other / "faces" / "person-0000" / "00.jpg").stat().st_mtime_ns
    write_corpus(other, **SMALL)
    assert digests(other) == whole
    assert (other / "faces" / "person-0000" / "00.jpg").stat().st_mtime_ns == untouched


def test_many_processes_write_what_one_writes(tmp_path: Path):
    write_corpus(tmp_path / "many", people=9, seed=5, faces=1, voices=0)
    write_corpus(tmp_path / "one", people=2, seed=5, faces=1, voices=0, first=3)
    for index in (3, 4):
        name = f"faces/person-{index:04d}/00.jpg"
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_folder_that_is_not_this_corpus_is_refused_and_left_alone(tmp_path: Path):
    write_corpus(tmp_path / "c", **SMALL)
    whole = digests(tmp_path / "c")
    for change in ({"seed": 6}, {"people": 3}, {"first": 1}, {"faces": 3}, {"voices": 2}):
        with pytest.raises(UsageError, match=next(iter(change))):
            write_corpus(tmp_path / "c", **(SMALL | change))
    assert digests(tmp_path / "c") == whole

    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_corpus(strange, **SMALL)
    (strange / "corpus.json").write_text("[]")
    with pytest.raises(UsageError, match="not a rendered corpus"):
        write_corpus(strange, **SMALL)
    with pytest.raises(UsageError, match="not a folder"):
        write_corpus(strange / "notes.txt", **SMALL)
    assert sorted(digests(strange)) == ["corpus.json", "notes.txt"]


@pytest.mark.parametrize("wrong", [{"people": 0}, {"seed": -1}, {"faces": -1}, {"faces": 0, "voices": 0}])
def test_counts_out_of_range_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, int]):
    with pytest.raises(UsageError, match="at least one person"):
        write_corpus(tmp_path / "c", **(SMALL | wrong))
    assert not (tmp_path / "c").exists()
