"""Rotation: another key opens the store, the old one does not, and the records stay."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from edgepin._errors import EnvironmentFault, StoreError
from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store

from .people import DIGEST, KEY, OTHER_KEY, filled, opened, same, template


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(statement).fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("data_key", [False, True])
def test_the_new_key_opens_everything_and_the_old_one_nothing(path: Path, data_key: bool) -> None:
    mine = template(2)
    with opened(path) as store:
        store.put("a", {"face": mine}, "yes")
        derived, store_id = store.derive_key("guard"), store.store_id
        records = rows(path, "SELECT * FROM record")
        people = rows(path, "SELECT * FROM person")
        store.rotate(OTHER_KEY, data_key=data_key)
        assert store.get("a") is not None  # and goes on being used
        store.put("b", {"face": template()})
        store.verify()
    assert [row for row in rows(path, "SELECT * FROM record") if row[0] == "a"] == records
    assert ([row for row in rows(path, "SELECT * FROM person") if row[0] == "a"] == people) is not data_key
    with pytest.raises(StoreError, match="locked with another key"):
        opened(path)
    with Store.open(path, OTHER_KEY, DIGEST) as store:
        found = store.get("a")
        assert found is not None
        assert same(found["face"], mine)
        assert (store.derive_key("guard"), store.store_id) == (derived, store_id)
        store.verify()


def test_the_erased_stay_erased_across_a_rotation(path: Path) -> None:
    filled(path, "a", "b")
    old = shutil.copy(path, path.with_suffix(".old"))
    with opened(path) as store:
        store.rotate(OTHER_KEY, data_key=True)
        store.delete("a")
    shutil.copy(old, path)
    with opened(path) as store:  # the old copy, with the old key
        assert store.subjects() == ["b"]


@pytest.mark.parametrize("data_key", [False, True])
def test_a_rotation_that_fails_changes_nothing(path: Path, data_key: bool) -> None:
    class Broken(MemoryKey):
        def key(self) -> bytes:
            raise EnvironmentFault("no key today")

    filled(path, "a")
    with opened(path) as store:
        with pytest.raises(EnvironmentFault, match="no key today"):
            store.rotate(Broken(bytes(32)), data_key=data_key)
        assert store.get("a") is not None
        store.put("b", {"face": template()})
    with opened(path) as store:
        assert store.subjects() == ["a", "b"]


def test_an_aged_wrapping_is_noticed(path: Path) -> None:
    """The old wrapped key in the place of the new one: the old key must not open the store again."""
    filled(path, "a")
    wrapped = rows(path, "SELECT value FROM meta WHERE name = 'wrapped_key'")[0]
    with opened(path) as store:
        store.rotate(OTHER_KEY)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'wrapped_key'", wrapped)
        connection.execute("UPDATE meta SET value = ? WHERE name = 'key_id'", (KEY.key_id.encode(),))
    connection.close()
    with pytest.raises(StoreError, match="altered"):
        opened(path)


def test_the_old_wrapping_is_overwritten_in_the_file(path: Path) -> None:
    filled(path, "a")
    (wrapped,) = rows(path, "SELECT value FROM meta WHERE name = 'wrapped_key'")[0]
    with opened(path) as store:
        store.rotate(OTHER_KEY)
        content = path.read_bytes() + Path(f"{path}-wal").read_bytes()
    assert wrapped not in content  # type: ignore[operator]


def test_who_has_it_open_meanwhile_goes_on_or_is_told(path: Path) -> None:
    filled(path, "a")
    with opened(path) as one, opened(path) as other:
        one.rotate(OTHER_KEY)
        assert other.get("a") is not None
        one.rotate(KEY, data_key=True)
        with pytest.raises(StoreError, match="data key was changed while it was open"):
            other.get("a")


def test_derived_keys_differ_by_purpose_and_by_store(path: Path) -> None:
    with opened(path) as one, opened(path.with_name("t.db")) as other:
        keys = {
            one.derive_key("guard"),
            one.derive_key("guarD"),
            one.derive_key(""),
            other.derive_key("guard"),
        }
        assert len(keys) == 4
        assert {len(key) for key in keys} == {32}
        assert one.store_id != other.store_id
        assert len(one.store_id) == 32
