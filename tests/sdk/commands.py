"""Running the command `edgepin`, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest
from click.testing import CliRunner, Result

from edgepin._cli import main as command

YES, NO, USAGE, CAPTURE, LOCKED_OUT, INTEGRITY, ENVIRONMENT = 0, 1, 2, 3, 4, 5, 6


def has_metadata() -> bool:
    try:
        return bool(metadata.version("edgepin"))
    except metadata.PackageNotFoundError:
        return False


needs_metadata = pytest.mark.skipif(not has_metadata(), reason="edgepin runs from its sources, not installed")


def invoke(*arguments: object) -> Result:
    """Runs the command in this process. Whatever happens, no traceback."""
    result = CliRunner().invoke(command.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


def process(
    *arguments: object, before: str = "", stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, after the Python statements `before`."""
    result = subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom edgepin._cli.main import main; main(prog_name='edgepin')"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        input=stdin,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in result.stdout + result.stderr
    return result
