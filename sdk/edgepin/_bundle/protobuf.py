"""The wire format of protobuf, read strictly: enough to look into an ONNX model without the `onnx` package.

Source: the encoding page of Protocol Buffers. What its own parsers skip or merge without a word (a group, an
unknown wire type, a tag above 32 bits) is an error here, so that no parser sees another message than this one.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

MAX_FIELDS = 1 << 19
"""In one model, numbers of a packed field among them. Each costs about two microseconds here. Our own encoders have
25 a node."""

_MAX_TAG = (1 << 32) - 1


class MalformedError(Exception):
    """The bytes are not protobuf, or not as the caller needs them."""


class Field:
    """One field: its number, its wire type, `value` of a varint, and where its bytes lie, `[start, end)`."""

    __slots__ = ("end", "number", "start", "value", "wire")

    def __init__(self, number: int, wire: int, value: int, start: int, end: int) -> None:
        self.number, self.wire, self.value, self.start, self.end = number, wire, value, start, end


class Reader:
    """Reads the messages in `data`, and no more than `MAX_FIELDS` fields in all."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self._fields_left = MAX_FIELDS

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message in `[start, end)`, in order. Raises `MalformedError`."""
        offset = start
        while offset < end:
            self._count()
            tag, offset = self.varint(offset, end)
            number, wire = tag >> 3, tag & 7
            if tag > _MAX_TAG or number == 0:
                raise MalformedError("a field has an impossible number")
            value = length = 0
            if wire == VARINT:
                value, offset = self.varint(offset, end)
            elif wire == BYTES:
                length, offset = self.varint(offset, end)
            elif wire in (FIXED64, FIXED32):
                length = 8 if wire == FIXED64 else 4
            else:
                raise MalformedError(f"a field has the unknown wire type {wire}")
            if length > end - offset:
                raise MalformedError("it is cut short")
            yield Field(number, wire, value, offset, offset + length)
            offset += length

    def _count(self) -> None:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise MalformedError(f"it has more than {MAX_FIELDS:,} fields")

    def varint(self, offset: int, end: int) -> tuple[int, int]:
        """The number at `offset` and where it ends."""
        value = shift = 0
        while offset < end:
            byte = self.data[offset]
            offset += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, offset
            shift += 7
            if shift > 63:
                raise MalformedError("a number is too long")
        raise MalformedError("it is cut short")

    def varints(self, field: Field) -> Iterator[int]:
        """The numbers of a repeated field, packed or not, as signed 64-bit ones."""
        if field.wire == VARINT:
            yield _signed(field.value)
            return
        _expect(field, BYTES)
        offset = field.start
        while offset < field.end:
            self._count()
            value, offset = self.varint(offset, field.end)
            yield _signed(value)

    def text(self, field: Field) -> str:
        """The string of a field. Bytes that are not UTF-8 become `\\xNN`, which no name that we look for has."""
        _expect(field, BYTES)
        return str(self.data[field.start : field.end], "utf-8", "backslashreplace")

    def once(self, start: int, end: int) -> dict[int, Field]:
        """The fields of a message by number, where none may come twice: parsers merge or drop the others."""
        found: dict[int, Field] = {}
        for field in self.fields(start, end):
            if field.number in found:
                raise MalformedError("a field that stands once comes twice")
            found[field.number] = field
        return found

    def message(self, field: Field) -> tuple[int, int]:
        """Where the message in a field begins and ends."""
        _expect(field, BYTES)
        return field.start, field.end

    def integer(self, field: Field) -> int:
        """The signed number of a field."""
        _expect(field, VARINT)
        return _signed(field.value)


def _expect(field: Field, wire: int) -> None:
    if field.wire != wire:
        raise MalformedError("a field has the wrong wire type")


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
