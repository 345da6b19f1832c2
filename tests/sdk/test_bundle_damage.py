"""Whatever becomes of a bundle's bytes, it is refused: by a typed error, soon, and in little memory."""

from __future__ import annotations

import hashlib
import json
import random
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgepin import Bundle, BundleError, _canonical_json
from edgepin._bundle.archive import pack, unpack
from edgepin._bundle.bundle import MEMBER_ORDER
from edgepin._bundle.report import verify_bundle

from .conftest import Pins
from .golden.make_golden import BUNDLES, FOLDER
from .mutations import mutated
from .tiny_onnx import field

GOLDEN = {name: (FOLDER / name).read_bytes() for name in BUNDLES}
FULL = GOLDEN["full.pin"]
PARTS = {name: bytes(view) for name, view in unpack(FULL, MEMBER_ORDER).items()}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that trusts only itself: what is allowed here is allowed by `allow_unsigned`."""
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=["real", "golden"])
def original(request: pytest.FixtureRequest, pins: Pins) -> bytes:
    """A bundle of encoders that work, and one with every member that there may be."""
    return pins.site.read_bytes() if request.param == "real" else FULL


def put(path: Path, data: bytes) -> None:
    """Over what is there: emptying a file first costs some file systems milliseconds."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate()


def refused(path: Path, data: bytes) -> None:
    put(path, data)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path, allow_unsigned=True)
    assert str(caught.value)


def test_a_thousand_changes_of_one_byte_are_refused(original: bytes, tmp_path: Path) -> None:
    choose = random.Random(20_261)
    for _ in range(1000):
        offset, flip = choose.randrange(len(original)), choose.randrange(1, 256)
        changed = bytearray(original)
        changed[offset] ^= flip
        refused(tmp_path / "changed.pin", bytes(changed))


def test_a_thousand_files_that_are_cut_short_or_go_on_are_refused(original: bytes, tmp_path: Path) -> None:
    choose = random.Random(20_262)
    for number in range(1000):
        if number % 2:
            data = original[: choose.randrange(len(original))]
        else:
            data = original + choose.randbytes(choose.choice((1, 2, 22, 1000)))
        refused(tmp_path / "changed.pin", data)


def test_a_thousand_bytes_that_are_inserted_or_left_out_are_refused(original: bytes, tmp_path: Path) -> None:
    choose = random.Random(20_263)
    for number in range(1000):
        offset = choose.randrange(len(original))
        inserted = choose.randbytes(1) if number % 2 else b""
        data = original[:offset] + inserted + original[offset + (1 - number % 2) :]
        refused(tmp_path / "changed.pin", data)


def test_a_bundle_that_opens_is_its_own_canonical_rewrite(original: bytes) -> None:
    assert b"".join(pack(unpack(original, MEMBER_ORDER), MEMBER_ORDER)) == original


# --- Arbitrary bytes

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opens_or_is_refused(path: Path, data: bytes) -> Bundle | None:
    """The bundle, or None where it was refused. Every other exception is a failure, and so is much memory."""
    put(path, data)
    tracemalloc.start()
    try:
        bundle = Bundle.open(path, allow_unsigned=True)
    except BundleError:
        bundle = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * len(data) + (2 << 20), (peak, len(data))
    return bundle


@FUZZ
@given(st.binary(max_size=2000))
@example(b"PK\3\4" + b"\xff" * 26)
def test_arbitrary_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    assert opens_or_is_refused(tmp_path / "any.pin", data) is None


@FUZZ
@given(mutated(list(GOLDEN.values())))
def test_mutated_bundles_are_refused_or_are_the_original(tmp_path: Path, data: bytes) -> None:
    bundle = opens_or_is_refused(tmp_path / "any.pin", data)
    assert (bundle is not None) == (data in GOLDEN.values())


def resealed(members: dict[str, bytes]) -> bytes:
    """With the digests and checksums of an attacker who knows the format, and no signature."""
    value = json.loads(members["manifest.json"])
    value["members"] = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in members.items()
        if name not in ("manifest.json", "manifest.sig")
    }
    whole = {**members, "manifest.json": _canonical_json.encode(value), "manifest.sig": b""}
    return b"".join(bytes(piece) for piece in pack(whole, MEMBER_ORDER))


@FUZZ
@given(
    st.sampled_from(sorted(name for name in PARTS if name.endswith(".onnx"))), mutated(list(PARTS.values()))
)
def test_a_damaged_model_under_right_digests_opens_or_is_refused(
    tmp_path: Path, name: str, data: bytes
) -> None:
    opens_or_is_refused(tmp_path / "any.pin", resealed({**PARTS, name: data}))


@FUZZ
@given(mutated([PARTS["manifest.json"]]))
def test_a_damaged_manifest_under_right_checksums_is_answered_by_verify(tmp_path: Path, data: bytes) -> None:
    """Up to the fusion, which opening leaves to the verifier."""
    whole = {**PARTS, "manifest.json": data, "manifest.sig": b""}
    put(tmp_path / "any.pin", b"".join(bytes(piece) for piece in pack(whole, MEMBER_ORDER)))
    result = verify_bundle(tmp_path / "any.pin")
    assert result.intact == (result.error is None)
    assert not result.trusted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(st.sampled_from(sorted(json.loads(PARTS["manifest.json"]))), JSON)
def test_any_value_in_the_manifest_is_answered_by_verify(tmp_path: Path, name: str, value: object) -> None:
    try:
        stored = _canonical_json.encode({**json.loads(PARTS["manifest.json"]), name: value})
    except ValueError:
        return  # NaN, infinity, half a character: no JSON
    whole = {**PARTS, "manifest.json": stored, "manifest.sig": b""}
    put(tmp_path / "any.pin", b"".join(bytes(piece) for piece in pack(whole, MEMBER_ORDER)))
    verify_bundle(tmp_path / "any.pin")


# --- Time and memory


@pytest.mark.parametrize(
    "model",
    [
        b"\x98\6\0" * 3_000_000,  # empty fields
        field(7, b"\x0a\0" * 2_000_000),  # empty nodes
        field(7, field(1, "n" * 40) * 60_000),  # more nodes than are taken
        field(7, b"\x2a\0" * 2_000_000),  # empty weights
        field(7, field(5, b"\x08\1" * 2_000_000)),  # one weight of two million dimensions
        field(7, field(5, field(1, b"\1" * 2_000_000))),  # the same, packed
    ],
)
def test_what_is_many_and_empty_is_refused_soon(model: bytes, tmp_path: Path) -> None:
    start = time.process_time()
    refused(tmp_path / "any.pin", resealed({**PARTS, "face.int8.onnx": model}))
    assert time.process_time() - start < 10.0  # about two seconds; without a cap it would grow with the file


def test_a_large_member_is_not_copied_before_its_size_is_looked_at(tmp_path: Path) -> None:
    for name in ("manifest.json", "manifest.sig", "card.md"):
        data = b"".join(bytes(piece) for piece in pack({**PARTS, name: bytes(32 << 20)}, MEMBER_ORDER))
        path = tmp_path / "large.pin"
        put(path, data)
        tracemalloc.start()
        with pytest.raises(BundleError, match=f"{name} is larger than"):
            Bundle.open(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < len(data) + (1 << 20)
