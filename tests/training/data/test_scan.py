"""What a scan leaves out and how it says so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepin._errors import UsageError
from edgepin_training.data.layouts import find_layout
from edgepin_training.data.scan import scan
from edgepin_training.data.splits import read_splits
from edgepin_training.rendered import write_corpus

from .voxceleb import NAMES, VIDEOS, image, put, sound

IDS = {name: id_ for id_, name in NAMES.items()}
VIDEO = f"wav/id10001/{VIDEOS[1]}0"
FRAMES = f"unzippedFaces/Ada_A./1.6/{VIDEOS[1]}0"

BROKEN: list[tuple[str, str, bytes]] = [
    (f"{VIDEO}/empty.wav", "empty", b""),
    (f"{VIDEO}/cut.wav", "damaged", sound(900)[:4000]),
    (f"{VIDEO}/text.wav", "damaged", b"not a sound at all"),
    (f"{VIDEO}/silent.wav", "silent", sound(901)[:44] + bytes(19200)),
    (f"{VIDEO}/short.wav", "too_short", sound(902, 0.1)),
    (f"{VIDEO}/none.wav", "too_short", sound(903, 0)),
    (f"{VIDEO}/slow.wav", "unsupported", sound(904, rate=4000)),
    (f"{FRAMES}/empty.jpg", "empty", b""),
    (f"{FRAMES}/cut.jpg", "damaged", image(905)[:-300]),
    (f"{FRAMES}/small.jpg", "too_small", image(906, 32)),
]


def broken(root: Path, **options: object) -> dict[str, list[str]]:
    report = scan(find_layout(root), cropped=True, ids=IDS, **options).report
    return {code: entry["paths"] for code, entry in report["broken"].items()}


@pytest.mark.parametrize(
    ("path", "code", "data"), BROKEN, ids=[path.rpartition("/")[2] for path, *_ in BROKEN]
)
def test_a_capture_that_cannot_be_used_is_left_out_with_its_reason(
    vox: Path, path: str, code: str, data: bytes
) -> None:
    put(vox / path, data)
    index = scan(find_layout(vox), cropped=True, ids=IDS)
    assert index.report["broken"] == {code: {"count": 1, "paths": [path]}}
    assert not any(path == f"{row.folder}/{name}" for row in index.recordings for name in row.names)
    assert sum(len(row.names) for row in index.recordings) == 36 + 54


def test_a_pipe_and_a_file_that_may_not_be_read_do_not_hold_the_scan(vox: Path) -> None:
    os.mkfifo(vox / VIDEO / "pipe.wav")
    (vox / VIDEO / "gone.wav").symlink_to("nowhere.wav")
    assert broken(vox) == {"empty": [f"{VIDEO}/pipe.wav"], "unreadable": [f"{VIDEO}/gone.wav"]}


def test_of_a_persons_equal_files_one_stays_and_of_several_peoples_none(vox: Path) -> None:
    put(vox / VIDEO / "z_copy.wav", (vox / VIDEO / "00001.wav").read_bytes())
    theirs = f"wav/id10002/{VIDEOS[0]}1/zz.wav"
    put(vox / VIDEO / "y.wav", sound(777))
    put(vox / theirs, sound(777))
    assert broken(vox) == {
        "duplicate": [f"{VIDEO}/z_copy.wav"],
        "same_of_several_people": [f"{VIDEO}/y.wav", theirs],
    }


def test_people_with_one_modality_are_told(vox: Path) -> None:
    put(vox / "wav" / "id10900" / "v" / "1.wav", sound(1000))
    put(vox / "unzippedFaces" / "Gil_G" / "1.6" / "v" / "1.jpg", image(1001))
    for path in (vox / "wav" / "id10002").rglob("*.wav"):
        path.write_bytes(b"")
    index = scan(find_layout(vox), cropped=True, ids=IDS)
    assert index.report["one_modality"] == {"face": ["Bo_B", "Gil_G"], "voice": ["id10900"]}
    assert set(index.speakers) == set(NAMES) - {"id10002"}


def test_figures_are_of_what_is_usable(vox: Path) -> None:
    put(vox / VIDEO / "long.wav", sound(3, 2.0, rate=8000))
    put(vox / FRAMES / "large.jpg", image(4, 90))
    put(vox / FRAMES / "small.jpg", image(5, 30))
    usable = scan(find_layout(vox), cropped=True, ids=IDS).report["usable"]
    assert usable["voice"]["captures"] == 37
    assert usable["voice"]["hours"] == pytest.approx((36 * 0.6 + 2) / 3600, abs=1e-3)
    assert usable["voice"]["seconds"] == [0.6, 2.0]
    assert usable["voice"]["sample_rates"] == {"8000": 1, "16000": 36}
    assert (usable["face"]["captures"], usable["face"]["side"]) == (55, [48, 90])


def test_progress_counts_every_capture(vox: Path) -> None:
    calls: list[tuple[int, int]] = []
    scan(find_layout(vox), cropped=True, ids=IDS, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (90, 90)
    assert calls == sorted(calls)


def test_processes_find_what_one_process_finds(vox: Path) -> None:
    put(vox / VIDEO / "cut.wav", sound(900)[:4000])
    layout = find_layout(vox)
    assert scan(layout, cropped=True, ids=IDS, workers=1) == scan(layout, cropped=True, ids=IDS)


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b""), lambda path: path.unlink()], ids=["all empty", "none"]
)
def test_nothing_usable_is_an_error_not_an_index(vox: Path, spoil: Callable[[Path], None]) -> None:
    for path in [*vox.rglob("*.wav"), *vox.rglob("*.jpg")]:
        spoil(path)
    with pytest.raises(UsageError, match=r"can be used|no captures"):
        scan(find_layout(vox), cropped=True, ids=IDS)


def test_official_splits_are_of_voxceleb1_alone(vox: Path) -> None:
    splits = read_splits(vox.parent / "lists")
    with pytest.raises(UsageError, match="voxceleb1"):
        scan(find_layout(vox, "voxceleb2"), cropped=True, splits=splits)


def test_a_list_folder_without_seen_heard_lists_is_noted(vox: Path) -> None:
    (vox.parent / "lists" / "veriflist_test_random_seenheard.txt").unlink()
    report = scan(find_layout(vox), cropped=True, splits=read_splits(vox.parent / "lists")).report
    assert "seenheard" not in report["splits"]
    assert any("seen-heard" in note for note in report["notes"])


def test_a_rendered_corpus_is_indexed_with_the_eyes_that_the_finder_saw_and_an_unfinished_one_noted(
    tmp_path: Path,
) -> None:
    write_corpus(tmp_path / "people", people=2, seed=3, faces=2, voices=2)
    index = scan(find_layout(tmp_path / "people"))
    assert index.layout == "folders"
    eyes = [eye for row in index.recordings if row.modality == "face" for eye in row.details]
    assert eyes
    assert all(len(eye) == 4 and eye[0] < eye[2] for eye in eyes)
    assert any("rendered people" in note for note in index.report["notes"])
    record = json.loads((tmp_path / "people" / "corpus.json").read_text())
    (tmp_path / "people" / "corpus.json").write_text(json.dumps(record | {"complete": False}))
    assert any("not complete" in note for note in scan(find_layout(tmp_path / "people")).report["notes"])
