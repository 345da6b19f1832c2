"""Hostile bundles whose models are harmless: attacks on the archive, on trust, on the manifest and on the fusion."""

from __future__ import annotations

import base64
import json
from typing import Any

from edgepin import _canonical_json
from edgepin._bundle.bundle import MEMBER_ORDER
from edgepin._bundle.signing import SigningKey

from ..sdk import tiny_onnx as onnx
from ..sdk.golden.make_golden import key
from .forge import archive, attack, bundle, entries, members_of, zipped

# --- The archive


@attack("archive", "another file in front, as in a self-extracting archive", "does not begin like one")
def prefix() -> bytes:
    return b"#!/bin/sh\nexit\n" + bundle()


@attack("archive", "a second bundle behind the first: some readers look from the end", "bytes after its end")
def second_bundle() -> bytes:
    return bundle() + bundle(lambda value: value.update(name="another"))


@attack("archive", "a comment at the end, with room for anything", "the bundle's end record is not written")
def comment() -> bytes:
    return zipped(entries(), comment=b"PK\5\6" + bytes(18))


@attack(
    "archive",
    "an encoder of one modality alone, in a precision that nothing measured with the other",
    "not in the same precisions: face in fp32 and voice in fp32, int8",
)
def lone_precision() -> bytes:
    return bundle(voice_int8_onnx=onnx.encoder("voice"))


@attack("archive", "one name twice: some readers take the first, some the last", "has face.fp32.onnx twice")
def duplicate_member() -> bytes:
    return archive(members_of(bundle()), (*MEMBER_ORDER[:4], "face.fp32.onnx", *MEMBER_ORDER[4:]))


@attack(
    "archive",
    "the directory names other members than the local headers",
    "the bundle's directory is not written",
)
def two_names() -> bytes:
    swap = {b"face.fp32.onnx": b"face.fp16.onnx"}
    wrong = [(swap.get(name, name), data) for name, data in entries()]
    return zipped(wrong, local_names={new: old for old, new in swap.items()})


@attack(
    "archive",
    "a name that leads out of the folder it is unpacked to",
    "bundles do not have: '../../../home/x'",
)
def path_traversal() -> bytes:
    return zipped([*entries(), (b"../../../home/x", b"")])


@attack("archive", "an absolute name", "bundles do not have: '/etc/passwd'")
def absolute_name() -> bytes:
    return zipped([*entries(), (b"/etc/passwd", b"")])


@attack("archive", "a name that ends at a null for a reader in C", r"bundles do not have: 'card.md\x00.exe'")
def null_in_name() -> bytes:
    return zipped([(name if name != b"card.md" else b"card.md\0.exe", data) for name, data in entries()])


@attack("archive", "a name that looks right: its `a` is Cyrillic", "bundles do not have")
def confusable_name() -> bytes:
    odd = "f\u0430ce.fp32.onnx".encode()
    return zipped(
        [(name if name != b"face.fp32.onnx" else odd, data) for name, data in entries()], flags=1 << 11
    )


@attack(
    "archive",
    "the same name in capitals, one file where case does not count",
    "bundles do not have: 'CARD.MD'",
)
def capitals() -> bytes:
    return zipped([*entries(), (b"CARD.MD", b"")])


@attack("archive", "a symbolic link as a member", "the bundle's directory is not written")
def symbolic_link() -> bytes:
    return zipped(entries(), mode=0o120777)


@attack("archive", "compressed: a small file that swells to a gigabyte", "manifest.json is compressed")
def decompression_bomb() -> bytes:
    return zipped([(b"manifest.json", bytes(1 << 22)), *entries()[1:]], deflate=True)


@attack("archive", "marked as encrypted", "manifest.json is encrypted")
def encrypted_flag() -> bytes:
    return zipped(entries(), flags=1)


@attack("archive", "bytes in extra fields, which no digest covers", "manifest.json has an extra field")
def extra_fields() -> bytes:
    return zipped(entries(), extra=b"\xfe\xca\4\0evil")


@attack("archive", "a directory that claims 65,535 members", "the bundle's end record is not written")
def huge_count() -> bytes:
    return zipped(entries(), count=0xFFFF)


@attack("archive", "a member that claims four gigabytes", "is cut short")
def huge_member() -> bytes:
    data = bytearray(bundle())
    data[18:26] = b"\xff" * 8
    return bytes(data)


@attack("archive", "two members that are the same bytes of the file", "the bundle's directory is not written")
def overlapping_members() -> bytes:
    data = bytearray(bundle())
    directory = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", directory + 4)
    data[second + 42 : second + 46] = bytes(4)  # the second member's local header is the first's
    return bytes(data)


@attack(
    "archive", "an engine, which is code for a GPU, among the members", "bundles do not have: 'face.engine'"
)
def engine() -> bytes:
    return zipped([*entries(), (b"face.engine", b"ftrt")])


@attack("archive", "cut off in the middle", "is cut short")
def truncated() -> bytes:
    data = bundle()
    return data[: len(data) // 2]


@attack("archive", "a manifest too large to be parsed", "manifest.json is larger than 1024 KiB")
def huge_manifest() -> bytes:
    return bundle(spell=lambda stored: stored + b" " * (1 << 20))


@attack("archive", "a signature too large to be parsed", "manifest.sig is larger than 1 KiB")
def huge_signature() -> bytes:
    return bundle(signature=lambda stored: b" " * 1025)


# --- Trust


@attack("trust", "the signature is left out", "is not signed", allow_unsigned=False)
def unsigned() -> bytes:
    return bundle(signature=lambda stored: b"")


@attack("trust", "signed by a key that nobody here trusts", "does not trust", allow_unsigned=False)
def stranger() -> bytes:
    return bundle(signer=SigningKey.generate())


@attack("trust", "signed by a stranger in the name of a trusted key", "signature by the known key")
def borrowed_key_id() -> bytes:
    return bundle(signature=lambda stored: signed(SigningKey.generate().sign(stored)))


@attack("trust", "the right signature of another bundle", "signature by the known key")
def replayed_signature() -> bytes:
    other = members_of(bundle())["manifest.sig"]
    return bundle(lambda value: value.update(name="another"), signature=lambda stored: other)


@attack(
    "trust",
    "the same signature as another number: S plus the order of the group",
    "signature by the known key",
)
def malleable_signature() -> bytes:
    order = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, 5.1

    def plus(stored: bytes) -> bytes:
        raw = key().sign(stored)
        return signed(raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little"))

    return bundle(signature=plus)


@attack("trust", "the same signature in another spelling of base64", "signature is malformed")
def base64_spelling() -> bytes:
    def other(stored: bytes) -> bytes:
        text = base64.b64encode(key().sign(stored)).decode()
        # 64 bytes leave four unused bits in the last digit.
        digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        last = digits[digits.index(text[85]) + 1]
        return _canonical_json.encode({"key_id": key().key_id, "signature": f"{text[:85]}{last}=="})

    return bundle(signature=other)


def signed(raw: bytes) -> bytes:
    return _canonical_json.encode({"key_id": key().key_id, "signature": base64.b64encode(raw).decode()})


# --- The manifest


@attack("manifest", "a hundred thousand brackets", "nested too deep")
def deep_json() -> bytes:
    return bundle(spell=lambda stored: b"[" * 100_000)


@attack(
    "manifest",
    "brackets that Python still reads, for whoever recurses after it",
    "nested deeper than 16 levels",
)
def fairly_deep_json() -> bytes:
    return bundle(lambda value: value.update(training=json.loads('{"a":' * 200 + "1" + "}" * 200)))


@attack("manifest", "one key twice", "the key 'name' comes twice")
def duplicate_key() -> bytes:
    return bundle(spell=lambda stored: stored.replace(b'"name":', b'"name":"x","name":'))


@attack("manifest", "blanks, with which one manifest has many digests", "not in the canonical spelling")
def blanks() -> bytes:
    return bundle(spell=lambda stored: stored.replace(b":", b": "))


@attack("manifest", "NaN, which compares with nothing", "NaN is not a number")
def not_a_number() -> bytes:
    return bundle(spell=lambda stored: stored.replace(b'"offset":-1.0', b'"offset":NaN'))


@attack("manifest", "a number that overflows to infinity", "not canonical JSON")
def overflow() -> bytes:
    return bundle(spell=lambda stored: stored.replace(b'"offset":-1.0', b'"offset":-1e999'))


@attack("manifest", "an integer of a million digits, slow to read", "an integer is too long")
def long_integer() -> bytes:
    return bundle(spell=lambda stored: stored.replace(b'"steps":0', b'"steps":' + b"9" * 1_000_000))


@attack("manifest", "another format version", "has format 2")
def version() -> bytes:
    return bundle(lambda value: value.update(format_version=2))


@attack(
    "manifest", "a key that this version does not know, and would ignore", "has unknown keys: min_version"
)
def unknown_key() -> bytes:
    return bundle(lambda value: value.update(min_version=2))


@attack("manifest", "a name that reads backwards on a screen", "name must be 1 to 128 printable characters")
def bidirectional_name() -> bytes:
    return bundle(lambda value: value.update(name="site \u202enip."))


@attack("manifest", "a text that drives the terminal that shows it", "usage has the character U+001B")
def terminal_escape() -> bytes:
    return bundle(lambda value: value["usage"].update(purpose="\x1b]0;owned\x07"))


@attack("manifest", "the same in the card", "card.md has the character U+009B")
def terminal_escape_in_card() -> bytes:
    return bundle(card_md="\u009b2J".encode())


@attack("manifest", "a card that is not text", "card.md is not UTF-8")
def binary_card() -> bytes:
    return bundle(card_md=b"\xff\xfe")


@attack("manifest", "the digest of another encoder", "face.fp32.onnx was altered")
def wrong_digest() -> bytes:
    return bundle(lambda value: value["members"].update({"face.fp32.onnx": "0" * 64}))


@attack("manifest", "a member that no digest covers", "does not list voice.int8.onnx")
def unlisted_member() -> bytes:
    return bundle(
        lambda value: value["members"].pop("voice.int8.onnx"),
        face_int8_onnx=onnx.encoder("face"),
        voice_int8_onnx=onnx.encoder("voice"),
    )


@attack(
    "manifest", "a face crop of 60,000 px, with the memory that it takes", "impossible capture: size must be"
)
def huge_crop() -> bytes:
    return bundle(lambda value: value["face"].update(size=60_000))


@attack("manifest", "a spectrogram of two billion points", "impossible capture: fft_length must lie in")
def huge_transform() -> bytes:
    return bundle(lambda value: value["log_mel"].update(fft_length=2**31))


# --- The fusion


@attack(
    "fusion",
    "a voice that counts against its owner",
    "fusion.voice.slope: -3.5 is out of range",
    stage="fusion",
)
def negative_slope() -> bytes:
    return bundle(lambda value: value["fusion"]["voice"].update(slope=-3.5))


@attack(
    "fusion",
    "a promise that the evidence does not carry",
    "435 pairs do not carry an FMR of 1e-06",
    stage="fusion",
)
def promise_without_evidence() -> bytes:
    def change(value: dict[str, Any]) -> None:
        for kind in value["fusion"]["evidence"]["sets"]["face+voice"]["kinds"].values():
            kind["thresholds"] = [[1e-6, -30.0, 435]]

    return bundle(change)


@attack("fusion", "more pairs than its people make", "30 people do not make 1000000 pairs", stage="fusion")
def made_up_pairs() -> bytes:
    face = ["fusion", "evidence", "sets", "face", "kinds", "stranger"]

    def change(value: dict[str, Any]) -> None:
        for step in face:
            value = value[step]
        value.update(pairs=1_000_000, trials=1_000_000)

    return bundle(change)


@attack("fusion", "a division by zero", "fusion.face.scale: 0 is out of range", stage="fusion")
def zero_scale() -> bytes:
    return bundle(lambda value: value["fusion"]["face"].update(scale=0.0))


@attack("fusion", "a stricter promise at a lower threshold", "do not rise as the FMR falls", stage="fusion")
def falling_threshold() -> bytes:
    def change(value: dict[str, Any]) -> None:
        value["fusion"]["evidence"]["sets"]["voice"]["kinds"]["stranger"]["thresholds"][-1][1] = -30.0

    return bundle(change)
