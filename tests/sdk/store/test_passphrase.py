"""Keys from a passphrase, and from systemd."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edgepin._errors import EdgePinError, EnvironmentFault, IntegrityError, UsageError
from edgepin._store import passphrase as _passphrase
from edgepin._store.credential import SystemdCredential
from edgepin._store.keys import KeyFile, KeyProvider, open_key
from edgepin._store.passphrase import Argon2Cost, PassphraseFile, find_passphrase
from edgepin._store.tpm import DEFAULT_HANDLE, DEFAULT_INDEX, parse_handle

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)


@pytest.fixture(autouse=True)
def nothing_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("EDGEPIN_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)


def test_the_default_cost_is_that_of_rfc_9106_for_64_mib() -> None:
    assert Argon2Cost() == Argon2Cost(memory_kib=65536, iterations=3, lanes=4)


def test_the_key_is_argon2ids_of_rfc_9106(tmp_path: Path) -> None:
    """Against the same function of the library, on the file's own salt: what is kept is what is used."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    provider: KeyProvider = PassphraseFile(tmp_path / "p", b"open sesame", cost=CHEAP)
    kept = json.loads((tmp_path / "p").read_text())
    assert kept["format"] == "edgepin.passphrase/1"
    expected = Argon2id(salt=bytes.fromhex(kept["salt"]), length=32, iterations=1, lanes=1, memory_cost=64)
    assert provider.key() == expected.derive(b"open sesame")
    assert provider.tier == "passphrase"


def test_the_same_passphrase_gives_the_same_key_and_another_file_another_one(tmp_path: Path) -> None:
    first = PassphraseFile(tmp_path / "p", b"open sesame", cost=CHEAP)
    again = PassphraseFile(tmp_path / "p", b"open sesame", create=False)
    assert (again.key(), again.key_id) == (first.key(), first.key_id)
    assert PassphraseFile(tmp_path / "q", b"open sesame", cost=CHEAP).key() != first.key()
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o600
    assert b"sesame" not in (tmp_path / "p").read_bytes()


def test_a_wrong_passphrase_is_a_usage_error(tmp_path: Path) -> None:
    PassphraseFile(tmp_path / "p", b"open sesame", cost=CHEAP)
    with pytest.raises(UsageError, match="not the one"):
        PassphraseFile(tmp_path / "p", b"open sesame ")
    for wrong in (b"", b"x" * 1025, "text"):
        with pytest.raises(UsageError):
            PassphraseFile(tmp_path / "p", wrong)  # type: ignore[arg-type]


def test_a_missing_file_is_not_made_where_it_may_not_be(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no passphrase file"):
        PassphraseFile(tmp_path / "p", b"x", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"format": "edgepin.passphrase/2"}, {"salt": "00"}, {"salt": 7}, {"key_id": 7}, {"memory_kib": 2**40},
        {"memory_kib": 8, "lanes": 4}, {"iterations": 10**9}, {"lanes": 0}, {"more": 1}, {"iterations": True},
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_was_written_is_refused_before_it_costs_anything(
    tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p"
    PassphraseFile(path, b"x", cost=CHEAP)
    value = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")
    monkeypatch.setattr(_passphrase, "_derive", lambda *_: pytest.fail("it was derived"))
    with pytest.raises(IntegrityError, match="no passphrase file"):
        PassphraseFile(path, b"x")


def test_flipped_bytes_never_open_it(tmp_path: Path) -> None:
    path = tmp_path / "p"
    key = PassphraseFile(path, b"x", cost=CHEAP).key()
    original = path.read_bytes()
    for offset in range(len(original)):
        changed = bytearray(original)
        changed[offset] ^= 0x01
        path.write_bytes(changed)
        try:
            assert PassphraseFile(path, b"x").key() != key  # and then the id does not fit either
            pytest.fail(f"a flip at {offset} went unnoticed")
        except EdgePinError:
            pass


def test_a_machine_without_argon2_is_told_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.argon2", None)
    with pytest.raises(EnvironmentFault, match="no Argon2id") as caught:
        PassphraseFile(tmp_path / "p", b"x")
    assert "cryptography>=44" in (caught.value.hint or "")


def test_the_passphrase_comes_from_a_file_a_credential_or_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvironmentFault, match="no passphrase"):
        find_passphrase()
    assert find_passphrase(lambda: "asked ✓") == "asked ✓".encode()
    (tmp_path / "edgepin-passphrase").write_bytes(b"credential\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert find_passphrase(lambda: pytest.fail("it asked")) == b"credential"
    secret = tmp_path / "secret"
    secret.write_bytes(b"file\n\n")
    secret.chmod(0o600)
    monkeypatch.setenv("EDGEPIN_PASSPHRASE_FILE", str(secret))
    assert find_passphrase() == b"file\n"
    secret.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="others can get at it"):
        find_passphrase()
    secret.unlink()
    with pytest.raises(EnvironmentFault, match="no file"):
        find_passphrase()


@pytest.mark.parametrize("data", [bytes(range(32)), bytes(range(32)).hex().encode() + b"\n"])
def test_a_systemd_credential_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    (tmp_path / "edgepin.key").write_bytes(data)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    provider: KeyProvider = SystemdCredential("edgepin.key")
    assert provider.key() == bytes(range(32))
    assert provider.tier == "systemd"


def test_a_missing_or_damaged_credential_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFault, match="no credential") as caught:
        SystemdCredential("edgepin")
    assert "LoadCredential" in (caught.value.hint or "")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="no credential"):
        SystemdCredential("edgepin")
    for data in (b"", bytes(31), b"0" * 64, b"0" * 9000):
        (tmp_path / "edgepin").write_bytes(data)
        with pytest.raises(IntegrityError, match="does not hold a key"):
            SystemdCredential("edgepin")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EnvironmentFault):
        SystemdCredential("folder")
    for name in ("../edgepin", "a/b", "", ".", "a\0b", "x" * 256):
        with pytest.raises(UsageError):
            SystemdCredential(name)


def test_a_text_names_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = open_key(f"file:{tmp_path / 'store.key'}")
    assert isinstance(named, KeyFile)
    assert named.tier == "file"
    with pytest.raises(EnvironmentFault, match="no key file"):
        open_key(f"file:{tmp_path / 'other.key'}", create=False)
    asked = open_key(f"passphrase:{tmp_path / 'p'}", ask=lambda: "x")
    assert asked.tier == "passphrase"
    (tmp_path / "cred").write_bytes(bytes(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert open_key("systemd:cred").tier == "systemd"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file",
        "file:",
        "tpm:",
        "tpm:81000000",
        "tpm:0x80000000",
        "systemd:",
        "passphrase:",
        "key",
        "TPM",
        "tpm2",
    ],
)
def test_a_text_that_names_no_key_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        open_key(text)


def test_handles_are_those_that_an_owner_may_give_out() -> None:
    assert parse_handle("0x81014550") == DEFAULT_HANDLE
    assert parse_handle("0x01814550", index=True) == DEFAULT_INDEX
    for text in ("0x81800000", "0x80ffffff", "2164344144", "0x", "0x181014550", "-0x1", "0x81014550 "):
        with pytest.raises(UsageError):
            parse_handle(text)
    with pytest.raises(UsageError):
        parse_handle("0x01c00000", index=True)  # of the manufacturers
