"""Damage to structured files: JSON, protobuf, zip archives, PEM keys, TOML and SQLite."""

from __future__ import annotations

import base64
import json
import struct
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

from edgepin import _canonical_json

from ..sdk.tiny_onnx import varint
from .bytes_mutations import NUMBERS, PIECES, damage, damage_text, mixed, number

# --- JSON

_VALUES: tuple[Any, ...] = (None, True, False, 0, 1, -1, 0.0, 0.5, 1.0, -1.0, 2, 1e-300, 1e300, 1e-9, 10**18, 2**63, 2**64,
                            10**30, "", [], {}, [[]], [0.0, 0.0], "x" * 200)  # fmt: skip


def _nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def change_json(random: Random, value: Any) -> Any:
    """The value with one part of it changed; parts deep inside are as likely as the whole."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(sorted(value))
        changed, kind = dict(value), random.randrange(8)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[random.choice((*PIECES[:30], key + "x", key.upper()))] = value[key]
        elif kind == 2:
            other = random.choice(sorted(value))
            changed[key], changed[other] = value[other], value[key]
        else:
            changed[key] = change_json(random, value[key])
        return changed
    if isinstance(value, list) and value and random.random() < 0.85:
        at, changed, kind = random.randrange(len(value)), list(value), random.randrange(8)
        if kind == 0:
            del changed[at]
        elif kind == 1:
            changed.insert(at, random.choice(value))
        elif kind == 2:
            changed.reverse()
        else:
            changed[at] = change_json(random, value[at])
        return changed
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.5:
        return random.choice(
            (-value, value + 1, value * 2, float(value), int(value), value / 3, value * 1e6, number(random))
        )
    if isinstance(value, str) and random.random() < 0.5:
        at = random.randint(0, len(value))
        return value[:at] + random.choice(PIECES) + value[at + random.randrange(2) :]
    if random.random() < 0.03:
        return _nested(random.choice((10, 16, 17, 40, 500)))
    return random.choice((*_VALUES, random.choice(PIECES)))


def damage_json_value(random: Random, data: bytes) -> bytes:
    """Another value in the canonical spelling."""
    try:
        value = json.loads(data)
        for _ in range(random.randint(1, 3)):
            value = change_json(random, value)
        return _canonical_json.encode(value)
    except (ValueError, RecursionError, OverflowError):
        return damage_text(random, data)


def damage_json_spelling(random: Random, data: bytes) -> bytes:
    """The same value, or almost, in another spelling."""
    text = data.decode("utf-8", "replace")
    kind = random.randrange(7)
    if kind == 0:
        return text.replace(",", ", ", random.randint(1, 3)).encode()
    if kind == 1:
        return text.replace('"', '"\\u0061', 1).encode()
    if kind == 2:
        return text.replace(
            random.choice("0123456789"),
            random.choice(("1e0", "NaN", "Infinity", "00", "1.", "-0", "9" * 4500)),
            1,
        ).encode()
    if kind == 3:
        return text.replace("{", '{"name":1,', 1).encode()
    if kind == 4:
        return (b"\xef\xbb\xbf" if random.random() < 0.5 else b" ") + data
    if kind == 5:
        depth = random.choice((100, 5000, 100_000))
        return b"[" * depth + (b"]" * depth if random.random() < 0.5 else b"")
    return data.rstrip(b"\n") + random.choice((b"", b"\n\n", b"\r\n", b"\0", b"{}"))


damage_json = mixed(damage_json_value, damage_json_value, damage_json_spelling, damage_text)


# --- Protobuf


def _message(data: bytes, depth: int = 0) -> list[list[Any]] | None:
    """The fields of a message as [number, wire type, value], messages as lists; None if it is not one."""
    out: list[list[Any]] = []
    at = 0

    def read() -> int | None:
        nonlocal at
        value = shift = 0
        while at < len(data) and shift < 64:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        return None

    while at < len(data):
        tag = read()
        if tag is None or tag >> 3 == 0:
            return None
        wire = tag & 7
        if wire == 0:
            value: Any = read()
            if value is None:
                return None
        elif wire == 2:
            size = read()
            if size is None or size > len(data) - at:
                return None
            value = data[at : at + size]
            at += size
            inner = _message(value, depth + 1) if depth < 8 and 1 < len(value) < 5000 else None
            value = value if inner is None else inner
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            if width > len(data) - at:
                return None
            value = data[at : at + width]
            at += width
        else:
            return None
        out.append([tag >> 3, wire, value])
    return out


def _encoded(fields: list[list[Any]], random: Random, lie: float) -> bytes:
    out = bytearray()
    for field, wire, value in fields:
        out += varint(field << 3 | wire)
        if wire == 0:
            out += varint(value)
        elif wire == 2:
            content = _encoded(value, random, lie) if isinstance(value, list) else value
            out += varint(number(random, 32) if lie and random.random() < lie else len(content)) + content
        else:
            out += value
    return bytes(out)


def damage_protobuf(random: Random, data: bytes) -> bytes:
    """Fields that are changed, gone, doubled, of another number or type, nested into themselves, of a length that lies."""
    message = _message(data)
    if message is None:
        return damage(random, data)
    for _ in range(random.randint(1, 3)):
        fields = message
        for _ in range(random.randrange(7)):
            inner = [field[2] for field in fields if isinstance(field[2], list) and field[2]]
            if not inner:
                break
            fields = random.choice(inner)
        if not fields:
            continue
        at, kind = random.randrange(len(fields)), random.randrange(9)
        field = fields[at]
        if kind == 0:
            del fields[at]
        elif kind == 1:
            fields.insert(random.randint(0, len(fields)), [*field])
        elif kind == 2:
            field[0] = random.choice(
                (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 20, 22, 23, 25, number(random, 29))
            )
        elif kind == 3 and field[1] == 0:
            field[2] = number(random)
        elif kind == 4:
            field[1:] = [0, number(random)]
        elif kind == 5:
            deep: Any = [field]
            for _ in range(random.choice((1, 3, 60, 120))):
                deep = [[field[0], 2, deep]]
            fields[at] = deep[0]
        elif kind == 6 and isinstance(field[2], bytes):
            field[2] = damage(random, field[2])[:100_000]
        elif kind == 7:
            fields.append(
                [
                    random.choice((4, 7, 8, 13, 14)),
                    2,
                    random.choice((b"EPContext", b"ort_config", b"com.evil", b"", b"\xff\xfe", b"location")),
                ]
            )
        else:
            other = random.randrange(len(fields))
            fields[at], fields[other] = fields[other], fields[at]
    try:
        return _encoded(message, random, random.choice((0.0, 0.0, 0.05)))
    except RecursionError:
        return damage(random, data)


# --- Keys: PEM around DER


def damage_pem(random: Random, data: bytes) -> bytes:
    """The DER inside changed, or the armor."""
    lines = data.split(b"\n")
    try:
        der = base64.b64decode(b"".join(lines[1:-2]))
    except ValueError:
        der = b""
    if not der or random.random() < 0.4:
        return damage_text(random, data)
    return lines[0] + b"\n" + base64.b64encode(damage(random, der)) + b"\n" + lines[-2] + b"\n"


# --- TOML

_TOML_VALUES = ("0", "1", "-1", "1.5", "true", '""', '"kaldi"', "[]", "{}", "[1, 2]", "[[1]]", "nan", "inf", "-inf", "1e400",
                "1979-05-27", "07:32:00", '"' + "x" * 5000 + '"', "9" * 30, "0x7fffffffffffffff", "{a = 1}", "'\\'",
                '"\\uD800"', '"\\u0000"', '[true, 1, "a"]', "1e308", "65", "16000", '"nchw"', "[0.5, 0.5]", "[1.0, 0.9]",
                '"povey"')  # fmt: skip


def damage_toml(random: Random, data: bytes) -> bytes:
    """Values of other types, keys twice, tables, or any damage to text."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = random.randrange(len(lines))
    key = lines[at].split("=")[0].strip() or "x"
    kind = random.randrange(6)
    if kind < 3:
        lines[at] = f"{key} = {random.choice(_TOML_VALUES)}"
    elif kind == 3:
        lines.insert(at, f"{key}.{random.choice(('a', 'size', 'preset'))} = {random.choice(_TOML_VALUES)}")
    elif kind == 4:
        lines.insert(
            at,
            random.choice(
                (f"[{key}]", f"[[{key}]]", "[log_mel]", "[" * 300, f"x = {'[' * random.choice((50, 2000))}")
            ),
        )
    else:
        return damage_text(random, data)
    return "\n".join(lines).encode()


# --- Archives


def damage_npz(random: Random, data: bytes) -> bytes:
    """Arrays whose headers lie about type, order and shape, members that are gone, doubled, packed or bombs."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()[:20]]
    except Exception:  # what it is given may be its own output
        return damage(random, data)
    for _ in range(random.randint(1, 3)):
        if not members:
            break
        at, kind = random.randrange(len(members)), random.randrange(7)
        name, content = members[at]
        if kind == 0:
            members[at] = (name, _npy(random, content))
        elif kind == 1:
            members.append(
                (random.choice((name, "names.npy", "embeddings.npy", "../x.npy", "names")), content)
            )
        elif kind == 2:
            del members[at]
        elif kind == 3:
            members[at] = (name, damage(random, content))
        elif kind == 4:
            members[at] = (name, content[: random.randint(0, len(content))])
        elif kind == 5:
            members[at] = (name, content + bytes(1 << random.randrange(20)))
        else:
            members[at] = (random.choice(PIECES[:20]) or "x", content)
    target = io.BytesIO()
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
            warnings.simplefilter("ignore")  # of names that come twice, which is the point
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, random.choice((0, 0, zipfile.ZIP_DEFLATED)))
    except (ValueError, UnicodeError):
        return damage(random, data)
    return damage(random, target.getvalue()) if random.random() < 0.2 else target.getvalue()


def _npy(random: Random, content: bytes) -> bytes:
    if len(content) < 10:
        return content
    size = int.from_bytes(content[8:10], "little")
    kind = random.choice(
        (
            "<f4",
            "<f8",
            "<U5",
            "<U9999999",
            "|S3",
            "|O",
            "<i8",
            "|b1",
            "<c8",
            "<M8[s]",
            "|V8",
            "[('a','<f4')]",
            "<f2",
            "<U0",
        )
    )
    shape = tuple(random.choice((0, 1, 3, 4, 8, random.choice(NUMBERS))) for _ in range(random.randrange(4)))
    header = repr({"descr": kind, "fortran_order": random.random() < 0.3, "shape": shape}).encode()
    if random.random() < 0.2:
        header = damage_text(random, header)
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + size :]


# --- SQLite


def damage_sqlite(page_size: int) -> Callable[[Random, bytes], bytes]:
    """Pages that are swapped, copied, cleared, cut off or damaged in header, cells or anywhere; the file's header."""

    def mutate(random: Random, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(random.randint(1, 3)):
            pages = max(1, len(changed) // page_size)
            one, other = (random.randrange(pages) * page_size for _ in range(2))
            kind = random.randrange(8)
            if kind == 0:
                changed[one : one + page_size], changed[other : other + page_size] = (
                    changed[other : other + page_size], changed[one : one + page_size])  # fmt: skip
            elif kind == 1:
                changed[one : one + page_size] = changed[other : other + page_size]
            elif kind == 2:
                changed[one : one + page_size] = bytes(page_size)
            elif kind == 3:
                del changed[one + random.choice((0, random.randrange(page_size))) :]
            elif kind == 4:  # the header of a page: its type, counts and cell pointers
                start = one + (100 if one == 0 else 0) + random.randrange(40)
                changed[start : start + 2] = number(random, 16).to_bytes(2, "big")
            elif kind == 5:
                start, width = random.choice(
                    (
                        (16, 2),
                        (18, 1),
                        (19, 1),
                        (20, 1),
                        (24, 4),
                        (28, 4),
                        (32, 4),
                        (36, 4),
                        (40, 4),
                        (44, 4),
                        (56, 4),
                        (60, 4),
                        (68, 4),
                    )
                )
                changed[start : start + width] = number(random, 8 * width).to_bytes(width, "big")
            elif kind == 6:
                changed[one : one + page_size] = damage(random, bytes(changed[one : one + page_size]))
            else:
                changed += changed[one : one + page_size]
        return bytes(changed)

    return mutate
