"""The log of a run: a line every twenty steps, none of steps that are done again, and the same as curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgepin._errors import MissingExtraError
from edgepin_training.run_log import BOARD, LOG_FILE, RunLog


def figures(step: int) -> dict[str, float]:
    return {
        "step": step,
        "steps": 50,
        "face_loss": 1 / step,
        "cross_modal_loss": 2.0,
        "learning_rate": 1.23456789e-5,
        "hardness": 0.3,
        "seconds_left": 7.0,
    }


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG_FILE).read_text().splitlines()]


def test_every_twentieth_step_and_the_last_are_written(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 64)
    for step in range(1, 51):
        log(figures(step))
    assert [row["step"] for row in rows(tmp_path)] == [20, 40, 50]
    assert rows(tmp_path)[0]["learning_rate"] == 1.23457e-5, "six digits, however small"
    assert all(row["captures_per_second"] > 0 for row in rows(tmp_path))


def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 64)
    for step in (20, 40):
        log(figures(step))
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 10, "cut')
    RunLog(tmp_path, 30, 64)(figures(40))
    assert [row["step"] for row in rows(tmp_path)] == [20, 40]
    RunLog(tmp_path, 0, 64)
    assert rows(tmp_path) == []


def test_without_the_package_curves_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError) as caught:
        RunLog(tmp_path, 0, 64, board=True)
    assert "edgepin[tensorboard]" in (caught.value.hint or "")


def test_curves_hold_what_the_log_holds(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard package is not here")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 0, 64, board=True)
    for step in (20, 40):
        log(figures(step))
    log.close()
    again = RunLog(tmp_path, 20, 64, board=True)
    again({**figures(40), "face_loss": 9.0})
    again.close()
    events = EventAccumulator(str(tmp_path / BOARD)).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/face", "loss/cross_modal", "run/learning_rate", "run/hardness", "run/captures_per_second"
    }  # fmt: skip
    assert [(event.step, event.value) for event in events.Scalars("loss/face")] == [
        (20, pytest.approx(0.05)),
        (40, 9.0),
    ], "steps that are done again count once"
