"""Killed processes, two doors at once, full and read-only disks: no count is lost, and nobody is let in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgepin._errors import EnvironmentFault, IntegrityError, LockedOutError
from edgepin._guard.attempt import Attempt
from edgepin._guard.clock import SystemClock

from .guards import KEY, FakeClock, fail, failures, kinds, opened, succeed

# Opens a guard in each of many children, which are killed at their n-th statement, before or after it ran.
KILLED = """
import os, sys
from pathlib import Path
from edgepin._bundle.signing import SigningKey
from edgepin._guard.guard import Guard

folder, outcome, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
signer = SigningKey.generate()

class Killing:
    def __init__(self, connection, at, told):
        self.connection, self.left, self.told = connection, at, told
    def __getattr__(self, name):
        return getattr(self.connection, name)
    def execute(self, *arguments):
        self.left -= 1
        os.write(self.told, arguments[0].split()[0].encode() + b"\\n")
        if self.left < 0 and when == "before":
            os.kill(os.getpid(), 9)
        cursor = self.connection.execute(*arguments)
        if self.left < 0:
            os.kill(os.getpid(), 9)
        return cursor

def child(at, told):
    guard = Guard.open(folder / f"{at}", bytes(range(32)), signing_key=signer)
    guard._file._connection = Killing(guard._file._connection, at, told)
    attempt = guard.begin("a")
    os.write(told, b"begun\\n")
    if outcome == "accept":
        attempt.accept()
    elif outcome == "reject":
        attempt.reject(["below_threshold"])
    else:
        attempt.not_counted("blurred")
    os.write(told, b"ended\\n")
    os._exit(0)

at = 0
while True:
    read, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(at, told)
    os.close(told)
    lines = b""
    while part := os.read(read, 65536):
        lines += part
    os.close(read)
    _, status = os.waitpid(pid, 0)
    print(at, os.WIFSIGNALED(status), ",".join(lines.decode().split()), flush=True)
    if not os.WIFSIGNALED(status):
        break
    at += 1
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("outcome", ["accept", "reject", "not_counted"])
def test_killed_at_any_statement_an_attempt_that_began_stays_counted(
    tmp_path: Path, outcome: str, when: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), outcome, when],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    seen, ending = set(), {"accept": "accepted", "reject": "rejected"}.get(outcome, outcome)
    for line in result.stdout.splitlines():
        at, killed, told = line.split(" ")
        steps = told.split(",")
        commits = steps.count("COMMIT") - (killed == "True" and when == "before" and steps[-1] == "COMMIT")
        counted = {0: 0, 1: 1, 2: int(outcome == "reject")}[commits]
        assert ("begun" in steps) <= (commits >= 1), line  # nothing is compared before it is counted
        assert ("ended" in steps) <= (commits == 2), line
        with opened(tmp_path / at, clock=SystemClock()) as guard:
            assert failures(guard, "a") == counted, line
            assert guard.audit.verify().intact, line
            assert kinds(guard)[1:] == ["attempt", ending][:commits], line
        seen.add(commits)
    assert seen == {0, 1, 2}


PARALLEL = """
import sys
from pathlib import Path
from edgepin._bundle.signing import SigningKey
from edgepin._errors import LockedOutError
from edgepin._guard.guard import Guard

guard = Guard.open(sys.argv[1], bytes(range(32)), signing_key=SigningKey.generate(), timeout=30.0)
print("ready", flush=True)
sys.stdin.readline()
begun = 0
for _ in range(int(sys.argv[3])):
    try:
        guard.begin("a", sys.argv[2]).reject(["below_threshold"])
        begun += 1
    except LockedOutError:
        pass
print(begun, flush=True)
"""


def several(path: Path, doors: list[str], times: int) -> list[int]:
    """Processes of their own that all begin at once; how many attempts each could make."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PARALLEL, str(path), door, str(times)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for door in doors
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(doors)
    return [int(answer) for answer in answers]


def test_processes_at_two_doors_lose_no_count_and_share_the_places(tmp_path: Path) -> None:
    opened(tmp_path / "g").close()
    begun = several(tmp_path / "g", ["north", "south", "north"], times=5)
    assert sum(begun) == 5
    with opened(tmp_path / "g") as guard:
        assert failures(guard, "a") == 5
        assert guard.audit.verify().intact


def test_processes_that_make_the_guard_at_once_make_one(tmp_path: Path) -> None:
    begun = several(tmp_path / "g", ["north"] * 3, times=1)
    assert begun == [1, 1, 1]
    with opened(tmp_path / "g") as guard:
        assert failures(guard, "a") == 3


# --- The disk


@pytest.mark.parametrize("ending", ["begin", "accept", "reject"])
def test_a_full_disk_lets_nobody_try_and_nobody_in(tmp_path: Path, ending: str) -> None:
    guard = opened(tmp_path / "g")
    succeed(guard, "a")
    attempt = guard.begin("a") if ending != "begin" else None
    connection = guard._file._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")

    def until_the_pages_are_full(attempt: Attempt | None) -> None:
        for number in range(100):
            if attempt is None:
                guard.begin(f"x{number}").not_counted("test")
                continue
            getattr(attempt, ending)(["x" * 40] * 16)
            attempt = guard.begin("a")

    with pytest.raises(EnvironmentFault, match="full"):
        until_the_pages_are_full(attempt)
    connection.execute("PRAGMA max_page_count = 100000")
    assert guard.audit.verify().intact
    succeed(guard, "a")


def test_a_disk_that_takes_no_more_bytes_lets_nobody_in(tmp_path: Path) -> None:
    """A true limit on the write-ahead log's size, in a process of its own."""
    script = (
        "import resource, signal, sys\n"
        "from edgepin._bundle.signing import SigningKey\n"
        "from edgepin._errors import EnvironmentFault\n"
        "from edgepin._guard.guard import Guard\n"
        "guard = Guard.open(sys.argv[1], bytes(range(32)), signing_key=SigningKey.generate())\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40000, resource.RLIM_INFINITY))\n"
        "accepted = 0\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        guard.begin('a').accept()\n"
        "        accepted += 1\n"
        "except EnvironmentFault as error:\n"
        "    print(accepted, error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "g")], capture_output=True, text=True, check=True
    )
    accepted = int(result.stdout.split()[0])
    with opened(tmp_path / "g") as guard:
        assert kinds(guard).count("accepted") == accepted < 100
        assert guard.audit.verify().intact


def test_a_read_only_disk_lets_nobody_try(tmp_path: Path) -> None:
    guard = opened(tmp_path / "g")
    attempt = guard.begin("a")
    connection = guard._file._connection
    assert connection is not None
    connection.execute("PRAGMA query_only = ON")
    for call in (lambda: guard.begin("b"), attempt.accept):
        with pytest.raises(EnvironmentFault, match="readonly"):
            call()
    connection.execute("PRAGMA query_only = OFF")
    assert failures(guard, "a") == 1


def test_a_guard_that_another_program_holds_lets_nobody_try(tmp_path: Path) -> None:
    guard, other = opened(tmp_path / "g"), opened(tmp_path / "g")
    with other._file.transaction(), pytest.raises(EnvironmentFault, match="locked"):
        guard.begin("a")
    succeed(guard, "a")


def test_a_place_where_no_guard_can_be_made_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        opened(tmp_path / "file" / "g")
    with pytest.raises(EnvironmentFault, match="no guard at"):
        opened(tmp_path / "absent", must_exist=True)


def test_an_exception_is_not_hidden_by_a_guard_that_cannot_be_written(tmp_path: Path) -> None:
    guard = opened(tmp_path / "g")

    def block() -> None:
        with guard.begin("a"):
            guard.close()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


# --- A guard that is not there any more


def people(count: int) -> SimpleNamespace:
    return SimpleNamespace(derive_key=lambda purpose: KEY, count=lambda: count)


def test_a_guard_missing_beside_people_makes_everybody_wait_and_is_audited(tmp_path: Path) -> None:
    clock = FakeClock()
    guard = opened(tmp_path / "g", clock, store=people(3))
    assert kinds(guard) == ["missing"]
    with pytest.raises(LockedOutError) as caught:
        guard.begin("a")
    assert caught.value.retry_after == 30.0
    clock.advance(30.0)
    fail(guard, "a")
    with pytest.raises(LockedOutError):
        guard.begin("a")
    succeed(guard, "b")  # b's first attempt
    assert failures(guard, "a") == 6
    guard.close()
    guard = opened(tmp_path / "g", clock, store=people(3))
    assert kinds(guard).count("missing") == 1
    guard.unlock("c", by="Ida", why="seen")
    assert failures(guard, "c") == 0


def test_a_guard_made_with_a_new_store_makes_nobody_wait(tmp_path: Path) -> None:
    guard = opened(tmp_path / "g", store=people(0))
    assert kinds(guard) == ["created"]
    succeed(guard, "a")


def test_a_log_without_its_guard_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    guard = opened(tmp_path / "g")
    fail(guard, "a", times=3)
    (tmp_path / "g").unlink()
    with pytest.raises(IntegrityError, match="its log"):
        opened(tmp_path / "g")
