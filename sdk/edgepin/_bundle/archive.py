"""A zip with one spelling: members stored without compression, in one order, dated 1980-01-01, and nothing else.

Any zip tool reads it. Reading it back here accepts only the bytes that writing the same members would give, so no
byte can differ unnoticed: no second directory, no comment, no extra field, no bytes before, between or after.
Layout: PKWARE's APPNOTE.TXT 6.3.10, 4.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

from .._errors import BundleError

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC = b"PK\x03\x04"
_VERSION = 10  # 1.0: stored members are all that is needed
_MADE_BY = 3 << 8 | _VERSION  # Unix, so that the mode below is read
_DATE = 1 << 5 | 1  # 1980-01-01, the zero of the format
_MODE = 0o100644 << 16
_ENCRYPTED = 1

Member = bytes | memoryview
_DAMAGED_HINT = "copy or export the bundle again"


def pack(members: Mapping[str, Member], order: Sequence[str]) -> Iterator[Member]:
    """The archive of `members`, piece by piece, in the order of `order`. Names are ASCII."""
    offset = 0
    directory = []
    for name in order:
        if name not in members:
            continue
        data, raw_name = members[name], name.encode("ascii")
        size, checksum = len(data), zlib.crc32(data)
        shared = (_VERSION, 0, 0, 0, _DATE, checksum, size, size, len(raw_name), 0)
        directory.append(_CENTRAL.pack(b"PK\x01\x02", _MADE_BY, *shared, 0, 0, 0, _MODE, offset) + raw_name)
        header = _LOCAL.pack(_LOCAL_MAGIC, *shared) + raw_name
        yield header
        yield data
        offset += len(header) + size
    central = b"".join(directory)
    yield central
    yield _END.pack(b"PK\x05\x06", 0, 0, len(directory), len(directory), len(central), offset, 0)


def unpack(data: bytes, order: Sequence[str]) -> dict[str, memoryview]:
    """The members of an archive that `pack` could have written, as views into `data`.

    Raises `BundleError`, with a message for each way in which the bytes are not such an archive.
    """
    if data[:4] != _LOCAL_MAGIC:
        raise BundleError(
            "this file is not a bundle: it does not begin like one",
            hint="name a .pin file that `edgepin export` wrote",
        )
    view = memoryview(data)
    members: dict[str, memoryview] = {}
    offset = 0
    while data[offset : offset + 4] == _LOCAL_MAGIC:
        name, member, offset = _local_member(view, offset, order)
        if name in members:
            raise BundleError(f"the bundle has {name} twice", hint=_DAMAGED_HINT)
        if members and order.index(name) < order.index(next(reversed(members))):
            raise BundleError(f"the bundle's members are out of order at {name}", hint=_DAMAGED_HINT)
        members[name] = member
    _compare(view, list(pack(members, order)), list(members))
    return members


def _local_member(view: memoryview, offset: int, order: Sequence[str]) -> tuple[str, memoryview, int]:
    if offset + _LOCAL.size > len(view):
        raise _cut_short()
    _, _, flags, method, _, _, checksum, packed, size, name_length, extra = _LOCAL.unpack_from(view, offset)
    start = offset + _LOCAL.size
    body = start + name_length + extra
    raw_name = bytes(view[start : start + min(name_length, 80)])
    name = raw_name.decode("ascii", "replace")
    if name not in order or len(name) != name_length:
        raise BundleError(f"the bundle has a member that bundles do not have: {name!r}", hint=_DAMAGED_HINT)
    if flags & _ENCRYPTED:
        raise BundleError(f"the bundle's {name} is encrypted", hint=_DAMAGED_HINT)
    if extra:
        raise BundleError(f"the bundle's {name} has an extra field", hint=_DAMAGED_HINT)
    if method != 0 or packed != size:
        raise BundleError(
            f"the bundle's {name} is compressed", hint="members of a bundle are stored as they are"
        )
    if body + size > len(view):
        raise _cut_short()
    member = view[body : body + size]
    if zlib.crc32(member) != checksum:
        raise BundleError(f"the bundle's {name} is damaged: its checksum differs", hint=_DAMAGED_HINT)
    return name, member, body + size


def _compare(view: memoryview, pieces: list[Member], names: list[str]) -> None:
    """Piece by piece, because a second copy of the archive may not fit beside the first."""
    kinds = [kind for name in names for kind in (f"header of {name}", name)] + ["directory", "end record"]
    offset = 0
    for kind, piece in zip(kinds, pieces, strict=True):
        found = view[offset : offset + len(piece)]
        if found != piece:
            if len(found) < len(piece) and found == piece[: len(found)]:
                raise _cut_short()
            raise BundleError(
                f"the bundle's {kind} is not written as bundles are (it begins at byte {offset})",
                hint=_DAMAGED_HINT,
            )
        offset += len(piece)
    if offset != len(view):
        raise BundleError(f"the bundle has {len(view) - offset} bytes after its end", hint=_DAMAGED_HINT)


def _cut_short() -> BundleError:
    return BundleError("the bundle is cut short", hint=_DAMAGED_HINT)
