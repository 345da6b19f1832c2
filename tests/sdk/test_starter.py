"""The packaged starter: what a plain install can do, and what it says of itself."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgepin import _starter
from edgepin._bundle.bundle import Bundle, sign_bundle, write_bundle
from edgepin._bundle.signing import SigningKey
from edgepin._errors import BundleError, BundleNotFoundError
from edgepin._starter import open_starter, people_calibration
from edgepin._store.keys import KeyFile
from edgepin._verifier import Verifier

from .commands import invoke
from .conftest import Pins

MAX_BYTES = 7 << 20
"""Of everything that is packaged here: the wheel stays within 8 MB."""
PEOPLE = sorted(path.name for path in (_starter.PEOPLE / "faces").iterdir())


def capture(kind: str, person: int, number: int) -> Path:
    suffix = {"faces": "jpg", "voices": "ogg"}[kind]
    return _starter.PEOPLE / kind / PEOPLE[person] / f"{number:02}.{suffix}"


def options(person: int, *numbers: int) -> list[object]:
    found: list[object] = []
    for number in numbers:
        found += [
            "--face",
            capture("faces", person, number),
            "--voice",
            capture("voices", person, number),
        ]
    return found


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's files where they may be damaged."""
    for name in ("BUNDLE", "DIGEST", "CALIBRATION"):
        path = tmp_path / getattr(_starter, name).name
        shutil.copy(getattr(_starter, name), path)
        monkeypatch.setattr(_starter, name, path)
    return tmp_path


def test_it_opens_by_its_digest_without_any_key() -> None:
    bundle = open_starter()
    assert bundle.signature == "pinned"
    assert bundle.key_id is None
    assert bundle.digest == _starter.DIGEST.read_text().strip()


def test_all_that_is_packaged_is_small() -> None:
    files = [path for path in _starter.FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("text", ["", "0" * 63, "é" * 64, "0" * 64])
def test_another_digest_is_refused(copied: Path, text: str) -> None:
    _starter.DIGEST.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="packaged starter") as caught:
        open_starter()
    assert "install the package again" in str(caught.value.hint)


def test_an_altered_bundle_is_refused(copied: Path) -> None:
    data = bytearray(_starter.BUNDLE.read_bytes())
    data[-5000] ^= 1
    _starter.BUNDLE.write_bytes(data)
    with pytest.raises(BundleError, match="packaged starter"):
        open_starter()


def test_a_bundle_that_is_whole_but_another_is_refused(copied: Path, pins: Pins) -> None:
    shutil.copy(pins.site, _starter.BUNDLE)
    with pytest.raises(BundleError, match="packaged starter"):
        open_starter()


def test_another_bundle_is_refused_even_if_this_machine_has_signed_it(device: Path, copied: Path) -> None:
    sign_bundle(open_starter(), _starter.BUNDLE, SigningKey.load_or_create())
    assert open_starter().signature == "trusted"  # the same bytes but for the signature
    _starter.DIGEST.write_text("0" * 64)
    with pytest.raises(BundleError, match="another bundle"):
        open_starter()


def test_a_missing_file_is_damage_and_doctor_goes_on_and_says_so(device: Path, copied: Path) -> None:
    _starter.BUNDLE.unlink()
    with pytest.raises(BundleError, match="missing"):
        open_starter()
    result = invoke("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 5
    assert "its file is missing" in found["bundle"]["note"]
    assert found["runtime"]["backend"] is not None


def test_an_installation_without_one_says_how_to_make_a_bundle(copied: Path) -> None:
    _starter.DIGEST.unlink()
    with pytest.raises(BundleNotFoundError) as caught:
        open_starter()
    assert "edgepin train" in str(caught.value.hint)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_calibration_of_the_packaged_people_is_refused(copied: Path, damage: bytes) -> None:
    _starter.CALIBRATION.write_bytes(damage)
    with pytest.raises(BundleError, match="calibration of its people"):
        people_calibration(open_starter())


def test_the_calibration_of_the_packaged_people_belongs_to_one_bundle(copied: Path, pins: Pins) -> None:
    with pytest.raises(BundleError, match="another bundle"):
        people_calibration(Bundle.open(pins.site, allow_unsigned=True))


def test_the_calibration_of_the_packaged_people_carries_a_policy() -> None:
    calibration = people_calibration(open_starter())
    usual = calibration.fusion.evidence.sets["face+voice"].usual
    assert usual is not None
    assert usual.fmr <= 0.1


def test_the_card_says_what_it_learned_from_how_good_it_is_and_what_it_is_not_for() -> None:
    card = open_starter().card
    for said in (
        "for evaluation, not for a production door",
        "4049 people",
        "By sex",
        "must not be used",
        "make starter",
    ):
        assert said in card


def test_the_figures_that_the_card_shows_are_in_the_manifest() -> None:
    bundle = open_starter()
    trials = bundle.manifest.evidence["trials"]
    for modality in ("voice", "face", "fused"):
        assert f"| {modality} | int8 | {100 * trials[modality]['int8']['eer']:.2f} % |" in bundle.card


def test_enroll_and_verify_work_after_a_plain_install(device: Path) -> None:
    enrolled = invoke("enroll", "ada", *options(0, 0, 1, 2), "--json")
    assert enrolled.exit_code == 0, enrolled.output
    right = json.loads(invoke("verify", "ada", *options(0, 4), "--json").stdout)
    wrong = invoke("verify", "ada", *options(1, 4), "--json")
    assert wrong.exit_code in (0, 1), wrong.output  # drawn people are not whom its own threshold is for
    assert right["llr"] > json.loads(wrong.stdout)["llr"]


def test_a_verifier_opens_it_by_default(device: Path, tmp_path: Path) -> None:
    with Verifier.open(store=tmp_path / "e.db", key=KeyFile(tmp_path / "key")) as verifier:
        assert "int8" in verifier.about


def test_the_first_decision_says_that_it_is_for_evaluation_and_the_next_ones_do_not(
    device: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Verifier.open(store=tmp_path / "e.db", key=KeyFile(tmp_path / "key")) as verifier:
        assert not caplog.records
        with caplog.at_level(logging.WARNING, "edgepin"):
            for number in (0, 1):
                verifier.verify("nobody", face=capture("faces", 0, number))
    (record,) = caplog.records
    assert "for evaluation, not for a production door" in record.getMessage()


def test_a_bundle_without_a_notice_says_nothing(
    device: Path, pins: Pins, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Verifier.open(pins.site, tmp_path / "e.db", key=KeyFile(tmp_path / "key")) as verifier:
        verifier.verify("nobody", face=capture("faces", 0, 0), cropped=True)
    assert not caplog.records


@pytest.mark.parametrize("notice", ["", "x" * 501, 7, None])
def test_a_notice_is_a_short_text(pins: Pins, tmp_path: Path, notice: object) -> None:
    bundle = Bundle.open(pins.site, allow_unsigned=True)
    with pytest.raises(BundleError, match=r"usage\.notice"):
        write_bundle(
            tmp_path / "other.pin",
            replace(bundle.manifest, usage={**bundle.manifest.usage, "notice": notice}),
            {name: bytes(bundle._members[name]) for name in bundle.sizes},
            SigningKey.generate(),
        )


def test_doctor_shows_it_and_its_notice(device: Path) -> None:
    found = json.loads(invoke("doctor", "--json").stdout)["bundle"]
    assert (found["name"], found["packaged"], found["signature"]) == ("starter", True, "pinned")
    text = invoke("doctor")
    assert "starter (packaged), pinned, int8" in text.stdout
    assert "not for a production door" in text.stdout


def test_it_can_be_looked_into_and_checked_like_any_bundle(device: Path) -> None:
    for arguments in ((), (_starter.BUNDLE,)):
        assert "packaged with this version" in invoke("bundle", "inspect", *arguments).stdout
        checked = invoke("bundle", "verify", *arguments)
        assert (checked.exit_code, checked.stdout) == (0, "intact and trusted\n")
    assert invoke("bundle", "inspect", "--card").stdout.strip() == open_starter().card.strip()


def test_the_demo_wants_people_for_a_bundle_of_ones_own(device: Path, pins: Pins) -> None:
    result = invoke("demo", "--bundle", pins.site)
    assert result.exit_code == 2
    assert "--people" in result.stderr


def test_the_demo_needs_nothing_and_keeps_its_policy(device: Path) -> None:
    result = invoke("demo", "--attempts", 12, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["within_policy"]
    assert found["people"] >= 10
    genuine = next(rate for rate in found["rates"] if rate["kind"] == "genuine")
    assert genuine["wrong"] <= 8
    assert not list(device.glob("*.db"))  # everything happened in a folder of its own
