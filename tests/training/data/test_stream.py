"""Batches from shards: those of the folder, each recording once an epoch, the same wherever reading began."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgepin._errors import CaptureError, UsageError
from edgepin_training.data import stream
from edgepin_training.data.index import Index
from edgepin_training.data.loader import batches
from edgepin_training.data.shards import Capture, Sample, ShardSet, write_shards
from edgepin_training.data.stream import ShardSampler, corpus_of
from edgepin_training.trainer import train

from .test_lazy import CONFIG, equal

pytest.importorskip("webdataset", reason="shards need the `shards` extra (webdataset)")
TRACKS = dataclasses.replace(CONFIG, positives="track", identity_weight=0.0, contrastive_weight=0.0)


@pytest.fixture
def shards(index: Index, tmp_path: Path) -> ShardSet:
    return write_shards(index, tmp_path / "shards", shard_bytes=200_000)


def from_folder(root: str):
    """`read_shard`, but that the captures' bytes are those of the data set's folder; the shard tells only which."""

    def read(shards: ShardSet, number: int, skip: int = 0) -> Iterator[Sample]:
        with tarfile.open(shards.url(number)) as tar:
            records = [(m.name, json.load(tar.extractfile(m))) for m in tar if m.name.endswith(".json")]
        for name, record in records[skip:]:
            found = {
                kind: tuple(
                    Capture(path, (Path(root) / path).read_bytes(), detail)
                    for member, (path, detail) in record["captures"].items()
                    if member.startswith(kind)
                )
                for kind in ("face", "voice")
            }
            yield Sample(
                int(name[:8]),
                record["speaker"],
                record["face"],
                record["track"],
                found["face"],
                found["voice"],
            )

    return read


@pytest.mark.parametrize("config", [CONFIG, TRACKS], ids=["person", "track"])
def test_shards_and_the_folder_give_identical_batches(
    index: Index, shards: ShardSet, monkeypatch: pytest.MonkeyPatch, config
) -> None:
    made = [ShardSampler(shards, config).draw(step) for step in range(6)]
    monkeypatch.setattr(stream, "read_shard", from_folder(index.root))
    sampler = ShardSampler(shards, config)
    assert all(equal(batch, sampler.draw(step)) for step, batch in enumerate(made))
    assert {batch.faces.shape[0] for batch in made} == {4}
    assert {batch.log_mels.shape for batch in made} == {(4, 48, 80)}


def test_a_batch_does_not_depend_on_where_reading_began(shards: ShardSet) -> None:
    ahead = ShardSampler(shards, CONFIG)
    made = [ahead.draw(step) for step in range(40)]  # several epochs of 18 recordings
    for step in (39, 0, 17, 18, 5):
        assert equal(ShardSampler(shards, CONFIG).draw(step), made[step])
        assert equal(ahead.draw(step), made[step])


def test_windows_smaller_than_a_lane_give_the_same_wherever_reading_began(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LANES", 1)
    monkeypatch.setattr(stream, "WINDOW", 5)
    ahead = ShardSampler(shards, CONFIG)
    made = [ahead.draw(step) for step in range(25)]
    for step in (24, 2, 9, 13):
        assert equal(ShardSampler(shards, CONFIG).draw(step), made[step])


def test_every_recording_comes_once_an_epoch_in_an_order_of_the_seed_and_the_epoch(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LANES", 1)
    monkeypatch.setattr(stream, "WINDOW", 5)

    def order(seed: int) -> list[int]:
        sampler = ShardSampler(shards, dataclasses.replace(CONFIG, seed=seed))
        found: list[int] = []
        for step in range(18):
            sampler.draw(step)
            found += sampler.recordings
        return found

    seen = order(0)
    assert Counter(seen[:18]) == Counter(seen[18:]) == Counter(range(18))
    assert seen[:18] != seen[18:]
    assert order(1)[:18] != seen[:18]
    assert order(0) == seen


def test_labels_and_pairs_say_who_it_is(shards: ShardSet) -> None:
    sampler = ShardSampler(shards, dataclasses.replace(CONFIG, speeds=(1.0,)))
    whole = corpus_of(shards)
    for step in range(5):
        batch = sampler.draw(step)
        for row in range(4):
            speaker = whole.voices.names[int(batch.voice_labels[row])]
            assert whole.pairs[speaker] == whole.faces.names[int(batch.face_labels[row])]
        assert batch.paired.tolist() == [0, 1, 2, 3]
        assert torch.equal(batch.pair_labels, batch.face_labels)
        assert (
            batch.face_labels[:2].tolist() == batch.face_labels[2:].tolist()
        )  # two halves of the same people
        assert not torch.equal(batch.faces[:2], batch.faces[2:])


def test_tracks_are_labelled_by_recording_not_by_person(shards: ShardSet) -> None:
    sampler = ShardSampler(shards, TRACKS)
    batch = sampler.draw(0)
    assert batch.pair_labels.tolist() == sampler.recordings
    assert len(set(sampler.recordings)) == 4


def test_workers_read_the_same_batches(shards: ShardSet) -> None:
    sampler = ShardSampler(shards, CONFIG)
    made = list(batches(ShardSampler(shards, CONFIG), 2, 9, 2))
    assert all(equal(batch, sampler.draw(step)) for step, batch in enumerate(made, start=2))
    assert len(made) == 7


def test_training_that_stopped_goes_on_as_if_it_had_not(shards: ShardSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=4, save_every=2)

    def run(out: Path, stop: int | None = None) -> None:
        def report(figures: dict[str, float]) -> None:
            if figures["step"] == stop:
                raise KeyboardInterrupt

        sampler = ShardSampler(shards, config)
        train(sampler.whole, config, out, sampler=sampler, report=report)

    run(tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", stop=3)
    run(tmp_path / "two")
    one, two = (tmp_path / name / "checkpoint.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_capture_in_a_shard_that_does_not_decode_is_named(index: Index, tmp_path: Path) -> None:
    import webdataset

    made = write_shards(index, tmp_path / "s", shard_bytes=100_000_000)
    with tarfile.open(made.url(0)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    with webdataset.TarWriter(made.url(0), encoder=False, mtime=0) as writer:
        for number in range(18):
            key = f"{number:08d}"
            sample = {name[9:]: data for name, data in files.items() if name.startswith(key)}
            writer.write(
                {"__key__": key, **{n: d[:100] if n.endswith("wav") else d for n, d in sample.items()}}
            )
    with pytest.raises(CaptureError, match=r"shard-000000\.tar, \d+\.voice0\d+\.wav \(wav/") as raised:
        ShardSampler(made, CONFIG).draw(0)
    assert raised.value.code == "damaged"


def test_captures_in_shards_are_not_drawn_one_by_one(shards: ShardSet) -> None:
    with pytest.raises(UsageError, match="come in batches"):
        corpus_of(shards).faces.items[0]
