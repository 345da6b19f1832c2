"""A wait becomes no shorter, whatever the clocks do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._errors import EnvironmentFault, LockedOutError
from edgepin._guard.clock import LONG_AGO, Epoch, SystemClock
from edgepin._guard.guard import Guard

from .guards import FakeClock, fail, kinds, opened, succeed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def waiting(guard: Guard, subject: str = "a") -> float:
    try:
        guard.begin(subject).not_counted("test")
    except LockedOutError as error:
        return -1.0 if error.retry_after is None else error.retry_after
    return 0.0


def set_wall(seconds: float) -> Callable[[FakeClock], None]:
    def change(clock: FakeClock) -> None:
        clock.wall += seconds

    return change


def back(clock: FakeClock) -> None:
    clock.grown -= 50.0
    clock.wall -= 50.0


CHANGES = {
    "wall clock an hour on": (set_wall(3600.0), "clock_jumped"),
    "wall clock an hour back": (set_wall(-3600.0), "clock_jumped"),
    "wall clock to 1970": (set_wall(-1_700_000_000.0), "clock_jumped"),
    "both clocks back": (back, "clock_went_back"),
    "a reboot": (FakeClock.reboot, "reboot"),
    "a reboot after a year": (lambda clock: clock.reboot(off=3.2e7), "reboot"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reopened", [False, True])
def test_the_wait_begins_again(tmp_path: Path, clock: FakeClock, change: str, reopened: bool) -> None:
    guard = opened(tmp_path / "g", clock)
    fail(guard, "a", times=5)
    clock.advance(25.0)
    alter, why = CHANGES[change]
    alter(clock)
    if reopened:
        guard.close()
        guard = opened(tmp_path / "g", clock)
    assert waiting(guard) == pytest.approx(30.0)
    clock.advance(29.0)
    assert waiting(guard) == pytest.approx(1.0)
    clock.advance(1.0)
    assert waiting(guard) == 0.0
    assert [entry.codes for entry in guard.audit.entries() if entry.kind == "clock"] == [(why,)]


def test_after_a_reboot_it_counts_from_the_opening_and_not_from_the_first_attempt(
    tmp_path: Path, clock: FakeClock
) -> None:
    guard = opened(tmp_path / "g", clock)
    fail(guard, "a", times=5)
    guard.close()
    clock.reboot()
    guard = opened(tmp_path / "g", clock)
    clock.advance(30.0)
    assert waiting(guard) == 0.0


def test_small_corrections_of_the_wall_clock_change_nothing(tmp_path: Path, clock: FakeClock) -> None:
    guard = opened(tmp_path / "g", clock)
    fail(guard, "a", times=5)
    clock.wall += 1.9
    clock.advance(30.0)
    assert waiting(guard) == 0.0
    assert "clock" not in kinds(guard)


def test_a_door_is_not_forgiven_by_a_reboot(tmp_path: Path, clock: FakeClock) -> None:
    guard = opened(tmp_path / "g", clock)
    for number in range(60):
        fail(guard, f"guess-{number}")
    clock.advance(59.0)
    clock.reboot(off=1e6)
    assert waiting(guard, "anyone") == 60.0
    clock.advance(60.0)
    assert waiting(guard, "anyone") == 0.0


def test_who_was_disabled_is_after_every_change(tmp_path: Path, clock: FakeClock) -> None:
    guard = opened(tmp_path / "g", clock)
    for _ in range(50):
        fail(guard, "a")
        clock.advance(60.0)
    for alter, _ in CHANGES.values():
        alter(clock)
        with pytest.raises(LockedOutError) as caught:
            guard.begin("a")
        assert caught.value.disabled


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_clock_that_tells_no_time_lets_nobody_try(tmp_path: Path, clock: FakeClock, value: float) -> None:
    guard = opened(tmp_path / "g", clock)
    for name in ("wall", "grown"):
        right = getattr(clock, name)
        setattr(clock, name, value)
        with pytest.raises(EnvironmentFault, match="tells no time"):
            guard.begin("a")
        setattr(clock, name, right)
    succeed(guard, "a")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("advance"), st.floats(0.0, 40.0)),
            st.tuples(st.just("wall"), st.floats(-1e9, 1e9)),
            st.tuples(st.just("reboot"), st.floats(0.0, 1e5)),
            st.tuples(st.just("try"), st.just(0.0)),
        ),
        max_size=30,
    )
)
def test_between_two_attempts_lie_thirty_true_seconds_whatever_happens(
    events: list[tuple[str, float]],
) -> None:
    """True time is what this test counts. Seconds while the machine is off are none that a device could know of."""
    clock, epoch, last, true = FakeClock(), None, None, 0.0
    epoch = Epoch.begin(clock)
    moment = LONG_AGO
    for event, value in events:
        if event == "advance":
            clock.advance(value)
            true += value
        elif event == "wall":
            clock.wall += value
        elif event == "reboot":
            clock.reboot(off=value)
            true += value
        epoch, _ = epoch.at(clock)
        if last is not None:
            assert epoch.since(moment) <= true - last + 1e-6
        if event == "try":
            last, moment = true, epoch.moment()


def test_the_systems_clocks_are_the_same_in_every_process() -> None:
    here = SystemClock()
    code = "from edgepin._guard.clock import SystemClock as C; c = C(); print(c.boot_id(), c.monotonic(), c.now())"
    boot, grown, now = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert boot == here.boot_id() == SystemClock().boot_id()
    assert 0.0 <= here.monotonic() - float(grown) < 30.0
    assert 0.0 <= here.now() - float(now) < 30.0


def test_without_a_boot_id_every_start_counts_as_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert SystemClock().boot_id() != SystemClock().boot_id()
