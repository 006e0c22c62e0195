"""Header blocks of requests (RFC 7541), decoded several times faster than by `hpack`, with which a test compares it.

A simulator decodes every block of every client; with the library this was two thirds of its time. Fields that a table
holds are checked and made into text once, when they enter it.
"""

from __future__ import annotations

from collections import deque

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from fanout.testing.simulator.fields import check_field

__all__ = ["BadBlock", "Decoder"]

_STATIC = [(name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE]
"""Appendix A; index 1 comes first."""

_TABLE_SIZE = 4096
_OVERHEAD = 32
_LIST_LIMIT = 8_000


class BadBlock(ValueError):
    """A header block that means nothing: COMPRESSION_ERROR."""


class Decoder:
    """The decoding side of one connection, with its dynamic table of at most 4,096 bytes."""

    __slots__ = ("_entries", "_limit", "_size")

    def __init__(self) -> None:
        self._entries: deque[tuple[str, str]] = deque()
        self._size = 0
        self._limit = _TABLE_SIZE

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        """The fields in order. Raises `BadBlock`, or `Violation` for a field that HTTP/2 forbids."""
        try:
            return self._decode(block)
        except IndexError:
            raise BadBlock("a header block that ends too early") from None

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        position, end, size = 0, len(block), 0
        while position < end:
            first = block[position]
            position += 1
            if first & 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, position = _integer(block, position, 0x7F)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise BadBlock("a table size update after a field")
                limit = first & 0x1F
                if limit == 0x1F:
                    limit, position = _integer(block, position, 0x1F)
                self._resize(limit)
                continue
            else:
                mask = 0x3F if first & 0x40 else 0x0F
                index = first & mask
                if index == mask:
                    index, position = _integer(block, position, mask)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                field = (name, value)
                check_field(name, value)
                if first & 0x40:
                    self._add(field)
            fields.append(field)
            size += len(field[0]) + len(field[1]) + _OVERHEAD
            if size > _LIST_LIMIT:
                raise BadBlock("more than SETTINGS_MAX_HEADER_LIST_SIZE")
        return fields

    def _entry(self, index: int) -> tuple[str, str]:
        if 0 < index <= 61:
            return _STATIC[index - 1]
        if index == 0 or index - 62 >= len(self._entries):
            raise BadBlock(f"index {index} is not in the table")
        return self._entries[index - 62]

    def _add(self, field: tuple[str, str]) -> None:
        self._entries.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > _TABLE_SIZE:
            raise BadBlock("a table above SETTINGS_HEADER_TABLE_SIZE")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix was full (section 5.1)."""
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > 28:
            raise BadBlock("an integer beyond all measure")


def _string(block: bytes, position: int) -> tuple[str, int]:
    first = block[position]
    position += 1
    length = first & 0x7F
    if length == 0x7F:
        length, position = _integer(block, position, 0x7F)
    raw = block[position : position + length]
    if len(raw) < length:
        raise BadBlock("a string that ends too early")
    if first & 0x80:
        try:
            raw = decode_huffman(raw)
        except HPACKDecodingError:
            raise BadBlock("a string that is no Huffman code") from None
    return raw.decode("latin-1"), position + length
