"""`edgepin evaluate`: figures that agree with others' arithmetic, from embeddings and from captures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from edgepin._cli.console import emit_json

from .commands import USAGE, YES, invoke
from .conftest import Pins
from .synthetic_captures import voice, write_face, write_voice


def test_a_list_of_37_thousand_trials_is_scored_in_seconds(device: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    people, each, count = 40, 25, 37_000
    centers = rng.normal(size=(people, 64))
    embeddings = (np.repeat(centers, each, axis=0) + rng.normal(0.0, 2.0, (people * each, 64))).astype(
        np.float32
    )
    names = [f"p{i // each:02}/{i % each}.wav" for i in range(people * each)]
    first = rng.integers(0, people * each, count)
    same = rng.random(count) < 0.5
    second = np.where(
        same, first // each * each + rng.integers(0, each, count), rng.integers(0, people * each, count)
    )
    labels = first // each == second // each
    np.savez(tmp_path / "e.npz", names=np.array(names), embeddings=embeddings)
    (tmp_path / "t.txt").write_text(
        "".join(
            f"{int(label)} {names[a]} {names[b]}\n" for label, a, b in zip(labels, first, second, strict=True)
        )
    )
    start = time.perf_counter()
    arguments = ("evaluate", "embeddings", "--npz", tmp_path / "e.npz", "--trials", tmp_path / "t.txt")
    result = invoke(*arguments, "--json")
    assert time.perf_counter() - start < 10.0
    value = json.loads(result.stdout)
    assert result.exit_code == YES
    assert value["schema"] == "edgepin.evaluation/1"
    assert (value["genuine"], value["impostor"]) == (labels.sum(), count - labels.sum())
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert value["eer"] == pytest.approx(
        sorted_eer((unit[first] * unit[second]).sum(axis=1), labels), abs=2e-4
    )
    assert 0.01 < value["eer"] < 0.3
    text = invoke(*arguments)
    assert f"eer       {value['eer']:.4f}" in text.stdout


def sorted_eer(scores: np.ndarray, labels: np.ndarray) -> float:
    """Where the two error rates are nearest, by one sort."""
    order = np.argsort(scores)
    missed = np.concatenate([[0], np.cumsum(labels[order])]) / labels.sum()
    passed = 1.0 - np.concatenate([[0], np.cumsum(~labels[order])]) / (~labels).sum()
    nearest = np.argmin(np.abs(missed - passed))
    return float((missed[nearest] + passed[nearest]) / 2)


def test_trials_are_scored_with_the_bundles_own_encoders(device: Path, pins: Pins, tmp_path: Path) -> None:
    lines = []
    for person in (1, 2, 3):
        (tmp_path / f"p{person}").mkdir()
        for capture in (0, 1):
            write_face(tmp_path / f"p{person}" / f"{capture}.png", person, capture)
        lines.append(f"1 p{person}/0.png p{person}/1.png\n0 p{person}/0.png p{person % 3 + 1}/1.png\n")
    (tmp_path / "t.txt").write_text("".join(lines))
    result = invoke(
        "evaluate", "verification", "--modality", "face", "--root", tmp_path, "--trials", tmp_path / "t.txt",
        "--bundle", pins.site, "--json",
    )  # fmt: skip
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    assert (value["schema"], value["eer"], value["genuine"]) == ("edgepin.evaluation/1", 0.0, 3)
    assert 0.0 < value["min_cllr"] + value["cllr"] < 1.0


def test_fused_trials_are_told_by_kind_of_impostor_and_by_group(
    device: Path, pins: Pins, tmp_path: Path
) -> None:
    lines = []
    for person in (1, 2, 3):
        for side in ("voices", "faces"):
            (tmp_path / side / f"p{person}").mkdir(parents=True)
        for capture in (0, 1):
            write_face(tmp_path / "faces" / f"p{person}" / f"{capture}.png", person, capture)
            write_voice(tmp_path / "voices" / f"p{person}" / f"{capture}.wav", voice(person, capture))
        lines.append(f"1 p{person}/0.wav p{person}/1.wav\n0 p{person}/0.wav p{person % 3 + 1}/1.wav\n")
    (tmp_path / "t.txt").write_text("".join(lines))
    (tmp_path / "c.tsv").write_text("".join(f"p{n}\tF\tp{n}\n" for n in (1, 2, 3)))
    (tmp_path / "g.tsv").write_text("speaker\tsex\thall\np1\tF\teast\np2\tF\teast\np3\tF\twest\n")
    arguments = (
        "evaluate", "verification", "--modality", "fused", "--voice-root", tmp_path / "voices",
        "--face-root", tmp_path / "faces", "--trials", tmp_path / "t.txt", "--chimeras", tmp_path / "c.tsv",
        "--groups", tmp_path / "g.tsv", "--group-column", "hall", "--bundle", pins.site,
    )  # fmt: skip
    result = invoke(*arguments, "--json")
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    kinds = {"stranger", "other_voice", "other_face"}
    assert set(value["eer_by_kind"]) == set(value["plain_sum"]["eer_by_kind"]) == kinds
    assert set(value["default_policy"]["false_match"]) == kinds
    assert set(value["plain_sum"]) == {"eer", "eer_by_kind", "cllr", "min_cllr"}
    assert (value["eer"], value["plain_sum"]["eer"], value["standardized_sum"]["eer"]) == (0.0, 0.0, 0.0)
    assert [row["groups"] for row in value["groups"]["rates"]] == [["east"], ["east", "west"], ["west"]]
    told = invoke(*arguments)
    assert told.exit_code == YES
    for line in ("eer by kind of impostor      stranger", "  joint LLR", "  plain sum", "east x west"):
        assert line in told.stdout
    assert "two: impostors between them" in told.stderr


def test_what_a_modality_lacks_is_asked_for(device: Path, pins: Pins, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1 a/0.wav a/1.wav\n")
    arguments = ("evaluate", "verification", "--trials", tmp_path / "t.txt", "--bundle", pins.site)
    for modality, lacking in (("fused", "--chimeras"), ("voice", "--root"), ("face", "--root")):
        result = invoke(*arguments, "--modality", modality)
        assert result.exit_code == USAGE
        assert lacking in result.stderr
    assert "--groups" in invoke(*arguments, "--modality", "voice", "--group-column", "sex").stderr


@pytest.mark.parametrize(
    ("modality", "options", "of"),
    [
        ("face", ("--chimeras", "c.tsv"), "fused trials"),
        ("voice", ("--voice-root", "."), "fused trials"),
        ("voice", ("--face-root", "."), "fused trials"),
        ("fused", ("--root", "."), "face and voice trials"),
    ],
)
def test_an_option_that_the_modality_would_ignore_is_refused_with_a_hint(
    device: Path, pins: Pins, tmp_path: Path, modality: str, options: tuple[object, ...], of: str
) -> None:
    (tmp_path / "t.txt").write_text("1 a/0.wav a/1.wav\n")
    result = invoke(
        "evaluate", "verification", "--modality", modality, "--trials", tmp_path / "t.txt", "--bundle", pins.site,
        *(() if modality == "fused" else ("--root", tmp_path)), *options,
    )  # fmt: skip
    assert result.exit_code == USAGE
    assert f"error: {options[0]} is of {of}" in result.stderr
    assert f"hint: leave it out for --modality {modality}" in result.stderr


@pytest.mark.parametrize(("modality", "options"), [("face", ("--seconds", 3)), ("voice", ("--find-faces",))])
def test_an_option_that_changes_nothing_is_said(
    device: Path, pins: Pins, tmp_path: Path, modality: str, options: tuple[object, ...]
) -> None:
    (tmp_path / "t.txt").write_text("1 a/0.wav a/1.wav\n")
    result = invoke(
        "evaluate", "verification", "--modality", modality, "--trials", tmp_path / "t.txt", "--root", tmp_path,
        "--bundle", pins.site, *options,
    )  # fmt: skip
    assert (
        f"{options[0]} is of {'voices' if modality == 'face' else 'faces'} and changes nothing"
        in result.stderr
    )


def test_json_has_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json("thing", {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": (float("-inf"), "x")}})
    assert json.loads(capsys.readouterr().out) == {
        "schema": "edgepin.thing/1", "a": None, "b": [1.0, None], "c": {"d": [None, "x"]}
    }  # fmt: skip
