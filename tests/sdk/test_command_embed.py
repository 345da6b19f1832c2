"""`edgepin embed`: from a folder to the archive that the other verbs read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from .commands import CAPTURE, INTEGRITY, USAGE, YES, invoke
from .conftest import Pins
from .synthetic_captures import voice, write_face, write_voice


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    root = tmp_path / "voices"
    for person in (1, 2, 3):
        (root / f"p{person}" / "day").mkdir(parents=True)
        for capture in (0, 1):
            write_voice(root / f"p{person}" / "day" / f"{capture}.wav", voice(person, capture))
    return root


def names(npz: Path) -> list[str]:
    with np.load(npz) as archive:
        assert sorted(archive.files) == ["embeddings", "names"]
        assert archive["embeddings"].dtype == np.float32
        assert archive["embeddings"].shape == (len(archive["names"]), 256)
        listed: list[str] = archive["names"].tolist()
    return listed


@pytest.mark.parametrize("seconds", [(), ("--seconds", 0.8)])
def test_embeddings_of_a_folder_score_as_the_files_themselves(
    device: Path, pins: Pins, voices: Path, tmp_path: Path, seconds: tuple[object, ...]
) -> None:
    # Labels that no encoder could get right: so the figures hang on the order of all the scores.
    clips = [f"p{person}/day/{capture}.wav" for person in (1, 2, 3) for capture in (0, 1)]
    pairs = itertools.combinations(clips, 2)
    lines = [f"{number * number % 5 % 2} {first} {second}\n" for number, (first, second) in enumerate(pairs)]
    (tmp_path / "t.txt").write_text("".join(lines))
    bundle = ("--bundle", pins.site)
    made = invoke(
        "embed", "--modality", "voice", "--root", voices, "--out", tmp_path / "v.npz", *seconds, *bundle, "--json"
    )  # fmt: skip
    assert made.exit_code == YES, made.output
    value = json.loads(made.stdout)
    assert (value["schema"], value["embedded"], value["refused"]) == ("edgepin.embeddings/1", 6, {})
    assert (value["head"], value["modality"], value["precision"]) == ("identity", "voice", "fp32")
    assert names(tmp_path / "v.npz") == clips
    scored = invoke(
        "evaluate", "embeddings", "--npz", tmp_path / "v.npz", "--trials", tmp_path / "t.txt", "--json"
    )
    direct = invoke(
        "evaluate", "verification", "--modality", "voice", "--root", voices, "--trials", tmp_path / "t.txt",
        *seconds, *bundle, "--json",
    )  # fmt: skip
    assert scored.exit_code == direct.exit_code == YES
    ours, theirs = json.loads(scored.stdout), json.loads(direct.stdout)
    for key in ("eer", "auc", "min_dcf", "min_cllr", "genuine", "impostor"):
        assert ours[key] == theirs[key], key
    assert 0.0 < ours["auc"] < 1.0


def test_refused_captures_are_told_by_code_and_left_out(device: Path, pins: Pins, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    write_face(root / "a.png", 1)
    for name in ("broken.png", "torn.jpg"):
        (root / name).write_bytes(b"no image")
    arguments = (
        "embed",
        "--modality",
        "face",
        "--root",
        root,
        "--bundle",
        pins.site,
        "--out",
        tmp_path / "f.npz",
    )
    told = invoke(*arguments)
    assert told.exit_code == YES, told.output
    assert f"{tmp_path / 'f.npz'}: embedded 1" in told.stdout
    assert "damaged 2" in told.stderr
    assert names(tmp_path / "f.npz") == ["a.png"]
    assert json.loads(invoke(*arguments, "--json").stdout)["refused"] == {"damaged": 2}
    # An image in which no face is found is refused, too, where faces are to be found; then there is nothing.
    kept = (tmp_path / "f.npz").read_bytes()
    nothing = invoke(*arguments, "--find-faces")
    assert nothing.exit_code == CAPTURE
    assert (tmp_path / "f.npz").read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npz", "faces", "home"]


def test_what_cannot_be_embedded_is_told_before_the_work(
    device: Path, pins: Pins, voices: Path, tmp_path: Path
) -> None:
    def code(*changed: object, bundle: Path = pins.site) -> int:
        out = ("--out", tmp_path / "e.npz", "--bundle", bundle)
        return invoke("embed", "--modality", "voice", "--root", voices, *out, *changed).exit_code

    assert code() == YES
    (tmp_path / "e.npz").unlink()
    assert code("--root", tmp_path / "absent") == USAGE
    assert code("--root", device / "trusted") == USAGE, "there is no sound in it"
    assert code("--out", tmp_path / "absent" / "e.npz") == USAGE
    assert code("--out", voices) == USAGE
    assert code("--find-faces") == USAGE
    assert code("--modality", "face", "--seconds", 2) == USAGE
    assert code("--head", "pin") == USAGE, "the encoders of this bundle share no space"
    damaged = tmp_path / "damaged.pin"
    damaged.write_bytes(pins.site.read_bytes()[:-1])
    assert code(bundle=damaged) == INTEGRITY
    assert not (tmp_path / "e.npz").exists()
