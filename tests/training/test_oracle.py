"""The rendered corpus as an instrument: the oracle against Monte Carlo, the knob, and the reference setting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgepin._errors import UsageError
from edgepin.metrics import auc
from edgepin_training._cli import render
from edgepin_training.rendered import (
    EXPRESSION,
    GAIT_SHAPE,
    SETTINGS,
    Setting,
    cross_modal_llr,
    make_people,
    oracle_auc,
    oracle_scores,
    render_face,
    render_gait,
    write_corpus,
)


@pytest.mark.parametrize("setting", [Setting(0.3), Setting(), SETTINGS["reference"], Setting(4.0)])
def test_the_oracles_auc_is_what_drawing_pairs_shows(setting: Setting) -> None:
    rng = np.random.default_rng(1)
    a, pairs = np.array(setting.expression), 200_000
    shared = rng.standard_normal((pairs, 4))
    face, voice = (a * shared + np.sqrt(1 - a * a) * rng.standard_normal((pairs, 4)) for _ in range(2))
    genuine = cross_modal_llr(face, voice, setting)
    impostor = cross_modal_llr(face, np.roll(voice, 1, axis=0), setting)
    drawn = auc(np.concatenate([genuine, impostor]), np.repeat([True, False], pairs))
    assert oracle_auc(setting) == pytest.approx(drawn, abs=3e-3)
    # A likelihood ratio averages to 1 over impostors (here within its heavy tail) and lies above 0 on genuine pairs.
    assert np.exp(np.clip(impostor, None, 5)).mean() < 1.05
    assert genuine.mean() > 0 > impostor.mean()


def test_the_likelihood_ratio_is_that_of_the_two_densities() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    setting = Setting(1.7)
    face, voice = np.random.default_rng(2).standard_normal((2, 4))
    expected = 0.0
    for k, a in enumerate(setting.expression):
        r = a * a
        together = stats.multivariate_normal([0, 0], [[1, r], [r, 1]]).logpdf([face[k], voice[k]])
        expected += together - stats.norm.logpdf(face[k]) - stats.norm.logpdf(voice[k])
    assert float(cross_modal_llr(face, voice, setting)) == pytest.approx(expected, rel=1e-12)


def test_no_other_score_of_the_factors_is_better() -> None:
    people = make_people(400, seed=3, setting=SETTINGS["reference"])
    scores, same = oracle_scores(people, people), np.eye(400, dtype=bool)
    best = auc(scores.ravel(), same.ravel())
    face, voice = (np.array([p.expressed(m) for p in people]) for m in ("face", "voice"))
    assert best == pytest.approx(oracle_auc(SETTINGS["reference"]), abs=0.015)
    for other in (face @ voice.T, -np.linalg.norm(face[:, None] - voice[None, :], axis=2)):
        assert auc(other.ravel(), same.ravel()) < best


def test_difficulty_is_a_knob_from_certainty_to_chance() -> None:
    levels = [oracle_auc(Setting(difficulty)) for difficulty in (0.0, 0.1, 0.5, 1.0, 1.3, 2.0, 5.0, 1000.0)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == 1.0
    assert levels[3] == pytest.approx(0.920, abs=1e-3)
    assert levels[-1] == pytest.approx(0.5, abs=0.02)
    assert Setting().expression == pytest.approx(EXPRESSION)


def test_the_reference_setting_is_fixed() -> None:
    reference = SETTINGS["reference"]
    assert (reference.difficulty, reference.private) == (1.3, 0.1)
    assert 0.85 < oracle_auc(reference) < 0.92
    assert oracle_auc(reference) == pytest.approx(0.89549, abs=1e-4)


@pytest.mark.parametrize("wrong", [{"difficulty": -0.1}, {"private": -1.0}, {"difficulty": float("nan")}])
def test_a_setting_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Setting(**wrong)


def test_a_setting_changes_how_people_look_and_not_who_they_are() -> None:
    (one,), (other,) = (make_people(1, seed=1, setting=setting) for setting in SETTINGS.values())
    assert np.array_equal(one.shared, other.shared)
    assert np.array_equal(one.face, other.face)
    assert not np.array_equal(render_face(one, 1).image, render_face(other, 1).image)
    with pytest.raises(ValueError, match="one setting"):
        oracle_scores([one], [other])
    with pytest.raises(ValueError, match="difficulty 0"):
        oracle_scores(*[make_people(1, seed=1, setting=Setting(0.0))] * 2)


def test_a_corpus_of_another_setting_is_another_corpus(tmp_path: Path) -> None:
    arguments = {"people": 2, "seed": 1, "faces": 1, "voices": 0}
    write_corpus(tmp_path / "c", **arguments, setting=SETTINGS["reference"])
    record = json.loads((tmp_path / "c" / "corpus.json").read_text())
    assert (record["difficulty"], record["private"]) == (1.3, 0.1)
    assert record["expression"] == pytest.approx(list(SETTINGS["reference"].expression))
    with pytest.raises(UsageError, match="difficulty"):
        write_corpus(tmp_path / "c", **arguments)


def test_the_command_renders_a_setting_and_a_difficulty(tmp_path: Path) -> None:
    for name, options, expected in (
        ("reference", ["--setting", "reference"], (1.3, 0.1)),
        ("harder", ["--setting", "reference", "--difficulty", "3"], (3.0, 0.1)),
        ("standard", [], (1.0, 1.0)),
    ):
        arguments = ["--out", str(tmp_path / name), "--people", "2", "--captures", "1", *options]
        result = CliRunner().invoke(render, arguments)
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / name / "corpus.json").read_text())
        assert (record["difficulty"], record["private"]) == expected
    assert "0.92" in result.stderr


def test_a_gait_is_the_persons_and_each_capture_differs() -> None:
    one, other = make_people(2, seed=4)
    walk = render_gait(one, 1)
    assert (walk.shape, walk.dtype) == (GAIT_SHAPE, np.float32)
    assert np.array_equal(walk, render_gait(one, 1))
    assert not np.array_equal(walk, render_gait(one, 2))
    assert not np.array_equal(walk, render_gait(other, 1))
