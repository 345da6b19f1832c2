"""Damage to PNG, JPEG, WebP, BMP and PPM that keeps checksums right, so that it reaches what reads the content."""

from __future__ import annotations

import struct
import zlib
from random import Random

from .bytes_mutations import damage, damage_text, mixed, number
from .sound_mutations import cut, damage_riff

# --- PNG


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 8 <= len(data) and len(chunks) < 200:
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """With right lengths and checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def damage_png_chunks(random: Random, data: bytes) -> bytes:
    """A header that lies, pixels that are too few, too many or a bomb, text and profiles that swell, odd chunks."""
    chunks = png_chunks(data)
    for _ in range(random.randint(1, 3)):
        if not chunks:
            break
        at, kind = random.randrange(len(chunks)), random.randrange(9)
        name, content = chunks[at]
        if kind == 0 and len(chunks[0][1]) == 13:
            header = list(struct.unpack(">IIBBBBB", chunks[0][1]))
            field = random.randrange(7)
            header[field] = number(random, 32 if field < 2 else 8)
            if field in (2, 3):
                header[2], header[3] = random.choice((1, 2, 4, 8, 16)), random.choice((0, 2, 3, 4, 6))
            chunks[0] = (chunks[0][0], struct.pack(">IIBBBBB", *header))
        elif kind == 1:
            packed = zlib.compress(
                bytes([random.randrange(5)]) * random.choice((0, 10, 1000, 1 << 16, 1 << 20))
            )
            chunks.insert(at, (b"IDAT", packed))
        elif kind == 2:
            bomb = zlib.compress(bytes(1 << random.randrange(8, 23)), 9)
            name = random.choice((b"zTXt", b"iCCP", b"iTXt"))
            head = b"key\0\1\0\0\0" if name == b"iTXt" else b"key\0\0"
            chunks.insert(random.randint(1, len(chunks)), (name, head + bomb))
        elif kind == 3:
            name = random.choice(
                (
                    b"PLTE",
                    b"tRNS",
                    b"gAMA",
                    b"cHRM",
                    b"eXIf",
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"pHYs",
                    b"tEXt",
                    b"sRGB",
                )
            )
            chunks.insert(
                random.randint(1, len(chunks)),
                (name, bytes(random.randrange(256) for _ in range(random.randrange(30)))),
            )
        elif kind == 4:
            del chunks[at]
        elif kind == 5:
            chunks.insert(random.randint(0, len(chunks)), chunks[at])
        elif kind == 6:
            other = random.randrange(len(chunks))
            chunks[at], chunks[other] = chunks[other], chunks[at]
        elif kind == 7:
            chunks[at] = (name, damage(random, content))
        else:
            chunks[at] = (name, content[: random.randint(0, len(content))])
    return png(chunks)


damage_png = mixed(damage_png_chunks, damage_png_chunks, damage, cut)


# --- JPEG


def _jpeg_segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Segments up to the start of the scan, and the rest."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and len(segments) < 100:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((marker, data[at + 4 : at + 2 + size]))
        at += 2 + max(2, size)
        if marker == 0xDA:
            break
    return segments, data[at:]


def damage_jpeg_segments(random: Random, data: bytes) -> bytes:
    """Sizes that lie, tables that are damaged, gone or doubled, EXIF that turns, scans that are missing."""
    segments, scan = _jpeg_segments(data)
    lies: dict[int, int] = {}
    for _ in range(random.randint(1, 3)):
        if not segments:
            break
        at, kind = random.randrange(len(segments)), random.randrange(8)
        marker, content = segments[at]
        if kind == 0:
            frames = [i for i, (other, _) in enumerate(segments) if other in (0xC0, 0xC1, 0xC2)]
            for i in frames[:1]:  # precision, height, width, components
                start, width = random.choice(((0, 1), (1, 2), (3, 2), (5, 1), (7, 1)))
                frame = bytearray(segments[i][1])
                frame[start : start + width] = number(random, 8 * width).to_bytes(width, "big")
                segments[i] = (segments[i][0], bytes(frame))
        elif kind == 1:
            lies[at] = number(random, 16)
        elif kind == 2:
            order = random.choice(("<", ">"))
            tags = [
                (random.choice((0x112, 0x8769, 0x8825, number(random, 16))), number(random, 32))
                for _ in range(random.randrange(1, 4))
            ]
            exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
            for tag, value in tags:
                exif += struct.pack(
                    f"{order}HHII",
                    tag,
                    random.randrange(14),
                    random.choice((1, 1, number(random, 32))),
                    value,
                )
            segments.insert(random.randint(0, at), (0xE1, b"Exif\0\0" + exif))
        elif kind == 3:
            del segments[at]
        elif kind == 4:
            segments.insert(random.randint(0, len(segments)), (marker, content))
        elif kind == 5:
            segments[at] = (marker, damage(random, content)[:65000])
        elif kind == 6:
            segments[at] = (
                random.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xDD, 0xE0, 0xE2, 0xED, 0xEE, 0xFE)),
                content,
            )
        else:
            scan = damage(random, scan)
    out = data[:2]
    for i, (marker, content) in enumerate(segments):
        out += bytes([0xFF, marker]) + struct.pack(">H", lies.get(i, len(content) + 2) & 0xFFFF) + content
    return out + scan


damage_jpeg = mixed(damage_jpeg_segments, damage_jpeg_segments, damage, cut)
damage_webp = mixed(damage_riff, damage, cut)


# --- BMP and PPM: little besides a header


def damage_bmp_header(random: Random, data: bytes) -> bytes:
    """Offsets, sizes (negative ones turn the picture), depth, compression, colors."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        start, width = random.choice(
            ((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4))
        )
        value = (
            random.choice((0, 1, 2, 3, 4, 8, 16, 24, 32, 40, 64, 108, 124))
            if random.random() < 0.5
            else number(random, 32)
        )
        changed[start : start + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(changed)


def damage_ppm_header(random: Random, data: bytes) -> bytes:
    """Kind, width, height and maximum, as numbers or not."""
    head = [*data[:40].decode("latin-1").split(None, 3), "", "", "", ""]
    words = [head[0], head[1], head[2], head[3].split("\n")[0][:10]]
    for _ in range(random.randint(1, 2)):
        at = random.randrange(4)
        words[at] = (
            random.choice(("P1", "P2", "P3", "P4", "P5", "P6", "P7", "Pf", "PF", "Py"))
            if at == 0
            else str(number(random, 32))
        )
        if at and random.random() < 0.2:
            words[at] = random.choice(("", "-1", "1.5", "#", "x", "9" * 30, "nan", "-inf"))
    return f"{words[0]}\n{words[1]} {words[2]}\n{words[3]}\n".encode("latin-1") + data[min(len(data), 15) :]


damage_bmp = mixed(damage_bmp_header, damage, cut)
damage_ppm = mixed(damage_ppm_header, damage_text, damage, cut)
