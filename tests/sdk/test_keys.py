"""Key providers and places: a key is made once, kept to its owner, and never told."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edgepin import _paths
from edgepin._errors import EnvironmentFault, IntegrityError, UsageError
from edgepin._store import keys as _keys
from edgepin._store.keys import KeyFile, KeyProvider, MemoryKey


def test_a_key_file_is_made_on_first_use_and_is_the_same_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "config" / "store.key"
    first: KeyProvider = KeyFile(path)
    again = KeyFile(path, create=False)
    assert len(first.key()) == 32
    assert (again.key(), again.key_id) == (first.key(), first.key_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [other.name for other in path.parent.iterdir()] == ["store.key"]
    assert KeyFile(tmp_path / "other.key").key() != first.key()


def test_of_two_who_make_the_key_at_once_both_use_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, create_once = tmp_path / "store.key", _keys.create_once

    def beaten(path: Path, data: bytes) -> bool:
        path.write_bytes(bytes(range(32)).hex().encode() + b"\n")
        path.chmod(0o600)
        return create_once(path, data)

    monkeypatch.setattr(_keys, "create_once", beaten)
    assert KeyFile(path).key() == bytes(range(32))


def test_a_missing_key_file_is_not_made_where_it_may_not_be(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no key file") as caught:
        KeyFile(tmp_path / "store.key", create=False)
    assert "backup" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_key_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "store.key"
    KeyFile(path)
    path.chmod(mode)
    with pytest.raises(EnvironmentFault, match="others can get at it") as caught:
        KeyFile(path)
    assert f"chmod 600 {path}" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"0" * 64, b"0" * 63 + b"\n", b"0" * 66 + b"\n", b"A" * 64 + b"\n", b"g" * 64 + b"\n", b"\xff" * 32,
     b"0" * 64 + b"\n\n", b"0" * 9000],
)  # fmt: skip
def test_a_damaged_key_file_is_refused_and_kept(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "store.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(IntegrityError, match="does not hold a key"):
        KeyFile(path)
    assert path.read_bytes() == data


def test_a_folder_in_the_keys_place_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault):
        KeyFile(tmp_path)


def test_a_place_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        KeyFile(tmp_path / "file" / "store.key")


def test_the_key_id_differs_by_key_and_the_repr_does_not_tell_the_key() -> None:
    one, other = MemoryKey(bytes(32)), MemoryKey(b"\1" + bytes(31))
    assert one.key_id != other.key_id
    assert len(one.key_id) == 16
    assert repr(one) == f"MemoryKey(key_id='{one.key_id}')"


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), "0" * 32])
def test_a_key_of_another_length_is_a_usage_error(key: bytes) -> None:
    with pytest.raises(UsageError):
        MemoryKey(key)


def test_edgepin_home_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert _paths.signing_key_path() == tmp_path / "signing.key"
    assert _paths.signing_public_path() == tmp_path / "signing.pub"
    assert _paths.trusted_dir() == tmp_path / "trusted"
    assert _paths.store_key_path() == tmp_path / "store.key"
    assert _paths.enrollments_path() == tmp_path / "enrollments.db"
    assert _paths.cache_dir() == tmp_path / "cache"


def test_without_it_keys_and_data_lie_apart_as_xdg_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEPIN_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert _paths.store_key_path() == tmp_path / "c" / "edgepin" / "store.key"
    assert _paths.enrollments_path() == tmp_path / ".local/share/edgepin/enrollments.db"
    assert _paths.cache_dir() == tmp_path / ".cache/edgepin"


def test_a_home_may_begin_with_a_tilde_or_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEPIN_HOME", "~/e")
    assert _paths.config_dir() == tmp_path / "e"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPIN_HOME", "here")
    assert _paths.config_dir() == tmp_path / "here"
    monkeypatch.setenv("EDGEPIN_HOME", "~nobody-of-this-name/e")
    with pytest.raises(EnvironmentFault, match="no home folder"):
        _paths.config_dir()
