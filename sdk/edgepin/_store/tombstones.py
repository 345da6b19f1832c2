"""The journal of erasures beside a store, `<store>.erased`: the erased stay erased when an older copy comes back.

A line for each erased enrollment: its mark (32 bytes that name nobody, see `Envelope.tombstone`), when it was erased
(Unix seconds), and a check under a key of the store. Lines are only ever added, and are on the disk before an
erasure is answered. A line that is torn or altered is passed over: the store has the same marks in it, and writes
the missing ones again when it is opened.
"""

from __future__ import annotations

import hmac
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._errors import EnvironmentFault
from .._safe_files import sync_folder
from .envelope import bind

_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,12}) ([0-9a-f]{32})")
_MAX_BYTES = 256 << 20  # two million erasures


@dataclass(frozen=True)
class Erasures:
    """What a journal says."""

    marks: Mapping[bytes, int]
    """By mark, when it was erased, in Unix seconds."""
    damaged: int
    """Lines that are not this store's, or no longer what was written."""


class ErasureJournal:
    """The journal of the store at `path`, under the store's own key for it."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = Path(f"{path}.erased")
        self._key = key

    def read(self) -> Erasures:
        """All good lines; none if there is no journal."""
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return Erasures({}, 0)
        except OSError as error:
            raise EnvironmentFault(f"cannot read {self.path}: {error.strerror}") from error
        if len(data) > _MAX_BYTES:
            raise EnvironmentFault(f"{self.path} is too large to be a journal of erasures")
        marks: dict[bytes, int] = {}
        damaged = 0
        for line in io.BytesIO(data):  # one at a time: a list of them could be eight times the file
            line = line.removesuffix(b"\n")
            found = _LINE.fullmatch(line)
            if found and hmac.compare_digest(found[3], self._check(found[1], found[2])):
                mark, when = bytes.fromhex(found[1].decode()), int(found[2])
                marks[mark] = min(when, marks.get(mark, when))
            elif line:
                damaged += 1
        return Erasures(marks, damaged)

    def append(self, marks: Mapping[bytes, int]) -> None:
        """Adds lines; when it returns they last through a power cut. Raises `EnvironmentFault`."""
        if not marks:
            return
        lines = []
        for mark, when in sorted(marks.items()):
            text, time = mark.hex().encode(), str(when).encode()
            lines.append(b"%b %b %b\n" % (text, time, self._check(text, time)))
        try:
            new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                rest = memoryview(b"\n" * torn + b"".join(lines))
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(descriptor)
            if new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise EnvironmentFault(
                f"what was erased is gone from the store, but could not be noted in {self.path}: {error.strerror}",
                hint="make room or give the right to write, and open the store again: it writes the note then",
            ) from error

    def _check(self, mark: bytes, when: bytes) -> bytes:
        return hmac.digest(self._key, bind("erased", mark, when), "sha256")[:16].hex().encode()
