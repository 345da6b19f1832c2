"""Fingerprints of earlier samples: kept sealed, few, and forgotten with the person."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepin._errors import UsageError
from edgepin._guard.guard import Guard
from edgepin._guard.limits import GuardLimits
from edgepin._guard.memory import MAX_ACCEPTED, MAX_ENROLLED, Memory

from .guards import opened


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return opened(tmp_path / "g", limits=GuardLimits(max_remembered=16))


def numbered(numbers: range) -> list[bytes]:
    return [b"print-%d" % number for number in numbers]


def remember(guard: Guard, subject: str, fingerprint: bytes) -> None:
    guard.begin(subject).accept(fingerprints=[fingerprint])


def same(one: bytes, other: bytes) -> bool:
    return one == other


def test_the_last_ones_of_a_subject_are_remembered_across_openings(guard: Guard, tmp_path: Path) -> None:
    for fingerprint in numbered(range(100)):
        remember(guard, "a", fingerprint)
    remember(guard, "b", b"other")
    assert guard.remembered("a") == numbered(range(84, 100))
    guard.close()
    with opened(tmp_path / "g") as again:
        assert again.remembered("a") == numbered(range(84, 100))
        assert again.remembered("b") == [b"other"]
        assert again.remembered("nobody") == []


def test_neither_kind_of_sample_pushes_the_other_out(guard: Guard) -> None:
    guard.begin("a").accept(fingerprints=[b"face", b"voice"])
    for number in range(40):
        guard.begin("a").accept(fingerprints=[b"face-%d" % number])
    remembered = guard.remembered("a")
    assert b"voice" in remembered
    assert len(remembered) == 17


def test_samples_of_the_enrollment_stay_until_the_next_one(guard: Guard) -> None:
    guard.enrolled("a", [b"face-0", b"voice-0"], {"faces": 1, "voices": 1})
    for number in range(1, 60):
        guard.begin("a").accept(fingerprints=[b"face-%d" % number])
    assert guard.remembered("a")[:2] == [b"face-0", b"voice-0"]
    guard.enrolled("a", [b"face-60"])
    assert guard.remembered("a") == [b"face-60"]


def test_failed_attempts_are_not_remembered(guard: Guard) -> None:
    guard.begin("a").reject(["below_threshold"])
    assert guard.remembered("a") == []


def test_a_sample_that_was_accepted_meanwhile_is_not_accepted_again(guard: Guard) -> None:
    one, other = guard.begin("a", "north"), guard.begin("a", "south")
    assert one.accept(fingerprints=[b"face"], same=same)
    assert not other.accept(fingerprints=[b"face"], same=same)
    assert [entry.kind for entry in guard.audit.entries()][-1] == "rejected"
    with pytest.raises(UsageError, match="ended already"):
        other.accept()


def test_what_is_forgotten_is_gone_from_the_files(guard: Guard, tmp_path: Path) -> None:
    import sqlite3

    remember(guard, "a", b"x" * 200)
    connection = sqlite3.connect(tmp_path / "g")
    (sealed,) = connection.execute("SELECT sealed FROM memory").fetchone()
    connection.close()
    guard.forget("a")
    for file in tmp_path.iterdir():
        if file.name != "g-shm":
            assert sealed[-64:] not in file.read_bytes(), file
    assert guard.remembered("a") == []


def test_only_so_many_subjects_are_remembered(guard: Guard, tmp_path: Path) -> None:
    for number in range(40):
        remember(guard, f"p{number}", b"print")
    assert guard.remembered("p39") == [b"print"]
    assert guard.remembered("p0") == []
    with guard._file.reading() as (connection, state):
        assert connection.execute("SELECT count(*) FROM memory").fetchone()[0] == state.remembered <= 16
    guard.close()
    opened(tmp_path / "g").close()  # its rows are those that were put into it


@pytest.mark.parametrize("fingerprint", [b"", b"x" * 256, "text", None, bytearray(b"x")])
def test_what_is_no_fingerprint_is_a_usage_error(guard: Guard, fingerprint: bytes) -> None:
    with pytest.raises(UsageError):
        remember(guard, "a", fingerprint)
    with pytest.raises(UsageError):
        guard.enrolled("a", [fingerprint])
    assert guard.remembered("a") == []


@given(
    st.lists(st.binary(min_size=1, max_size=255), max_size=90),
    st.lists(st.binary(min_size=1, max_size=255), max_size=40),
)
def test_packed_fingerprints_come_back(accepted: list[bytes], enrolled: list[bytes]) -> None:
    memory = Memory().with_enrolled(enrolled).with_accepted(accepted)
    assert Memory.unpack(memory.pack()) == memory
    assert memory.enrolled == tuple(enrolled[:MAX_ENROLLED])
    for kind in {one[:1] for one in accepted}:
        of_kind = [one for one in accepted if one[:1] == kind]
        assert set(of_kind[-MAX_ACCEPTED:]) <= set(memory.accepted)
    assert Memory.unpack(None) == Memory()
