"""Where captures are looked for, whose they are, and what is no layout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgepin._errors import UsageError
from edgepin_training.data.layouts import find_layout, list_layout, speakers_of

from .voxceleb import NAMES, VIDEOS, put


def names(root: Path, *paths: str) -> Path:
    for path in paths:
        put(root / path, b"x")
    return root


@pytest.mark.parametrize(
    ("paths", "layout"),
    [
        (["faces/ann/1.jpg", "voices/ann/1.wav"], "folders"),
        (["wav/id10001/v/00001.wav"], "voxceleb1"),
        (["dev/wav/id11251/v/00001.wav", "unzippedFaces/Zoe/v/1.jpg"], "voxceleb1"),
        (["dev/aac/id00012/v/00001.m4a"], "voxceleb2"),
        (["dev/aac/id09272/v/00001.m4a", "dev/faces/id09272/v/1.jpg"], "voxceleb2"),
    ],
)
def test_a_layout_is_told_by_its_folders(tmp_path: Path, paths: list[str], layout: str) -> None:
    assert find_layout(names(tmp_path, *paths)).name == layout


@pytest.mark.parametrize("layout", ["auto", "folders", "voxceleb1", "voxceleb2"])
def test_a_folder_of_something_else_is_no_layout(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)):
        find_layout(names(tmp_path, "photos/ann.jpg"), layout)
    with pytest.raises(UsageError, match="no such folder"):
        find_layout(tmp_path / "missing", layout)


def test_a_recording_is_a_folder_and_its_name_the_track(vox: Path) -> None:
    listing = list_layout(find_layout(vox))
    found = {(f.modality, f.person, f.track, f.path): f.names for f in listing.found}
    video = f"{VIDEOS[0]}0"
    assert found["voice", "id10001", video, f"wav/id10001/{video}"] == ("00001.wav", "00002.wav")
    # VGGFace's level of the detector is no track.
    faces = found["face", "Ada_A.", video, f"unzippedFaces/Ada_A./1.6/{video}"]
    assert faces == ("0000025.jpg", "0000050.jpg", "0000075.jpg")
    assert len(found) == 2 * len(NAMES) * len(VIDEOS)
    assert (listing.broken, dict(listing.ignored)) == ([], {})


def test_faces_without_a_detectors_level_and_by_id_are_found_too(tmp_path: Path) -> None:
    root = names(tmp_path, "wav/id10001/v/1.wav", "faces/id10001/v/1.jpg", "wav/id10002/w/1.wav")
    layout = find_layout(root)
    listing = list_layout(layout)
    assert [(f.person, f.track) for f in listing.found if f.modality == "face"] == [("id10001", "v")]
    assert speakers_of(layout, listing, {}) == {"id10001": "id10001"}


def test_the_metadata_says_whose_face_a_name_is(vox: Path) -> None:
    layout = find_layout(vox)
    listing = list_layout(layout)
    assert speakers_of(layout, listing, {name: id_ for id_, name in NAMES.items()}) == NAMES
    with pytest.raises(UsageError, match="by name") as raised:
        speakers_of(layout, listing, {})
    assert "--meta" in (raised.value.hint or "")


def test_the_person_of_plain_folders_is_the_folder_and_captures_in_it_have_no_track(tmp_path: Path) -> None:
    root = names(tmp_path, "faces/ann/1.jpg", "voices/ann/monday/1.wav", "voices/bob/1.flac")
    layout = find_layout(root)
    listing = list_layout(layout)
    assert [(f.modality, f.person, f.track) for f in listing.found] == [
        ("face", "ann", ""),
        ("voice", "ann", "monday"),
        ("voice", "bob", ""),
    ]
    assert speakers_of(layout, listing, {}) == {"ann": "ann"}


def test_what_is_no_capture_is_counted_and_what_is_no_person_told(vox: Path) -> None:
    names(vox, "wav/readme.txt", "wav/id10001/notes.TXT", "wav/id10001/v/x.mp3", "wav/lost+found/1.wav")
    os.mkdir(vox / "wav" / "id10001" / "bad\nname")
    listing = list_layout(find_layout(vox))
    assert dict(listing.ignored) == {".txt": 2, ".mp3": 1}
    assert sorted(listing.broken) == [
        ("wav/id10001/bad\\nname", "unsafe_name"),
        ("wav/lost+found", "not_an_id"),
    ]


def test_a_link_back_is_entered_once(tmp_path: Path) -> None:
    root = names(tmp_path, "faces/ann/v/1.jpg", "voices/ann/v/1.wav")
    (root / "voices" / "ann" / "v" / "again").symlink_to(root / "voices" / "ann")
    (root / "voices" / "bob").symlink_to(
        root / "voices" / "ann"
    )  # the same voice by another name is no one else
    assert [f.path for f in list_layout(find_layout(root)).found] == ["faces/ann/v", "voices/ann/v"]


def test_faces_under_another_name_are_named_and_must_lie_under_the_root(vox: Path) -> None:
    (vox / "unzippedFaces").rename(vox / "crops")
    assert find_layout(vox).faces == ()
    assert find_layout(vox, faces=vox / "crops").faces == (vox / "crops",)
    with pytest.raises(UsageError, match="no folder under"):
        find_layout(vox, faces=vox.parent)


def test_a_layout_without_a_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    (tmp_path / "voices").mkdir()
    with pytest.raises(UsageError, match="no captures") as raised:
        list_layout(find_layout(tmp_path))
    assert raised.value.hint == "looked in faces, voices"
