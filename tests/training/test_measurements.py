"""The drivers that measure training on rendered people: that they run, go on where they stopped, and say what they found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import losses_by_mining, reference, robustness, visible_factors
from benchmarks.frozen_heads import Features, cross_modal_auc, train_heads
from benchmarks.losses_by_mining import COMBINATIONS, table

from edgepin._errors import UsageError
from edgepin_training import trainer
from edgepin_training.config import TrainConfig
from edgepin_training.rendered import make_person, render_face, render_voice

TINY = """
batch_size = 8
face_width = 0.25
voice_width = 0.25
voice_seconds = 0.5
warmup = 1
speeds = [1.0]
save_every = 1
"""


@pytest.mark.parametrize("condition", robustness.CONDITIONS)
def test_a_condition_changes_nothing_at_its_first_level_and_more_with_each(condition: str) -> None:
    modality, change, levels = robustness.CONDITIONS[condition]
    person = make_person(1, 0)
    whole = render_face(person, 1).image if modality == "face" else render_voice(person, 1)
    differences = [np.abs(change(level)(whole).astype(float) - whole).mean() for level in levels]
    assert differences[0] == 0
    assert differences == sorted(differences)
    assert differences[1] > 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the people are: rendered once for all drivers."""
    return tmp_path_factory.mktemp("measured")


@pytest.fixture
def arguments(tmp_path: Path, shared: Path) -> list[str]:
    (tmp_path / "tiny.toml").write_text(TINY)
    return [
        "--out", str(shared), "--json", str(tmp_path / "found.json"), "--config", str(tmp_path / "tiny.toml"),
        "--people", "6", "--unseen", "5", "--steps", "2",
    ]  # fmt: skip


def test_the_table_of_losses_by_mining_goes_on_where_it_stopped(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments += ["--seeds", "2", "--only", "contrastive:curriculum"]
    losses_by_mining.main(arguments)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["loss"], row["mining"], row["seed"]) for row in found["runs"]] == [
        ("contrastive", "curriculum", 0),
        ("contrastive", "curriculum", 1),
    ]
    assert found["table"][0]["seeds"] == 2
    for row in found["runs"]:
        assert row["reached"] == pytest.approx((row["auc"] - 0.5) / (row["oracle"] - 0.5))
        assert row["people"] == 5
    monkeypatch.setattr(trainer, "_step", lambda *_: pytest.fail("a run that was there is trained again"))
    losses_by_mining.main(arguments)
    assert json.loads((tmp_path / "found.json").read_text()) == found


def test_on_frozen_encoders_only_heads_are_trained_and_the_encoders_stay(
    tmp_path: Path, arguments: list[str]
) -> None:
    arguments = ["--out", str(tmp_path / "own"), *arguments[2:]]
    reference.main(arguments)
    run = tmp_path / "own" / "run"
    before = (run / "checkpoint.safetensors").read_bytes()
    losses_by_mining.main([*arguments, "--frozen", str(run), "--seeds", "1"])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["loss"], row["mining"]) for row in found["runs"]] == list(COMBINATIONS)
    assert found["frozen"]["steps"] == 2
    assert len({row["auc"] for row in found["runs"]}) > 1
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_heads_on_features_that_share_something_find_it() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(64), 2)
    shared = rng.standard_normal((64, 3))[people]
    rows = {
        name: torch.from_numpy(
            np.hstack([shared, rng.standard_normal((128, 5))]) @ rng.standard_normal((8, 8))
        ).float()
        for name in ("face", "voice")
    }
    features = Features(rows, {"face": people, "voice": people})
    config = TrainConfig(steps=200, cross_modal_loss="contrastive", mining="semi_hard")
    assert cross_modal_auc(train_heads(features, config), features) > 0.9


def test_the_table_has_every_loss_and_mining_and_their_spread() -> None:
    assert len(set(COMBINATIONS)) == len(COMBINATIONS) == 11
    rows = [{"loss": "triplet", "mining": "hard", "reached": value} for value in (0.2, 0.5, 0.8)]
    assert table(rows) == [
        {
            "loss": "triplet",
            "mining": "hard",
            "seeds": 3,
            "reached": pytest.approx(0.5),
            "least": 0.2,
            "greatest": 0.8,
        }
    ]


def test_the_reference_run_says_how_near_the_oracle_it_came(tmp_path: Path, arguments: list[str]) -> None:
    reference.main(arguments)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["oracle"] == pytest.approx(0.8955, abs=1e-3)
    assert (found["steps"], found["steps_of_this_call"], found["people"]) == (2, 2, 5)
    assert 0 < found["parameters"]["voice"] < 1_500_000
    with pytest.raises(UsageError, match="other options"):
        reference.main([*arguments[:-1], "3"])


def test_robustness_compares_both_trainings_under_every_condition(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {
        name: (modality, change, (levels[0], levels[-1]))
        for name, (modality, change, levels) in list(robustness.CONDITIONS.items())[1:4]
    }
    monkeypatch.setattr(robustness, "CONDITIONS", few)
    robustness.main([*arguments, "--charts", str(tmp_path / "charts")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["trainings"]) == ["joint", "single"]
    for name, conditions in found["trainings"].items():
        assert list(conditions) == list(robustness.CONDITIONS)
        for rows in conditions.values():
            assert len(rows) == 2
            assert all(0 <= row["eer"]["value"] <= 1 for row in rows)
            assert all(("cross_modal_auc" in row) == (name == "joint") for row in rows)
    assert len(list((tmp_path / "charts").glob("*.svg"))) == len(robustness.CONDITIONS)


def test_the_reference_setting_leaves_nearly_all_to_be_seen_and_the_standard_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visible_factors, "PEOPLE", 4)
    monkeypatch.setattr(visible_factors, "PAIRS", 20_000)
    visible_factors.main(["--json", str(tmp_path / "seen.json"), "--noise", "0.001"])
    shares = {
        row["setting"]: row["share_of_oracle"] for row in json.loads((tmp_path / "seen.json").read_text())
    }
    assert shares["standard"] < 0.8
    assert shares["reference"] > 0.97
