"""What is done to the guard's file within one commit: rows under their seals, and entries of the audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import _canonical_json
from .._errors import IntegrityError
from .clock import Clock, Epoch
from .counters import Door, Pair, Person
from .entries import chain, encode
from .head import SignedHead
from .limits import GuardLimits
from .memory import Memory
from .sealing import RESTORE, GuardKeys
from .state import State

if TYPE_CHECKING:
    from .._bundle.signing import SigningKey

_PRUNED_AT_ONCE = 256


class Transaction:
    """Made by `GuardFile.transaction`; its times are those of one moment, `epoch.latest`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        keys: GuardKeys,
        limits: GuardLimits,
        clock: Clock,
        signing_key: SigningKey,
        state: State,
    ) -> None:
        self._connection, self._keys, self._limits, self._signing_key = connection, keys, limits, signing_key
        self._now = clock.now()
        self._rows: dict[tuple[bytes, bytes], tuple[int, bytes] | None] = {}
        self._names: dict[str, bytes] = {}
        self.state = state
        self.state.epoch, why = state.epoch.at(clock)
        self.changed = False
        """Whether there is anything to commit."""
        if why is not None:
            self.append("clock", codes=[why])

    @property
    def epoch(self) -> Epoch:
        return self.state.epoch

    # --- Counters

    def person(self, subject: str) -> Person | None:
        data = self._get(self._subject(subject), b"")
        return None if data is None else Person.unpack(data)

    def put_person(self, subject: str, person: Person) -> None:
        self._put(self._subject(subject), b"", person.pack())

    def pair(self, subject: str, door: str) -> Pair | None:
        data = self._get(self._subject(subject), self._keys.door_name(door))
        return None if data is None else Pair.unpack(data)

    def put_pair(self, subject: str, pair: Pair) -> None:
        self._put(self._subject(subject), self._keys.door_name(pair.door), pair.pack())

    def pairs(self, subject: str) -> list[Pair]:
        """The doors at which a person has been accepted, by their names."""
        name = self._subject(subject)
        doors = self._connection.execute(
            "SELECT door FROM counter WHERE subject = ? AND door != x''", (name,)
        ).fetchall()
        found = [self._get(name, door) for (door,) in doors]
        return sorted((Pair.unpack(data) for data in found if data is not None), key=lambda pair: pair.door)

    def door(self, door: str) -> Door:
        """The door's bucket at this moment."""
        data = self._get(b"", self._keys.door_name(door))
        return (Door(door) if data is None else Door.unpack(data)).drained(self.epoch, self._limits)

    def knows_door(self, door: str) -> bool:
        """Whether there is a bucket of this door."""
        return self._row(b"", self._keys.door_name(door)) is not None

    def put_door(self, door: Door) -> None:
        self._put(b"", self._keys.door_name(door.door), door.pack())

    def has_room(self) -> bool:
        """Whether counters of someone new can be kept; drops those longest unused if there is no more room.

        Whoever is disabled stays, and so does a door that has to wait; who was ever accepted goes last.
        """
        room = self._limits.max_rows - self.state.rows
        if room >= 3:
            return True
        wanted, dropped = max(3, self._limits.max_rows // 16), 0
        oldest = self._connection.execute("SELECT subject, door FROM counter ORDER BY used").fetchall()
        for also_accepted in (False, True):
            for subject, door in oldest:
                if dropped >= wanted:
                    break
                if self._may_go(subject, door, also_accepted):
                    self._delete(subject, door)
                    dropped += 1
        if dropped:
            self.append("dropped", details={"counters": dropped})
        return room + dropped >= 3

    def _may_go(self, subject: bytes, door: bytes, also_accepted: bool) -> bool:
        data = self._get(subject, door)
        if data is None:  # dropped already
            return False
        if not subject:
            return Door.unpack(data).drained(self.epoch, self._limits).level == 0.0
        if door:
            return also_accepted and not Pair.unpack(data).failures.disabled(self._limits)
        person = Person.unpack(data)
        return not person.elsewhere.disabled(self._limits) and (also_accepted or not person.accepted)

    # --- Earlier samples

    def memory(self, subject: str) -> Memory:
        """What is remembered of a subject's samples."""
        name = self._subject(subject)
        return _memory(self._keys, name, _memory_row(self._connection, name))

    def put_memory(self, subject: str, memory: Memory) -> None:
        """Keeps it, in place of what was kept; those longest unused make room."""
        name, used = self._subject(subject), self.state.sequence
        old = _memory_row(self._connection, name)
        if old is None and self.state.remembered >= self._limits.max_remembered:
            for (oldest,) in self._connection.execute(
                "SELECT subject FROM memory ORDER BY used LIMIT ?",
                (max(1, self._limits.max_remembered // 16),),
            ).fetchall():
                self._delete_memory(oldest)
        where = _place(b"m", name, b"", used)
        sealed = self._keys.rows.seal(memory.pack(), where)
        self._connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (name, used, sealed))
        change = self._keys.member(where, sealed)
        if old is not None:
            change ^= self._keys.member(_place(b"m", name, b"", old[0]), old[1])
        remembered = self.state.remembered + (old is None)
        self._change(set=self.state.set ^ change, remembered=remembered)

    # --- All of a subject

    def forget(self, subject: str) -> None:
        """Drops every counter and every earlier sample of a subject, and what its audit entries are read with."""
        name = self._subject(subject)
        for (door,) in self._connection.execute(
            "SELECT door FROM counter WHERE subject = ?", (name,)
        ).fetchall():
            self._delete(name, door)
        self._delete_memory(name)

    # --- Audit

    def append(
        self,
        kind: str,
        *,
        person: Person | None = None,
        door: str | None = None,
        codes: Sequence[str] = (),
        of: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """Chains an entry to the audit, and gives its number. Signs a head when one is due."""
        sequence = self.state.sequence + 1
        body = encode(
            self._keys, sequence, at=self._now, boot_id=self.epoch.boot_id, kind=kind,
            salt=None if person is None else person.salt, door=door, codes=codes, of=of, details=details or {},
        )  # fmt: skip
        chained = chain(self.state.chain, sequence, body)
        self._connection.execute(
            "INSERT INTO entry VALUES (?, ?, ?)", (sequence, body, self._keys.tag(chained))
        )
        self._change(sequence=sequence, chain=chained)
        return sequence

    def sign_head(self) -> SignedHead:
        """A signed head of the audit's last entry, kept in the file as well."""
        head = SignedHead.sign(
            self._signing_key, guard_id=self._keys.guard_id, sequence=self.state.sequence,
            chain=self.state.chain.hex(), at=int(self._now),
        )  # fmt: skip
        self._connection.execute(
            "UPDATE meta SET value = ? WHERE name = 'signed_head'", (_canonical_json.encode(head.to_json()),)
        )
        self._change(signed=self.state.sequence)
        return head

    def finished(self) -> State:
        """The state to commit, after what falls due by itself: dropping the oldest entries, signing a head."""
        if self.state.sequence - self.state.first + 1 > self._limits.max_entries:
            self._prune()
        if self.state.sequence - self.state.signed >= self._limits.head_every:
            self.sign_head()
        return self.state

    def _prune(self) -> None:
        first, base = self.state.first, self.state.base
        through = first + _PRUNED_AT_ONCE - 1
        for sequence, body in self._connection.execute(
            "SELECT sequence, body FROM entry WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
            (first, through),
        ):
            base = chain(base, sequence, body)
        self._connection.execute("DELETE FROM entry WHERE sequence <= ?", (through,))
        self._change(first=through + 1, base=base)
        # In the chain itself, so that a signed head vouches for what the kept entries follow upon.
        self.append("pruned", details={"through": through, "chain": base.hex()})

    # --- Rows

    def _change(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self.state, name, value)
        self.changed = True

    def _subject(self, subject: str) -> bytes:
        name = self._names.get(subject)
        if name is None:
            name = self._names[subject] = self._keys.subject_name(subject)
        return name

    def _row(self, subject: bytes, door: bytes) -> tuple[int, bytes] | None:
        if (subject, door) not in self._rows:
            self._rows[subject, door] = self._connection.execute(
                "SELECT used, sealed FROM counter WHERE subject = ? AND door = ?", (subject, door)
            ).fetchone()
        return self._rows[subject, door]

    def _get(self, subject: bytes, door: bytes) -> bytes | None:
        row = self._row(subject, door)
        return None if row is None else self._keys.rows.unseal(row[1], _place(b"c", subject, door, row[0]))

    def _put(self, subject: bytes, door: bytes, plain: bytes) -> None:
        old, used = self._row(subject, door), self.state.sequence
        where = _place(b"c", subject, door, used)
        sealed = self._keys.rows.seal(plain, where)
        self._connection.execute(
            "INSERT OR REPLACE INTO counter VALUES (?, ?, ?, ?)", (subject, door, used, sealed)
        )
        change = self._keys.member(where, sealed)
        if old is not None:
            change ^= self._keys.member(_place(b"c", subject, door, old[0]), old[1])
        self._rows[subject, door] = (used, sealed)
        self._change(set=self.state.set ^ change, rows=self.state.rows + (old is None))

    def _delete(self, subject: bytes, door: bytes) -> None:
        old = self._row(subject, door)
        if old is None:
            return
        self._connection.execute("DELETE FROM counter WHERE subject = ? AND door = ?", (subject, door))
        self._rows[subject, door] = None
        gone = self._keys.member(_place(b"c", subject, door, old[0]), old[1])
        self._change(set=self.state.set ^ gone, rows=self.state.rows - 1)

    def _delete_memory(self, name: bytes) -> None:
        old = _memory_row(self._connection, name)
        if old is None:
            return
        self._connection.execute("DELETE FROM memory WHERE subject = ?", (name,))
        gone = self._keys.member(_place(b"m", name, b"", old[0]), old[1])
        self._change(set=self.state.set ^ gone, remembered=self.state.remembered - 1)


def all_rows(connection: sqlite3.Connection) -> Iterator[tuple[bytes, bytes]]:
    """Place and sealed bytes of every row that `State.set` binds."""
    for subject, door, used, sealed in connection.execute("SELECT subject, door, used, sealed FROM counter"):
        yield _place(b"c", subject, door, used), sealed
    for subject, used, sealed in connection.execute("SELECT subject, used, sealed FROM memory"):
        yield _place(b"m", subject, b"", used), sealed


def _place(table: bytes, subject: object, door: object, used: object) -> bytes:
    """Where a row belongs; names have 16 bytes or none. Raises `IntegrityError` on what SQLite was not given by us."""
    if not (isinstance(subject, bytes) and isinstance(door, bytes) and isinstance(used, int)):
        raise IntegrityError("a row of the guard was altered", hint=RESTORE)
    return b"%b%d,%d,%d:" % (table, len(subject), len(door), used) + subject + door


def person_rows(connection: sqlite3.Connection, keys: GuardKeys) -> Iterator[bytes]:
    """The plain bytes of every `Person` that is kept."""
    for subject, used, sealed in connection.execute(
        "SELECT subject, used, sealed FROM counter WHERE door = x'' AND subject != x''"
    ):
        yield keys.rows.unseal(sealed, _place(b"c", subject, b"", used))


def read_memory(connection: sqlite3.Connection, keys: GuardKeys, subject: str) -> Memory:
    """What is remembered of a subject."""
    name = keys.subject_name(subject)
    return _memory(keys, name, _memory_row(connection, name))


def _memory_row(connection: sqlite3.Connection, name: bytes) -> tuple[int, bytes] | None:
    row: tuple[int, bytes] | None = connection.execute(
        "SELECT used, sealed FROM memory WHERE subject = ?", (name,)
    ).fetchone()
    return row


def _memory(keys: GuardKeys, name: bytes, row: tuple[int, bytes] | None) -> Memory:
    return (
        Memory() if row is None else Memory.unpack(keys.rows.unseal(row[1], _place(b"m", name, b"", row[0])))
    )
