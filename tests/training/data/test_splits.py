"""The official split: 901, 100 and 250 people, and what is kept apart of the first."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepin._capture.faces import FaceSpec
from edgepin._errors import UsageError
from edgepin_training.data.index import Index
from edgepin_training.data.lazy import open_corpus
from edgepin_training.data.splits import read_splits

from .voxceleb import NAMES, SETS, VIDEOS, write_lists

OFFICIAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "pins_protocol"


def test_every_person_and_recording_is_in_its_split(index: Index) -> None:
    ids = {name: id_ for id_, name in NAMES.items()}
    kinds = {1: "train", 2: "validation", 4: "unseenunheard"}
    for row in index.recordings:
        name = row.person if row.modality == "face" else NAMES[row.person]
        first = row.track.startswith(VIDEOS[0])
        expected = "seenheard" if SETS[name] == 1 and first else kinds[SETS[name]]
        assert row.split == expected, (row.folder, ids[name])


def test_the_splits_share_no_person_but_of_seen_and_heard_and_no_recording(index: Index) -> None:
    people: dict[str, set[str]] = {}
    tracks: dict[str, set[tuple[str, str]]] = {}
    for name in ("train", "validation", "unseenunheard", "seenheard"):
        corpus_rows = [row for row in index.recordings if row.split == name]
        people[name] = {index.speakers.get(row.person, row.person) for row in corpus_rows}
        tracks[name] = {(index.speakers.get(row.person, row.person), row.track) for row in corpus_rows}
    assert people["seenheard"] == people["train"]
    assert not people["train"] & (people["validation"] | people["unseenunheard"])
    assert not people["validation"] & people["unseenunheard"]
    assert not tracks["train"] & tracks["seenheard"]


def test_a_corpus_is_of_one_split(index: Index) -> None:
    corpus = open_corpus(index, FaceSpec(), split="train")
    assert corpus.pairs == {"id10001": "Ada_A.", "id10002": "Bo_B", "id10003": "Cy_C"}
    assert Counter(corpus.voices.labels.tolist()) == {0: 4, 1: 4, 2: 4}  # two videos of two, one kept apart
    assert not any(track.startswith(VIDEOS[0]) for track in (*corpus.faces.tracks, *corpus.voices.tracks))
    assert set(open_corpus(index, FaceSpec(), split="unseenunheard").pairs) == {"id10005", "id10006"}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("identity_splits.txt", "Ada_A. 3\n", "line 1: a name and 1, 2 or 4"),
        ("identity_splits.txt", "Ada_A. 1\n\nNobody 1\n", "line 3: vox1_meta.csv does not know 'Nobody'"),
        ("identity_splits.txt", "Ada_A. 1\nAda_A. 2\n", "line 2: 'Ada_A.' came before"),
        ("identity_splits.txt", "\n", "holds nobody"),
        ("identity_splits.txt", "Ada_A. \udcff\n", "not UTF-8"),
        ("vox1_meta.csv", "a\tb\n", "line 1: the columns"),
        ("veriflist_test_A_seenheard.txt", "id,voice\n", "line 1: the header"),
    ],
)
def test_a_damaged_list_is_named_with_its_line(tmp_path: Path, file: str, text: str, message: str) -> None:
    write_lists(tmp_path / "lists")
    (tmp_path / "lists" / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=message) as raised:
        read_splits(tmp_path / "lists")
    assert file in str(raised.value)


@pytest.mark.parametrize("path", ["Nobody/v_0000001.wav", "Ada_A./nothing.wav"])
def test_a_seen_and_heard_capture_must_be_of_someone_and_of_a_recording(tmp_path: Path, path: str) -> None:
    write_lists(tmp_path / "lists")
    listed = tmp_path / "lists" / "veriflist_test_random_seenheard.txt"
    listed.write_text(listed.read_text() + f"9,1,1,1,{path},Ada_A./v/0000025.jpg\n")
    with pytest.raises(UsageError, match="is no capture of a person"):
        read_splits(tmp_path / "lists")


@pytest.mark.parametrize("file", ["identity_splits.txt", "vox1_meta.csv"])
def test_a_missing_list_is_told(tmp_path: Path, file: str) -> None:
    write_lists(tmp_path / "lists")
    (tmp_path / "lists" / file).unlink()
    with pytest.raises(UsageError, match=f"has no {file}"):
        read_splits(tmp_path / "lists")


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_split_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    lists = tmp_path_factory.mktemp("any") / "lists"
    write_lists(lists)
    (lists / "identity_splits.txt").write_bytes(data)
    with contextlib.suppress(UsageError):
        assert read_splits(lists).people


@pytest.mark.real_data
@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"the official lists are not at {OFFICIAL}")
def test_the_official_lists_have_901_100_and_250_people_and_keep_one_video_of_each_of_the_901_apart() -> None:
    splits = read_splits(OFFICIAL)
    assert Counter(splits.people.values()) == {"train": 901, "validation": 100, "unseenunheard": 250}
    assert len(splits.seen_heard) == 901
    assert {splits.people[person] for person, _ in splits.seen_heard} == {"train"}
    assert splits.of("A.J._Buckley", "Y8hIVOBuels") == splits.of("id10001", "Y8hIVOBuels") == "seenheard"
    assert splits.of("id10001", "another") == "train"
    assert splits.of("A.R._Rahman", "any") == "unseenunheard"
    assert splits.of("id99999", "any") is None
