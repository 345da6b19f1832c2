"""Runs cases in processes of their own, so that a crash, a hang or a swelling process is a finding and not the end.

A case is made of (seed, target, index) alone, so any of them can be made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from .target import FindingError, Target, shared_folder

HANG_SECONDS = 30.0
"""Of the processor: after so long a case is given up, and its process killed."""
WAIT_SECONDS = 300.0
"""The same for one that only waits."""
_SLACK = 2 << 30  # address space beyond what is there: libraries reserve more than they touch
_PLACE = struct.Struct("<q")


@dataclasses.dataclass
class Result:
    """What came of the cases of one target so far; `findings` counts each kind, and `files` has its first case."""

    cases: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    findings: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest: float = 0.0
    """Seconds of the processor that the slowest case took."""
    grown: int = 0
    """MiB by which memory grew at most, over the seeds."""

    def add(self, other: Result) -> None:
        self.cases += other.cases
        self.seconds += other.seconds
        self.outcomes.update(other.outcomes)
        self.findings.update(other.findings)
        self.slowest, self.grown = max(self.slowest, other.slowest), max(self.grown, other.grown)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "seconds": round(self.seconds, 1), "slowest": round(self.slowest, 2),
                "outcomes": dict(sorted(self.outcomes.items())), "findings": dict(self.findings)}  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Result:
        return cls(
            **{**value, "outcomes": Counter(value["outcomes"]), "findings": Counter(value["findings"])}
        )


def case(target: Target, seed: int, index: int) -> bytes:
    """The bytes of one case."""
    return target.case(Random(f"{seed}:{target.name}:{index}"))


def run_cases(target: Target, seed: int, first: int, count: int, keep: Path | None = None) -> Result:
    """Runs the cases `first` to `first + count`, in child processes; the first case of each finding goes into `keep`."""
    total = Result()
    while count > 0:
        one, done = _in_child(target, seed, first, count, keep)
        total.add(one)
        first, count = first + done, count - done
    return total


def describe(error: BaseException) -> str:
    """A name for a finding, the same for cases that fail in the same way at the same place."""
    frames = traceback.extract_tb(error.__traceback__)
    cause: BaseException | None = error.__cause__
    while cause is not None:
        frames += traceback.extract_tb(cause.__traceback__)
        cause = cause.__cause__
    ours = [frame for frame in frames if "edgepin" in frame.filename] or frames
    words = re.sub(r"\d+", "N", str(error))[:80]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} in {place}: {words}"


def save(keep: Path | None, target: Target, name: str, data: bytes) -> None:
    """Keeps the first case of a finding."""
    if keep is None:
        return
    keep.mkdir(parents=True, exist_ok=True)
    stem = keep / f"{target.name}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    if not stem.with_suffix(".bin").exists():
        stem.with_suffix(".bin").write_bytes(data)
        stem.with_suffix(".txt").write_text(f"{name}\n", "utf-8")


def _in_child(target: Target, seed: int, first: int, count: int, keep: Path | None) -> tuple[Result, int]:
    """Forks, watches, and says what came and how many cases are done, the one that killed the child included."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    _PLACE.pack_into(shared, 0, first - 1)
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    place = shared_folder()  # made here, so that it outlives the child, however that ends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 minds a fork beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            result = _loop(target, seed, first, count, keep, lambda i: _PLACE.pack_into(shared, 0, i))
            with os.fdopen(writing, "w") as pipe:
                json.dump(result.to_json(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    started, stalled, seen, looked, spent = time.monotonic(), 0.0, first - 1, time.monotonic(), 0.0
    hung = False
    with os.fdopen(reading) as pipe:
        for _ in _polls():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            now, at = time.monotonic(), _PLACE.unpack_from(shared)[0]
            # A machine that is busy, or was put to sleep, is no hang: a look counts for no longer than this.
            stalled = 0.0 if at != seen else stalled + min(now - looked, 0.5)
            spent = _cpu_seconds(child) if at != seen or not spent else spent
            seen, looked = at, now
            if stalled > WAIT_SECONDS or _cpu_seconds(child) - spent > HANG_SECONDS:
                hung = True
                os.kill(child, signal.SIGKILL)
        text = pipe.read()
    shutil.rmtree(place / str(child), ignore_errors=True)
    if text and not hung and status == 0:
        return Result.from_json(json.loads(text)), count
    at = int(_PLACE.unpack_from(shared)[0])
    if at < first:
        raise RuntimeError(f"the seeds of {target.name} cannot be made or end the process")
    name = "hang" if hung else f"the process ended by {_ending(status)}"
    save(keep, target, name, case(target, seed, at))
    done = at - first + 1
    # What came of the cases before is lost with the child; they are counted, and known not to have ended it.
    return Result(done, time.monotonic() - started, Counter({"unknown": done - 1}), Counter({name: 1})), done


def _cpu_seconds(child: int) -> float:
    """Seconds of the processor that a process has had; see proc(5), fields 14 and 15."""
    fields = Path(f"/proc/{child}/stat").read_text("ascii", "replace").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _polls() -> Iterator[None]:
    pause = 0.001
    while True:
        yield
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _loop(
    target: Target, seed: int, first: int, count: int, keep: Path | None, tell: Callable[[int], object]
) -> Result:
    warnings.simplefilter("ignore")
    for data in target.valid:
        target.check(data)
    result, base = Result(), _peak()
    peak = base
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    # Beyond this an allocation fails, and the machine is not taken down by the case that would be found.
    resource.setrlimit(resource.RLIMIT_AS, (used + (target.mebibytes << 20) + _SLACK,) * 2)
    started = time.monotonic()
    for index in range(first, first + count):
        tell(index)
        data = case(target, seed, index)
        before = time.process_time()
        try:
            result.outcomes[target.check(data)] += 1
            problem = None
        except Exception as error:
            problem = describe(error)
        took = time.process_time() - before
        result.slowest = max(result.slowest, took)
        if took > target.seconds:
            problem = problem or f"slow: more than {target.seconds:g} s of the processor"
        now = _peak()
        result.grown = max(result.grown, (now - base) >> 20)
        if now - peak > target.mebibytes << 20:
            problem = problem or f"memory: more than {target.mebibytes} MiB"
        peak = max(peak, now)
        if problem:
            result.findings[problem] += 1
            save(keep, target, problem, data)
    result.cases, result.seconds = count, time.monotonic() - started
    return result


def _peak() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


__all__ = ["FindingError", "Result", "case", "describe", "run_cases", "save"]
