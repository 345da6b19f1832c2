"""A verification ends in time, and the answer after that is no.

`Deadline` is looked at between stages and immediately before accepting. `Watchdog` is for a stage that may hang: it
runs it in a thread of its own and stops waiting; what comes back too late is never looked at.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .._errors import DeadlineExceededError, EnvironmentFault, UsageError

T = TypeVar("T")


class Deadline:
    """`seconds` from now, by a clock that nobody can set; infinity is none."""

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0.0:
            raise UsageError(f"a deadline is a number of seconds above 0, not {seconds!r}")
        if not math.isinf(seconds) and seconds > threading.TIMEOUT_MAX:
            raise UsageError(f"a deadline is at most {threading.TIMEOUT_MAX:.0f} s; infinity is none")
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, 0.0 once it is over."""
        return max(0.0, self._end - time.monotonic())

    @property
    def late(self) -> bool:
        """Whether it is over. Ask immediately before accepting, whatever took its time."""
        return self.left == 0.0

    def check(self) -> None:
        """Raises `DeadlineExceededError` once it is over."""
        if self.late:
            raise self.error()

    def error(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"no answer within {self.seconds:g} s", hint="the device is too slow for this deadline, or hangs"
        )


class Watchdog:
    """Runs work that may hang, in threads that are kept for the next time: a face finder or a runtime may have things of
    its own in each. A few threads may be given up for lost; then nothing is started any more.

    Args:
        most_lost: how many threads may hang at once, at least 1.
    """

    def __init__(self, most_lost: int = 4) -> None:
        if isinstance(most_lost, bool) or not isinstance(most_lost, int) or most_lost < 1:
            raise UsageError(f"most_lost is an integer of at least 1, not {most_lost!r}")
        self._most_lost = most_lost
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._lost: list[_Errand[Any]] = []

    def run(self, work: Callable[[], T], deadline: Deadline, dispose: Callable[[T], None] | None = None) -> T:
        """What `work` gives or raises, if it does so in time. What it gives too late goes to `dispose`.

        Raises:
            DeadlineExceededError: it did not; its answer will be dropped. The thread itself cannot be stopped.
            EnvironmentFault: too many threads hang already.
        """
        deadline.check()
        with self._lock:
            self._lost = [errand for errand in self._lost if not errand.done.is_set()]
            if len(self._lost) >= self._most_lost:
                raise EnvironmentFault(
                    f"{len(self._lost)} verifications hang in the runtime", hint="restart this process"
                )
            worker = self._idle.pop() if self._idle else _Worker(self._rest)
        errand: _Errand[T] = _Errand(work, dispose)
        worker.errands.put(errand)
        errand.done.wait(None if math.isinf(deadline.seconds) else deadline.left)
        if deadline.late or not errand.done.is_set():
            with self._lock:
                self._lost.append(errand)
            errand.abandon()
            raise deadline.error()
        return errand.result()

    def close(self) -> None:
        """Ends the threads that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.errands.put(None)

    def _rest(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)


class _Worker:
    """A thread that runs one errand after the other. A daemon: one that hangs must not keep the process from ending."""

    def __init__(self, rest: Callable[[_Worker], None]) -> None:
        self.errands: queue.SimpleQueue[_Errand[Any] | None] = queue.SimpleQueue()
        self._rest = rest
        threading.Thread(target=self._run, name="edgepin-watched", daemon=True).start()

    def _run(self) -> None:
        while (errand := self.errands.get()) is not None:
            errand.run()
            # Ready for the next one before this one is said to be done, so that a thread is enough for one caller.
            self._rest(self)
            errand.done.set()
            del errand  # nothing of the work stays while there is none


class _Errand(Generic[T]):
    def __init__(self, work: Callable[[], T], dispose: Callable[[T], None] | None) -> None:
        self._work, self._dispose, self.done = work, dispose, threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._lock, self._abandoned = threading.Lock(), False

    def run(self) -> None:
        try:
            value = self._work()
        except BaseException as error:
            self._error = error
            return
        with self._lock:
            self._value.append(value)
            late = self._abandoned
        if late:
            self._drop()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._abandoned = True
            there = bool(self._value)
        if there:
            self._drop()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _drop(self) -> None:
        while self._value:
            value = self._value.pop()
            if self._dispose is not None:
                self._dispose(value)
