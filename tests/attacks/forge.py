"""What hostile bundles are made with, and the table in which each of them enters itself.

The maker's key is trusted where the attack is not about trust: whoever has a key must not be able to do more than
sign.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, Literal

from edgepin import _canonical_json
from edgepin._bundle.archive import pack
from edgepin._bundle.bundle import MEMBER_ORDER, _sign
from edgepin._bundle.signing import SigningKey

from ..sdk.golden.make_golden import MINIMAL, key, manifest

Stage = Literal["open", "fusion", "run"]
"""Where it is refused: as `Bundle.open` reads it, as `Verifier.open` reads its fusion, or as its encoder answers."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """`build` makes the file; opened with `allow_unsigned`, it is refused with an error that holds `verdict`."""

    group: str
    about: str
    verdict: str
    build: Callable[[], bytes]
    stage: Stage = "open"
    allow_unsigned: bool = True


ATTACKS: dict[str, Attack] = {}


def attack(
    group: str, about: str, verdict: str, *, stage: Stage = "open", allow_unsigned: bool = True
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Enters a generator under its name."""

    def enter(build: Callable[[], bytes]) -> Callable[[], bytes]:
        name = build.__name__.replace("_", "-")
        assert name not in ATTACKS
        ATTACKS[name] = Attack(group, about, verdict, build, stage, allow_unsigned)
        return build

    return enter


def bundle(
    change: Callable[[dict[str, Any]], object] = lambda value: None,
    *,
    signer: SigningKey | None = None,
    spell: Callable[[bytes], bytes] = lambda stored: stored,
    signature: Callable[[bytes], bytes] | None = None,
    **members: bytes,
) -> bytes:
    """A bundle with valid digests and signature, written as bundles are, after what the caller does to it.

    `change` alters the manifest's values, `spell` its bytes, `members` replace or add (`_` for `.` in their names),
    `signature` takes the place of signing.
    """
    content = {**MINIMAL, **{name.replace("_", "."): data for name, data in members.items()}}
    value = manifest("hostile").to_json()
    value["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    change(value)
    stored = spell(_canonical_json.encode(value))
    signed = signature(stored) if signature else _sign(stored, signer or key())
    return archive({"manifest.json": stored, "manifest.sig": signed, **content})


def archive(members: dict[str, bytes], order: tuple[str, ...] = MEMBER_ORDER) -> bytes:
    return b"".join(bytes(piece) for piece in pack(members, order))


def members_of(data: bytes) -> dict[str, bytes]:
    from edgepin._bundle.archive import unpack

    return {name: bytes(member) for name, member in unpack(data, MEMBER_ORDER).items()}


def zipped(
    entries: list[tuple[bytes, bytes]],
    *,
    comment: bytes = b"",
    local_names: dict[bytes, bytes] = {},  # noqa: B006
    flags: int = 0,
    mode: int = 0o100644,
    extra: bytes = b"",
    deflate: bool = False,
    count: int | None = None,
) -> bytes:
    """A zip in which little is sacred. `local_names` replace names in the local headers only."""
    out, directory = b"", b""
    for name, data in entries:
        packed = zlib.compress(data, 9)[2:-4] if deflate else data
        local, sizes = local_names.get(name, name), (zlib.crc32(data), len(packed), len(data))
        shared = (10, flags, 8 if deflate else 0, 0, 33, *sizes)
        entry = struct.pack("<6H3I5H2I", 778, *shared, len(name), len(extra), 0, 0, 0, mode << 16, len(out))
        directory += b"PK\1\2" + entry + name + extra
        out += b"PK\3\4" + struct.pack("<5H3I2H", *shared, len(local), len(extra)) + local + extra + packed
    total = len(entries) if count is None else count
    end = struct.pack("<4H2IH", 0, 0, total, total, len(directory), len(out), len(comment))
    return out + directory + b"PK\5\6" + end + comment


def entries() -> list[tuple[bytes, bytes]]:
    """A right bundle's."""
    return [(name.encode(), data) for name, data in members_of(bundle()).items()]
