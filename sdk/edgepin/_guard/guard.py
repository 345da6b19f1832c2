"""`Guard`: counts an attempt before anything is compared, and makes those wait who fail too often.

with guard.begin("badge-0042", door="north") as attempt:      # raises LockedOutError
    ...                                                       # compare
    attempt.accept() or attempt.reject(["below_threshold"])   # left open, it stays a failure
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._bundle.signing import SigningKey
from .._errors import IntegrityError, LockedOutError, UsageError
from .._store.template import check_subject
from . import memory
from .attempt import Attempt, Counted
from .audit import AuditLog
from .clock import Clock, SystemClock
from .counters import Failures, Person
from .entries import check_code, check_details
from .file import GuardFile
from .head import audit_key_path
from .limits import GuardLimits
from .sealing import GuardKeys
from .status import DoorStatus, GuardStatus, no_room, refusal
from .transaction import Transaction, read_memory

if TYPE_CHECKING:
    from .._store.counter import MonotonicCounter
    from .._store.store import Store

KEY_PURPOSE = "guard"
"""What the store's key for the guard is derived for."""
RESERVED_KINDS = frozenset({
    "accepted", "alarm", "attempt", "clock", "created", "dropped", "enrolled", "failed", "forgotten", "missing",
    "not_counted", "pruned", "refused", "rejected", "searched", "unlocked",
})  # fmt: skip
_MAX_DOOR = 64


class Guard:
    """An open guard. Several threads may use one; several processes may open the same file.

    Every method raises `IntegrityError` if the file was altered, and `EnvironmentFault` if it cannot be read or
    written now. Whoever verifies must then answer no.
    """

    def __init__(self, file: GuardFile) -> None:
        self._file = file
        self.audit = AuditLog(file)

    @property
    def clock(self) -> Clock:
        """What tells the time here."""
        return self._file.clock

    @classmethod
    def open(
        cls,
        path: str | Path,
        store: Store | bytes,
        *,
        clock: Clock | None = None,
        limits: GuardLimits | None = None,
        counter: MonotonicCounter | None = None,
        signing_key: SigningKey | None = None,
        must_exist: bool = False,
        renew: bool = False,
        timeout: float = 5.0,
    ) -> Guard:
        """Opens the guard of a store, and makes it first (mode 0600) if there is none.

        A guard that is made beside a store in which people are enrolled already may stand for one that was
        deleted. Then everybody begins with `free_failures`, so that each first attempt has to wait, and the audit
        begins with `missing`.

        Args:
            path: the file, see `guard_path`.
            store: the store whose attempts are counted, or 32 bytes of key material (for a new store).
            clock: what tells the time; the system's by default.
            limits: `GuardLimits()` by default.
            counter: a counter outside the file, for this guard alone. With it, an older copy of the file is noticed.
            signing_key: signs the heads of the audit; this device's `audit.key`, made on first use, by default.
            must_exist: do not make one.
            renew: make one although people are enrolled and a counter is given, which otherwise is an error: the guard
                that the counter was for is gone.
            timeout: seconds to wait for another process that writes.

        Raises:
            IntegrityError: it is damaged, altered, an older copy, another store's, or gone.
            EnvironmentFault: it cannot be made, read or written.
        """
        limits = limits or GuardLimits()
        if isinstance(store, bytes):
            key, in_use = store, False
        else:
            key, in_use = store.derive_key(KEY_PURPOSE), store.count() > 0
        if in_use and counter is not None and not renew and not os.path.exists(path):
            raise IntegrityError(
                f"the guard {path} is gone, and people are enrolled",
                hint="restore it from a backup; or begin anew, knowingly: Guard.open(..., renew=True)",
            )
        file, made = GuardFile.open(
            Path(path), GuardKeys(key), clock or SystemClock(), limits, counter,
            signing_key or SigningKey.load_or_create(audit_key_path()),
            start=limits.free_failures if in_use else 0, must_exist=must_exist, timeout=timeout,
        )  # fmt: skip
        try:
            # Also notices a reboot, so that waits start again now and not with the next attempt.
            with file.transaction(counted=made) as transaction:
                if made:
                    transaction.append("missing" if in_use else "created")
        except BaseException:
            file.close()
            raise
        return cls(file)

    # --- Attempts

    def begin(self, subject: str, door: str = "") -> Attempt:
        """Counts an attempt as failed, on the disk, before anything is compared; it then ends in one of three ways.

        Args:
            subject: the id that is claimed. One that is not enrolled is counted like any other.
            door: where, or by which caller, up to 64 printable characters. Must not be chosen by who tries.

        Raises:
            LockedOutError: the attempt may not be made now. Nothing was counted.
        """
        check_subject(subject)
        check_door(door)
        with self._file.transaction(counted=True) as transaction:
            result = self._begin(transaction, subject, door)
        if isinstance(result, LockedOutError):
            raise result
        return result

    def _begin(self, transaction: Transaction, subject: str, door: str) -> Attempt | LockedOutError:
        limits, epoch = self._file.limits, transaction.epoch
        known = transaction.person(subject)
        person = known or self._nobody_yet(transaction)
        pair, here = transaction.pair(subject, door), transaction.door(door)
        failures = person.elsewhere if pair is None else pair.failures
        refused = refusal(failures, here, epoch, limits)
        new = known is None or not transaction.knows_door(door)
        if refused is None and new and not transaction.has_room():
            refused = no_room(limits)
        if refused is not None:
            code, error = refused
            # Once in a while: who hammers at a locked door must not push older entries out of the audit.
            told = here.noted.epoch == epoch.number and epoch.since(here.noted) < limits.wait_seconds
            if transaction.knows_door(door) and not told:
                if known is None:
                    transaction.append("refused", door=door, codes=[code])
                else:
                    transaction.append(
                        "refused", person=person, door=door, codes=[code], details={"id": subject}
                    )
                transaction.put_door(replace(here, noted=epoch.moment()))
            return error
        counted = failures.one_more(epoch)
        sequence = transaction.append("attempt", person=person, door=door, details={"id": subject})
        everywhere = person.everywhere + 1
        if pair is None:
            transaction.put_person(subject, replace(person, elsewhere=counted, everywhere=everywhere))
        else:
            transaction.put_person(subject, replace(person, everywhere=everywhere))
            transaction.put_pair(subject, replace(pair, failures=counted))
        transaction.put_door(replace(here, level=here.level + 1.0))
        return Attempt(
            self._file,
            Counted(subject, door, person.salt, sequence, pair is not None, before=failures, after=counted),
        )

    # --- What an operator does

    def unlock(self, subject: str, *, door: str | None = None, by: str, why: str) -> None:
        """Sets a subject's failures to none, at one door or at all, and says so in the audit.

        Args:
            door: one where the subject has been accepted, or None for all of them and those elsewhere.
            by: who does it.
            why: for what reason. Both are kept, sealed, and may not be empty.
        """
        check_subject(subject)
        for name, text in (("by", by), ("why", why)):
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"an unlocking says {name}", hint="who unlocks, and for what reason")
        with self._file.transaction(counted=True) as transaction:
            person = transaction.person(subject) or self._nobody_yet(transaction)
            pair = None if door is None else transaction.pair(subject, check_door(door))
            if door is not None and pair is None:
                raise UsageError(
                    f"{subject!r} was never accepted at the door {door!r}; its failures there count with those at all "
                    "such doors",
                    hint="unlock without naming a door",
                )
            for one in transaction.pairs(subject) if pair is None else [pair]:
                transaction.put_pair(subject, replace(one, failures=Failures()))
            if pair is None:
                person = replace(person, elsewhere=Failures(), everywhere=0)
            details = check_details({"id": subject, "by": by, "why": why})
            transaction.append("unlocked", person=person, door=door, details=details)
            transaction.put_person(subject, person)

    def status(self, subject: str) -> GuardStatus:
        """What is counted of a subject now."""
        check_subject(subject)
        with self._file.transaction() as transaction:
            person = transaction.person(subject) or self._nobody_yet(transaction)
            limits, epoch = self._file.limits, transaction.epoch
            places: list[tuple[str | None, Failures]] = [(None, person.elsewhere)]
            places += [(pair.door, pair.failures) for pair in transaction.pairs(subject)]
        doors = tuple(DoorStatus.of(door, failures, epoch, limits) for door, failures in places)
        return GuardStatus(subject, person.everywhere, doors)

    def note(self, kind: str, subject: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        """Writes an event into the audit, such as `enrolled` or `rotated`; the details, texts and numbers, are sealed.

        What concerns a subject can be revealed until `forget`, so note an erasure before that.
        """
        check_code(kind, "kind")
        if kind in RESERVED_KINDS:
            raise UsageError(f"the guard itself writes {kind!r}", hint="give the event another name")
        kept = check_details(details)
        with self._file.transaction(counted=True) as transaction:
            person = None
            if subject is not None:
                person = transaction.person(check_subject(subject))
                kept["id"] = subject
                if person is None and transaction.has_room():
                    person = self._nobody_yet(transaction)
                    transaction.put_person(subject, person)
            transaction.append(kind, person=person, details=kept)

    # --- Earlier samples

    def enrolled(
        self, subject: str, fingerprints: Sequence[bytes], details: Mapping[str, Any] | None = None
    ) -> None:
        """Somebody is about to be enrolled under this id, anew or for the first time: their samples are kept for as long as
        that stands, and what is remembered of whoever had the id before goes. Failures stay counted.
        """
        check_subject(subject)
        prints, kept = memory.check_fingerprints(fingerprints), check_details(details)
        with self._file.transaction(counted=True) as transaction:
            person = transaction.person(subject)
            if person is None:
                transaction.has_room()  # whoever is enrolled is kept in any case
                person = self._nobody_yet(transaction)
            transaction.put_person(subject, person)
            transaction.put_memory(subject, memory.Memory().with_enrolled(prints))
            transaction.append("enrolled", person=person, details={**kept, "id": subject})

    def remembered(self, subject: str) -> list[bytes]:
        """The fingerprints kept of a subject: those of the enrollment, then the last 16 accepted ones of each kind, each
        oldest first.
        """
        check_subject(subject)
        with self._file.reading() as (connection, _):
            known = read_memory(connection, self._file.keys, subject)
        return [*known.enrolled, *known.accepted]

    def search(self, door: str = "") -> None:
        """Counts a search of everybody (1:N) as a failure at the door. Raises `LockedOutError` where that has to wait."""
        check_door(door)
        limits = self._file.limits
        with self._file.transaction(counted=True) as transaction:
            here = transaction.door(door)
            refused = refusal(Failures(), here, transaction.epoch, limits)
            if refused is None:
                transaction.append("searched", door=door)
                transaction.put_door(replace(here, level=here.level + 1.0))
        if refused is not None:
            raise refused[1]

    def forget(self, subject: str) -> None:
        """Erases what is kept of a subject: counters, earlier samples, and the key of its audit entries.

        The entries stay, chained; whom they were about can no longer be said, nor their details read.
        """
        check_subject(subject)
        with self._file.transaction(counted=True) as transaction:
            person = transaction.person(subject)
            transaction.forget(subject)
            transaction.append("forgotten", person=person)
        self._file.truncate_log()

    def close(self) -> None:
        """Moves everything into the one file and closes it. Closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _nobody_yet(self, transaction: Transaction) -> Person:
        return Person(elsewhere=Failures(transaction.state.start))


def guard_path(store: str | Path) -> Path:
    """Where the guard of a store is kept: beside it, whatever links lead to it."""
    return Path(f"{os.path.realpath(store)}.guard")


def check_door(door: str) -> str:
    """`door`, if it can be one: at most 64 printable characters. Raises `UsageError` otherwise."""
    if not isinstance(door, str) or len(door) > _MAX_DOOR or not door.isprintable():
        raise UsageError(f"a door is a text of at most {_MAX_DOOR} printable characters")
    return door
