"""The audit: what is in it, who can read it, and that no entry changes, comes or goes unnoticed."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepin._bundle.signing import PublicKey, SigningKey
from edgepin._errors import IntegrityError, LockedOutError, UsageError
from edgepin._guard.guard import Guard
from edgepin._guard.head import SignedHead, audit_key_path
from edgepin._guard.limits import GuardLimits

from .guards import SIGNER, FakeClock, FakeCounter, altered, fail, kinds, opened, succeed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "g"


def filled(
    path: Path, rounds: int = 10, limits: GuardLimits | None = None, clock: FakeClock | None = None
) -> Guard:
    guard = opened(path, clock, limits)
    for number in range(rounds):
        fail(guard, f"a{number}", "north")
        guard.begin(f"a{number}", "north").accept(["accepted"], {"llr": 3.14159, "threshold": 1.0})
    return guard


# --- What is in it


def test_entries_say_what_happened_under_pseudonyms_and_the_key_reveals_whom(path: Path) -> None:
    clock = FakeClock()
    guard = opened(path, clock)
    guard.begin("badge-0042", "north").accept(["accepted"], {"llr": 3.14159, "threshold": 1.0, "tries": 2})
    fail(guard, "badge-0042", "north")
    created, first, accepted, second, rejected = guard.audit.entries()
    assert (created.kind, created.sequence, created.subject, created.details) == ("created", 1, None, {})
    assert (first.kind, first.door, first.at, first.boot_id) == ("attempt", "north", clock.wall, "boot-1")
    assert (accepted.kind, accepted.codes, accepted.of) == ("accepted", ("accepted",), first.sequence)
    assert accepted.details == {"id": "badge-0042", "llr": 3.14, "threshold": 1.0, "tries": 2}
    assert (rejected.codes, rejected.of) == (("below_threshold",), second.sequence)
    assert accepted.subject == rejected.subject
    assert len(accepted.subject or "") == 16


def test_neither_ids_nor_scores_nor_fingerprints_can_be_read_in_the_files(path: Path) -> None:
    guard = opened(path)
    print_ = bytes(range(64, 128))
    guard.begin("badge-0042").accept(["accepted"], {"llr": 3.14159}, fingerprints=[print_])
    guard.unlock("badge-0042", by="Ida Rhodes", why="lost her voice")
    content = path.read_bytes() + Path(f"{path}-wal").read_bytes()
    assert b'"kind":"accepted"' in content
    for secret in (b"badge-0042", b"3.14", b"Ida", b"voice", print_, print_[:16]):
        assert secret not in content


def test_alarms_are_raised_once_each(path: Path) -> None:
    clock = FakeClock()
    guard = opened(path, clock)
    for _ in range(51):
        with suppress(LockedOutError):
            fail(guard, "a")
        clock.advance(60.0)
    alarms = [entry.codes for entry in guard.audit.entries() if entry.kind == "alarm"]
    assert alarms == [("waiting",), ("many_failures",), ("many_failures",), ("disabled",)]


def test_a_busy_door_is_an_alarm(path: Path) -> None:
    guard = opened(path)
    for number in range(60):
        fail(guard, f"a{number}")
    assert [entry.codes for entry in guard.audit.entries() if entry.kind == "alarm"] == [("door_busy",)]


def test_who_hammers_at_a_locked_door_does_not_push_the_rest_out_of_the_audit(path: Path) -> None:
    clock = FakeClock()
    guard = opened(path, clock)
    fail(guard, "a", times=5)
    for _ in range(290):
        with pytest.raises(Exception, match="too many failures"):
            guard.begin("a")
        clock.advance(0.1)
    assert kinds(guard).count("refused") == 1


def test_other_events_are_noted(path: Path) -> None:
    guard = opened(path)
    guard.enrolled("a", [], {"faces": 3})
    guard.note("rotated")
    numbers = {"a": np.float32(1.234), "b": np.int64(7), "c": float("nan"), "d": True, "e": None}
    guard.note("measured", details=numbers)
    assert list(guard.audit.entries())[-1].details == {"a": 1.23, "b": 7, "c": None, "d": True, "e": None}
    enrolled, rotated = list(guard.audit.entries())[1:3]
    assert (enrolled.kind, enrolled.details) == ("enrolled", {"id": "a", "faces": 3})
    assert (rotated.kind, rotated.subject, rotated.details) == ("rotated", None, {})
    for kind in ("accepted", "pruned", "Not A Kind", ""):
        with pytest.raises(UsageError):
            guard.note(kind, "a")


def test_what_was_forgotten_can_no_longer_be_revealed_and_the_chain_holds(path: Path) -> None:
    guard = opened(path)
    for subject in ("a", "b"):
        guard.begin(subject, "north").accept(["accepted"], {"llr": 3.0}, fingerprints=[b"print"])
    before = [entry for entry in guard.audit.entries() if entry.details == {"id": "a", "llr": 3.0}]
    assert len(before) == 1
    guard.forget("a")
    assert guard.remembered("a") == []
    assert guard.remembered("b") == [b"print"]
    after = {entry.sequence: entry for entry in guard.audit.entries()}
    assert after[before[0].sequence].details is None
    assert after[before[0].sequence].subject == before[0].subject
    assert [entry.details for entry in after.values() if entry.details and entry.details.get("id") == "b"]
    assert guard.audit.verify().intact
    guard.forget("a")  # nothing is left to forget
    fail(guard, "a")
    assert list(guard.audit.entries())[-1].subject != before[0].subject  # nobody can link them


def test_an_erasure_during_an_attempt_leaves_nothing_of_it(path: Path) -> None:
    guard = opened(path)
    for ending in ("accept", "reject", "not_counted"):
        attempt = guard.begin("a")
        guard.forget("a")
        if ending == "accept":
            with pytest.raises(Exception, match="erased during the attempt"):
                attempt.accept(fingerprints=[b"print"])
        elif ending == "reject":
            attempt.reject(["below_threshold"])
        else:
            attempt.not_counted("blurred")
        assert guard.remembered("a") == []
        assert guard.status("a").doors[0].failures == 0
    with guard._file.reading() as (connection, state):
        assert connection.execute("SELECT count(*) FROM counter WHERE subject != x''").fetchone() == (0,)
        assert (state.rows, state.remembered) == (1, 0)


def test_an_attempt_from_before_an_erasure_does_not_count_for_who_has_the_id_now(path: Path) -> None:
    guard = opened(path)
    before = guard.begin("a")
    guard.forget("a")
    fail(guard, "a", times=2)
    with pytest.raises(LockedOutError, match="erased during the attempt"):
        before.accept(fingerprints=[b"print"])
    assert guard.status("a").doors[0].failures == 2
    assert guard.remembered("a") == []


# --- Changes


CHANGES = {
    "a byte of an entry": ("UPDATE entry SET body = CAST(replace(body, 'north', 'south') AS BLOB) WHERE sequence = 7", 7),
    "an outcome": ("UPDATE entry SET body = CAST(replace(body, 'rejected', 'accepted') AS BLOB) WHERE sequence = 3", 3),
    "an entry taken out": ("DELETE FROM entry WHERE sequence = 9", 9),
    "the first entry taken out": ("DELETE FROM entry WHERE sequence = 1", 1),
    "the last entry taken out": ("DELETE FROM entry WHERE sequence = 41", 41),
    "the end cut off": ("DELETE FROM entry WHERE sequence > 20", 21),
    "all taken out": ("DELETE FROM entry", 1),
    "an entry added": ("INSERT INTO entry SELECT 42, body, tag FROM entry WHERE sequence = 41", 42),
    "two exchanged": (
        "UPDATE entry SET body = (SELECT body FROM entry AS o WHERE o.sequence = 13 - entry.sequence) "
        "WHERE sequence IN (6, 7)",
        6,
    ),
    "another type": ("UPDATE entry SET body = 'text' WHERE sequence = 5", 5),
    "no tag": ("UPDATE entry SET tag = x'' WHERE sequence = 5", 5),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_at_its_entry(path: Path, change: str) -> None:
    statement, sequence = CHANGES[change]
    filled(path).close()
    altered(path, statement)
    with opened(path) as guard:
        # Opening appends nothing; the audit is looked at when it is asked for.
        report = guard.audit.verify()
    assert (report.intact, report.first_bad) == (False, sequence)
    assert report.problem


def test_reading_altered_entries_is_an_integrity_error(path: Path) -> None:
    filled(path).close()
    altered(path, "UPDATE entry SET body = x'7b7d' WHERE sequence = 5")
    with opened(path) as guard, pytest.raises(IntegrityError, match="entry 5"):
        list(guard.audit.entries())


def test_a_rewritten_chain_needs_the_key(path: Path) -> None:
    """All hashes made right again, as anyone could: the tags cannot be."""
    from edgepin._guard.entries import chain

    filled(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    chained = bytes(32)
    for sequence, body, tag in connection.execute("SELECT * FROM entry ORDER BY sequence").fetchall():
        body = body.replace(b"north", b"south")
        chained = chain(chained, sequence, body)
        if sequence > 1:  # the first one names no door, and stays
            tag = chained[: len(tag)]
        connection.execute("UPDATE entry SET body = ?, tag = ? WHERE sequence = ?", (body, tag, sequence))
    connection.close()
    with opened(path) as guard:
        assert guard.audit.verify().first_bad == 2


# --- Heads


def test_heads_are_signed_now_and_then_and_on_demand(path: Path) -> None:
    guard = filled(path, limits=GuardLimits(head_every=16))
    kept = guard.audit.verify().head
    assert kept is not None
    assert kept.sequence == 32
    head = guard.audit.head()
    assert head.sequence == 41
    assert head.signed_by(SIGNER.public_key)
    assert not replace(head, sequence=40).signed_by(SIGNER.public_key)
    assert not head.signed_by(SigningKey.generate().public_key)
    report = guard.audit.verify(head)
    assert (report.intact, report.head) == (True, head)


def test_a_head_kept_elsewhere_finds_an_older_copy_of_the_file(path: Path) -> None:
    """The gap that the docs name: without it, and without a counter outside, nothing tells."""
    guard = filled(path)
    guard.close()
    shutil.copy(path, path.with_suffix(".old"))
    guard = opened(path)
    fail(guard, "b")
    head = guard.audit.head()
    guard.close()
    shutil.copy(path.with_suffix(".old"), path)
    with opened(path) as guard:
        assert guard.audit.verify().intact
        report = guard.audit.verify(head)
        assert (report.intact, report.first_bad) == (False, None)
        assert "ends at entry 41; a signed head says that it reached 43" in (report.problem or "")
        fail(guard, "c", times=5)  # another history, as long
        assert "is not the one that a signed head names" in (guard.audit.verify(head).problem or "")


def test_heads_of_others_are_refused(path: Path) -> None:
    guard = filled(path)
    head = guard.audit.head()
    cases = {
        "another store's": replace(head, guard_id="00" * 16),
        "not by the key": replace(head, signature=bytes(64)),
        f"not by the key {SIGNER.key_id}": SignedHead.sign(
            SigningKey.generate(),
            guard_id=head.guard_id,
            sequence=head.sequence,
            chain=head.chain,
            at=head.at,
        ),
    }
    for words, wrong in cases.items():
        assert words in (guard.audit.verify(wrong).problem or ""), words
    assert "not by the key" in (guard.audit.verify(key=SigningKey.generate().public_key).problem or "")


@pytest.mark.parametrize("value", ["x''", "7", "(SELECT value FROM meta WHERE name = 'guard_id')"])
def test_a_signed_head_taken_out_of_the_file_is_noticed(path: Path, value: str) -> None:
    guard = filled(path)
    guard.audit.head()
    guard.close()
    altered(path, f"UPDATE meta SET value = {value} WHERE name = 'signed_head'")
    with opened(path) as guard:
        try:
            problem = guard.audit.verify().problem
        except IntegrityError as error:
            problem = str(error)
        assert re.search("taken out|altered|not a signed head", problem or "")


def test_a_head_survives_json_and_nothing_else_is_one(path: Path) -> None:
    head = filled(path).audit.head()
    text = json.dumps({"schema": "edgepin.audit-head/1", **head.to_json()}).encode()
    assert SignedHead.read(text) == head
    values = head.to_json()
    for wrong in (
        b"", b"{", b"[]", b"null", b'{"a":' * 10000, text + b" " * 5000, json.dumps({**values, "more": 1}).encode(),
        json.dumps({**values, "sequence": "41"}).encode(), json.dumps({**values, "signature": "?"}).encode(),
        json.dumps({name: value for name, value in values.items() if name != "chain"}).encode(),
    ):  # fmt: skip
        with pytest.raises(IntegrityError, match="not a signed head"):
            SignedHead.read(wrong)


def test_the_devices_key_is_made_on_first_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPIN_HOME", str(path.parent / "home"))
    with opened(path, signing_key=None) as guard:
        head = guard.audit.head()
    assert audit_key_path().stat().st_mode & 0o777 == 0o600
    assert head.signed_by(PublicKey.load(audit_key_path().with_suffix(".pub")))


# --- Bounded


def test_the_oldest_entries_go_and_the_chain_still_holds(path: Path) -> None:
    clock = FakeClock()
    guard = opened(path, clock, GuardLimits(max_entries=1024, door_failures=100_000))
    early = guard.audit.head()
    for _ in range(700):
        succeed(guard, "a")
    report = guard.audit.verify(early)
    assert report.intact
    assert report.first > 256
    entries = list(guard.audit.entries())
    assert (entries[0].sequence, entries[-1].sequence) == (report.first, report.last)
    assert len(entries) <= 1026
    pruned = [entry for entry in entries if entry.kind == "pruned"]
    assert pruned[-1].details is not None
    assert pruned[-1].details["through"] == report.first - 1
    guard.close()
    altered(path, f"DELETE FROM entry WHERE sequence = {report.first}")
    with opened(path, clock) as guard:
        assert guard.audit.verify().first_bad == report.first


def test_entries_can_be_read_while_others_are_written(path: Path) -> None:
    guard = filled(path, 150, GuardLimits(door_failures=1000))
    count = 0
    for entry in guard.audit.entries():
        if entry.sequence == 10:
            succeed(guard, "late")
        count += 1
    assert count == 603


# --- A counter outside the file


def test_with_a_counter_an_older_copy_is_refused(path: Path) -> None:
    counter, clock = FakeCounter(), FakeClock()
    guard = opened(path, clock, counter=counter)
    fail(guard, "a", times=3)
    guard.close()
    shutil.copy(path, path.with_suffix(".old"))
    guard = opened(path, clock, counter=counter)
    fail(guard, "a")
    guard.close()
    shutil.copy(path.with_suffix(".old"), path)
    with pytest.raises(IntegrityError, match="older copy"):
        opened(path, clock, counter=counter)


def test_a_crash_between_file_and_counter_is_made_good_once(path: Path) -> None:
    class Dying(FakeCounter):
        def increment(self) -> int:
            raise KeyboardInterrupt

    counter = FakeCounter()
    guard = opened(path, counter=counter)
    value = counter.value
    guard._file._counter = Dying(value)
    with pytest.raises(KeyboardInterrupt):
        guard.begin("a")
    guard.close()
    with opened(path, counter=counter) as guard:
        assert counter.value == value + 1
        assert guard.status("a").doors[0].failures == 1
    with pytest.raises(IntegrityError):
        opened(path, counter=FakeCounter(value - 1))
    with pytest.raises(IntegrityError):
        opened(path, counter=FakeCounter(value + 2))


def test_a_guard_of_a_counter_is_not_opened_without_it_and_the_reverse(path: Path) -> None:
    counter = FakeCounter()
    opened(path, counter=counter).close()
    with pytest.raises(UsageError, match="counter"):
        opened(path)
    opened(path.with_name("other")).close()
    with pytest.raises(IntegrityError, match="not bound"):
        opened(path.with_name("other"), counter=counter)


def test_two_processes_share_a_counter(path: Path) -> None:
    counter = FakeCounter()
    one, other = opened(path, counter=counter), opened(path, counter=counter)
    for guard in (one, other, one):
        fail(guard, "a")
    assert counter.value == 1 + 1 + 3  # made, and three attempts
