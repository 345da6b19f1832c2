"""The bundle: what is written opens, and every way to be something else is refused in its own words."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepin import _canonical_json
from edgepin._bundle import bundle as _bundle
from edgepin._bundle.archive import pack
from edgepin._bundle.bundle import MEMBER_ORDER, Bundle, write_bundle
from edgepin._bundle.manifest import Manifest
from edgepin._bundle.signing import SigningKey
from edgepin._capture.crop import FaceSpec
from edgepin._errors import BundleError, BundleNotFoundError, EnvironmentFault, UsageError
from edgepin_kernels import LogMelSpec

from .tiny_onnx import encoder, field, model

MEMBERS = {
    "card.md": b"# A test bundle\n",
    "face.fp32.onnx": encoder("face", 1),
    "face.int8.onnx": encoder("face", 2),
    "voice.fp32.onnx": encoder("voice", 3),
    "voice.int8.onnx": encoder("voice", 5),
    "voice.portable.onnx": encoder("portable", 4),
}
EXTERNAL = model(field(5, field(13, b"")))
MANIFEST = Manifest(
    name="test",
    created_by="0.1.0",
    log_mel=LogMelSpec(),
    face=FaceSpec(size=16),
    cross_modal=True,
    fusion={"weights": [1.0, 0.5]},
    evidence={"different_person": 3000},
    accuracy={},
    training={"seed": 0},
    usage={"purpose": "tests", "restrictions": []},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def key(home: Path) -> SigningKey:
    return SigningKey.load_or_create()


@pytest.fixture
def pin(tmp_path: Path, key: SigningKey) -> Path:
    write_bundle(tmp_path / "site.pin", MANIFEST, MEMBERS, key)
    return tmp_path / "site.pin"


def signature(stored: bytes, key: SigningKey) -> bytes:
    encoded = base64.b64encode(key.sign(stored)).decode()
    return _canonical_json.encode({"key_id": key.key_id, "signature": encoded})


def forge(members: dict[str, bytes], order: tuple[str, ...] = MEMBER_ORDER) -> bytes:
    return b"".join(bytes(piece) for piece in pack(members, order))


def parts(pin: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(pin) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def refusal(path: Path, data: bytes, **options: Any) -> str:
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path, **options)
    return str(caught.value)


def test_what_is_written_opens(pin: Path, key: SigningKey) -> None:
    bundle = Bundle.open(pin)
    assert bundle.signature == "trusted"
    assert bundle.key_id == key.key_id
    assert bundle.path == pin
    assert dataclasses.replace(bundle.manifest, members={}) == MANIFEST
    assert bundle.precisions("face") == ("fp32", "int8")
    assert bundle.precisions("voice") == ("fp32", "int8")
    assert bundle.highest_precision == "fp32"
    assert bundle.model("face", "int8") == MEMBERS["face.int8.onnx"]
    assert bundle.portable_voice == MEMBERS["voice.portable.onnx"]
    assert bundle.card == "# A test bundle\n"
    assert bundle.digest == hashlib.sha256(parts(pin)["manifest.json"]).hexdigest()


def test_the_digest_returned_is_the_opened_ones_and_same_inputs_give_same_bytes(
    pin: Path, key: SigningKey, tmp_path: Path
) -> None:
    # The order of the arguments is not an input.
    digest = write_bundle(tmp_path / "again.pin", MANIFEST, dict(reversed(MEMBERS.items())), key)
    assert (tmp_path / "again.pin").read_bytes() == pin.read_bytes()
    assert Bundle.open(pin).digest == digest


def test_any_zip_tool_reads_it_and_members_are_stored_in_order(pin: Path) -> None:
    with zipfile.ZipFile(pin) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            name for name in MEMBER_ORDER if name in {"manifest.json", "manifest.sig", *MEMBERS}
        ]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.extra == b""
            assert info.comment == b""


def test_a_precision_that_is_not_there_is_named(pin: Path) -> None:
    bundle = Bundle.open(pin)
    for modality, precision in (("voice", "fp16"), ("voice", "int4"), ("iris", "fp32")):
        with pytest.raises(UsageError):
            bundle.model(modality, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_any_one_precision_makes_a_bundle_and_is_what_is_given_unnamed(
    precision: str, tmp_path: Path, key: SigningKey
) -> None:
    members = {
        "card.md": b"one\n",
        f"face.{precision}.onnx": encoder("face", 1),
        f"voice.{precision}.onnx": encoder("voice", 2),
    }
    write_bundle(tmp_path / "one.pin", MANIFEST, members, key)
    bundle = Bundle.open(tmp_path / "one.pin")
    assert bundle.precisions("face") == bundle.precisions("voice") == (precision,)
    assert bundle.highest_precision == precision
    assert bundle.model("voice") == bundle.model("voice", precision) == encoder("voice", 2)
    other = "int8" if precision == "fp32" else "fp32"
    with pytest.raises(UsageError, match=f"no {other} face encoder") as caught:
        bundle.model("face", other)
    assert caught.value.hint == f"there is {precision}"


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ({"face.fp32.onnx"}, "not in the same precisions: face in int8 and voice in fp32, int8"),
        ({"voice.int8.onnx"}, "not in the same precisions: face in fp32, int8 and voice in fp32"),
        ({"face.fp32.onnx", "voice.int8.onnx"}, "face in int8 and voice in fp32"),
        ({"face.fp32.onnx", "face.int8.onnx"}, "face in none and voice in fp32, int8"),
        ({name for name in MEMBERS if name.endswith("fp32.onnx") or "int8" in name}, "has no encoder"),
    ],
)
def test_encoders_in_unlike_precisions_or_none_are_neither_written_nor_opened(
    pin: Path, tmp_path: Path, key: SigningKey, gone: set[str], words: str
) -> None:
    some = {name: data for name, data in MEMBERS.items() if name not in gone}
    with pytest.raises(BundleError, match=words):
        write_bundle(tmp_path / "bad.pin", MANIFEST, some, key)
    assert not (tmp_path / "bad.pin").exists()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in some.items()}
    stored = dataclasses.replace(MANIFEST, members=digests).to_bytes()
    signed = {"manifest.json": stored, "manifest.sig": signature(stored, key)}
    assert words in refusal(pin, forge({**signed, **some}))


# --- Files that are no bundles


def test_a_missing_file_is_not_found(tmp_path: Path, pin: Path) -> None:
    for path in (tmp_path / "nothing.pin", pin / "below-a-file.pin"):
        with pytest.raises(BundleNotFoundError, match="no bundle at") as caught:
            Bundle.open(path)
        assert caught.value.hint is not None


def test_what_is_no_file_is_refused_and_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pin")
    for path in (tmp_path, tmp_path / "pipe.pin"):
        with pytest.raises(BundleError, match="is not a file"):
            Bundle.open(path)


def test_a_link_is_followed_and_a_circle_of_links_is_the_environments_fault(pin: Path) -> None:
    (pin.parent / "current.pin").symlink_to(pin)
    assert Bundle.open(pin.parent / "current.pin").signature == "trusted"
    (pin.parent / "circle.pin").symlink_to("circle.pin")
    with pytest.raises(EnvironmentFault, match="cannot read"):
        Bundle.open(pin.parent / "circle.pin")


def test_what_was_opened_stays_whatever_becomes_of_the_file(pin: Path) -> None:
    bundle = Bundle.open(pin)
    with open(pin, "r+b") as file:
        file.write(bytes(pin.stat().st_size))
    assert bundle.model("face") == MEMBERS["face.fp32.onnx"]
    pin.unlink()
    assert bundle.card == "# A test bundle\n"


def test_a_file_that_grows_while_it_is_read_is_refused(pin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is read than the size that was checked, and one byte that tells."""
    read = os.fdopen

    def grow(descriptor: int, *arguments: Any, **options: Any) -> Any:
        with open(pin, "ab") as file:
            file.write(b"x" * 5000)
        return read(descriptor, *arguments, **options)

    monkeypatch.setattr(_bundle.os, "fdopen", grow)
    with pytest.raises(BundleError, match="1 bytes after its end"):
        Bundle.open(pin)


def test_a_null_character_in_the_path_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        Bundle.open("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_the_environments_fault(pin: Path) -> None:
    pin.chmod(0)
    with pytest.raises(EnvironmentFault, match="cannot read"):
        Bundle.open(pin)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"label enroll test\n" * 40, "does not begin like one"),
        (b"PK\x05\x06" + bytes(18), "does not begin like one"),
        (b"PK\x03\x04", "cut short"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in refusal(tmp_path / "other.pin", data)


def test_files_above_the_caps_are_refused_before_they_are_read(
    tmp_path: Path, pin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "huge.pin", "wb") as file:
        file.truncate((256 << 20) + 1)  # sparse: takes no space
    with pytest.raises(BundleError, match="larger than 256 MiB"):
        Bundle.open(tmp_path / "huge.pin")
    monkeypatch.setattr(_bundle, "MAX_BUNDLE_BYTES", 100)
    with pytest.raises(BundleError, match="larger than"):
        write_bundle(tmp_path / "other.pin", MANIFEST, MEMBERS, None)


# --- The archive

Change = Callable[[bytes], bytes]


def with_python_zipfile(data: bytes, **options: Any) -> bytes:
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", **options) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: data + b"\0", "1 bytes after its end"),
        (lambda data: b"\0" + data, "does not begin like one"),
        (lambda data: data[:-2] + b"\1\0" + b"c", "not written as bundles are"),
        (lambda data: data.replace(b"# A test", b"# B test"), "card.md is damaged"),
        (lambda data: data.replace(b"\0card.md", b"\0evil.md"), "do not have: 'evil.md'"),
        (lambda data: data.replace(b"\0card.md", b"\0../a.md"), "do not have: '../a.md'"),
        (lambda data: with_python_zipfile(data), "not written as bundles are"),
        (lambda data: with_python_zipfile(data, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    ],
)
def test_an_archive_that_is_not_canonical_is_refused(pin: Path, change: Change, words: str) -> None:
    changed = change(pin.read_bytes())
    assert words in refusal(pin, changed)
    assert words in refusal(pin, changed, allow_unsigned=True)


def test_members_that_are_missing_twice_or_out_of_order_are_refused(pin: Path) -> None:
    members = parts(pin)
    for name in ("manifest.json", "manifest.sig", "card.md"):
        some = {other: data for other, data in members.items() if other != name}
        assert refusal(pin, forge(some)) == f"the bundle lacks {name}"
    swapped = ("manifest.sig", "manifest.json", *MEMBER_ORDER[2:])
    assert "out of order at manifest.json" in refusal(pin, forge(members, swapped))
    assert "has card.md twice" in refusal(pin, forge(members, (*MEMBER_ORDER, "card.md")))


def test_a_length_that_points_past_the_end_is_refused(pin: Path) -> None:
    data = bytearray(pin.read_bytes())
    data[18:26] = struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)
    assert "cut short" in refusal(pin, bytes(data))


def test_every_single_byte_counts(pin: Path) -> None:
    """Sampled over the file, with every kind of structure; allowing unsigned bundles changes nothing."""
    original, choose = pin.read_bytes(), random.Random(7)
    offsets = {
        *range(120),
        *range(len(original) - 120, len(original)),
        *choose.sample(range(len(original)), 500),
    }
    for offset in sorted(offsets):
        changed = bytearray(original)
        changed[offset] ^= choose.randrange(1, 256)
        assert refusal(pin, bytes(changed), allow_unsigned=True), offset


def test_every_truncation_is_refused(pin: Path) -> None:
    original = pin.read_bytes()
    for length in {*range(0, len(original), 11), len(original) - 1}:
        assert refusal(pin, original[:length], allow_unsigned=True), length


# --- The manifest

REPLACE: list[tuple[str, Any, str]] = [
    ("format_version", 2, "format 2"),
    ("format_version", True, "no format version"),
    ("format_version", None, "no format version"),
    ("name", "", "name must be"),
    ("name", 7, "name must be"),
    ("created_by", "\n", "created_by must be"),
    ("cross_modal", 1, "cross_modal must be"),
    ("embedding_dim", 128, "embedding_dim must be"),
    ("embedding_dim", 256.0, "embedding_dim must be"),
    ("fusion", [], "fusion must be"),
    ("evidence", None, "evidence must be"),
    ("accuracy", "", "accuracy must be"),
    ("training", 0, "training must be"),
    ("usage", {"purpose": "x"}, "usage lacks restrictions"),
    ("usage", 5, "usage must be"),
    ("log_mel", {}, "impossible capture: the log-mel spec lacks"),
    ("log_mel", [], "impossible capture: a log-mel spec"),
    ("face", {"size": 64}, "impossible capture: a face spec"),
    ("members", {"card.md": "0" * 64}, "does not list face.fp32.onnx"),
    ("members", {"../a": "0" * 64}, "lists a member that bundles do not have"),
    ("members", {"card.md": "0" * 63}, r"members['card.md'] must be"),
    ("members", [], "members must be"),
    ("extra", 1, "unknown keys: extra"),
]


@pytest.mark.parametrize(("name", "value", "words"), REPLACE)
def test_a_signed_manifest_with_a_wrong_value_is_refused(
    pin: Path, key: SigningKey, name: str, value: Any, words: str
) -> None:
    members = parts(pin)
    stored = _canonical_json.encode({**json.loads(members["manifest.json"]), name: value})
    message = refusal(
        pin, forge({**members, "manifest.json": stored, "manifest.sig": signature(stored, key)})
    )
    assert words in message


def test_a_manifest_without_any_one_key_is_refused(pin: Path, key: SigningKey) -> None:
    members = parts(pin)
    whole = json.loads(members["manifest.json"])
    for name in whole:
        stored = _canonical_json.encode({other: value for other, value in whole.items() if other != name})
        message = refusal(
            pin, forge({**members, "manifest.json": stored, "manifest.sig": signature(stored, key)})
        )
        assert message == (
            "the manifest says no format version"
            if name == "format_version"
            else f"the manifest lacks: {name}"
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-1], "canonical spelling"),
        (lambda text: text + b"\n", "canonical spelling"),
        (lambda text: text.replace(b'":', b'": ', 1), "canonical spelling"),
        (lambda text: b"\xef\xbb\xbf" + text, "not canonical JSON"),
        (lambda text: b"\xff" + text, "can't decode"),
        (lambda text: text[: len(text) // 2], "not canonical JSON"),
        (
            lambda text: text.replace(b'"cross_modal"', b'"accuracy":{},"cross_modal"'),
            "'accuracy' comes twice",
        ),
        (lambda text: text.replace(b"3000", b"NaN"), "NaN is not a number"),
        (lambda text: text.replace(b"3000", b"1e999"), "not canonical JSON"),
        (lambda text: text.replace(b"3000", b"9" * 5000), "an integer is too long"),
        (lambda text: text.replace(b"3000", b"[" * 100_000), "nested too deep"),
        (lambda text: text.replace(b'"tests"', b'"\\ud800"'), "not canonical JSON"),
        (lambda text: text.replace(b'"low_hz":20.0', b'"low_hz":20'), "a number is written in another way"),
        (lambda text: b"[]\n", "not a JSON object but list"),
        (lambda text: b"", "not canonical JSON"),
        (lambda text: text.replace(b'"tests"', b'"' + b"x" * (1 << 20) + b'"'), "larger than 1024 KiB"),
    ],
)
def test_a_signed_manifest_in_another_spelling_is_refused(
    pin: Path, key: SigningKey, change: Change, words: str
) -> None:
    members = parts(pin)
    stored = change(members["manifest.json"])
    assert stored != members["manifest.json"]
    assert words in refusal(
        pin, forge({**members, "manifest.json": stored, "manifest.sig": signature(stored, key)})
    )


def test_the_manifest_round_trips_as_canonical_bytes() -> None:
    manifest = dataclasses.replace(MANIFEST, name="Tür 7", members={"card.md": "0" * 64})
    data = manifest.to_bytes()
    assert Manifest.from_bytes(data) == manifest
    assert (
        data
        == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        + b"\n"
    )


# --- Digests, models, the card


def test_altered_contents_are_refused_whoever_allows_what(pin: Path) -> None:
    members = parts(pin)
    for name in MEMBERS:
        changed = forge({**members, name: members[name] + b"\x10\x01"})
        for allow in (False, True):
            assert refusal(pin, changed, allow_unsigned=allow) == (
                f"the bundle's {name} was altered: its SHA-256 is not the manifest's"
            )


def test_a_member_that_is_listed_and_absent_or_present_and_not_listed_is_refused(pin: Path) -> None:
    members = parts(pin)
    assert "lists voice.portable.onnx, and the bundle does not have it" in refusal(
        pin, forge({name: data for name, data in members.items() if name != "voice.portable.onnx"})
    )
    unlisted = {"face.fp16.onnx": encoder("face"), "voice.fp16.onnx": encoder("voice")}
    assert "does not list face.fp16.onnx, voice.fp16.onnx" in refusal(pin, forge({**members, **unlisted}))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("card.md", b"\xff", "not UTF-8"),
        ("face.fp32.onnx", b"", "no graph"),
        ("voice.fp32.onnx", b"\xff", "not ONNX"),
        ("card.md", b"\x1b[2J", r"U\+001B"),
        ("card.md", b"x" * ((1 << 20) + 1), "larger than 1024 KiB"),
        ("face.int8.onnx", EXTERNAL, "outside itself"),
        ("face.int8.onnx", encoder("voice"), "takes log_mel, float32 .* must take face, uint8"),
    ],
)
def test_contents_that_would_not_open_are_not_written(
    tmp_path: Path, key: SigningKey, name: str, data: bytes, words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        write_bundle(tmp_path / "bad.pin", MANIFEST, {**MEMBERS, name: data}, key)
    assert not (tmp_path / "bad.pin").exists()


def test_what_is_refused_on_writing_is_refused_on_opening(pin: Path, key: SigningKey) -> None:
    """By someone with the key who does not use `write_bundle`."""
    members = parts(pin)
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["face.int8.onnx"] = hashlib.sha256(EXTERNAL).hexdigest()
    stored = _canonical_json.encode(manifest)
    changed = {"manifest.json": stored, "manifest.sig": signature(stored, key), "face.int8.onnx": EXTERNAL}
    assert "outside itself" in refusal(pin, forge({**members, **changed}))


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (
            "plain, Tür, \U0001f600, \u0628\u0627\u200c\u0647\u0645",
            True,
        ),  # a zero-width non-joiner is spelling
        ("two\nlines\tand a tab", True),
        ("\x1b[2J", False),
        ("\r", False),
        ("\x7f", False),
        ("\u009b2J", False),
        ("\u202e", False),
        ("\u2066", False),
        ("\u2028", False),
    ],
)
def test_texts_hold_no_character_that_drives_a_terminal_or_turns_the_reading_order(
    tmp_path: Path, value: str, good: bool
) -> None:
    for changed in (
        {"usage": {**MANIFEST.usage, "purpose": value}},
        {"training": {"a": [{"b": value}]}},
        {"accuracy": {value: 1}},
    ):
        if good:
            dataclasses.replace(MANIFEST, **changed)
        else:
            with pytest.raises(BundleError, match=r"has the character U\+"):
                dataclasses.replace(MANIFEST, **changed)


def test_the_manifest_is_at_most_sixteen_levels_deep() -> None:
    dataclasses.replace(MANIFEST, training=nest(16))
    with pytest.raises(BundleError, match="training is nested deeper than 16 levels"):
        dataclasses.replace(MANIFEST, training=nest(17))


def nest(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return dict(value)


# --- Trust


def test_an_unsigned_bundle_opens_only_where_allowed(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "unsigned.pin"
    digest = write_bundle(path, MANIFEST, MEMBERS, None)
    with pytest.raises(BundleError, match="is not signed") as caught:
        Bundle.open(path)
    assert "--allow-unsigned" in (caught.value.hint or "")
    assert str(home / "trusted") in (caught.value.hint or "")
    assert Bundle.open(path, allow_unsigned=True).signature == "unsigned"
    assert Bundle.open(path, trusted_digests={digest}).signature == "pinned"
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(path, trusted_digests={"0" * 64})


def test_another_machines_bundle_opens_once_its_public_key_is_trusted(tmp_path: Path, home: Path) -> None:
    maker = SigningKey.generate()
    path = tmp_path / "theirs.pin"
    write_bundle(path, MANIFEST, MEMBERS, maker)
    with pytest.raises(BundleError, match=rf"does not trust \({maker.key_id}\)") as caught:
        Bundle.open(path)
    assert "--allow-unsigned" in (caught.value.hint or "")
    assert Bundle.open(path, allow_unsigned=True).signature == "unknown-key"
    (home / "trusted").mkdir(parents=True)
    (home / "trusted" / "maker.pub").write_bytes(maker.public_key.to_pem())
    assert Bundle.open(path).signature == "trusted"


def test_a_wrong_signature_by_a_known_key_is_refused_whatever_is_allowed(pin: Path, key: SigningKey) -> None:
    members = parts(pin)
    stored = members["manifest.json"].replace(b"3000", b"9000")
    changed = forge({**members, "manifest.json": stored})
    digest = hashlib.sha256(stored).hexdigest()
    for options in ({}, {"allow_unsigned": True}, {"trusted_digests": {digest}}):
        assert "signature by the known key" in refusal(pin, changed, **options)


def test_dropping_the_signature_does_not_help(pin: Path) -> None:
    assert refusal(pin, forge({**parts(pin), "manifest.sig": b""})) == "the bundle is not signed"


@pytest.mark.parametrize(
    "change",
    [
        lambda value: {**value, "more": 1},
        lambda value: {"key_id": value["key_id"]},
        lambda value: {**value, "key_id": 7},
        lambda value: {**value, "key_id": value["key_id"].upper() + "A"},
        lambda value: {**value, "signature": value["signature"][:-4]},
        lambda value: {**value, "signature": "!" * 88},
        lambda value: {**value, "signature": 7},
        lambda value: [],
    ],
)
def test_a_malformed_signature_is_refused_whatever_is_allowed(
    pin: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    members = parts(pin)
    value = json.loads(members["manifest.sig"])
    changed = forge({**members, "manifest.sig": _canonical_json.encode(change(value))})
    assert refusal(pin, changed, allow_unsigned=True) == "the bundle's signature is malformed"


def test_a_signature_with_blanks_or_of_great_length_is_refused(pin: Path) -> None:
    members = parts(pin)
    for data in (members["manifest.sig"] + b"\n", b"garbage"):
        assert "malformed" in refusal(pin, forge({**members, "manifest.sig": data}))
    assert "manifest.sig is larger than 1 KiB" in refusal(
        pin, forge({**members, "manifest.sig": b" " * 2000})
    )


# --- Writing


def test_writing_refuses_what_would_not_open(tmp_path: Path) -> None:
    path = tmp_path / "new.pin"
    with pytest.raises(BundleError, match="no member called"):
        write_bundle(path, MANIFEST, {**MEMBERS, "engine.plan": b""}, None)
    with pytest.raises(BundleError, match=r"a bundle needs card\.md"):
        write_bundle(
            path, MANIFEST, {name: data for name, data in MEMBERS.items() if name != "card.md"}, None
        )
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(path, dataclasses.replace(MANIFEST, evidence={"x": float("nan")}), MEMBERS, None)
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(path, dataclasses.replace(MANIFEST, evidence={"x": object()}), MEMBERS, None)
    with pytest.raises(BundleError, match="larger than 1 MiB"):
        write_bundle(path, dataclasses.replace(MANIFEST, evidence={"x": "x" * (1 << 20)}), MEMBERS, None)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_bundle_and_no_litter(
    pin: Path, monkeypatch: pytest.MonkeyPatch, key: SigningKey
) -> None:
    before, names = pin.read_bytes(), sorted(pin.parent.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_bundle(pin, dataclasses.replace(MANIFEST, name="other"), MEMBERS, key)
    assert pin.read_bytes() == before
    assert sorted(pin.parent.iterdir()) == names


def test_writing_where_there_is_no_folder_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault):
        write_bundle(tmp_path / "none" / "a.pin", MANIFEST, MEMBERS, None)
    with pytest.raises(EnvironmentFault):
        write_bundle(tmp_path, MANIFEST, MEMBERS, None)
