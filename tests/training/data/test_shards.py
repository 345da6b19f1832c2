"""Shards: written whole and the same each time, readable by anyone's reader, refused when they are not what they were."""

from __future__ import annotations

import http.server
import json
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepin._errors import IntegrityError, MissingExtraError, UsageError
from edgepin_training.data.index import Index
from edgepin_training.data.layouts import find_layout
from edgepin_training.data.scan import scan
from edgepin_training.data.shards import MANIFEST, ShardSet, open_shards, read_shard, write_shards

from .voxceleb import NAMES, VIDEOS, put, sound

webdataset = pytest.importorskip("webdataset", reason="shards need the `shards` extra (webdataset)")
MB = 1_000_000


@pytest.fixture
def shards(index: Index, tmp_path: Path) -> ShardSet:
    return write_shards(index, tmp_path / "shards", shard_bytes=150_000)


def test_every_recording_is_in_one_shard_with_all_its_captures(
    index: Index, shards: ShardSet, vox: Path
) -> None:
    samples = [sample for number in range(len(shards.shards)) for sample in read_shard(shards, number)]
    assert [sample.number for sample in samples] == list(range(18))
    assert Counter((s.speaker, s.face) for s in samples) == dict.fromkeys(NAMES.items(), 3)
    found = {}
    for sample in samples:
        for capture in (*sample.faces, *sample.voices):
            found[capture.name.rpartition("(")[2].rstrip(")")] = capture.data
    every = {
        p.relative_to(vox).as_posix(): p.read_bytes() for p in [*vox.rglob("*.wav"), *vox.rglob("*.jpg")]
    }
    assert found == every
    assert sum(shards.faces.values()) == 54
    assert sum(shards.voices.values()) == 36
    assert len(shards.shards) > 3
    assert open_shards(shards.place) == shards


def test_recordings_are_mixed_by_the_seed_and_the_bytes_repeat(
    index: Index, shards: ShardSet, tmp_path: Path
) -> None:
    again = write_shards(index, tmp_path / "again", shard_bytes=150_000)
    other = write_shards(index, tmp_path / "other", shard_bytes=150_000, seed=1)
    read = [[(tmp_path / name / s.name).read_bytes() for s in made.shards] for name, made in
            (("shards", shards), ("again", again), ("other", other))]  # fmt: skip
    assert read[0] == read[1]
    assert read[0] != read[2]
    order = [sample.speaker for sample in read_shard(shards, 0)]
    assert order != sorted(order) or len(set(order)) > 2


def test_only_the_asked_split_is_written_and_recordings_without_both_modalities_are_not(
    vox: Path, index: Index, tmp_path: Path
) -> None:
    made = write_shards(index, tmp_path / "train", shard_bytes=MB, split="train")
    tracks = [sample.track for sample in read_shard(made, 0)]
    assert len(tracks) == 6
    assert not any(track.startswith(VIDEOS[0]) for track in tracks)
    shutil.rmtree(vox / "unzippedFaces" / "Bo_B")
    fewer = scan(find_layout(vox), cropped=True, ids={name: id_ for id_, name in NAMES.items()})
    assert "id10002" not in write_shards(fewer, tmp_path / "fewer", shard_bytes=MB).voices


def test_a_long_recording_becomes_several_samples_each_with_both_modalities(
    vox: Path, tmp_path: Path
) -> None:
    for number in range(30):
        put(vox / "wav" / "id10001" / f"{VIDEOS[1]}0" / f"1{number:04d}.wav", sound(5000 + number, 0.4))
    index = scan(find_layout(vox), cropped=True, ids={name: id_ for id_, name in NAMES.items()})
    made = write_shards(index, tmp_path / "out", shard_bytes=100 * MB)
    parts = [s for s in read_shard(made, 0) if (s.speaker, s.track) == ("id10001", f"{VIDEOS[1]}0")]
    # Three faces are enough for one sample with two of them: no sample may lack a second view.
    assert [(len(s.faces), len(s.voices)) for s in parts] == [(3, 32)]


def test_another_reader_of_webdatasets_reads_them(shards: ShardSet) -> None:
    urls = [shards.url(number) for number in range(len(shards.shards))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 18
    record = json.loads(samples[0]["json"])
    assert set(record) == {"speaker", "face", "track", "captures"}
    assert set(record["captures"]) == {name for name in samples[0] if name[:4] in ("face", "voic")}


def test_a_folder_that_holds_something_is_left_alone(index: Index, tmp_path: Path) -> None:
    put(tmp_path / "full" / "x", b"x")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_shards(index, tmp_path / "full", shard_bytes=MB)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]


def test_a_capture_that_changed_since_the_scan_stops_the_writing_and_leaves_no_set(
    vox: Path, index: Index, tmp_path: Path
) -> None:
    changed = vox / "wav" / "id10004" / f"{VIDEOS[1]}3" / "00002.wav"
    changed.write_bytes(sound(1, 0.9))
    with pytest.raises(IntegrityError, match=str(changed)):
        write_shards(index, tmp_path / "out", shard_bytes=MB)
    with pytest.raises(UsageError, match=MANIFEST):
        open_shards(tmp_path / "out")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_at_a_sample(path: Path) -> None:
    with tarfile.open(path) as tar:
        names = [(member.name, member.offset) for member in tar]
    last = next(offset for name, offset in names if name[:8] == names[-1][0][:8])
    path.write_bytes(path.read_bytes()[:last] + bytes(1024))


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [_cut, _cut_at_a_sample, _garbage, _empty])
def test_a_damaged_shard_is_named_however_it_is_damaged(
    shards: ShardSet, spoil: Callable[[Path], None]
) -> None:
    spoil(Path(shards.url(1)))
    with pytest.raises(IntegrityError, match=r"shard-000001\.tar"):
        list(read_shard(shards, 1))
    assert list(read_shard(shards, 0))


@pytest.mark.parametrize("spoil", [_cut, Path.unlink])
def test_a_shard_of_another_size_is_noticed_on_opening(
    shards: ShardSet, spoil: Callable[[Path], None]
) -> None:
    spoil(Path(shards.url(1)))
    with pytest.raises(IntegrityError, match=r"shard-000001\.tar"):
        open_shards(shards.place)


def _shard(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["shards"][0].update(name=name)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda record: record.update(format="x"),
    "another version": lambda record: record.update(version=9),
    "no shards": lambda record: record.update(shards=[]),
    "a key too many": lambda record: record.update(more=1),
    "a key too few": lambda record: record.pop("faces"),
    "a count that is none": lambda record: record["faces"].update({"Bo_B": -1}),
    "a speaker without a face": lambda record: record["speakers"].update(id10001="Nobody"),
    "a path as name": _shard("../shard-000000.tar"),
    "a command as name": _shard("pipe:touch x; shard-000000.tar"),
    "no samples": lambda record: record["shards"][0].update(samples=0),
    "sources of another form": lambda record: record.update(sources=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_list_of_shards_is_refused(shards: ShardSet, change: str) -> None:
    path = Path(shards.place) / MANIFEST
    record = json.loads(path.read_text())
    CHANGES[change](record)
    path.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match=MANIFEST):
        open_shards(shards.place)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(IntegrityError, match=MANIFEST):
        open_shards(shards.place)


@pytest.mark.parametrize(
    "record",
    [
        b"[]",
        b"{}",
        b"{",
        b'{"speaker":1,"face":"a","track":"","captures":{}}',
        b'{"captures":{"face0":["x",1]}}',
    ],
)
def test_a_sample_that_says_something_else_is_refused(shards: ShardSet, record: bytes) -> None:
    with webdataset.TarWriter(shards.url(0), encoder=False) as writer:
        writer.write({"__key__": "00000000", "json": record})
    with pytest.raises(IntegrityError, match="sample '00000000' is damaged"):
        list(read_shard(shards, 0))


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset reads http with curl, which is not here")
def test_shards_are_read_over_http(shards: ShardSet) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=shards.place)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = open_shards(f"http://127.0.0.1:{server.server_port}/")
        read = [sample.number for sample in read_shard(there, 1)]
        server.shutdown()
    assert read == [sample.number for sample in read_shard(shards, 1)]


@pytest.mark.parametrize("place", ["pipe://x", "file:///etc", "http://a b", "http://x/'; touch y; '"])
def test_no_other_address_is_opened(place: str) -> None:
    with pytest.raises(UsageError, match="no plain http"):
        open_shards(place)


def test_without_webdataset_the_extra_is_named(
    index: Index, shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    for use in (
        lambda: write_shards(index, tmp_path / "x", shard_bytes=MB),
        lambda: list(read_shard(shards, 0)),
    ):
        with pytest.raises(MissingExtraError, match="`shards` extra"):
            use()
