"""The bundle, a `.pin` file: two encoders with all that belongs to them, checked whole before it is used.

`docs/bundle.md` describes the format. Opening reads the file once, and every check is on the bytes that were
read, so the file may change afterwards without effect.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal

from .. import _canonical_json
from .._errors import BundleError, BundleNotFoundError, EnvironmentFault, UsageError
from .._runtime.encoder_io import check_encoder
from .._safe_files import write_atomic
from .._safe_text import unsafe_character
from .archive import Member, pack, unpack
from .manifest import (
    CARD,
    CONTENT_ORDER,
    MAX_MANIFEST_BYTES,
    MODALITIES,
    PORTABLE_VOICE,
    PRECISIONS,
    Manifest,
)
from .onnx_scan import scan_model
from .signing import SigningKey, how_to_trust, trusted_keys

MAX_BUNDLE_BYTES = 256 << 20
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MEMBER_ORDER = (MANIFEST, SIGNATURE, *CONTENT_ORDER)
_REQUIRED = (MANIFEST, SIGNATURE, CARD)
MAX_CARD_BYTES = 1 << 20
_MAX_BYTES = {MANIFEST: MAX_MANIFEST_BYTES, SIGNATURE: 1024, CARD: MAX_CARD_BYTES}
"""Of the members that are parsed as a whole; the models share what the file may have."""

CHECKS = ("file", "archive", "signature", "manifest", "digests", "models")
"""What opening checks, in this order."""

Trust = Literal["trusted", "pinned", "unknown-key", "unsigned"]
"""`trusted`: signed by a key that this machine trusts. `pinned`: its digest is one that the caller vouches
for. The other two open only where the caller allows unsigned bundles; a signature by an unknown key proves
nothing."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An opened bundle. Every member has the digest that the manifest states."""

    path: Path
    manifest: Manifest
    digest: str
    """SHA-256 in hex of the stored manifest, and through it of everything."""
    signature: Trust
    key_id: str | None
    """The key that the signature names; None if there is no signature."""
    _members: Mapping[str, memoryview] = dataclasses.field(repr=False)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        allow_unsigned: bool = False,
        trusted_digests: Collection[str] = (),
    ) -> Bundle:
        """Reads and checks a bundle of at most 256 MiB.

        Args:
            path: the `.pin` file.
            allow_unsigned: also open a bundle without a signature, or with one by a key that this machine
                does not know.
            trusted_digests: digests that need no signature.

        Raises:
            BundleNotFoundError: there is no such file.
            BundleError: it is not a bundle, or it is damaged, altered, not trusted, or of another format
                version. A wrong signature by a known key is refused whatever is allowed.
            EnvironmentFault: the file cannot be read, or a trusted key is unusable.
        """
        return open_checked(path, allow_unsigned=allow_unsigned, trusted_digests=trusted_digests)

    def precisions(self, modality: str) -> tuple[str, ...]:
        """The precisions in which the encoder of `modality` (`face` or `voice`) is here, the highest first.

        At least one is, and both modalities have the same.
        """
        _check_choice("modality", modality, MODALITIES)
        return _precisions(self._members, modality)

    @property
    def highest_precision(self) -> str:
        """The highest precision that the encoders have here."""
        return self.precisions(MODALITIES[0])[0]

    def model(self, modality: str, precision: str | None = None) -> bytes:
        """The ONNX bytes of one encoder, by default in the highest precision that is here.

        Raises `UsageError` if the bundle lacks it in this precision.
        """
        precision = self.highest_precision if precision is None else precision
        _check_choice("precision", precision, PRECISIONS)
        here = self.precisions(modality)
        if precision not in here:
            raise UsageError(
                f"the bundle has no {precision} {modality} encoder", hint=f"there is {', '.join(here)}"
            )
        return bytes(self._members[f"{modality}.{precision}.onnx"])

    @property
    def portable_voice(self) -> bytes | None:
        """The ONNX bytes of the voice encoder that takes PCM, if the bundle has it."""
        member = self._members.get(PORTABLE_VOICE)
        return None if member is None else bytes(member)

    @property
    def notice(self) -> str | None:
        """What whoever decides by this bundle is told before the first decision, if its maker wants that."""
        notice: str | None = self.manifest.usage.get("notice")
        return notice

    @property
    def card(self) -> str:
        """What the maker says of the bundle, as Markdown."""
        return str(self._members[CARD], "utf-8")

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every member but the manifest and its signature, in the order of the archive."""
        return {name: len(member) for name, member in self._members.items()}


def open_checked(
    path: str | os.PathLike[str],
    *,
    allow_unsigned: bool = False,
    trusted_digests: Collection[str] = (),
    passed: Callable[[str], object] = lambda check: None,
) -> Bundle:
    """`Bundle.open`, which tells `passed` the name of each of the `CHECKS` once the bundle has passed it."""
    path = Path(path)
    data = _read(path)
    passed("file")
    members = unpack(data, MEMBER_ORDER)
    for name in _REQUIRED:
        if name not in members:
            raise BundleError(f"the bundle lacks {name}", hint="copy or export the bundle again")
    _check_precisions(members)
    for name, limit in _MAX_BYTES.items():  # before any of them is copied
        if len(members[name]) > limit:
            raise BundleError(f"the bundle's {name} is larger than {limit >> 10} KiB")
    passed("archive")
    stored = bytes(members[MANIFEST])
    digest = hashlib.sha256(stored).hexdigest()
    # Trust comes first: what nobody vouches for is not parsed any further than this.
    trust, key_id = _check_signature(stored, bytes(members[SIGNATURE]))
    if trust != "trusted" and digest in trusted_digests:
        trust = "pinned"
    if trust == "unsigned" and not allow_unsigned:
        raise BundleError("the bundle is not signed", hint=how_to_trust())
    if trust == "unknown-key" and not allow_unsigned:
        raise BundleError(
            f"the bundle is signed by a key that this machine does not trust ({key_id})",
            hint=how_to_trust(),
        )
    passed("signature")
    manifest = Manifest.from_bytes(stored)
    passed("manifest")
    content = {name: member for name, member in members.items() if name in CONTENT_ORDER}
    _check_digests(manifest, content)
    passed("digests")
    _check_content(manifest, content)
    passed("models")
    return Bundle(path, manifest, digest, trust, key_id, content)


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    members: Mapping[str, Member],
    signing_key: SigningKey | None,
) -> str:
    """Writes a bundle and returns its digest. The same arguments give the same bytes.

    Args:
        path: where to; an existing file is replaced, and only by a whole one.
        manifest: its `members` are filled in here.
        members: `card.md`, both encoders in at least one precision and in the same ones, and what else the format
            allows.
        signing_key: None leaves the bundle unsigned.

    Raises:
        BundleError: the bundle would not open.
        EnvironmentFault: the place cannot be written.
    """
    for name in members:
        if name not in CONTENT_ORDER:
            raise BundleError(f"a bundle has no member called {name!r}")
    if CARD not in members:
        raise BundleError(f"a bundle needs {CARD}")
    _check_precisions(members)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    manifest = dataclasses.replace(manifest, members=digests)
    _check_content(manifest, members)
    stored = manifest.to_bytes()
    Manifest.from_bytes(stored)  # what cannot be read back must not be written
    _write(path, stored, members, signing_key)
    return hashlib.sha256(stored).hexdigest()


def sign_bundle(bundle: Bundle, path: str | os.PathLike[str], signing_key: SigningKey) -> None:
    """Writes an opened bundle with `signing_key`'s signature in place of the one that it has, if any.

    Every other byte stays, and with them the digest, so that stores of the bundle stay its own. An existing file
    is replaced, and only by a whole one. Raises `EnvironmentFault` if the place cannot be written.
    """
    # The stored manifest is canonical, so these are its bytes.
    _write(path, bundle.manifest.to_bytes(), bundle._members, signing_key)


def _write(
    path: str | os.PathLike[str], stored: bytes, members: Mapping[str, Member], key: SigningKey | None
) -> None:
    everything: dict[str, Member] = {MANIFEST: stored, SIGNATURE: _sign(stored, key), **members}
    pieces = list(pack(everything, MEMBER_ORDER))
    if sum(map(len, pieces)) > MAX_BUNDLE_BYTES:
        raise _too_large()
    write_atomic(Path(path).absolute(), pieces)


def _read(path: Path) -> bytes:
    try:
        # Not blocking, so that opening a pipe does not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleNotFoundError(
            f"there is no bundle at {path}", hint="`edgepin export RUN --out FILE.pin` makes one"
        ) from None
    except ValueError:
        raise UsageError("a path cannot hold a null character") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a file", hint="name a .pin file")
        if status.st_size == 0:
            raise BundleError(f"{path} is empty", hint="copy or export the bundle again")
        if status.st_size > MAX_BUNDLE_BYTES:
            raise _too_large()
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def _precisions(members: Collection[str], modality: str) -> tuple[str, ...]:
    return tuple(precision for precision in PRECISIONS if f"{modality}.{precision}.onnx" in members)


def _check_precisions(members: Collection[str]) -> None:
    """Both encoders are there, in the same precisions: one runs with the other, and is measured with it."""
    face, voice = (_precisions(members, modality) for modality in MODALITIES)
    if face == voice and face:
        return
    if not (face or voice):
        raise BundleError("the bundle has no encoder", hint="copy or export the bundle again")
    have = " and ".join(
        f"{modality} in {', '.join(precisions) or 'none'}"
        for modality, precisions in zip(MODALITIES, (face, voice), strict=True)
    )
    raise BundleError(
        f"the bundle's encoders are not in the same precisions: {have}",
        hint="copy or export the bundle again",
    )


def _check_signature(stored: bytes, signature: bytes) -> tuple[Trust, str | None]:
    if not signature:
        return "unsigned", None
    try:
        value = _canonical_json.decode(signature)
        key_id, encoded = value["key_id"], value["signature"]
        raw = base64.b64decode(encoded, validate=True)
        if (
            set(value) != {"key_id", "signature"}
            or len(raw) != 64
            or base64.b64encode(raw).decode() != encoded
        ):
            raise ValueError
        if not isinstance(key_id, str) or len(key_id) != 32 or not set(key_id) <= set("0123456789abcdef"):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise BundleError("the bundle's signature is malformed") from None
    key = trusted_keys().get(key_id)
    if key is None:
        return "unknown-key", key_id
    if not key.verifies(raw, stored):
        raise BundleError(
            f"the bundle was altered: its signature by the known key {key_id} is wrong",
            hint="get the bundle from its maker again; no option opens this one",
        )
    return "trusted", key_id


def _sign(stored: bytes, key: SigningKey | None) -> bytes:
    if key is None:
        return b""
    encoded = base64.b64encode(key.sign(stored)).decode()
    return _canonical_json.encode({"key_id": key.key_id, "signature": encoded})


def _check_digests(manifest: Manifest, members: Mapping[str, Member]) -> None:
    unlisted = sorted(members.keys() - manifest.members.keys())
    if unlisted:
        raise BundleError(f"the manifest does not list {', '.join(unlisted)}")
    absent = sorted(manifest.members.keys() - members.keys())
    if absent:
        raise BundleError(f"the manifest lists {', '.join(absent)}, and the bundle does not have it")
    for name, data in members.items():
        if hashlib.sha256(data).hexdigest() != manifest.members[name]:
            raise BundleError(f"the bundle's {name} was altered: its SHA-256 is not the manifest's")


def _check_content(manifest: Manifest, members: Mapping[str, Member]) -> None:
    if len(members[CARD]) > MAX_CARD_BYTES:
        raise BundleError(f"the bundle's {CARD} is larger than {MAX_CARD_BYTES >> 10} KiB")
    try:
        character = unsafe_character(str(members[CARD], "utf-8"))
    except UnicodeDecodeError:
        raise BundleError(f"the bundle's {CARD} is not UTF-8 text") from None
    if character is not None:
        raise BundleError(f"the bundle's {CARD} has the character {character}")
    for name, data in members.items():
        if name.endswith(".onnx"):
            check_encoder(scan_model(data, name), name, manifest)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"there is no {what} {value!r}", hint=f"choose {' or '.join(choices)}")


def _too_large() -> BundleError:
    return BundleError(f"the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB")


def _unreadable(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"cannot read the bundle {path}: {error.strerror}", hint="check the file's permissions"
    )
