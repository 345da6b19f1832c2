"""Slim bundles: fewer precisions of the same encoders, everything else as it was, and their origin said."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin import Bundle, MemoryKey, StoreError, UsageError, Verifier
from edgepin._bundle.bundle import write_bundle
from edgepin._bundle.signing import SigningKey
from edgepin._bundle.slim import slim_bundle

from ..attacks.forge import bundle as forged
from .commands import ENVIRONMENT, INTEGRITY, USAGE, YES, invoke
from .conftest import Pins
from .golden.make_golden import BUNDLES, FOLDER, key
from .synthetic_captures import voice, write_face

FULL = BUNDLES["full.pin"][0]
BOTH = ("face", "voice")


@pytest.fixture
def full(device: Path, tmp_path: Path) -> Path:
    """A bundle with every form that there is, by a maker whom the device trusts."""
    (device / "trusted" / "golden.pub").write_bytes(key().public_key.to_pem())
    return shutil.copy(FOLDER / "full.pin", tmp_path / "full.pin")


def slim(source: Path, out: Path, *options: object) -> Bundle:
    result = invoke("bundle", "slim", source, "--out", out, *options)
    assert result.exit_code == YES, result.output
    return Bundle.open(out)


# --- What is written


def test_what_is_kept_stays_byte_for_byte_and_the_rest_is_gone(full: Path, tmp_path: Path) -> None:
    small, source = slim(full, tmp_path / "small.pin", "--precision", "int8"), Bundle.open(full)
    assert (small.signature, small.key_id) == ("trusted", SigningKey.load_or_create().key_id)
    assert list(small.sizes) == ["card.md", "face.int8.onnx", "voice.int8.onnx"]
    for modality in BOTH:
        assert small.model(modality) == FULL[f"{modality}.int8.onnx"]
    assert small.portable_voice is None
    assert small.digest != source.digest
    assert (tmp_path / "small.pin").stat().st_size < full.stat().st_size


def test_the_manifest_stays_but_for_the_members_and_says_what_it_was_made_of(
    full: Path, tmp_path: Path
) -> None:
    small, source = slim(full, tmp_path / "small.pin", "--precision", "int8"), Bundle.open(full)
    origin = {"digest": source.digest, "precisions": ["fp32", "fp16", "int8"]}
    assert small.manifest.usage == {**source.manifest.usage, "slim_of": origin}
    expected = dataclasses.replace(
        source.manifest, usage=small.manifest.usage, members=small.manifest.members
    )
    assert small.manifest == expected


def test_the_card_ends_with_what_is_here_and_whose_the_figures_are(full: Path, tmp_path: Path) -> None:
    small, source = slim(full, tmp_path / "small.pin", "--precision", "int8"), Bundle.open(full)
    assert small.card.startswith(source.card + "\n## Slim\n\n")
    told = small.card[len(source.card) :]
    assert f"`{source.digest}` (FP32, FP16, INT8 and a portable voice encoder) with INT8 alone" in told
    assert "other forms" in told


def test_several_precisions_and_the_portable_form_may_be_kept(full: Path, tmp_path: Path) -> None:
    options = ("--precision", "int8", "--precision", "fp16", "--precision", "int8", "--portable")
    small = slim(full, tmp_path / "small.pin", *options)
    assert small.precisions("face") == small.precisions("voice") == ("fp16", "int8")
    assert small.highest_precision == "fp16"
    assert small.portable_voice == FULL["voice.portable.onnx"]
    assert "with FP16, INT8 and a portable voice encoder alone" in small.card


def test_a_slim_bundle_may_be_made_slimmer_and_names_the_one_before(full: Path, tmp_path: Path) -> None:
    first = slim(full, tmp_path / "a.pin", "--precision", "fp16", "--precision", "int8")
    second = slim(tmp_path / "a.pin", tmp_path / "b.pin", "--precision", "int8")
    assert second.manifest.usage["slim_of"] == {"digest": first.digest, "precisions": ["fp16", "int8"]}
    assert second.card.startswith(first.card)


def test_the_same_arguments_give_the_same_bytes(full: Path, tmp_path: Path) -> None:
    for name in ("a.pin", "b.pin"):
        slim(full, tmp_path / name, "--precision", "int8")
    assert (tmp_path / "a.pin").read_bytes() == (tmp_path / "b.pin").read_bytes()


def test_a_slim_bundle_enrolls_and_verifies_and_refuses_the_sources_store(full: Path, tmp_path: Path) -> None:
    small = slim(full, tmp_path / "small.pin", "--precision", "int8")
    picture = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with Verifier.open(small, tmp_path / "small.db", key=MemoryKey(bytes(32))) as verifier:
        assert "int8" in verifier.about
        with verifier.enroll("ada") as session:
            session.add_face(picture, cropped=True)
            session.add_voice(voice(1, 0), sample_rate=16_000)
        decision = verifier.verify("ada", face=picture, voice=voice(1, 0), sample_rate=16_000, cropped=True)
    assert decision.scores.face == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(StoreError):
        Verifier.open(full, tmp_path / "small.db", key=MemoryKey(bytes(32)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.sets(st.sampled_from(["fp32", "fp16", "int8", "int4", ""])), portable=st.booleans())
def test_any_choice_gives_a_bundle_of_just_that_or_a_usage_error(
    full: Path, tmp_path: Path, wanted: set[str], portable: bool
) -> None:
    source, path = Bundle.open(full), tmp_path / "small.pin"
    path.unlink(missing_ok=True)
    possible = bool(wanted) and wanted <= {"fp32", "fp16", "int8"} and (len(wanted) < 3 or not portable)
    try:
        digest = slim_bundle(source, path, wanted, portable=portable, signing_key=None)
    except UsageError:
        assert not possible
        assert not path.exists()
    else:
        assert possible
        small = Bundle.open(path, trusted_digests=[digest])
        assert set(small.precisions("face")) == set(small.precisions("voice")) == wanted
        assert (small.portable_voice is not None) == portable


# --- Who uses it


@pytest.fixture
def int8_only(device: Path, pins: Pins, tmp_path: Path) -> Path:
    """A slim bundle of encoders that work."""
    site = Bundle.open(pins.site)
    models = {
        f"{modality}.{name}.onnx": site.model(modality) for modality in BOTH for name in ("fp32", "int8")
    }
    write_bundle(tmp_path / "two.pin", site.manifest, {"card.md": b"# Two\n", **models}, key())
    options = ("--precision", "int8", "--allow-unsigned")
    slim(tmp_path / "two.pin", tmp_path / "small.pin", *options)
    return tmp_path / "small.pin"


def test_evaluate_runs_the_highest_precision_that_is_there_and_says_which(
    int8_only: Path, tmp_path: Path
) -> None:
    for person in (1, 2):
        for capture in (0, 1):
            (tmp_path / f"p{person}").mkdir(exist_ok=True)
            write_face(tmp_path / f"p{person}" / f"{capture}.png", person, capture)
    lines = ("1 p1/0.png p1/1.png", "1 p2/0.png p2/1.png", "0 p1/0.png p2/1.png")
    (tmp_path / "t.txt").write_text("\n".join(lines))
    call = (
        "evaluate", "verification", "--modality", "face", "--root", tmp_path, "--trials", tmp_path / "t.txt",
        "--json", "--bundle",
    )  # fmt: skip
    result = invoke(*call, int8_only)
    assert (result.exit_code, json.loads(result.stdout)["precision"]) == (YES, "int8")
    assert ", int8" in result.stderr
    result = invoke(*call, tmp_path / "two.pin", "--allow-unsigned")
    assert (result.exit_code, json.loads(result.stdout)["precision"]) == (YES, "fp32")
    result = invoke(*call, int8_only, "--precision", "fp32")
    assert result.exit_code == USAGE
    assert "the bundle has no fp32 encoders" in result.stderr


def test_doctor_says_what_a_slim_bundle_has_and_runs(int8_only: Path) -> None:
    found = json.loads(invoke("doctor", "--bundle", int8_only, "--json").stdout)
    assert (found["bundle"]["precisions"], found["runtime"]["precision"]) == (["int8"], "int8")


# --- The verb


def test_the_json_of_slim(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.pin"
    result = invoke("bundle", "slim", full, "--out", out, "--precision", "int8", "--json")
    about: dict[str, Any] = json.loads(result.stdout)
    small = Bundle.open(out)
    assert about == {
        "schema": "edgepin.bundle-slim/1",
        "path": str(out),
        "digest": small.digest,
        "key_id": small.key_id,
        "precisions": ["int8"],
        "portable_voice": False,
        "bytes": out.stat().st_size,
        "left_out": [
            "face.fp32.onnx", "face.fp16.onnx", "voice.fp32.onnx", "voice.fp16.onnx", "voice.portable.onnx"
        ],
        "slim_of": {"digest": Bundle.open(full).digest, "precisions": ["fp32", "fp16", "int8"]},
    }  # fmt: skip


def test_a_person_is_told_that_enrollments_do_not_carry_over(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.pin"
    result = invoke("bundle", "slim", full, "--out", out, "--precision", "int8")
    assert result.stdout == f"{out}\n"
    assert "left out: face.fp32.onnx, face.fp16.onnx, voice.fp32.onnx" in result.stderr
    assert f"enrollments of {full} do not carry over" in result.stderr
    assert "vouches" not in result.stderr
    # The page of the verb says so before anything is written.
    assert "do not carry over" in " ".join(invoke("bundle", "slim", "--help").stdout.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp16"], "the bundle has no fp16 encoders"),
        (["--precision", "fp32"], "nothing would be left out"),
        (["--precision", "fp32", "--portable"], "no portable voice encoder"),
        (["--precision", "int4"], "int4"),
        ([], "--precision"),
    ],
)
def test_what_the_source_lacks_is_a_usage_error_that_says_what_there_is_and_makes_no_key(
    full: Path, device: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    out = tmp_path / "small.pin"
    result = invoke("bundle", "slim", FOLDER / "minimal.pin", "--out", out, *options)
    assert result.exit_code == USAGE
    assert words in result.stderr
    assert "int4" in options or not options or "--portable" in options or "there is fp32" in result.stderr
    assert not out.exists()
    assert not (device / "signing.key").exists()


@pytest.mark.parametrize("name", ["full.pin", "link.pin", "./sub/../full.pin"])
def test_the_source_is_never_written_over(full: Path, device: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "link.pin").symlink_to(full)
    (tmp_path / "sub").mkdir()
    before = full.read_bytes()
    result = invoke("bundle", "slim", full, "--out", f"{tmp_path}/{name}", "--precision", "int8")
    assert result.exit_code == USAGE
    assert "is the bundle itself" in result.stderr
    assert full.read_bytes() == before
    assert not (device / "signing.key").exists()


def test_nor_is_a_source_that_was_opened_by_another_name(full: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pin").symlink_to(full)
    before = full.read_bytes()
    for source, path in ((tmp_path / "link.pin", full), (full, tmp_path / "link.pin")):
        with pytest.raises(UsageError, match="is the bundle itself"):
            slim_bundle(Bundle.open(source), path, ["int8"], portable=False, signing_key=None)
    assert full.read_bytes() == before
    assert (tmp_path / "link.pin").is_symlink()


def test_slim_goes_through_a_link_to_another_file(full: Path, tmp_path: Path) -> None:
    (tmp_path / "current.pin").symlink_to("small.pin")
    slim(full, tmp_path / "current.pin", "--precision", "int8")
    assert os.readlink(tmp_path / "current.pin") == "small.pin"
    assert Bundle.open(tmp_path / "small.pin").precisions("face") == ("int8",)


def test_unsigned_leaves_it_unsigned_and_makes_no_key(full: Path, device: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.pin"
    result = invoke("bundle", "slim", full, "--out", out, "--precision", "int8", "--unsigned", "--json")
    assert (result.exit_code, json.loads(result.stdout)["key_id"]) == (YES, None)
    assert Bundle.open(out, allow_unsigned=True).signature == "unsigned"
    assert not (device / "signing.key").exists()


def test_a_source_that_nobody_trusts_is_refused_unless_allowed_and_then_it_is_said_who_vouches(
    full: Path, device: Path, tmp_path: Path
) -> None:
    (device / "trusted" / "golden.pub").unlink()
    call = ("bundle", "slim", full, "--out", tmp_path / "small.pin", "--precision", "int8")
    assert invoke(*call).exit_code == INTEGRITY
    assert not (tmp_path / "small.pin").exists()
    assert not (device / "signing.key").exists()
    allowed = invoke(*call, "--allow-unsigned")
    assert allowed.exit_code == YES
    assert f"it proves nothing here ({key().key_id})" in allowed.stderr
    assert "the new signature vouches for what was kept of it" in allowed.stderr
    assert Bundle.open(tmp_path / "small.pin").signature == "trusted"


def test_a_damaged_missing_or_unwritable_file_and_an_unreadable_fusion_have_their_codes(
    full: Path, tmp_path: Path
) -> None:
    options = ("--precision", "int8")
    assert invoke("bundle", "slim", tmp_path / "no.pin", "--out", tmp_path / "s.pin", *options).exit_code == 6
    result = invoke("bundle", "slim", full, "--out", tmp_path / "none" / "s.pin", *options)
    assert result.exit_code == ENVIRONMENT
    (tmp_path / "odd.pin").write_bytes(
        forged(
            lambda value: value.update(fusion={}),
            face_int8_onnx=FULL["face.int8.onnx"],
            voice_int8_onnx=FULL["voice.int8.onnx"],
        )
    )
    result = invoke("bundle", "slim", tmp_path / "odd.pin", "--out", tmp_path / "s.pin", *options)
    assert (result.exit_code, "fusion" in result.stderr) == (INTEGRITY, True)
    full.write_bytes(full.read_bytes()[:-1])
    assert invoke("bundle", "slim", full, "--out", tmp_path / "s.pin", *options).exit_code == INTEGRITY
    assert not (tmp_path / "s.pin").exists()


def test_inspect_says_what_a_slim_bundle_was_made_of(full: Path, tmp_path: Path) -> None:
    slim(full, tmp_path / "small.pin", "--precision", "int8")
    result = invoke("bundle", "inspect", tmp_path / "small.pin")
    assert f"slim_of.digest: {Bundle.open(full).digest}" in result.stdout
    assert "fp32.onnx" not in result.stdout
    about = json.loads(invoke("bundle", "inspect", tmp_path / "small.pin", "--json").stdout)
    assert about["precisions"] == {"face": ["int8"], "voice": ["int8"]}
    assert invoke("bundle", "verify", tmp_path / "small.pin").exit_code == YES
