"""A counter outside the store, against a whole older copy of it put back in its place.

Every change of the store commits the number that the counter will have next, and only then advances the counter.
So a store whose number is the counter's is the last one; one more is a change that was cut off before the counter
moved, and the counter is advanced; less is an older copy, and refused. Two changes never have one number: the first
of each session is an empty one, above whatever a session that was cut off may have left behind
(docs/decisions/008-erased-stay-erased.md).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .._errors import EnvironmentFault, StoreError, UsageError


class MonotonicCounter(Protocol):
    """A number that nothing on this machine can make smaller, such as an NV counter of a TPM."""

    def read(self) -> int:
        """The number; at least 1."""
        ...

    def increment(self) -> int:
        """Adds 1 and gives the new number. When it returns, the number lasts through a power cut."""
        ...


class RollbackGuard:
    """Holds the number in a store against a counter. Without a counter it only refuses stores that have one."""

    def __init__(self, path: Path, counter: MonotonicCounter | None, timeout: float) -> None:
        self.counter = counter
        self.timeout = timeout
        self._lock_path = Path(f"{path}.lock")

    def read(self) -> int:
        """The counter now; 0 without one. Read it before the store, which may only be ahead of it."""
        return self.counter.read() if self.counter else 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds off other processes from commit to increment; SQLite's own lock ends with the commit.

        Raises `EnvironmentFault` if another one holds it for longer than the timeout.
        """
        if self.counter is None:
            yield
            return
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EnvironmentFault(f"cannot use {self._lock_path}: {error.strerror}") from error
        try:
            deadline = time.monotonic() + self.timeout
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise EnvironmentFault(
                            "another program holds the store", hint="try again when it is done"
                        ) from None
                    time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)  # and with it the lock

    def check(self, generation: int, before: int, *, repair: bool) -> None:
        """Whether a store with this number is the last one. `before` is the counter, read before the store.

        Raises `StoreError` if it is not, `UsageError` if the store has a number and there is no counter.
        """
        if self.counter is None:
            if generation:
                raise UsageError(
                    "the store is held against a rollback counter, and none was given",
                    hint="give the counter that it was bound to (--counter)",
                )
            return
        if generation == 0:
            raise StoreError(
                "the store is not bound to the counter that was given: it may be an older copy (rollback)",
                hint="if it is the right one, bind it: edgepin store rotate --bind-counter COUNTER",
            )
        if generation < before:
            raise StoreError(
                f"the store was rolled back: it is change {generation}, and the counter stands at {before}",
                hint="put the last one back; if it is lost, restore this one knowingly: edgepin store restore",
            )
        now = before if generation <= before + 1 else self.counter.read()
        if generation > now + 1:
            raise StoreError(
                f"the counter stands at {now}, behind the store's change {generation}: it is another one, or was reset",
                hint="give the counter that it was bound to, or restore the store knowingly: edgepin store restore",
            )
        if repair and generation == now + 1:
            self.counter.increment()
