"""Fingerprints of earlier samples: kept sealed, few, and forgotten with the person."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepin._errors import UsageError
from edgepin._guard.guard import Guard
from edgepin._guard.limits import GuardLimits
from edgepin._guard.memory import Memory

from .guards import FakeClock, opened


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return opened(tmp_path / "g", limits=GuardLimits(max_remembered=16))


def numbered(numbers: range) -> list[bytes]:
    return [b"print-%d" % number for number in numbers]


def test_the_last_ones_of_a_subject_are_remembered_across_openings(guard: Guard, tmp_path: Path) -> None:
    for fingerprint in numbered(range(100)):
        guard.remember("a", fingerprint)
    guard.remember("b", b"other")
    assert guard.remembered("a") == numbered(range(52, 100))
    guard.close()
    with opened(tmp_path / "g") as again:
        assert again.remembered("a") == numbered(range(52, 100))
        assert again.remembered("b") == [b"other"]
        assert again.remembered("nobody") == []


def test_failed_attempts_do_not_push_out_accepted_samples(guard: Guard) -> None:
    guard.begin("a").accept(fingerprints=[b"face", b"voice"])
    clock = guard._file.clock
    assert isinstance(clock, FakeClock)
    for number in range(40):
        guard.begin("a", "strange").reject(["below_threshold"], fingerprints=[b"print-%d" % number])
        clock.advance(61.0)
    assert guard.remembered("a") == [b"face", b"voice", *numbered(range(24, 40))]


def test_what_is_forgotten_is_gone_from_the_files(guard: Guard, tmp_path: Path) -> None:
    import sqlite3

    guard.remember("a", b"x" * 200)
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
        guard.remember(f"p{number}", b"print")
        guard.note("tick")
    assert guard.remembered("p39") == [b"print"]
    assert guard.remembered("p0") == []
    with guard._file.reading() as (connection, state):
        assert connection.execute("SELECT count(*) FROM memory").fetchone()[0] == state.remembered <= 16
    guard.close()
    opened(tmp_path / "g").close()  # its rows are those that were put into it


@pytest.mark.parametrize("fingerprint", [b"", b"x" * 256, "text", None, bytearray(b"x")])
def test_what_is_no_fingerprint_is_a_usage_error(guard: Guard, fingerprint: bytes) -> None:
    with pytest.raises(UsageError):
        guard.remember("a", fingerprint)


@given(
    st.lists(st.binary(min_size=1, max_size=255), max_size=90),
    st.lists(st.binary(min_size=1, max_size=255), max_size=30),
)
def test_packed_fingerprints_come_back(accepted: list[bytes], others: list[bytes]) -> None:
    memory = Memory().with_more(others, accepted=False).with_more(accepted, accepted=True)
    assert Memory.unpack(memory.pack()) == memory
    assert memory.accepted == tuple(accepted[-48:])
    assert memory.others == tuple(others[-16:])
    assert Memory.unpack(None) == Memory()
