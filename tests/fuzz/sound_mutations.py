"""Damage to WAV, FLAC and Ogg that keeps them looking like what they are: headers that lie about what follows."""

from __future__ import annotations

import struct
from random import Random

from .bytes_mutations import damage, mixed, number

# --- RIFF: WAV, and WebP among the images


def riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks behind the 12 bytes of header, the last perhaps cut short."""
    chunks, at = [], 12
    while at + 8 <= len(data) and len(chunks) < 200:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + (size & 1)
    return chunks


def riff(
    form: bytes, chunks: list[tuple[bytes, bytes]], lies: dict[int, int], magic: bytes = b"RIFF"
) -> bytes:
    """A RIFF file whose chunk i says that it has `lies[i]` bytes; -1 stands for the file."""
    body = b"".join(
        name[:4].ljust(4)
        + struct.pack("<I", lies.get(i, len(content)))
        + content
        + b"\0" * (len(content) & 1)
        for i, (name, content) in enumerate(chunks)
    )
    return magic + struct.pack("<I", lies.get(-1, len(body) + 4) & 0xFFFFFFFF) + form + body


def damage_riff(random: Random, data: bytes) -> bytes:
    """Chunks that lie, are missing, come twice, are swapped, unknown, empty or damaged inside."""
    form, chunks, lies = data[8:12].ljust(4), riff_chunks(data), {}
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(chunks)) if chunks else 0
        kind = random.randrange(7)
        if kind == 0 or not chunks:
            lies[random.randrange(-1, max(1, len(chunks)))] = number(random, 32)
        elif kind == 1:
            del chunks[at]
        elif kind == 2:
            chunks.insert(random.randint(0, len(chunks)), chunks[at])
        elif kind == 3:
            other = random.randrange(len(chunks))
            chunks[at], chunks[other] = chunks[other], chunks[at]
        elif kind == 4:
            name = random.choice(
                (
                    b"LIST",
                    b"fact",
                    b"ds64",
                    b"data",
                    b"fmt ",
                    b"VP8X",
                    b"EXIF",
                    b"ANIM",
                    b"ANMF",
                    b"ICCP",
                    b"junk",
                )
            )
            chunks.insert(random.randint(0, len(chunks)), (name, bytes(random.randrange(40))))
        elif kind == 5:
            chunks[at] = (chunks[at][0], damage(random, chunks[at][1]))
        else:
            chunks[at] = (chunks[at][0], chunks[at][1][: random.randint(0, len(chunks[at][1]))])
    magic = random.choice((b"RIFF",) * 8 + (b"RIFX", b"RF64", b"RIFF"))
    return riff(form, chunks, lies, magic)


def damage_wav_format(random: Random, data: bytes) -> bytes:
    """The `fmt ` chunk: tag, channels, rate, bytes a second, block, bits, and the extension."""
    chunks = riff_chunks(data)
    for i, (name, content) in enumerate(chunks):
        if name == b"fmt " and len(content) >= 16:
            values = list(struct.unpack("<HHIIHH", content[:16]))
            for _ in range(random.randint(1, 3)):
                field = random.randrange(6)
                values[field] = number(random, 32 if field in (2, 3) else 16)
            if random.random() < 0.5:  # one of the codecs that libsndfile knows
                values[0] = random.choice((1, 2, 3, 6, 7, 0x11, 0x31, 0x40, 0x50, 0x55, 0xFFFE))
            extension = content[16:] or random.choice((b"", b"\0\0", b"\x16\0" + bytes(22), b"\xff\xff"))
            chunks[i] = (name, struct.pack("<HHIIHH", *values) + extension)
    return riff(data[8:12], chunks, {})


damage_wav = mixed(damage_riff, damage_wav_format, damage)


# --- FLAC


def damage_flac_header(random: Random, data: bytes) -> bytes:
    """Metadata blocks (RFC 9639, 8): STREAMINFO that lies, blocks that are too long, of other types, or many."""
    blocks, at, last = [], 4, False
    while not last and at + 4 <= len(data) and len(blocks) < 100:
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
        last = bool(kind & 0x80)
        blocks.append([kind & 0x7F, bytearray(data[at + 4 : at + 4 + size])])
        at += 4 + size
    frames, lie = data[at:], None
    for _ in range(random.randint(1, 3)):
        if not blocks:
            break
        kind, block = random.choice(blocks), random.randrange(5)
        content = kind[1]
        if block == 0 and len(content) >= 18:
            # 20 bits rate, 3 bits channels - 1, 5 bits depth - 1, 36 bits samples
            packed = int.from_bytes(content[10:18], "big")
            shift, bits = random.choice(((44, 20), (41, 3), (36, 5), (0, 36)))
            mask = (1 << bits) - 1
            packed = packed & ~(mask << shift) | number(random, bits) << shift
            content[10:18] = packed.to_bytes(8, "big")
        elif block == 1:
            kind[0] = random.randrange(128)
        elif block == 2:
            blocks.append([random.randrange(8), bytearray(random.randrange(64))])
        elif block == 3:
            kind[1] = bytearray(damage(random, bytes(content)))
        else:
            lie = (random.randrange(len(blocks)), number(random, 24))
    out = bytearray(data[:4])
    for i, (kind, content) in enumerate(blocks):
        size = lie[1] if lie and lie[0] == i else len(content)
        out += (
            bytes([kind | (0x80 if i == len(blocks) - 1 else 0)])
            + (size & 0xFFFFFF).to_bytes(3, "big")
            + content
        )
    return bytes(out) + frames


def cut(random: Random, data: bytes) -> bytes:
    """The end cut off."""
    return data[: random.randint(0, len(data))]


damage_flac = mixed(damage_flac_header, damage, cut)


# --- Ogg


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        register = value << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
        table.append(register)
    return table


_CRC = _crc_table()


def ogg_checksum(page: bytes) -> int:
    """Of a page whose own four bytes of checksum are zero (RFC 3533, 6)."""
    register = 0
    for byte in page:
        register = (register << 8 & 0xFFFFFFFF) ^ _CRC[register >> 24 ^ byte]
    return register


def ogg_pages(data: bytes) -> list[bytes]:
    pages, at = [], 0
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data) and len(pages) < 200:
        count = data[at + 26]
        size = 27 + count + sum(data[at + 27 : at + 27 + count])
        pages.append(data[at : at + size])
        at += size
    return pages


def damage_ogg_pages(random: Random, data: bytes) -> bytes:
    """Pages whose header or packets are changed under a right checksum, that are gone, doubled or swapped."""
    pages = ogg_pages(data)
    if not pages:
        return damage(random, data)
    for _ in range(random.randint(1, 3)):
        at, kind = (
            random.randrange(min(len(pages), 6) if random.random() < 0.6 else len(pages)),
            random.randrange(6),
        )
        if kind == 0:
            pages.insert(at, pages[random.randrange(len(pages))])
        elif kind == 1 and len(pages) > 1:
            del pages[at]
        elif kind == 2:
            other = random.randrange(len(pages))
            pages[at], pages[other] = pages[other], pages[at]
        else:
            page = bytearray(pages[at])
            if kind == 3 and len(page) >= 27:  # version, flags, granule position, serial, sequence
                start, width = random.choice(((4, 1), (5, 1), (6, 8), (14, 4), (18, 4), (26, 1)))
                page[start : start + width] = number(random, 8 * width).to_bytes(width, "little")
            else:
                page[27:] = damage(random, bytes(page[27:]))
            if len(page) >= 27:
                page[22:26] = bytes(4)
                page[22:26] = ogg_checksum(bytes(page)).to_bytes(4, "little")
            pages[at] = bytes(page)
    return b"".join(pages)


damage_ogg = mixed(damage_ogg_pages, damage_ogg_pages, damage, cut)
