"""Signing keys and trust: made once, kept to their owner, and never quietly ignored."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from edgepin._bundle.signing import PublicKey, SigningKey, trust, trusted_keys
from edgepin._errors import EnvironmentFault, IntegrityError, UsageError

# RFC 8032, 7.1, test 2: secret key, public key, one-byte message, signature.
RFC_SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
RFC_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_signatures_are_rfc_8032s() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_SECRET)))
    assert key.sign(b"\x72").hex() == RFC_SIGNATURE
    public = PublicKey(bytes.fromhex(RFC_PUBLIC))
    assert public.key_id == key.key_id
    assert public.verifies(bytes.fromhex(RFC_SIGNATURE), b"\x72")
    assert not public.verifies(bytes.fromhex(RFC_SIGNATURE), b"\x73")
    assert not public.verifies(b"", b"\x72")


def test_the_machines_key_is_made_on_first_use_and_is_the_same_afterwards(home: Path) -> None:
    first = SigningKey.load_or_create()
    assert stat.S_IMODE((home / "signing.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert PublicKey.load(home / "signing.pub").key_id == first.key_id
    assert SigningKey.load_or_create().key_id == first.key_id
    assert sorted(path.name for path in home.iterdir()) == ["signing.key", "signing.pub"]


def test_a_lost_public_half_is_written_again(home: Path) -> None:
    key = SigningKey.load_or_create()
    (home / "signing.pub").unlink()
    SigningKey.load_or_create()
    assert PublicKey.load(home / "signing.pub").key_id == key.key_id


def test_a_public_half_of_another_key_is_refused(home: Path) -> None:
    """Its owner would hand it on, and nobody could open what this machine signs."""
    SigningKey.load_or_create()
    other = SigningKey.generate().public_key.to_pem()
    (home / "signing.pub").write_bytes(other)
    with pytest.raises(IntegrityError, match="not the public half"):
        SigningKey.load_or_create()
    assert (home / "signing.pub").read_bytes() == other


def test_a_key_is_made_in_a_place_of_its_own_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "release.key"
    made = SigningKey.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).key_id == PublicKey.load(path.with_suffix(".pub")).key_id == made.key_id
    for there in (path, path.with_suffix(".pub")):
        with pytest.raises(UsageError, match="never overwritten"):
            SigningKey.create(path)
        there.unlink()


def test_the_repr_does_not_tell_the_key(home: Path) -> None:
    key = SigningKey.load_or_create()
    assert repr(key) == f"SigningKey(key_id='{key.key_id}')"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_signing_key_that_others_can_get_at_is_refused(home: Path, mode: int) -> None:
    SigningKey.load_or_create()
    (home / "signing.key").chmod(mode)
    for use in (SigningKey.load_or_create, trusted_keys):
        with pytest.raises(EnvironmentFault, match="others can get at it") as caught:
            use()
        assert "chmod 600" in (caught.value.hint or "")


def test_a_missing_signing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no signing key"):
        SigningKey.load(tmp_path / "none.key")


@pytest.mark.parametrize(
    "data", [b"", b"not a key\n", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_signing_key_is_refused(home: Path, data: bytes) -> None:
    SigningKey.load_or_create()
    (home / "signing.key").write_bytes(data)
    with pytest.raises(IntegrityError, match="not an Ed25519 private key"):
        SigningKey.load_or_create()


def test_a_key_of_another_kind_is_refused(home: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    other = X25519PrivateKey.generate()
    (home / "trusted").mkdir(parents=True)
    (home / "trusted" / "other.pub").write_bytes(
        other.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(EnvironmentFault, match=r"other.pub is not an Ed25519 public key"):
        trusted_keys()


def test_a_fresh_machine_trusts_nobody_and_makes_nothing(home: Path) -> None:
    assert trusted_keys() == {}
    assert not home.exists()


def test_a_machine_trusts_itself_and_the_public_keys_in_its_folder(home: Path) -> None:
    own, maker = SigningKey.load_or_create(), SigningKey.generate()
    (home / "trusted").mkdir()
    (home / "trusted" / "maker.pub").write_bytes(maker.public_key.to_pem())
    (home / "trusted" / "README").write_text("not a key, and not named like one")
    assert trusted_keys().keys() == {own.key_id, maker.key_id}


def test_trust_writes_the_key_under_its_id_once(home: Path) -> None:
    maker = SigningKey.generate().public_key
    assert trust(maker) == home / "trusted" / f"{maker.key_id}.pub"
    assert trusted_keys().keys() == {maker.key_id}
    assert stat.S_IMODE((home / "trusted").stat().st_mode) == 0o700
    assert trust(maker) is None
    own = SigningKey.load_or_create()
    assert trust(own.public_key) is None


def test_a_trusted_folder_to_which_anyone_may_add_is_refused(home: Path) -> None:
    trust(SigningKey.generate().public_key)
    (home / "trusted").chmod(0o777)
    with pytest.raises(EnvironmentFault, match="anyone may add keys") as caught:
        trusted_keys()
    assert "chmod o-w" in (caught.value.hint or "")


def test_a_public_key_that_anyone_may_change_is_refused(home: Path) -> None:
    (home / "trusted").mkdir(parents=True)
    path = home / "trusted" / "maker.pub"
    path.write_bytes(SigningKey.generate().public_key.to_pem())
    path.chmod(0o666)
    with pytest.raises(EnvironmentFault, match="anyone may change"):
        trusted_keys()


def test_what_is_no_public_key_is_not_skipped(home: Path) -> None:
    (home / "trusted" / "folder.pub").mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match=r"folder.pub"):
        trusted_keys()
    (home / "trusted" / "folder.pub").rmdir()
    (home / "trusted" / "gone.pub").symlink_to("nowhere")
    with pytest.raises(EnvironmentFault, match=r"gone.pub"):
        trusted_keys()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_keys_are_what_openssl_makes(home: Path) -> None:
    home.mkdir()
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "signing.key"],
        ["openssl", "pkey", "-in", "signing.key", "-pubout", "-out", "check.pub"],
    ):
        subprocess.run(command, cwd=home, check=True, capture_output=True)
    (home / "signing.key").chmod(0o600)
    assert SigningKey.load_or_create().public_key.to_pem() == (home / "check.pub").read_bytes()
