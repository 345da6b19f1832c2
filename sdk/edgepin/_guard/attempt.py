"""`Attempt`: counted as a failure from the start, and how it ends."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from .._errors import CaptureError, EdgePinError, LockedOutError, UsageError
from . import memory
from .counters import Failures, Pair, Person
from .entries import check_code, check_codes, check_details
from .file import GuardFile
from .transaction import Transaction


@dataclass(frozen=True)
class Counted:
    """What `Guard.begin` counted."""

    subject: str
    door: str
    salt: bytes
    sequence: int
    """Its entry in the audit."""
    here: bool
    """Whether it counts at this door alone; else with all doors where the subject has not been accepted."""
    before: Failures
    after: Failures


class Attempt:
    """Ends by exactly one of `accept`, `reject` and `not_counted`; left open, it stays the failure that it was counted
    as. In a `with` block, `CaptureError` ends it as not counted, and any other exception as a failure.

    Each of the three is one commit. If `accept` raises, nobody was accepted.
    """

    def __init__(self, file: GuardFile, counted: Counted) -> None:
        self._file, self._counted = file, counted
        self._lock = threading.Lock()
        self._open = True

    @property
    def subject(self) -> str:
        return self._counted.subject

    @property
    def door(self) -> str:
        return self._counted.door

    @property
    def open(self) -> bool:
        """Whether it has not ended yet."""
        return self._open

    def accept(
        self,
        reasons: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
        *,
        fingerprints: Sequence[bytes] = (),
        same: memory.Same | None = None,
    ) -> bool:
        """The right person: failures up to this attempt are no longer consecutive. Open the door after this returns True.

        Attempts that began after this one stay counted.

        Args:
            reasons: codes, readable in the audit.
            details: texts and numbers, such as scores; sealed in the audit.
            fingerprints: of the samples, 1 to 255 bytes each; remembered with the same commit.
            same: whether two fingerprints are of one sample. If one of `fingerprints` is of a sample that is remembered by
                now, nobody is accepted, the attempt stays a failure, and this returns False: of one sample that is used
                at several doors at once, one attempt is accepted.

        Raises `LockedOutError` if what is kept of the subject was erased meanwhile.
        """
        codes, kept, counted = check_codes(reasons), check_details(details), self._counted
        prints = memory.check_fingerprints(fingerprints)
        with self._ending() as transaction:
            person = self._person(transaction)
            if person is None:
                raise LockedOutError(
                    "the id was erased during the attempt", hint="try again", retry_after=0.0
                )
            if prints:
                known = transaction.memory(counted.subject)
                if same is not None and known.holds(prints, same):
                    self._append(transaction, "rejected", person, ["replayed"], kept)
                    return False
                transaction.put_memory(counted.subject, known.with_accepted(prints))
            self._append(transaction, "accepted", person, codes, kept)
            pair = transaction.pair(counted.subject, counted.door)
            if not counted.here:
                person = replace(person, elsewhere=_without(person.elsewhere, counted.after.count))
            elif pair is not None:
                pair = replace(pair, failures=_without(pair.failures, counted.after.count))
            transaction.put_person(counted.subject, replace(person, everywhere=0, accepted=True))
            if pair is not None or transaction.has_room():
                transaction.put_pair(counted.subject, pair or Pair(counted.door))
            self._give_back(transaction)
        return True

    def reject(self, reasons: Sequence[str], details: Mapping[str, Any] | None = None) -> None:
        """Not the right person, or not clearly: it stays counted, and a wait begins now. See `accept`."""
        self._fail("rejected", check_codes(reasons), check_details(details))

    def not_counted(self, code: str) -> None:
        """Nothing was compared, as the capture could not be used: as if it had not been."""
        check_code(code)
        counted = self._counted
        with self._ending() as transaction:
            person = self._person(transaction)
            self._append(transaction, "not_counted", person, [code], {})
            if person is None:
                return
            pair = transaction.pair(counted.subject, counted.door)
            everywhere = max(0, person.everywhere - 1)
            if not counted.here:
                person = replace(person, elsewhere=self._undone(person.elsewhere))
            elif pair is not None:
                transaction.put_pair(counted.subject, replace(pair, failures=self._undone(pair.failures)))
            transaction.put_person(counted.subject, replace(person, everywhere=everywhere))
            self._give_back(transaction)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        if error is None:
            self._fail("failed", ["left_open"], {})
            return
        # It is counted already: a guard that cannot be written now must not hide what happened.
        with suppress(EdgePinError):
            if isinstance(error, CaptureError):
                self.not_counted(error.code)
            else:
                self._fail("failed", ["error"], {})

    def _fail(self, kind: str, codes: Sequence[str], details: dict[str, Any]) -> None:
        counted, limits = self._counted, self._file.limits
        with self._ending() as transaction:
            person = self._person(transaction)
            self._append(transaction, kind, person, codes, details)
            if person is None:
                return
            now = transaction.epoch.moment()
            pair = transaction.pair(counted.subject, counted.door)
            failures = person.elsewhere
            if not counted.here:
                person = replace(person, elsewhere=replace(failures, last=now))
                transaction.put_person(counted.subject, person)
            elif pair is not None:
                failures = pair.failures
                transaction.put_pair(counted.subject, replace(pair, failures=replace(failures, last=now)))
            alarms = [
                code
                for code, due in (
                    ("waiting", failures.count == limits.free_failures),
                    ("disabled", failures.count == limits.disable_after),
                    ("many_failures", person.everywhere > 0 and person.everywhere % limits.alarm_after == 0),
                    ("door_busy", 0.0 < transaction.door(counted.door).wait(limits) <= limits.door_seconds),
                )
                if due
            ]
            if alarms:
                self._append(transaction, "alarm", person, alarms, {})

    @contextmanager
    def _ending(self) -> Iterator[Transaction]:
        """The commit that ends the attempt; a second one is refused."""
        with self._lock:
            if not self._open:
                raise UsageError("the attempt has ended already")
            self._open = False
        with self._file.transaction() as transaction:
            yield transaction

    def _person(self, transaction: Transaction) -> Person | None:
        """The subject, if still the one of the beginning: not erased, or dropped, meanwhile."""
        person = transaction.person(self._counted.subject)
        if person is None or not hmac.compare_digest(person.salt, self._counted.salt):
            return None
        return person

    def _append(
        self,
        transaction: Transaction,
        kind: str,
        person: Person | None,
        codes: Sequence[str],
        details: dict[str, Any],
    ) -> None:
        if person is not None:
            details = {**details, "id": self._counted.subject}
        transaction.append(
            kind,
            person=person,
            door=self._counted.door,
            codes=codes,
            of=self._counted.sequence,
            details=details,
        )

    def _give_back(self, transaction: Transaction) -> None:
        """What the attempt itself had taken of the door's bucket."""
        door = transaction.door(self._counted.door)
        transaction.put_door(replace(door, level=max(0.0, door.level - 1.0)))

    def _undone(self, failures: Failures) -> Failures:
        if failures == self._counted.after:
            return self._counted.before  # with its time: the wait is as long as it was
        return replace(failures, count=max(0, failures.count - 1))


def _without(failures: Failures, count: int) -> Failures:
    """What is left of consecutive failures after the attempt that was number `count` of them was accepted."""
    return replace(failures, count=max(0, failures.count - count))
