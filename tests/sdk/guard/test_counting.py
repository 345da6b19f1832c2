"""An attempt is counted first; who fails too often waits, and then cannot use face and voice any more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgepin._errors import CaptureError, LockedOutError, UsageError
from edgepin._guard.guard import Guard, guard_path
from edgepin._guard.limits import GuardLimits

from .guards import FakeClock, fail, failures, kinds, opened, succeed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(tmp_path: Path, clock: FakeClock) -> Guard:
    return opened(tmp_path / "s.db.guard", clock)


def refused(guard: Guard, subject: str, door: str = "") -> LockedOutError:
    with pytest.raises(LockedOutError) as caught:
        guard.begin(subject, door)
    return caught.value


def fail_until_disabled(guard: Guard, clock: FakeClock, subject: str, door: str = "") -> None:
    for _ in range(guard._file.limits.disable_after):
        fail(guard, subject, door)
        clock.advance(61.0)  # also empties the door's bucket


# --- One id at one door


def test_an_attempt_is_counted_on_the_disk_before_anything_is_compared(guard: Guard, tmp_path: Path) -> None:
    guard.begin("a")
    with opened(tmp_path / "s.db.guard") as another:
        assert failures(another, "a") == 1


def test_the_sixth_attempt_after_five_failures_waits_thirty_seconds(guard: Guard, clock: FakeClock) -> None:
    fail(guard, "a", times=5)
    error = refused(guard, "a")
    assert (error.exit_code, error.retry_after, error.disabled) == (4, 30.0, False)
    assert "other factor" in str(error)
    clock.advance(29.5)
    assert refused(guard, "a").retry_after == pytest.approx(0.5)
    assert failures(guard, "a") == 5  # who is turned away is not counted
    clock.advance(0.5)
    fail(guard, "a")
    assert refused(guard, "a").retry_after == 30.0


def test_the_wait_begins_when_the_attempt_ends(guard: Guard, clock: FakeClock) -> None:
    fail(guard, "a", times=4)
    attempt = guard.begin("a")
    clock.advance(10.0)
    attempt.reject(["below_threshold"])
    assert refused(guard, "a").retry_after == 30.0


def test_after_fifty_failures_face_and_voice_are_disabled_and_time_does_not_help(
    guard: Guard, clock: FakeClock
) -> None:
    fail_until_disabled(guard, clock, "a")
    clock.advance(1e8)
    error = refused(guard, "a")
    assert (error.retry_after, error.disabled) == (None, True)
    assert "other factor" in str(error)
    assert "edgepin unlock" in (error.hint or "")
    assert guard.begin("b").open  # nobody else is


def test_an_acceptance_makes_failures_no_longer_consecutive(guard: Guard) -> None:
    fail(guard, "a", times=4)
    succeed(guard, "a")
    assert failures(guard, "a") == 0
    fail(guard, "a", times=5)
    assert refused(guard, "a").retry_after == 30.0


def test_a_capture_that_cannot_be_used_is_not_counted_and_starts_no_wait(
    guard: Guard, clock: FakeClock
) -> None:
    fail(guard, "a", times=5)
    clock.advance(30.0)
    guard.begin("a").not_counted("too_dark")
    assert failures(guard, "a") == 5
    guard.begin("a").not_counted("too_dark")  # at once
    for _ in range(200):
        guard.begin("b").not_counted("silent")
    assert guard.status("b").failures_everywhere == 0
    assert guard.begin("b").open


def test_what_is_undone_is_only_the_attempt_itself(guard: Guard) -> None:
    first, second = guard.begin("a"), guard.begin("a")
    first.not_counted("blurred")
    assert failures(guard, "a") == 1
    second.reject(["below_threshold"])
    assert failures(guard, "a") == 1


def test_attempts_that_began_after_the_accepted_one_stay_counted(guard: Guard) -> None:
    before, accepted, after = guard.begin("a"), guard.begin("a"), guard.begin("a")
    accepted.accept()
    assert failures(guard, "a") == 1
    after.reject(["below_threshold"])
    before.reject(["below_threshold"])
    assert failures(guard, "a") == 1


def test_an_attempt_ends_once(guard: Guard) -> None:
    attempt = guard.begin("a")
    attempt.reject(["below_threshold"])
    for again in (attempt.accept, lambda: attempt.reject(["x"]), lambda: attempt.not_counted("x")):
        with pytest.raises(UsageError, match="ended already"):
            again()
    assert failures(guard, "a") == 1


@pytest.mark.parametrize(
    ("raised", "counted", "kind"),
    [
        (CaptureError("dark", code="too_dark"), 0, "not_counted"),
        (ValueError("a bug"), 1, "failed"),
        (KeyboardInterrupt(), 1, "failed"),
        (None, 1, "failed"),
    ],
)
def test_a_block_that_ends_without_a_verdict(
    guard: Guard, raised: BaseException | None, counted: int, kind: str
) -> None:
    def block() -> None:
        with guard.begin("a"):
            if raised is not None:
                raise raised

    if raised is None:
        block()
    else:
        with pytest.raises(type(raised)):
            block()
    assert failures(guard, "a") == counted
    assert kinds(guard)[-1] == kind


def test_a_verdict_within_a_block_stands(guard: Guard) -> None:
    with guard.begin("a") as attempt:
        attempt.accept()

    def block() -> None:
        with guard.begin("a") as attempt:
            attempt.accept()
            raise ValueError("after the door was opened")

    with pytest.raises(ValueError):
        block()
    assert failures(guard, "a") == 0


# --- Several doors


def test_a_door_where_the_person_was_accepted_counts_for_itself(guard: Guard, clock: FakeClock) -> None:
    """Failures at a strange door do not disable the badge at the person's own, nor make it wait there."""
    succeed(guard, "a", "home")
    fail_until_disabled(guard, clock, "a", "strange")
    assert refused(guard, "a", "strange").disabled
    for _ in range(3):
        succeed(guard, "a", "home")
    assert refused(guard, "a", "strange").disabled  # nor do acceptances at home help who guesses elsewhere
    fail_until_disabled(guard, clock, "b", "north")
    succeed(guard, "c", "north")
    assert refused(guard, "b", "south").disabled


def test_all_strange_doors_count_together(guard: Guard) -> None:
    for door in "vwxyz":
        fail(guard, "a", door)
    assert refused(guard, "a", "another").retry_after == 30.0


def test_the_persons_own_door_can_be_disabled_and_the_others_stay_open(
    guard: Guard, clock: FakeClock
) -> None:
    for door in ("home", "office"):
        succeed(guard, "a", door)
    fail_until_disabled(guard, clock, "a", "home")
    assert refused(guard, "a", "home").disabled
    succeed(guard, "a", "office")
    assert refused(guard, "a", "home").disabled


def test_a_door_at_which_many_ids_fail_waits_and_is_never_disabled(guard: Guard, clock: FakeClock) -> None:
    for number in range(60):
        fail(guard, f"guess-{number}", "north")
    error = refused(guard, "anyone", "north")
    assert (error.retry_after, error.disabled) == (60.0, False)
    assert "this door" in str(error)
    succeed(guard, "anyone", "south")
    clock.advance(60.0)
    succeed(guard, "anyone", "north")  # an acceptance takes no place
    fail(guard, "someone", "north")
    assert refused(guard, "anyone", "north").retry_after == 60.0
    clock.advance(3600.0)
    for number in range(60):
        fail(guard, f"other-{number}", "north")
    assert refused(guard, "anyone", "north").retry_after == 60.0


def test_ids_are_counted_alike_whether_they_are_enrolled_or_not(guard: Guard, clock: FakeClock) -> None:
    guard.enrolled("known", [])
    answers = []
    for subject in ("known", "unknown"):
        fail(guard, subject, "x" + subject, times=5)
        answers.append([])
        for wait in (0.0, 29.0, 1.0):
            clock.advance(wait)
            try:
                guard.begin(subject, "x" + subject)
                answers[-1].append("begun")
            except LockedOutError as error:
                answers[-1].append(str(error))
    assert answers[0] == answers[1]


# --- Unlocking


def test_an_unlocking_opens_all_doors_or_one_and_is_audited(guard: Guard, clock: FakeClock) -> None:
    succeed(guard, "a", "home")
    fail_until_disabled(guard, clock, "a", "home")
    fail_until_disabled(guard, clock, "a", "strange")
    guard.unlock("a", door="home", by="Ida", why="seen in person")
    succeed(guard, "a", "home")
    assert refused(guard, "a", "strange").disabled
    guard.unlock("a", by="Ida", why="seen in person")
    assert failures(guard, "a") == 0
    entry = next(entry for entry in guard.audit.entries() if entry.kind == "unlocked")
    assert (entry.door, entry.details) == ("home", {"id": "a", "by": "Ida", "why": "seen in person"})


@pytest.mark.parametrize("missing", [{"by": ""}, {"why": "  "}, {"by": None}])
def test_an_unlocking_says_who_and_why(guard: Guard, missing: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        guard.unlock("a", **{"by": "Ida", "why": "seen", **missing})


def test_unlocking_at_a_door_without_a_count_of_its_own_says_so(guard: Guard) -> None:
    with pytest.raises(UsageError, match="never accepted at the door"):
        guard.unlock("a", door="home", by="Ida", why="seen")


def test_the_status_says_what_is_counted_where(guard: Guard) -> None:
    succeed(guard, "a", "home")
    fail(guard, "a", "home", times=2)
    fail(guard, "a", "strange", times=5)
    status = guard.status("a")
    assert status.to_json() == {
        "subject": "a",
        "failures_everywhere": 7,
        "doors": [
            {"door": None, "failures": 5, "retry_after": 30.0, "disabled": False},
            {"door": "home", "failures": 2, "retry_after": 0.0, "disabled": False},
        ],
    }
    assert guard.status("nobody").doors[0].failures == 0
    assert "nobody" not in str(kinds(guard))


# --- Several at once


def test_two_attempts_do_not_slip_through_one_place(tmp_path: Path) -> None:
    guards = [opened(tmp_path / "g", timeout=10.0) for _ in range(4)]
    fail(guards[0], "a", times=4)
    begun, turned_away, ready = [], [], threading.Barrier(8)

    def work(guard: Guard) -> None:
        ready.wait()
        try:
            begun.append(guard.begin("a"))
        except LockedOutError as error:
            turned_away.append(error.retry_after)

    threads = [threading.Thread(target=work, args=(guards[i % 4],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(begun), turned_away) == (1, [30.0] * 7)


# --- Bounded


def test_random_ids_cannot_fill_the_disk_and_what_is_disabled_stays(tmp_path: Path) -> None:
    clock = FakeClock()
    guard = opened(tmp_path / "g", clock, GuardLimits(max_rows=64))
    succeed(guard, "a", "home")
    fail_until_disabled(guard, clock, "victim")
    for number in range(300):
        fail(guard, f"random-{number}")
        clock.advance(61.0)
    with guard._file.reading() as (connection, state):
        assert connection.execute("SELECT count(*) FROM counter").fetchone()[0] == state.rows <= 64
    assert refused(guard, "victim").disabled
    assert failures(guard, "a", "home") == 0  # still a door of its own
    assert "dropped" in kinds(guard)
    assert failures(guard, "random-299") == 1
    assert failures(guard, "random-0") == 0


def test_someone_new_waits_where_nothing_may_be_dropped(tmp_path: Path) -> None:
    clock = FakeClock()
    limits = GuardLimits(free_failures=0, disable_after=1, max_rows=64)
    guard = opened(tmp_path / "g", clock, limits)

    def spray() -> None:
        for number in range(80):
            clock.advance(3600.0)
            fail(guard, f"random-{number}")

    with pytest.raises(LockedOutError, match="no other can be counted") as caught:
        spray()
    assert (caught.value.retry_after, caught.value.disabled) == (30.0, False)


# --- Arguments


@pytest.mark.parametrize("door", ["x" * 65, "a\nb", "\x1b[31m", None, 7])
def test_a_door_that_cannot_be_one_is_a_usage_error(guard: Guard, door: str) -> None:
    with pytest.raises(UsageError):
        guard.begin("a", door)


def test_ids_are_checked_as_the_store_does(guard: Guard) -> None:
    for call in (guard.begin, guard.status, guard.forget, guard.remembered):
        with pytest.raises(UsageError):
            call(" a")


def test_codes_and_details_are_checked_before_the_attempt_ends(guard: Guard) -> None:
    attempt = guard.begin("a")
    for call in (
        lambda: attempt.reject("below_threshold"),
        lambda: attempt.reject(["Not A Code"]),
        lambda: attempt.reject(["x"], {"crop": b"pixels"}),
        lambda: attempt.accept([], {"embedding": [0.1, 0.2]}),
        lambda: attempt.accept([], {"note": "x" * 2000}),
        lambda: attempt.accept(fingerprints=[b""]),
        lambda: attempt.accept(fingerprints=["text"]),
    ):
        with pytest.raises(UsageError):
            call()
    assert failures(guard, "a") == 1


def test_a_closed_guard_says_so(guard: Guard) -> None:
    guard.close()
    guard.close()
    with pytest.raises(UsageError, match="closed"):
        guard.begin("a")


def test_the_guard_lies_beside_the_store() -> None:
    assert guard_path("site/enrollments.db") == Path("site/enrollments.db.guard").resolve()


def test_a_link_to_the_store_leads_to_the_same_guard(tmp_path: Path) -> None:
    (tmp_path / "e.db").write_bytes(b"store")
    (tmp_path / "link.db").symlink_to(tmp_path / "e.db")
    assert guard_path(tmp_path / "link.db") == guard_path(tmp_path / "e.db")
