"""The audit log: read, checked from its first kept entry to its last, and signed.

Without the store's key nobody can alter, add or remove an entry unnoticed. Who has the key can write another history;
that is noticed where a signed head of the true one is kept, outside this device.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._bundle.signing import PublicKey
from .._errors import IntegrityError
from .counters import Person
from .entries import AuditEntry, chain, decode
from .file import GuardFile
from .head import SignedHead
from .state import State
from .transaction import person_rows

_AT_ONCE = 512


@dataclass(frozen=True)
class AuditReport:
    """What `AuditLog.verify` found."""

    intact: bool
    first: int
    """The first entry that is kept; those before it were dropped by age."""
    last: int
    """The last entry, as the file's sealed state says."""
    chain: str
    """The chain's value at the last entry, 64 hex digits."""
    first_bad: int | None
    """The first entry that is not what was written; None if the entries are right."""
    problem: str | None
    """What is wrong, in words; None if nothing is."""
    head: SignedHead | None
    """The latest signed head in the file."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "head": None if self.head is None else self.head.to_json()}


class AuditLog:
    """`Guard.audit`. Every method raises `IntegrityError` if the file was altered so that it cannot be read."""

    def __init__(self, file: GuardFile) -> None:
        self._file = file

    @property
    def public_key(self) -> PublicKey:
        """What signed heads are checked with: this device's."""
        return self._file.signing_key.public_key

    def entries(self, first: int = 1) -> Iterator[AuditEntry]:
        """The kept entries from number `first` on, oldest first, their details revealed where the person is known.

        What is appended while this runs is given too.
        """
        while True:
            with self._file.reading() as (connection, state):
                salts = self._salts(connection)
                rows = _bodies(connection, max(first, state.first), _AT_ONCE)
            for sequence, body, _ in rows:
                yield decode(self._file.keys, sequence, body, salts)
            if len(rows) < _AT_ONCE:
                return
            first = rows[-1][0] + 1

    def head(self) -> SignedHead:
        """Signs how far the audit reaches now. Keep it elsewhere: `verify` holds the log against it."""
        with self._file.transaction() as transaction:
            return transaction.sign_head()

    def verify(self, head: SignedHead | None = None, key: PublicKey | None = None) -> AuditReport:
        """Recomputes the chain, and holds it against the sealed state and the signed heads.

        Args:
            head: one that was kept elsewhere. If its entry is not in the log as it was then, the log was cut short,
                exchanged or rewritten since.
            key: whose signature is expected; the device's own by default.
        """
        key = key or self.public_key
        with self._file.reading() as (connection, state):
            kept = _signed_head(connection)
            heads = [one for one in (kept, head) if one is not None]
            wanted = {one.sequence for one in heads}
            chains = {state.first - 1: state.base}
            first_bad, problem = self._walk(connection, state, wanted, chains)
        if problem is None and (0 if kept is None else kept.sequence) != state.signed:
            problem = "the latest signed head was taken out of the file, or exchanged"
        if problem is None:
            for one in heads:
                problem = self._against(one, key, state, chains)
                if problem is not None:
                    break
        return AuditReport(
            problem is None, state.first, state.sequence, state.chain.hex(), first_bad, problem, kept
        )

    def _walk(
        self, connection: sqlite3.Connection, state: State, wanted: set[int], chains: dict[int, bytes]
    ) -> tuple[int | None, str | None]:
        """The first bad entry and what is wrong; fills `chains` with the chain's values at the wanted entries."""
        chained, expected, pruned = state.base, state.first, None
        while True:
            rows = _bodies(connection, expected, _AT_ONCE)
            for sequence, body, tag in rows:
                if sequence != expected:
                    return expected, "the entry is missing"
                if sequence > state.sequence:
                    return sequence, "the entry was added"
                if not isinstance(body, bytes) or not isinstance(tag, bytes):
                    return sequence, "the entry was altered"
                chained = chain(chained, sequence, body)
                if not hmac.compare_digest(tag, self._file.keys.tag(chained)):
                    return sequence, "the entry was altered"
                if sequence in wanted:
                    chains[sequence] = chained
                if b'"kind":"pruned"' in body:
                    pruned = decode(self._file.keys, sequence, body, {}).details
                expected = sequence + 1
            if len(rows) < _AT_ONCE:
                break
        if expected <= state.sequence:
            return expected, "the entry is missing, and so are all after it"
        if chained != state.chain:
            return state.sequence, "the last entry is not the one that the sealed state names"
        if state.first > 1 and pruned != {"through": state.first - 1, "chain": state.base.hex()}:
            return state.first, "what came before the first kept entry is not what was dropped"
        return None, None

    def _against(
        self, head: SignedHead, key: PublicKey, state: State, chains: dict[int, bytes]
    ) -> str | None:
        if head.guard_id != self._file.keys.guard_id:
            return "the signed head is of another store's audit"
        if not head.signed_by(key):
            return f"the signed head is not by the key {key.key_id}"
        if head.sequence > state.sequence:
            return (
                f"the log ends at entry {state.sequence}; a signed head says that it reached {head.sequence}"
            )
        if head.sequence < state.first - 1:
            return None  # dropped by age, as the chain says
        if chains.get(head.sequence, b"").hex() != head.chain:
            return f"entry {head.sequence} is not the one that a signed head names"
        return None

    def _salts(self, connection: sqlite3.Connection) -> dict[str, bytes]:
        """By pseudonym, what reveals the details of the persons who are known."""
        keys = self._file.keys
        salts = (Person.unpack(data).salt for data in person_rows(connection, keys))
        return {keys.pseudonym(salt): salt for salt in salts}


def _bodies(connection: sqlite3.Connection, first: int, count: int) -> list[tuple[int, bytes, bytes]]:
    return connection.execute(
        "SELECT sequence, body, tag FROM entry WHERE sequence >= ? ORDER BY sequence LIMIT ?", (first, count)
    ).fetchall()


def _signed_head(connection: sqlite3.Connection) -> SignedHead | None:
    row = connection.execute("SELECT value FROM meta WHERE name = 'signed_head'").fetchone()
    if row is None or not isinstance(row[0], bytes):
        raise IntegrityError("the guard's signed head was altered")
    return SignedHead.read(row[0]) if row[0] else None
