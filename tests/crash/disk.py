"""A disk that loses power: from the log of the recorder, every state in which it might be found.

A write lasts once its file was synced after it, a name once its folder was. Until then each sector of each write may
be there or not, in any order, and so may every change of length; of the changes to names a beginning is there, as
journaling file systems keep their order.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

SECTOR = 512
_HEAD = struct.Struct("<6Q")
CREATED, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, LINK, UNLINK, RENAME = range(1, 9)
KINDS = ("", "created", "write", "truncate", "sync", "sync folder", "link", "unlink", "rename")


@dataclasses.dataclass(frozen=True)
class Event:
    """One call that succeeded."""

    kind: int
    inode: int
    offset: int
    data: bytes
    name: str
    other: str


def read_log(path: Path) -> list[Event]:
    """What the recorder wrote down."""
    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        kind, inode, offset, length, one, two = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        parts = []
        for size in (length, one, two):
            parts.append(data[at : at + size])
            at += size
        events.append(Event(kind, inode, offset, parts[0], parts[1].decode(), parts[2].decode()))
    return events


Pending = list[tuple[int, bytes | None]]
"""Writes as (offset, data), and changes of length as (length, None)."""


class Disk:
    """What surely lasts, and what is still on its way, as of some event of a log."""

    def __init__(self) -> None:
        self._content: dict[int, bytes] = {}
        self._pending: dict[int, Pending] = {}
        self._names: dict[str, int] = {}
        self._moves: list[tuple[int, str, str, int]] = []
        self._file_of: dict[int, int] = {}

    def take(self, event: Event) -> None:
        """The next event."""
        # An inode's number may come again once its file is gone, while the old name is still on the disk.
        if event.kind == CREATED:
            self._file_of[event.inode] = len(self._content)
            self._content[len(self._content)] = b""
        event = dataclasses.replace(event, inode=self._file_of.get(event.inode, -1))
        if event.kind in (CREATED, LINK, UNLINK, RENAME):
            self._moves.append((event.kind, event.name, event.other, event.inode))
        elif event.kind == WRITE:
            self._pending.setdefault(event.inode, []).append((event.offset, event.data))
        elif event.kind == TRUNCATE:
            self._pending.setdefault(event.inode, []).append((event.offset, None))
        elif event.kind == SYNC:
            pending = self._pending.get(event.inode, [])
            self._content[event.inode] = _applied(self._content.get(event.inode, b""), pending)
            self._pending[event.inode] = []
        elif event.kind == SYNC_FOLDER:
            self._names = self._moved(len(self._moves))
            self._moves = []

    def dropped(self) -> dict[str, bytes]:
        """Nothing that was not synced is there."""
        return {name: self._content.get(inode, b"") for name, inode in self._names.items()}

    def whole(self) -> dict[str, bytes]:
        """Everything is there, as after a kill."""
        names = self._moved(len(self._moves))
        return {
            name: _applied(self._content.get(inode, b""), self._pending.get(inode, []))
            for name, inode in names.items()
        }

    def torn(self, random: Random) -> dict[str, bytes]:
        """Some of it is there: sectors at random, a beginning and a torn write, or the late without the early."""
        names = self._moved(random.choice((len(self._moves), random.randint(0, len(self._moves)))))
        ways = (_scattered, _beginning, _late, lambda pending, random: [], lambda pending, random: pending)
        one = random.choice(ways[:3])
        return {
            name: _applied(
                self._content.get(inode, b""),
                (one if random.random() < 0.6 else random.choice(ways))(self._pending.get(inode, []), random),
            )
            for name, inode in names.items()
        }

    @property
    def on_its_way(self) -> bool:
        """Whether anything is there that was not synced."""
        return bool(self._moves) or any(self._pending.values())

    def _moved(self, count: int) -> dict[str, int]:
        names = dict(self._names)
        for kind, name, other, inode in self._moves[:count]:
            if kind == UNLINK:
                names.pop(name, None)
            else:
                if kind == RENAME:
                    names.pop(other, None)
                names[name] = inode
        return names


def _applied(content: bytes, pending: Pending) -> bytes:
    made = bytearray(content)
    for offset, data in pending:
        if data is None:
            del made[offset:]
            made.extend(bytes(offset - len(made)))
        else:
            made.extend(bytes(max(0, offset - len(made))))
            made[offset : offset + len(data)] = data
    return bytes(made)


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """A write in pieces that end where sectors end."""
    at = 0
    while at < len(data):
        length = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
        yield offset + at, data[at : at + length]
        at += length


def _scattered(pending: Pending, random: Random) -> Pending:
    share = random.choice((0.1, 0.5, 0.9))
    return [
        piece
        for offset, data in pending
        for piece in ([(offset, None)] if data is None else _sectors(offset, data))
        if random.random() < share
    ]


def _beginning(pending: Pending, random: Random) -> Pending:
    count = random.randint(0, len(pending))
    if count == len(pending):
        return pending
    offset, data = pending[count]
    pieces = [] if data is None else list(_sectors(offset, data))
    return [*pending[:count], *pieces[: random.randint(0, len(pieces))]]


def _late(pending: Pending, random: Random) -> Pending:
    return pending[random.randint(0, len(pending)) :]
