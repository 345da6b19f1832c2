"""`edgepin index`: what it prints and writes, and `edgepin train` on both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgepin_training._cli import train
from edgepin_training.data._cli import index
from edgepin_training.data.index import read_index

from .voxceleb import VIDEOS, put, sound

BROKEN = f"wav/id10001/{VIDEOS[1]}0/cut.wav"
TINY = """
batch_size = 4
voice_seconds = 0.5
face_width = 0.25
voice_width = 0.25
warmup = 1
"""


def run(verb, *arguments: object) -> Result:
    return CliRunner().invoke(verb, [str(argument) for argument in arguments])


@pytest.fixture
def broken(vox: Path) -> Path:
    put(vox / BROKEN, sound(900)[:4000])
    return vox


def test_the_report_is_one_json_object_and_the_words_go_to_stderr(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "vox.jsonl.gz"
    result = run(index, broken, "--splits", tmp_path / "lists", "--face-cropped", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["schema"] == "edgepin.index/1"
    assert (report["root"], report["layout"], report["index"]) == (str(broken), "voxceleb1", str(out))
    assert report["broken"] == {"damaged": {"count": 1, "paths": [BROKEN]}}
    assert report["usable"]["voice"]["captures"] == 36
    assert {name: counts["people"] for name, counts in report["splits"].items()} == {
        "train": 3,
        "seenheard": 3,
        "validation": 1,
        "unseenunheard": 2,
    }
    assert report["shards"] is None
    assert "left out as damaged: 1" in result.stderr
    assert BROKEN in result.stderr
    assert len(read_index(out).recordings) == 36


def test_without_out_nothing_is_written_and_without_json_stdout_is_empty(
    broken: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run(index, broken, "--meta", tmp_path / "lists" / "vox1_meta.csv", "--face-cropped")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "voices (voxceleb1): 36 captures of 6 people in 18 recordings" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--face-cropped"], "by name"),
        (["--layout", "folders"], "does not look like folders"),
        (["--layout", "imagenet"], "Invalid value"),
        (["--shard-size", "0"], "Invalid value"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(vox: Path, arguments: list[str], words: str) -> None:
    result = run(index, vox, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_training_takes_an_index_of_the_training_people_and_refuses_a_stale_one(
    vox: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "i", tmp_path / "tiny.toml"
    config.write_text(TINY)
    assert run(index, vox, "--splits", tmp_path / "lists", "--face-cropped", "--out", out).exit_code == 0
    result = run(train, "--index", out, "--config", config, "--steps", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["corpus"]["voices"]["people"] == 3
    assert record["corpus"]["voices"]["captures"] == 12
    assert record["corpus"]["sources"]["split"] == "train"
    put(vox / "wav" / "id10001" / "new" / "00001.wav", sound(1))
    stale = run(train, "--index", out, "--config", config, "--steps", 1, "--out", tmp_path / "run2")
    assert stale.exit_code == 5
    assert "stale" in stale.stderr


def test_training_takes_shards(vox: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="shards need the `shards` extra (webdataset)")
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    written = run(
        index, vox, "--splits", tmp_path / "lists", "--face-cropped", "--shards", tmp_path / "s", "--shard-size", 0.1, "--json"
    )  # fmt: skip
    assert written.exit_code == 0, written.output
    shards = json.loads(written.stdout)["shards"]
    assert (shards["samples"], shards["shards"] > 1) == (6, True)
    result = run(
        train, "--shards", tmp_path / "s", "--config", config, "--steps", 1, "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["corpus"]["voices"]["minutes"] == 0.1


def test_folders_an_index_and_shards_exclude_each_other(vox: Path, tmp_path: Path) -> None:
    (tmp_path / "i").write_text("")
    result = run(train, "--index", tmp_path / "i", "--shards", tmp_path, "--out", tmp_path / "run")
    assert (result.exit_code, "one of them" in result.stderr) == (2, True)
    result = run(train, "--index", tmp_path / "i", "--face-cropped", "--out", tmp_path / "run")
    assert (result.exit_code, "one of them" in result.stderr) == (2, True)
