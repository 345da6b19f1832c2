"""What `edgepin train` tells, and which process of several tells it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgepin_training import _cli, trainer

soundfile = pytest.importorskip("soundfile", reason="soundfile is not here")

Call = Callable[..., tuple[Result, dict[str, Any]]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the verb on six captures up to the training itself; the result, and what the training was told."""
    told: dict[str, Any] = {}

    def train(*_: object, report: Callable[..., None] | None = None, **options: Any) -> None:
        told.update(options, reports=report is not None)

    monkeypatch.setattr(trainer, "train", train)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for i in range(3):
        for kind in ("faces", "voices"):
            (tmp_path / kind / f"p{i}").mkdir(parents=True)
        Image.new("RGB", (64, 64), (80 * i, 90, 90)).save(tmp_path / "faces" / f"p{i}" / "a.png")
        tone = [0.3 * (-1) ** (n // (20 + i)) for n in range(16000)]
        soundfile.write(tmp_path / "voices" / f"p{i}" / "a.wav", tone, 16000)

    def run(*options: str) -> tuple[Result, dict[str, Any]]:
        arguments = ["--data", str(tmp_path), "--face-cropped", "--out", str(tmp_path / "run"), *options]
        return CliRunner().invoke(_cli.train, arguments), told

    return run


def test_the_first_process_tells_and_the_others_are_silent(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, told = call("--device", "cpu", "--workers", "3")
    assert result.exit_code == 0
    assert "3 captures of 3 people" in result.stderr
    assert (told["device"], told["workers"], told["board"], told["reports"]) == ("cpu", 3, False, True)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    result, told = call("--device", "cpu", "--workers", "3")
    assert (result.exit_code, result.output) == (0, "")
    assert (told["device"], told["workers"], told["reports"]) == ("cpu", 3, False)


def test_half_a_launch_is_refused_before_a_capture_is_read(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result, told = call()
    assert (result.exit_code, told) == (2, {})
    assert "torchrun" in result.stderr
    assert "faces" not in result.stderr


@pytest.mark.parametrize("there", [True, False])
def test_curves_are_written_where_they_can_be_and_a_hint_given_elsewhere(
    call: Call, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: (object() if there else None) if name == "tensorboard" else find(name),
    )
    result, told = call("--tensorboard")
    assert result.exit_code == 0
    assert told["board"] == there
    assert ("edgepin[tensorboard]" in result.stderr) != there
