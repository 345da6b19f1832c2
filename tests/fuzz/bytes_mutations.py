"""Damage to bytes of any kind, and to text: what the mutators of single formats are built on.

A mutator takes a source of choices (`random.Random`, or hypothesis' own, which shrinks) and a valid file, and gives
another file. It never fails, whatever it is given: it is also fed its own output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Mutator = Callable[[Random, bytes], bytes]

MAX_BYTES = 1 << 20
"""No case is larger: limits on size have tests of their own, and small files are quick."""

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 32767, 32768, 65535,
           65536, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


def number(random: Random, bits: int = 64) -> int:
    """One that programs trip over, or a random one, or one close to either; unsigned, of `bits` bits."""
    kind = random.randrange(4)
    value = random.choice(NUMBERS) if kind else random.getrandbits(bits)
    if kind == 1:
        value += random.randint(-2, 2)
    return value & ((1 << bits) - 1)


def damage(random: Random, data: bytes) -> bytes:
    """One to four changes of any kind."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        _change(random, changed)
    return bytes(changed[:MAX_BYTES])


def _change(random: Random, data: bytearray) -> None:
    kind = random.randrange(9)
    at = _place(random, len(data))
    span = 1 << random.randrange(8)
    if kind == 0 and data:
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1 and data:
        data[at] = random.randrange(256)
    elif kind == 2:
        width = random.choice((1, 2, 4, 8))
        data[at : at + width] = number(random, 8 * width).to_bytes(width, random.choice(("little", "big")))
    elif kind == 3:
        del data[at : at + span]
    elif kind == 4:
        data[at:at] = data[at : at + span] * random.randint(1, 4)
    elif kind == 5:
        data[at:at] = bytes(random.randrange(256) for _ in range(min(span, 16)))
    elif kind == 6:
        data[at : at + span] = bytes([random.choice((0, 255, 0x7F, 0x80))]) * span
    elif kind == 7 and data:
        source = _place(random, len(data))
        data[at : at + span] = data[source : source + span]
    elif random.random() < 0.3:
        del data[at:]
    else:
        data += bytes(data[at : at + span])


def _place(random: Random, length: int) -> int:
    """Half of the places are in the first 100 bytes: headers are there."""
    if not length:
        return 0
    return random.randrange(min(length, 100) if random.random() < 0.5 else length)


# What texts are broken with: signs of several formats, and characters that terminals, paths and parsers mind.
PIECES = ("", " ", "\t", "\n", "\r", "\r\n", "\0", "\x1b[2J", "\u202e", "\ufeff", "\u2028", "é", "e\u0301", "😀", "\ud7ff", "/",
          "..", "../..", "//", "~", "-", "--", "-1", "0", "1e309", "-0.0", "nan", "inf", "NaN", "1_000", "0x10", "\u0661", "null",
          "true", '"', "'", "\\", "{", "}", "[", "]", "[[", "]]", "=", ":", ",", "#", "%s", "{0}", "x" * 300, "9" * 25,
          "9" * 5000, "1.0", "1979-05-27", '"""', "'''", "\\u0000", "\\uD800")  # fmt: skip


def damage_text(random: Random, data: bytes) -> bytes:
    """One to four changes to lines, fields and characters, some of them to bytes."""
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(random.randint(1, 4)):
        lines = text.split("\n")
        at = random.randrange(len(lines))
        kind = random.randrange(8)
        if kind == 0:
            lines[at:at] = [random.choice(lines)]
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 3:
            lines[at] = _fields(random, lines[at])
        elif kind in (4, 5):
            place = random.randint(0, len(lines[at]))
            lines[at] = lines[at][:place] + random.choice(PIECES) + lines[at][place + random.randrange(3) :]
        elif kind == 6:
            lines[at] = random.choice(PIECES)
        text = "\n".join(lines)
        if kind == 7:
            text = text[: random.randint(0, len(text))]
    changed = text.encode("utf-8", "surrogateescape")
    return (damage(random, changed) if random.random() < 0.15 else changed)[:MAX_BYTES]


def _fields(random: Random, line: str) -> str:
    sign = random.choice(("\t", " ", "=", ",", ":"))
    fields = line.split(sign)
    fields[random.randrange(len(fields))] = random.choice((*PIECES, *fields))
    if random.random() < 0.3:
        fields.append(random.choice(PIECES))
    return sign.join(fields)


def mixed(*mutators: Mutator) -> Mutator:
    """One of the mutators, and now and then several of them in turn."""

    def mutate(random: Random, data: bytes) -> bytes:
        for _ in range(1 if random.random() < 0.7 else 3):
            data = random.choice(mutators)(random, data)
        return data[:MAX_BYTES]

    return mutate


def spliced(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The beginning of one file and the end of another."""
    other = random.choice(others)
    return (data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :])[:MAX_BYTES]
