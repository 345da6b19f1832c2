"""Bundles and all that is in them, and the keys that sign them: what arrives over a network or on a stick."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import os
from pathlib import Path
from random import Random

from edgepin import Bundle, BundleError, _canonical_json
from edgepin._bundle.bundle import _sign
from edgepin._bundle.manifest import Manifest
from edgepin._bundle.onnx_scan import scan_model
from edgepin._bundle.protobuf import MalformedError, Reader
from edgepin._bundle.signing import PublicKey, SigningKey
from edgepin._capture.crop import FaceSpec
from edgepin._decision.fusion import Fusion, Scores
from edgepin._decision.policy import Policy, resolve
from edgepin._decision.sessions import decide, resolve_session
from edgepin._decision.site import SiteCalibration
from edgepin_kernels import LogMelSpec

from ..attacks.forge import archive, members_of, zipped
from ..sdk.golden.make_golden import FOLDER, FULL, fusion, key, manifest
from .bytes_mutations import damage, mixed
from .structure_mutations import damage_json, damage_pem, damage_protobuf
from .target import Target, expect, folder, in_file


def _trust() -> None:
    """This process trusts the key that everyone has: it must do no more than sign."""
    os.environ["EDGEPIN_HOME"] = str(_trusting_home())


@functools.lru_cache(maxsize=1)
def _trusting_home() -> Path:
    home = folder() / "home"
    (home / "trusted").mkdir(parents=True, mode=0o700)
    (home / "trusted" / "maker.pub").write_bytes(key().public_key.to_pem())
    return home


@functools.lru_cache(maxsize=1)
def _bundles() -> list[bytes]:
    return [(FOLDER / name).read_bytes() for name in ("minimal.pin", "full.pin", "unsigned.pin")]


@functools.lru_cache(maxsize=1)
def _manifests() -> frozenset[str]:
    return frozenset(hashlib.sha256(members_of(data)["manifest.json"]).hexdigest() for data in _bundles()[:2])


def _bundle(data: bytes) -> None:
    """Any change to a signed bundle is noticed: what opens without `allow_unsigned` is one of the seeds."""
    _trust()
    path = in_file("fuzz.pin", data)
    try:
        opened = Bundle.open(path)
    except BundleError:
        Fusion.from_json(Bundle.open(path, allow_unsigned=True).manifest.fusion)
    else:
        expect(data in _bundles(), "an altered bundle is trusted")
        expect(opened.digest in _manifests(), "a bundle of another digest is trusted")


def _damage_zip(random: Random, data: bytes) -> bytes:
    """Members renamed, doubled, reordered, packed; the tricks that zips know; lengths and directory that lie."""
    try:
        parts = members_of(data)
    except BundleError:
        return damage(random, data)
    entries = [(name.encode(), content) for name, content in parts.items()]
    for _ in range(random.randint(0, 2)):
        at, kind = random.randrange(len(entries)), random.randrange(6)
        name, content = entries[at]
        if kind == 0:
            entries.insert(random.randint(0, len(entries)), (name, content))
        elif kind == 1 and len(entries) > 1:
            del entries[at]
        elif kind == 2:
            odd = (
                b"../evil",
                b"/etc/x",
                b"manifest.json\0",
                b"MANIFEST.JSON",
                b"a" * 300,
                b"",
                b"card.md/",
                b"C:\\x",
            )
            entries[at] = (random.choice(odd), content)
        elif kind == 3:
            other = random.randrange(len(entries))
            entries[at], entries[other] = entries[other], entries[at]
        elif kind == 4:
            entries[at] = (name, damage(random, content))
        else:
            entries[at] = (name, b"")
    out = zipped(
        entries,
        comment=random.choice((b"", b"", b"note")),
        flags=random.choice((0, 0, 1, 8, 0x800, 0xFFFF)),
        extra=random.choice((b"", b"", b"\1\0\0\0", b"\1\0\x10\0" + bytes(16))),
        deflate=random.random() < 0.3,
        mode=random.choice((0o100644, 0o120777, 0o40755)),
        count=random.choice((None, None, 0, 65535)),
    )
    return damage(random, out) if random.random() < 0.4 else out


def _damage_inside(random: Random, data: bytes) -> bytes:
    """A member is damaged, and digests and signature are made to fit again: the maker's own key is no leave."""
    try:
        parts = members_of(data)
        name = random.choice(sorted(set(parts) - {"manifest.sig"}))
        mutate = (
            damage_protobuf if name.endswith(".onnx") else damage_json if name.endswith(".json") else damage
        )
        parts[name] = mutate(random, parts[name])
        if name != "manifest.json" or random.random() < 0.8:
            value = _canonical_json.decode(parts["manifest.json"])
            for member in value["members"]:
                if member in parts:
                    value["members"][member] = hashlib.sha256(parts[member]).hexdigest()
            parts["manifest.json"] = _canonical_json.encode(value)
        parts["manifest.sig"] = _sign(parts["manifest.json"], key() if random.random() < 0.7 else None)
        return archive(parts)
    except (BundleError, ValueError, TypeError, KeyError, AttributeError):
        return damage(random, data)


def _forged(data: bytes) -> None:
    _trust()
    opened = Bundle.open(in_file("forged.pin", data), allow_unsigned=True)
    expect(
        opened.precisions("face") and opened.precisions("voice") and isinstance(opened.card, str),
        "lacks parts",
    )
    resolve(Policy(), Fusion.from_json(opened.manifest.fusion))


def _manifest(data: bytes) -> None:
    found = Manifest.from_bytes(data)
    expect(found.to_bytes() == data, "a manifest has a second spelling")


def _fusion(data: bytes) -> None:
    """Whatever fusion is read: what is not finite never passes, and no score that rises lowers the LLR."""
    try:
        value = _canonical_json.decode(data)
    except ValueError:
        return
    read = Fusion.from_json(value)
    expect(Fusion.from_json(read.to_json()) == read, "it does not come back")
    policy = resolve_session(Policy(), read, 1)
    for bad in (float("nan"), float("inf"), float("-inf")):
        for scores in (
            Scores(bad, 0.9, 0.5, 0.5),
            Scores(0.9, bad, 0.5, 0.5),
            Scores(bad, None),
            Scores(0.9, 0.9, bad, bad),
        ):
            accepted = decide(scores, read, policy).outcome == "accept"
            weighed = (
                scores.face == bad
                or scores.voice == bad
                or scores.face != scores.face
                or scores.voice != scores.voice
            )
            expect(not (accepted and (weighed or read.model.cross_modal)), "accepted what is not finite")
    ladder = [read.llr(Scores(step / 4, step / 4, step / 4, step / 4)) for step in range(-4, 5)]
    expect(
        all(low <= high for low, high in itertools.pairwise(ladder)),
        "a better score has a lower LLR",
    )


# --- A site's own calibration


@functools.lru_cache(maxsize=1)
def _site() -> tuple[Bundle, bytes]:
    _trust()
    opened = Bundle.open(in_file("site.pin", _bundles()[0]))
    path = folder() / "seed.site"
    SiteCalibration.of(opened, Fusion.from_json(fusion())).write(path, key())
    return opened, path.read_bytes()


def _damage_site(random: Random, data: bytes) -> bytes:
    """The calibration changed and mostly signed anew, by the key that is trusted."""
    changed = damage_json(random, data)
    try:
        value = json.loads(changed)
        if random.random() < 0.7:
            signed = b"edgepin site calibration\n" + _canonical_json.encode(value["calibration"])
            value["signature"] = base64.b64encode(key().sign(signed)).decode()
        return _canonical_json.encode(value)
    except (ValueError, TypeError, KeyError, RecursionError):
        return changed


def _site_calibration(data: bytes) -> None:
    _trust()
    opened, _ = _site()
    found = SiteCalibration.open(in_file("fuzz.site", data), opened)
    expect(found.bundle == opened.digest, "of another bundle")
    resolve(Policy(), found.fusion)


def _json(data: bytes) -> None:
    try:
        value = _canonical_json.decode(data)
    except ValueError as error:
        expect(len(str(error)) < 1000, "a long message")
        return
    expect(_canonical_json.encode(value) == data, "JSON has a second spelling")


def _spec(data: bytes) -> None:
    try:
        value = _canonical_json.decode(data)
    except ValueError:
        return
    for kind in (LogMelSpec, FaceSpec):
        try:
            read = kind.from_json(value)
        except ValueError:  # what its docs name, as kernels have no errors of EdgePIN
            continue
        expect(kind.from_json(read.to_json()) == read, "it does not come back")


def _onnx(data: bytes) -> None:
    scan_model(data, "fuzz.onnx")


def _protobuf(data: bytes) -> None:
    reader = Reader(data)
    try:
        for field in reader.fields(0, len(data)):
            expect(0 <= field.start <= field.end <= len(data), "a field beyond the end")
            if field.wire == 2:
                reader.text(field)
                list(reader.varints(field))
                reader.once(*reader.message(field))
    except MalformedError:
        pass


def _signing_key(data: bytes) -> None:
    SigningKey.load(in_file("signing.key", data)).sign(b"x")


def _public_key(data: bytes) -> None:
    PublicKey.load(in_file("signing.pub", data, 0o644)).verifies(bytes(64), b"x")


def _private_pem() -> list[bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, x25519

    others = (ec.generate_private_key(ec.SECP256R1()), x25519.X25519PrivateKey.generate())
    locked = key()._key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"p"),
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return [key()._to_pem(), locked, *(other.private_bytes(*plain) for other in others)]


def _manifest_seeds() -> list[bytes]:
    return [members_of(data)["manifest.json"] for data in _bundles()]


TARGETS = (
    Target("bundle", "`Bundle.open` on damaged archives; nothing altered is trusted", _bundles,
           mixed(_damage_zip, damage), _bundle),
    Target("forged-bundle", "`Bundle.open` on bundles that are damaged inside and signed anew", _bundles,
           _damage_inside, _forged, share=0.3),
    Target("manifest", "`Manifest.from_bytes`", _manifest_seeds, damage_json, _manifest, share=3.0),
    Target("fusion", "`Fusion.from_json`, and decisions by what it reads",
           lambda: [_canonical_json.encode(fusion())], damage_json, _fusion, share=3.0),
    Target("site-calibration", "`SiteCalibration.open` on files that are damaged, or signed anew",
           lambda: [_site()[1]], _damage_site, _site_calibration, share=1.0),
    Target("canonical-json", "`_canonical_json.decode`", _manifest_seeds, damage_json, _json, share=4.0),
    Target("specs", "`LogMelSpec.from_json`, `FaceSpec.from_json`",
           lambda: [_canonical_json.encode(LogMelSpec.preset(name).to_json()) for name in ("kaldi", "whisper", "nemo")]
           + [_canonical_json.encode(manifest("x").face.to_json())], damage_json, _spec, share=4.0),
    Target("onnx", "`scan_model`", lambda: [data for name, data in FULL.items() if name.endswith(".onnx")],
           mixed(damage_protobuf, damage_protobuf, damage), _onnx, share=3.0),
    Target("protobuf", "`Reader`, the wire format", lambda: list(FULL.values())[1:],
           mixed(damage_protobuf, damage), _protobuf, share=3.0),
    Target("signing-key", "`SigningKey.load`", _private_pem, damage_pem, _signing_key),
    Target("public-key", "`PublicKey.load`", lambda: [key().public_key.to_pem()], damage_pem, _public_key, share=2.0),
)  # fmt: skip
