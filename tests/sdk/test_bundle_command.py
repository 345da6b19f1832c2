"""`edgepin bundle` and `edgepin keygen`: what they print, what they write, and how they exit."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgepin import Bundle
from edgepin._bundle.archive import unpack
from edgepin._bundle.bundle import MEMBER_ORDER
from edgepin._bundle.signing import PublicKey, SigningKey

from .commands import ENVIRONMENT, INTEGRITY, USAGE, YES, invoke
from .conftest import Pins
from .golden.make_golden import FOLDER, key


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A bundle by a maker whom the device does not know."""
    return shutil.copy(FOLDER / "full.pin", tmp_path / "full.pin")


def printed(result: Result) -> dict[str, Any]:
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def altered(path: Path, name: str = "card.md") -> Path:
    """One bit of a member changed."""
    data = bytearray(path.read_bytes())
    data[data.index(unpack(bytes(data), MEMBER_ORDER)[name])] ^= 1
    path.write_bytes(data)
    return path


# --- inspect


def test_inspect_tells_everything_that_a_bundle_says(device: Path, pins: Pins) -> None:
    about = printed(invoke("bundle", "inspect", pins.site, "--json"))
    bundle = Bundle.open(pins.site)
    assert about.keys() == {
        "schema", "path", "name", "digest", "signature", "key_id", "format_version", "created_by", "members",
        "precisions", "portable_voice", "embedding_dim", "cross_modal", "log_mel", "face", "policies", "default_fmr",
        "evidence", "accuracy", "fusion", "training", "usage", "card",
    }  # fmt: skip
    assert about["schema"] == "edgepin.bundle/1"
    assert (about["name"], about["digest"], about["signature"]) == ("tiny", bundle.digest, "trusted")
    assert about["members"]["face.fp32.onnx"] == {
        "bytes": len(bundle.model("face")), "sha256": bundle.manifest.members["face.fp32.onnx"]
    }  # fmt: skip
    assert about["precisions"] == {"face": ["fp32"], "voice": ["fp32"]}
    assert about["log_mel"] == bundle.manifest.log_mel.to_json()
    assert about["policies"][-1].keys() == {"fmr", "threshold", "fnmr"}
    assert about["default_fmr"] in [point["fmr"] for point in about["policies"]]


def test_inspect_marks_the_default_that_is_decided_by(
    device: Path, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepin._decision.evidence.USUAL_FNMR", -1.0)  # none is so kind: the loosest
    lines = [line for line in invoke("bundle", "inspect", pins.site).stdout.splitlines() if "default" in line]
    assert len(lines) == 1
    assert "at most 0.3:" in lines[0]


def test_inspect_shows_a_person_the_same(device: Path, pins: Pins) -> None:
    result = invoke("bundle", "inspect", pins.site)
    assert result.exit_code == YES
    assert result.stderr == ""
    for words in (
        "tiny, made by 0.1.0", "signed by a key that this machine trusts", "face.fp32.onnx", "64x64 px",
        "num_mels 80", "not compared", "false match rate at most", "(the default)", "restrictions: for tests alone",
    ):  # fmt: skip
        assert words in result.stdout


def test_inspect_shows_a_bundle_that_is_not_trusted_and_says_so(device: Path, full: Path) -> None:
    result = invoke("bundle", "inspect", full)
    assert result.exit_code == YES
    assert (
        f"by a key that this machine does not know: it proves nothing here ({key().key_id})" in result.stdout
    )
    assert "only what it says of itself" in result.stderr
    result = invoke("bundle", "inspect", FOLDER / "unsigned.pin")
    assert result.exit_code == YES
    assert "nobody vouches for it" in result.stdout


def test_inspect_runs_nothing(device: Path, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    for verb in ("inspect", "verify"):
        invoke("bundle", verb, full)


@pytest.mark.parametrize("verb", ["inspect", "verify", "sign"])
def test_a_bundle_that_is_not_there_or_no_file_has_its_code(device: Path, tmp_path: Path, verb: str) -> None:
    assert invoke("bundle", verb, tmp_path / "none.pin").exit_code == ENVIRONMENT
    assert invoke("bundle", verb, tmp_path).exit_code == INTEGRITY


def test_inspect_of_a_damaged_bundle_shows_nothing(device: Path, full: Path) -> None:
    result = invoke("bundle", "inspect", altered(full), "--json")
    assert (result.exit_code, result.stdout) == (INTEGRITY, "")
    assert "card.md is damaged" in result.stderr


# --- verify


def test_verify_of_a_trusted_bundle(device: Path, pins: Pins) -> None:
    result = invoke("bundle", "verify", pins.site)
    assert (result.exit_code, result.stdout) == (YES, "intact and trusted\n")
    about = printed(invoke("bundle", "verify", pins.site, "--json"))
    assert about == {
        "schema": "edgepin.bundle-verification/1",
        "path": str(pins.site),
        "intact": True,
        "trusted": True,
        "signature": "trusted",
        "key_id": Bundle.open(pins.site).key_id,
        "name": "tiny",
        "digest": Bundle.open(pins.site).digest,
        "passed": ["file", "archive", "signature", "manifest", "digests", "models", "fusion"],
        "failed": None,
        "error": None,
        "hint": None,
    }


@pytest.mark.parametrize("name", ["full.pin", "unsigned.pin"])
def test_verify_of_a_bundle_that_is_intact_and_not_trusted(device: Path, name: str) -> None:
    result = invoke("bundle", "verify", FOLDER / name)
    assert (result.exit_code, result.stdout) == (INTEGRITY, "intact, not trusted\n")
    assert "edgepin bundle trust signing.pub" in result.stderr
    about = printed(invoke("bundle", "verify", FOLDER / name, "--json"))
    assert (about["intact"], about["trusted"]) == (True, False)
    assert invoke("bundle", "verify", FOLDER / name, "--allow-unsigned").exit_code == YES


def test_verify_of_a_damaged_bundle_names_the_check(device: Path, full: Path) -> None:
    altered(full, "voice.int8.onnx")
    for more in ((), ("--allow-unsigned",)):
        result = invoke("bundle", "verify", full, *more)
        assert (result.exit_code, result.stdout) == (INTEGRITY, "damaged: the check `archive` failed\n")
        assert "voice.int8.onnx is damaged" in result.stderr
    about = printed(invoke("bundle", "verify", full, "--json"))
    assert (about["intact"], about["trusted"], about["passed"], about["failed"]) == (
        False, False, ["file"], "archive"
    )  # fmt: skip
    assert about["error"] == "the bundle's voice.int8.onnx is damaged: its checksum differs"


def test_every_check_of_verify_can_fail(device: Path, tmp_path: Path) -> None:
    from ..attacks.forge import bundle
    from .tiny_onnx import encoder

    path = tmp_path / "made.pin"
    for failed, data in {
        "file": b"",
        "archive": b"PK\3\4",
        "signature": bundle(signature=lambda stored: b"{}"),
        "manifest": bundle(lambda value: value.update(name="")),
        "digests": bundle(lambda value: value["members"].update({"card.md": "0" * 64})),
        "models": bundle(face_fp32_onnx=encoder("voice")),
        "fusion": bundle(lambda value: value.update(fusion={})),
    }.items():
        path.write_bytes(data)
        result = invoke("bundle", "verify", path, "--json")
        assert result.exit_code == INTEGRITY
        assert printed(result)["failed"] == failed


# --- sign


def test_sign_changes_the_signature_and_no_other_byte(device: Path, full: Path) -> None:
    before = {name: bytes(data) for name, data in unpack(full.read_bytes(), MEMBER_ORDER).items()}
    digest = Bundle.open(full, allow_unsigned=True).digest
    result = invoke("bundle", "sign", full, "--json")
    assert result.exit_code == YES
    own = SigningKey.load_or_create()
    assert printed(result) == {
        "schema": "edgepin.bundle-signature/1",
        "path": str(full),
        "digest": digest,
        "key_id": own.key_id,
        "replaced_key_id": key().key_id,
    }
    bundle = Bundle.open(full)
    assert (bundle.signature, bundle.digest, bundle.key_id) == ("trusted", digest, own.key_id)
    after = {name: bytes(data) for name, data in unpack(full.read_bytes(), MEMBER_ORDER).items()}
    assert {**before, "manifest.sig": b""} == {**after, "manifest.sig": b""}


def test_sign_with_a_key_to_another_place_leaves_the_first_and_gives_the_golden_bytes(
    device: Path, tmp_path: Path
) -> None:
    path, key_file = tmp_path / "maker.key", tmp_path / "signed.pin"
    path.write_bytes(key()._to_pem())
    path.chmod(0o600)
    unsigned = shutil.copy(FOLDER / "unsigned.pin", tmp_path / "unsigned.pin")
    before = unsigned.read_bytes()
    result = invoke("bundle", "sign", unsigned, "--key", path, "--out", key_file)
    assert result.exit_code == YES
    assert "this machine does not trust that key" in result.stderr
    assert unsigned.read_bytes() == before
    # Ed25519 has one signature: signing again gives the same file.
    first = key_file.read_bytes()
    assert invoke("bundle", "sign", key_file, "--key", path).exit_code == YES
    assert key_file.read_bytes() == first
    assert not (device / "signing.key").exists()


def test_sign_refuses_what_is_damaged_and_writes_nothing(device: Path, full: Path) -> None:
    data = altered(full).read_bytes()
    result = invoke("bundle", "sign", full)
    assert result.exit_code == INTEGRITY
    assert full.read_bytes() == data
    assert not (device / "signing.key").exists()
    assert list(full.parent.glob("*.tmp")) == []


def test_sign_refuses_a_wrong_signature_by_a_known_key(device: Path, full: Path) -> None:
    """Else it would wash what somebody has altered."""
    from ..attacks.hostile_files import replayed_signature

    (device / "trusted" / "golden.pub").write_bytes(key().public_key.to_pem())
    full.write_bytes(replayed_signature())
    result = invoke("bundle", "sign", full)
    assert result.exit_code == INTEGRITY
    assert "signature by the known key" in result.stderr


def test_sign_goes_through_a_link_to_the_file(device: Path, full: Path) -> None:
    link = full.with_name("current.pin")
    link.symlink_to(full.name)
    assert invoke("bundle", "sign", link).exit_code == YES
    assert link.is_symlink()
    assert Bundle.open(full).signature == "trusted"


def test_sign_needs_the_key_that_is_named(device: Path, full: Path) -> None:
    result = invoke("bundle", "sign", full, "--key", full.with_name("none.key"))
    assert result.exit_code == ENVIRONMENT
    assert "edgepin keygen" in result.stderr


# --- keygen and trust


def test_a_new_key_signs_and_its_public_half_makes_another_machine_open_the_bundle(
    device: Path, full: Path, tmp_path: Path
) -> None:
    (tmp_path / "usb").mkdir()
    made = printed(invoke("keygen", "--out", tmp_path / "usb", "--json"))
    private, public = tmp_path / "usb" / "signing.key", tmp_path / "usb" / "signing.pub"
    assert made == {
        "schema": "edgepin.key/1",
        "key_id": PublicKey.load(public).key_id,
        "private_key": str(private),
        "public_key": str(public),
    }
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert invoke("bundle", "sign", full, "--key", private).exit_code == YES
    assert invoke("bundle", "verify", full).exit_code == INTEGRITY
    result = invoke("bundle", "trust", public, "--yes", "--json")
    written = device / "trusted" / f"{made['key_id']}.pub"
    assert printed(result) == {
        "schema": "edgepin.trust/1", "key_id": made["key_id"], "path": str(written), "known": False
    }  # fmt: skip
    assert written.read_bytes() == public.read_bytes()
    assert invoke("bundle", "verify", full).exit_code == YES
    again = printed(invoke("bundle", "trust", public, "--json"))
    assert (again["known"], again["path"]) == (True, None)


def test_keygen_makes_the_machines_own_key_once(device: Path) -> None:
    result = invoke("keygen")
    assert result.exit_code == YES
    assert result.stdout.strip() == SigningKey.load_or_create().key_id
    assert "edgepin bundle trust signing.pub" in result.stderr
    before = (device / "signing.key").read_bytes()
    result = invoke("keygen")
    assert result.exit_code == USAGE
    assert "never overwritten" in result.stderr
    assert (device / "signing.key").read_bytes() == before


@pytest.mark.parametrize("name", ["release.key", "release.pub"])
def test_keygen_overwrites_neither_half(device: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    result = invoke("keygen", "--out", tmp_path / "release.key")
    assert result.exit_code == USAGE
    assert f"{name} is there already" in result.stderr
    assert (tmp_path / name).read_text() == "precious"
    assert not (tmp_path / "release.pub").exists() or name == "release.pub"
    assert not (tmp_path / "release.key").exists() or name == "release.key"


def test_keygen_refuses_a_private_key_called_pub(device: Path, tmp_path: Path) -> None:
    assert invoke("keygen", "--out", tmp_path / "signing.pub").exit_code == USAGE
    assert not (tmp_path / "signing.pub").exists()


def test_trust_without_anybody_to_ask_needs_yes(device: Path, tmp_path: Path) -> None:
    (tmp_path / "maker.pub").write_bytes(key().public_key.to_pem())
    result = invoke("bundle", "trust", tmp_path / "maker.pub")
    assert result.exit_code == USAGE
    assert f"key id {key().key_id}" in result.stderr
    assert "--yes" in result.stderr
    assert len(list((device / "trusted").iterdir())) == 1


@pytest.mark.parametrize(("answer", "code"), [("y\n", YES), ("n\n", USAGE), ("\n", USAGE)])
def test_trust_asks_a_person(device: Path, tmp_path: Path, answer: str, code: int) -> None:
    """On a terminal of its own: the command looks whether somebody is there."""
    import pty
    import subprocess
    import sys

    (tmp_path / "maker.pub").write_bytes(key().public_key.to_pem())
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    command = "from edgepin._cli.main import main; main(prog_name='edgepin')"
    result = subprocess.run(
        [sys.executable, "-c", command, "bundle", "trust", str(tmp_path / "maker.pub")],
        stdin=slave, capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    os.close(master)
    os.close(slave)
    assert result.returncode == code, result.stderr
    assert (device / "trusted" / f"{key().key_id}.pub").exists() == (code == YES)


@pytest.mark.parametrize("data", [b"", b"no key\n"])
def test_trust_refuses_what_is_no_public_key(device: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "maker.pub").write_bytes(data)
    result = invoke("bundle", "trust", tmp_path / "maker.pub", "--yes")
    assert result.exit_code == ENVIRONMENT
    assert "not an Ed25519 public key" in result.stderr


def test_trust_refuses_a_private_key(device: Path, tmp_path: Path) -> None:
    SigningKey.create(tmp_path / "a.key")
    assert invoke("bundle", "trust", tmp_path / "a.key", "--yes").exit_code == ENVIRONMENT
    assert len(list((device / "trusted").iterdir())) == 1
