"""The options of a run: what they are unless told, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import edgepin_training
from edgepin._errors import UsageError
from edgepin_training.config import TrainConfig

CONFIGS = [
    path
    for path in sorted((Path(edgepin_training.__file__).parent / "configs").glob("*.toml"))
    if not path.stem.startswith("starter_")  # recipes of another kind: test_starter.py
]

DEFAULTS = {
    "seed": 0,
    "steps": 3000,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "warmup": 100,
    "weight_decay": 2e-2,
    "save_every": 200,
    "precision": "fp32",
    "chunk": 0,
    "face_width": 1.0,
    "voice_width": 1.0,
    "dropout": 0.1,
    "encoders": "small",
    "norm": "batch",
    "init": "",
    "matching_head": False,
    "identity_weight": 1.0,
    "margin": 0.2,
    "scale": 30.0,
    "contrastive_weight": 1.0,
    "cross_modal_weight": 1.0,
    "cross_modal_loss": "info_nce",
    "cross_modal_margin": 0.6,
    "mining": "curriculum",
    "hardness": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    "orthogonality_weight": 0.0,
    "positives": "person",
    "temperature": 0.1,
    "log_mel": "kaldi",
    "voice_seconds": 2.0,
    "speeds": [1.0, 0.9, 1.1],
    "hold_out": 0.2,
    "face_size": 64,
    "augment": 1.0,
}


def written(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text, "utf-8")
    return path


def test_defaults_are_the_table() -> None:
    assert TrainConfig().to_json() == DEFAULTS


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert TrainConfig.read(written(tmp_path, "")) == TrainConfig()


def test_file_overrides_what_it_names_and_takes_whole_numbers_for_floats(tmp_path: Path) -> None:
    config = TrainConfig.read(written(tmp_path, "steps = 7\nmargin = 0\nspeeds = [1, 1.25]\n"))
    assert config == TrainConfig(steps=7, margin=0.0, speeds=(1.0, 1.25))
    assert (type(config.margin), type(config.speeds[0])) == (float, float)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_packaged_configs_load(path: Path) -> None:
    config = TrainConfig.read(path)
    assert config != TrainConfig()
    assert config.face_spec.size == config.face_size


@pytest.mark.parametrize("form", [{"positives": "track"}, {"matching_head": True}])
def test_who_trains_no_identities_must_not_weigh_them(form: dict[str, Any]) -> None:
    for weights in ({}, {"identity_weight": 0.0}, {"contrastive_weight": 0.0}):
        with pytest.raises(UsageError, match=r"label|identities"):
            TrainConfig(**form, **weights)
    TrainConfig(**form, identity_weight=0.0, contrastive_weight=0.0)


def test_demo_is_among_the_packaged_configs() -> None:
    assert {"demo", "small"} <= {path.stem for path in CONFIGS}


def test_json_comes_back_equal() -> None:
    config = TrainConfig(seed=3, speeds=(1.0,), augment=0.25)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 1  # type: ignore[misc]


def test_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="stepz") as caught:
        TrainConfig.from_json({"stepz": 3})
    assert "steps" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 10.0),
        ("steps", "10"),
        ("steps", True),
        ("learning_rate", "fast"),
        ("learning_rate", False),
        ("log_mel", 80),
        ("speeds", 1.0),
        ("speeds", ["slow"]),
        ("speeds", [True]),
        ("margin", None),
    ],
)
def test_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        TrainConfig.from_json({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("batch_size", 7),
        ("save_every", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("face_width", 0.0),
        ("voice_width", -1.0),
        ("scale", 0.0),
        ("temperature", 0.0),
        ("voice_seconds", 0.0),
        ("hold_out", 1.0),
        ("hold_out", -0.1),
        ("speeds", ()),
        ("speeds", (0.9, 1.0)),
        ("speeds", (1.0, 0.0)),
        ("seed", -1),
        ("dropout", 1.0),
        ("face_size", 0),
        ("face_size", 40),
        ("face_size", 2048),
        ("log_mel", "mfcc"),
        ("optimizer", "lamb"),
        ("encoders", "large"),
        ("cross_modal_loss", "cosine"),
        ("cross_modal_margin", 0.0),
        ("mining", "luck"),
        ("hardness", ()),
        ("hardness", (0.3, 1.1)),
        ("positives", "video"),
    ],
)
def test_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("text", ["steps = ", "steps 3", "[steps", "steps = 1\nsteps = 2"])
def test_broken_toml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        TrainConfig.read(written(tmp_path, text))


def test_table_in_the_file_is_an_unknown_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train"):
        TrainConfig.read(written(tmp_path, "[train]\nsteps = 3\n"))


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            TrainConfig.read(path)
    (tmp_path / "latin.toml").write_bytes(b'log_mel = "\xff"')
    with pytest.raises(UsageError, match="is not TOML"):
        TrainConfig.read(tmp_path / "latin.toml")
