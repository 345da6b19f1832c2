"""A store that an earlier version of this code wrote is read as it was written."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgepin._store.envelope import Person, Sealed
from edgepin._store.index import Index, seals_of
from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store

from .people import same

GOLDEN = Path(__file__).parent / "golden"
MADE = runpy.run_path(str(GOLDEN / "make_schema_2.py"))


def test_the_golden_store_of_schema_2_opens_with_everybody_in_it(tmp_path: Path) -> None:
    path = Path(shutil.copy(GOLDEN / "schema_2.store", tmp_path / "s.db"))
    with Store.open(path, MemoryKey(MADE["KEY"]), MADE["DIGEST"]) as store:
        assert store.subjects() == sorted(MADE["PEOPLE"])
        for subject, (templates, consent) in MADE["PEOPLE"].items():
            found = store.get(subject)
            assert found is not None
            assert all(same(found[modality], templates[modality]) for modality in templates)
            assert store.consent(subject) == consent
            assert store.export(subject)["enrolled_at"] is not None
        report = store.verify()
    assert (report.people, report.records, report.tombstones) == (2, 6, 1)
    assert len(Path(f"{path}.erased").read_bytes().splitlines()) == 1  # written again from the store


def test_what_keys_are_derived_of_the_golden_store_stays(tmp_path: Path) -> None:
    """The guard's file hangs on it: another derivation would lock everybody's guard."""
    path = Path(shutil.copy(GOLDEN / "schema_2.store", tmp_path / "s.db"))
    with Store.open(path, MemoryKey(MADE["KEY"]), MADE["DIGEST"]) as store:
        assert store.derive_key("guard").hex()[:16] == "e91a35e404131825"


people = st.dictionaries(st.text(max_size=3), st.binary(min_size=28, max_size=28), max_size=5)


def entered(index: Index, subject: str, seal: bytes) -> None:
    index.put(Person(subject, bytes(16), bytes(60)), seals_of([Sealed("face", "template", seal, b"")]))


@given(kept=people, gone=people)
def test_the_index_is_of_what_is_there_whatever_came_before(
    kept: dict[str, bytes], gone: dict[str, bytes]
) -> None:
    long, short = Index(bytes(32)), Index(bytes(32))
    for subject, seal in [*gone.items(), *kept.items()]:
        entered(long, subject, seal)
    for subject in gone.keys() - kept.keys():
        long.remove(subject)
    for subject, seal in sorted(kept.items(), reverse=True):
        entered(short, subject, seal)
    assert long.tag(b"") == short.tag(b"")
    assert (long.tag(b"") == long.tag(b"x")) is False
    entered(long, "one more", bytes(28))
    assert long.tag(b"") != short.tag(b"")
