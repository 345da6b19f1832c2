"""What every verb shares: data to stdout, people on stderr, progress on long work, exit codes from errors."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from .._errors import EdgePinError

P = ParamSpec("P")
R = TypeVar("R")

SCHEMA_VERSION = 1


def say(text: str = "") -> None:
    """A line for a person."""
    click.echo(text, err=True)


def emit_json(kind: str, values: dict[str, Any]) -> None:
    """One JSON object on stdout. `schema` names its kind and version; NaN and infinity become null."""
    text = json.dumps(
        {"schema": f"edgepin.{kind}/{SCHEMA_VERSION}", **_finite(values)},
        ensure_ascii=False,
        default=str,
        allow_nan=False,
    )
    # A file's name need not be UTF-8: half a character is written as JSON writes it, \udcNN.
    click.echo(text.encode("utf-8", "backslashreplace").decode())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


class Progress:
    """One line on stderr that says how far long work is: rewritten on a terminal, now and then a new one elsewhere."""

    def __init__(self, *, every: float = 15.0) -> None:
        self._terminal = sys.stderr.isatty()
        self._interval = 0.1 if self._terminal else every
        self._label = ""
        self._next = 0.0
        self._open = False

    def __call__(self, label: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if label != self._label:
            self.close()
            self._label, self._next = label, now if self._terminal else now + self._interval
        finished = done >= total
        if now < self._next and not finished:
            return
        self._next = now + self._interval
        line = f"{label}: {done}/{total}{'  ' + detail if detail else ''}"
        if self._terminal:
            click.echo(f"\r\x1b[K{line}", err=True, nl=finished)
            self._open = not finished
        else:
            click.echo(line, err=True)

    def close(self) -> None:
        if self._open:
            click.echo(err=True)
            self._open = False


def exit_codes(verb: Callable[P, R]) -> Callable[P, R]:
    """Turns our errors into a message, a hint and their exit code. Anything else is a bug, and is shown as one."""

    @functools.wraps(verb)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except EdgePinError as error:
            say(f"error: {error}")
            if error.hint:
                say(f"hint: {error.hint}")
            sys.exit(error.exit_code)

    return wrapped
