"""How a run goes, for people to look at: `log.jsonl`, and curves for TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from edgepin._errors import MissingExtraError
from edgepin._safe_files import write_atomic

LOG_FILE = "log.jsonl"
BOARD = "tensorboard"
EVERY = 20
"""Steps from one line to the next."""


class RunLog:
    """Writes the figures of every 20th step, and of the last one, to the folder of a run that stands at step `start`.

    What a killed run wrote beyond that step is dropped, since those steps are done again. With `board` the figures are
    also in the folder `tensorboard`; raises MissingExtraError if that package is not installed.
    """

    def __init__(self, out: Path, start: int, captures: int, *, board: bool = False) -> None:
        self._file, self._captures = out / LOG_FILE, captures
        self._last = (time.monotonic(), start)
        self._board = _writer(out / BOARD, start) if board else None
        if self._file.exists():
            lines = self._file.read_text("utf-8", "replace").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= start]
            write_atomic(self._file, [line.encode() for line in kept])

    def __call__(self, figures: dict[str, float]) -> None:
        step = int(figures["step"])
        if step % EVERY and step < figures["steps"]:
            return
        now = time.monotonic()
        began, before = self._last
        self._last = now, step
        rate = self._captures * (step - before) / max(now - began, 1e-9)
        figures = {**figures, "captures_per_second": rate}
        with self._file.open("a", encoding="utf-8") as log:
            log.write(json.dumps({name: float(f"{value:.6g}") for name, value in figures.items()}) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                if name not in ("step", "steps", "seconds_left"):
                    self._board.add_scalar(_tag(name), value, step)
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise lacking_tensorboard() from error
    return SummaryWriter(str(folder), purge_step=start + 1)


def lacking_tensorboard() -> MissingExtraError:
    return MissingExtraError(
        "curves need the `tensorboard` extra",
        hint="pip install 'edgepin[tensorboard]'; log.jsonl has the figures, too",
    )


def _tag(name: str) -> str:
    """`face_loss` -> `loss/face`, so that curves of a kind are side by side."""
    subject, _, kind = name.rpartition("_")
    return f"{kind}/{subject}" if kind in ("loss", "contrast", "accuracy") and subject else f"run/{name}"


def _step_of(line: str) -> float:
    """Infinite for a line that was cut off."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
