"""A site's calibration: its own bundle's, signed, whole, or not at all."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin import _canonical_json
from edgepin._bundle.bundle import Bundle
from edgepin._bundle.signing import SigningKey
from edgepin._decision.calibration import calibrate
from edgepin._decision.fusion import Fusion
from edgepin._decision.site import MAX_BYTES, SiteCalibration
from edgepin._errors import EdgePinError, EnvironmentFault, IntegrityError

from ..conftest import Pins
from ..simulated_people import World


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return calibrate(World().trials(14, seed=5), cross_modal=False)


@pytest.fixture
def bundle(device: Path, pins: Pins) -> Bundle:
    return Bundle.open(pins.site)


@pytest.fixture
def written(bundle: Bundle, fusion: Fusion, tmp_path: Path) -> Path:
    SiteCalibration.of(bundle, fusion).write(tmp_path / "site.cal", SigningKey.load_or_create())
    return tmp_path / "site.cal"


def test_what_was_written_is_read(bundle: Bundle, fusion: Fusion, written: Path) -> None:
    found = SiteCalibration.open(written, bundle)
    assert found == SiteCalibration.of(bundle, fusion)
    assert found.fusion == fusion
    assert found.people == {"face+voice": 14, "face": 14, "voice": 14}
    assert len(found.digest) == 64
    data = written.read_bytes()
    SiteCalibration.of(bundle, fusion).write(written, SigningKey.load_or_create())
    assert written.read_bytes() == data


def test_another_bundles_scores_are_not_decided_by_it(written: Path, pins: Pins) -> None:
    with pytest.raises(IntegrityError, match="belongs to another bundle"):
        SiteCalibration.open(written, Bundle.open(pins.other))


def test_a_stranger_cannot_sign_one(bundle: Bundle, fusion: Fusion, tmp_path: Path) -> None:
    SiteCalibration.of(bundle, fusion).write(tmp_path / "x.cal", SigningKey.generate())
    with pytest.raises(IntegrityError, match="does not trust"):
        SiteCalibration.open(tmp_path / "x.cal", bundle)


def test_one_without_a_file_names_the_command(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no site calibration") as caught:
        SiteCalibration.open(tmp_path / "none.cal", bundle)
    assert "edgepin calibrate" in str(caught.value.hint)
    with pytest.raises(EnvironmentFault, match="cannot read"):
        SiteCalibration.open(tmp_path, bundle)
    os.mkfifo(tmp_path / "pipe.cal")
    with pytest.raises(IntegrityError, match="not a file"):
        SiteCalibration.open(tmp_path / "pipe.cal", bundle)


def test_a_file_that_is_too_large_is_refused_unread(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "big.cal").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(IntegrityError, match="larger than 1 MiB"):
        SiteCalibration.open(tmp_path / "big.cal", bundle)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_goes_unnoticed(bundle: Bundle, written: Path, data: st.DataObject) -> None:
    whole = written.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    changed = written.with_name("changed.cal")
    changed.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    with pytest.raises(IntegrityError):
        SiteCalibration.open(changed, bundle)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_anything_else_is_refused_by_type(bundle: Bundle, tmp_path: Path, noise: bytes) -> None:
    (tmp_path / "noise.cal").write_bytes(noise)
    with pytest.raises(EdgePinError):
        SiteCalibration.open(tmp_path / "noise.cal", bundle)


def signed(value: dict[str, Any], domain: bytes = b"edgepin site calibration\n") -> bytes:
    """`value` signed by this machine's key, whatever it is."""
    key = SigningKey.load_or_create()
    signature = base64.b64encode(key.sign(domain + _canonical_json.encode(value))).decode()
    return _canonical_json.encode({"calibration": value, "key_id": key.key_id, "signature": signature})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(format=2), "format 2"),
        (lambda value: value.update(surprise=1), "unknown key surprise"),
        (lambda value: value.pop("fusion"), "fusion is missing"),
        (lambda value: value.update(created_by="\x1b[2J"), "created_by"),
        (lambda value: value["people"].update(face=99), "people"),
        (lambda value: value["fusion"].update(format=1), "format 1"),
        (lambda value: value["fusion"]["evidence"]["sets"]["face"]["points"].clear(), "points"),
    ],
)
def test_a_trusted_key_does_not_make_nonsense_right(
    bundle: Bundle, written: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    value = json.loads(written.read_bytes())["calibration"]
    written.write_bytes(signed(value))
    SiteCalibration.open(written, bundle)
    change(value)
    written.write_bytes(signed(value))
    with pytest.raises(IntegrityError, match=message):
        SiteCalibration.open(written, bundle)


def test_a_signature_of_something_else_is_none_of_this(bundle: Bundle, written: Path) -> None:
    value = json.loads(written.read_bytes())["calibration"]
    written.write_bytes(signed(value, domain=b""))
    with pytest.raises(IntegrityError, match="altered"):
        SiteCalibration.open(written, bundle)


def test_cross_modal_weights_need_encoders_that_give_them(bundle: Bundle, tmp_path: Path) -> None:
    crossed = calibrate(World().trials(14, seed=5), cross_modal=True)
    SiteCalibration.of(bundle, crossed).write(tmp_path / "x.cal", SigningKey.load_or_create())
    with pytest.raises(IntegrityError, match="cross-modal"):
        SiteCalibration.open(tmp_path / "x.cal", bundle)
