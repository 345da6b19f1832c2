"""Naming faces by voices: the assignment, what a label says of itself, and the command."""

from __future__ import annotations

import dataclasses
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepin._bundle.bundle import Bundle, write_bundle
from edgepin._bundle.signing import SigningKey
from edgepin._decision.calibration import calibrate
from edgepin._errors import UsageError
from edgepin._pins.assignment import assign
from edgepin._pins.label import label

from ..commands import ENVIRONMENT, USAGE, YES, invoke
from ..conftest import APART, Pins
from ..synthetic_captures import voice, write_face, write_voice


def units(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_the_assignment_is_the_best_of_all(rows: int, columns: int, seed: int, coarse: bool) -> None:
    scores = np.random.default_rng(seed).normal(size=(rows, columns))
    if coarse:  # many ties
        scores = np.round(scores)
    found = assign(scores)
    given_out = found[found >= 0]
    assert len(set(given_out.tolist())) == len(given_out) == min(rows, columns)
    total = scores[np.flatnonzero(found >= 0), given_out].sum()
    wide = scores if rows <= columns else scores.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(order))
        for order in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert total == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("shape", [(60, 60), (40, 90), (90, 40)])
def test_a_large_assignment_is_scipys(shape: tuple[int, int]) -> None:
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    scores = np.random.default_rng(0).normal(size=shape)
    found = assign(scores)
    rows, columns = optimize.linear_sum_assignment(scores, maximize=True)
    assert np.array_equal(np.flatnonzero(found >= 0), rows)
    assert scores[rows, found[rows]].sum() == pytest.approx(scores[rows, columns].sum())


def sides(
    people: int, noise: float, captures: int = 4
) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """Groups g00, g01, ... are persons n00, n01, ... in the reverse order."""
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(people, 16))
    unnamed = [f"g{i:02d}/{j}.jpg" for i in range(people) for j in range(captures)]
    named = [f"n{i:02d}/{j}.wav" for i in range(people) for j in range(captures)]
    one = np.repeat(centers[::-1], captures, axis=0) + noise * rng.normal(size=(len(unnamed), 16))
    other = np.repeat(centers, captures, axis=0) + noise * rng.normal(size=(len(named), 16))
    return unnamed, units(one), named, units(other)


def test_groups_get_the_names_of_their_people() -> None:
    labels = label(*sides(8, 0.3))
    assert [(one.group, one.name) for one in labels] == [(f"g{i:02d}", f"n{7 - i:02d}") for i in range(8)]
    for one in labels:
        assert one.captures == 4
        assert one.agreement is not None
        assert one.agreement > 0.95
        assert one.margin is not None
        assert one.margin > 0


def test_agreement_falls_with_the_evidence() -> None:
    shares = [
        np.mean([one.agreement for one in label(*sides(8, noise)) if one.agreement is not None])
        for noise in (0.3, 2.0, 50.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.6


def test_single_captures_have_no_agreement() -> None:
    assert {one.agreement for one in label(*sides(4, 0.3, captures=1))} == {None}


def test_names_are_given_once_unless_they_may_be_repeated() -> None:
    rows = units(np.array([[1.0, 0.1], [1.0, 0.2], [0.9, 0.5]]))
    names = units(np.array([[1.0, 0.1], [0.0, 1.0]]))
    once = label(["a", "b", "c"], rows, ["x", "y"], names)
    assert [one.name for one in once] == ["x", None, "y"]
    assert once[1].score is once[1].margin is None
    assert once[2].margin is not None
    assert once[2].margin < 0, "x would have been nearer"
    again = label(["a", "b", "c"], rows, ["x", "y"], names, one_to_one=False)
    assert [one.name for one in again] == ["x", "x", "x"]


def test_nothing_to_label_is_refused() -> None:
    rows = np.eye(2)
    with pytest.raises(UsageError, match="nothing"):
        label([], np.empty((0, 2)), ["a", "b"], rows)
    with pytest.raises(UsageError, match="dimensions"):
        label(["a", "b"], np.eye(3)[:2], ["a", "b"], rows)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    unnamed, faces, named, voices = sides(5, 0.3)
    np.savez(tmp_path / "faces.npz", names=np.array(unnamed), embeddings=faces)
    np.savez(tmp_path / "voices.npz", names=np.array(named), embeddings=voices)
    return tmp_path


def test_the_command_labels_either_side_by_the_other(archives: Path) -> None:
    arguments = (
        "label",
        "--face-npz",
        archives / "faces.npz",
        "--voice-npz",
        archives / "voices.npz",
        "--by",
    )
    result = invoke(*arguments, "voices", "--json")
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    assert (value["schema"], value["by"], value["one_to_one"]) == ("edgepin.labels/1", "voices", True)
    assert {one["group"]: one["name"] for one in value["labels"]} == {
        f"g0{i}": f"n0{4 - i}" for i in range(5)
    }
    text = invoke(*arguments, "faces").stdout.splitlines()
    assert text[0] == "group\tname\tscore\tmargin\tagreement"
    assert [line.split("\t")[:2] for line in text[1:]] == [[f"n0{i}", f"g0{4 - i}"] for i in range(5)]


def test_the_command_says_what_it_lacks(archives: Path) -> None:
    faces, voices = ("--face-npz", archives / "faces.npz"), ("--voice-npz", archives / "voices.npz")
    assert invoke("label", *faces, "--by", "voices").exit_code == USAGE
    assert invoke("label", *faces, *voices, "--faces", archives, "--by", "voices").exit_code == USAGE
    assert invoke("label", *faces, "--voices", archives, "--by", "voices").exit_code in (USAGE, ENVIRONMENT)


def sharing(site: Path, out: Path) -> Path:
    """The tests' bundle, as if its encoders shared a space."""
    manifest = Bundle.open(site, allow_unsigned=True).manifest
    fusion = calibrate(APART.trials(30, seed=1, repeats=3), cross_modal=True)
    with zipfile.ZipFile(site) as archive:
        members = {
            name: archive.read(name) for name in archive.namelist() if not name.startswith("manifest.")
        }
    changed = dataclasses.replace(manifest, cross_modal=True, fusion=fusion.to_json())
    write_bundle(out, changed, members, SigningKey.generate())
    return out


def test_the_command_labels_folders_with_a_bundle(device: Path, pins: Pins, tmp_path: Path) -> None:
    for person in (1, 2, 3):
        for folder in ("faces", "voices"):
            (tmp_path / folder / f"p{person}").mkdir(parents=True)
        for capture in (0, 1):
            write_face(tmp_path / "faces" / f"p{person}" / f"{capture}.png", person, capture)
            write_voice(tmp_path / "voices" / f"p{person}" / f"{capture}.wav", voice(person, capture))
    (tmp_path / "faces" / "p1" / "broken.png").write_bytes(b"no image")
    arguments = (
        "label", "--faces", tmp_path / "faces", "--voices", tmp_path / "voices", "--by", "voices", "--face-cropped",
    )  # fmt: skip
    refused = invoke(*arguments, "--bundle", pins.site)
    assert refused.exit_code == USAGE
    assert "does not compare faces with voices" in refused.stderr
    site = sharing(pins.site, tmp_path / "sharing.pin")
    result = invoke(*arguments, "--bundle", site, "--allow-unsigned", "--json")
    assert result.exit_code == YES, result.output
    value = json.loads(result.stdout)
    assert [one["group"] for one in value["labels"]] == ["p1", "p2", "p3"]
    assert sorted(one["name"] for one in value["labels"]) == ["p1", "p2", "p3"]
    assert value["refused"]["faces"] == {"p1/broken.png": "damaged"}
    (tmp_path / "faces" / "p1" / "broken.png").unlink()
    without = json.loads(invoke(*arguments, "--bundle", site, "--allow-unsigned", "--json").stdout)
    assert without["labels"] == value["labels"], "what was refused has no part in it"
