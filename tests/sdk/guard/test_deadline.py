"""A verification that takes too long is not an acceptance, whatever comes back later."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from edgepin._errors import DeadlineExceededError, EnvironmentFault, UsageError
from edgepin._guard.deadline import Deadline, Watchdog

from .guards import failures, opened


def test_a_deadline_is_over_once_its_time_is() -> None:
    deadline = Deadline(0.02)
    deadline.check()
    assert 0.0 < deadline.left <= 0.02
    assert not deadline.late
    time.sleep(0.03)
    assert deadline.late
    assert deadline.left == 0.0
    with pytest.raises(DeadlineExceededError, match=r"within 0.02 s"):
        deadline.check()
    Deadline(math.inf).check()


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, "1", None, True])
def test_what_is_no_time_is_a_usage_error(seconds: float) -> None:
    with pytest.raises(UsageError):
        Deadline(seconds)


def test_work_in_time_gives_its_answer_or_its_error() -> None:
    watchdog = Watchdog()
    assert watchdog.run(lambda: 7, Deadline(10.0)) == 7
    assert watchdog.run(lambda: 7, Deadline(math.inf)) == 7
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0, Deadline(10.0))


def test_a_runtime_that_hangs_accepts_nobody_and_the_attempt_stays_counted(tmp_path: Path) -> None:
    guard, go_on, answers = opened(tmp_path / "g"), threading.Event(), []

    def hangs() -> str:
        go_on.wait(10.0)
        answers.append("accepted")
        return "accepted"

    attempt = guard.begin("a")
    with pytest.raises(DeadlineExceededError):
        Watchdog().run(hangs, Deadline(0.02))
    attempt.reject(["deadline"])
    go_on.set()
    while not answers:
        time.sleep(0.001)
    with pytest.raises(UsageError, match="ended already"):
        attempt.accept()
    assert failures(guard, "a") == 1


def test_an_answer_that_comes_back_late_is_dropped_even_if_it_is_there() -> None:
    deadline = Deadline(0.01)
    with pytest.raises(DeadlineExceededError):
        Watchdog().run(lambda: time.sleep(0.03), deadline)


def test_an_answer_that_is_there_at_once_is_dropped_if_the_time_is_over_when_it_is_looked_at() -> None:
    deadline = Deadline(10.0)

    def takes_all_the_time() -> str:
        deadline._end = 0.0
        return "accepted"

    with pytest.raises(DeadlineExceededError):
        Watchdog().run(takes_all_the_time, deadline)


def test_nothing_is_begun_after_the_deadline() -> None:
    deadline = Deadline(1e-9)
    time.sleep(0.001)
    begun: list[int] = []
    with pytest.raises(DeadlineExceededError):
        Watchdog().run(lambda: begun.append(1), deadline)
    assert begun == []


def test_when_too_many_hang_nothing_is_begun_until_one_comes_back() -> None:
    watchdog, go_on = Watchdog(most_lost=2), threading.Event()
    for _ in range(2):
        with pytest.raises(DeadlineExceededError):
            watchdog.run(lambda: go_on.wait(10.0), Deadline(0.01))
    with pytest.raises(EnvironmentFault, match="2 verifications hang") as caught:
        watchdog.run(lambda: 7, Deadline(10.0))
    assert not isinstance(caught.value, DeadlineExceededError)
    go_on.set()
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        try:
            assert watchdog.run(lambda: 7, Deadline(10.0)) == 7
            break
        except EnvironmentFault:
            time.sleep(0.01)
    else:
        pytest.fail("threads that came back are still taken for lost")


def test_a_thread_is_kept_for_the_next_time() -> None:
    watchdog = Watchdog()
    used = {watchdog.run(threading.get_ident, Deadline(10.0)) for _ in range(5)}
    assert len(used) == 1
    watchdog.close()


@pytest.mark.parametrize("most_lost", [0, 1.5, True, None])
def test_how_many_may_hang_is_checked(most_lost: int) -> None:
    with pytest.raises(UsageError):
        Watchdog(most_lost)
