"""Whatever bytes come from outside, they are taken or refused by one of EdgePIN's errors, within bounds.

A short run of `python -m tests.fuzz`, which `make fuzz` does with a million cases.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin import StoreError

from . import runner
from .bytes_mutations import damage
from .registry import TARGETS
from .runner import case, run_cases
from .target import FindingError, Target, expect

ROOT = Path(__file__).resolve().parents[2]
REGRESSIONS = sorted(Path(__file__).with_name("regressions").glob("*.bin"))
CASES = 4000

here = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


def target_of(name: str) -> Target:
    if TARGETS[name].missing:
        pytest.skip(f"{TARGETS[name].needs} is not here")
    return TARGETS[name]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run over all targets, in a process that no other test has been in: it forks."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", str(CASES), "--seed", "1", "--json"]
    command += ["--findings", str(tmp_path_factory.mktemp("findings"))]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert run.stdout, run.stderr
    return dict(json.loads(run.stdout))


@here
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_by_our_errors_within_bounds(name: str, report: dict[str, Any]) -> None:
    target_of(name)
    result = report["targets"][name]
    assert result["cases"] > 0
    assert result["findings"] == {}


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_hypothesis_finds_no_other_error(name: str, random: Random) -> None:
    """The same properties under hypothesis, which shrinks what breaks one."""
    target = target_of(name)
    before = dict(os.environ)
    try:
        target.check(target.case(random))
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("file", REGRESSIONS, ids=lambda file: file.stem)
def test_what_was_found_once_is_not_found_again(file: Path) -> None:
    target_of(file.stem.rsplit("-", 1)[0]).check(file.read_bytes())


# --- The harness itself


def made_up(run: Any, **options: Any) -> Target:
    return Target("made-up", "", lambda: [b"seed"], damage, run, **options)


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    target = TARGETS["manifest"]
    assert [case(target, 1, i) for i in range(20)] == [case(target, 1, i) for i in range(20)]
    assert case(target, 1, 0) != case(target, 2, 0)


def test_an_error_of_somebody_else_is_a_finding(tmp_path: Path) -> None:
    def run(data: bytes) -> None:
        if data != b"seed":
            raise KeyError(len(data))

    result = run_cases(made_up(run), 1, 0, 50, tmp_path)
    assert result.cases == 50
    assert sum(result.findings.values()) > 40
    saved = next(tmp_path.glob("*.bin"))
    with pytest.raises(KeyError):
        run(saved.read_bytes())


def test_a_property_that_does_not_hold_and_a_loose_message_are_findings() -> None:
    def accepts(data: bytes) -> None:
        expect(data == b"seed", "accepted")

    def shouts(data: bytes) -> None:
        if data != b"seed":
            raise StoreError("\x1b[2J")

    for run in (accepts, shouts):
        with pytest.raises(FindingError):
            made_up(run).check(b"other")


@here
def test_a_process_that_ends_is_a_finding_and_not_the_end(tmp_path: Path) -> None:
    def run(data: bytes) -> None:
        if len(data) % 3 == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    result = run_cases(made_up(run), 1, 0, 30, tmp_path)
    assert result.cases == 30
    assert set(result.findings) == {"the process ended by signal SIGKILL"}


@here
def test_a_case_that_does_not_end_is_a_finding_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HANG_SECONDS", 0.3)

    def run(data: bytes) -> None:
        while len(data) % 5 == 0:
            pass

    result = run_cases(made_up(run), 1, 0, 8)
    assert result.cases == 8
    assert set(result.findings) == {"hang"}


@here
def test_memory_that_grows_without_bound_is_a_finding() -> None:
    def run(data: bytes) -> None:
        if data != b"seed":
            bytearray(64 << 20)

    result = run_cases(made_up(run, mebibytes=16), 1, 0, 3)
    assert set(result.findings) == {"memory: more than 16 MiB"}


@here
def test_a_slow_case_is_a_finding() -> None:
    def run(data: bytes) -> None:
        sum(range(2_000_000))

    result = run_cases(made_up(run, seconds=0.001), 1, 0, 2)
    assert sum(count for what, count in result.findings.items() if what.startswith("slow")) == 2
