"""HPACK for requests (RFC 7541), made for sending the same headers again and again.

Fields that many requests share are a `Head`: they enter the peer's dynamic table once per connection and cost one or
two bytes afterwards. Fields that differ from request to request are made by `literal`, never enter a table and are
joined on by the caller. Nothing is Huffman coded: it would cost more time here than the bytes cost on the wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["LENGTHS", "Head", "HeadTable", "integer", "literal"]

_STATIC_NAMES = {
    ":authority": 1,
    ":method": 2,
    ":path": 4,
    ":scheme": 6,
    "accept": 19,
    "accept-encoding": 16,
    "accept-language": 17,
    "authorization": 23,
    "cache-control": 24,
    "content-encoding": 26,
    "content-length": 28,
    "content-type": 31,
    "date": 33,
    "expect": 35,
    "host": 38,
    "link": 45,
    "user-agent": 58,
    "via": 60,
}
"""The part of the static table (RFC 7541, appendix A) that a push request can use."""

_STATIC_FIELDS = {(":method", "GET"): 2, (":method", "POST"): 3, (":scheme", "http"): 6, (":scheme", "https"): 7}

_DYNAMIC = 62
"""The index of the newest entry of the dynamic table (section 2.3.3)."""

_OVERHEAD = 32
"""The size of an entry beyond its name and value (section 4.1)."""

_PATH = b"\x04"
"""`:path`, literal without indexing, name from the static table: a device address must not stay in the peer's table."""

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """`value` with a prefix of `bits` bits, over the pattern `first` (RFC 7541, section 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


LENGTHS = [integer(size, 7) for size in range(512)]
"""The length prefixes of strings that are not Huffman coded (section 5.2)."""


def text(value: bytes) -> bytes:
    """A string literal without Huffman coding (section 5.2)."""
    return integer(len(value), 7) + value


def literal(name: str, value: str, *, never_indexed: bool = False) -> bytes:
    """One field as an HPACK literal without indexing (RFC 7541, section 6.2.2), to be joined to others by the caller.

    Args:
        name: The field's name, in lower case.
        value: The field's value.
        never_indexed: Whether every hop is forbidden to index it (section 6.2.3): for credentials.

    Returns:
        The encoded field.

    Raises:
        ValueError: HTTP/2 forbids the name or the value. The text does not have the value.
    """
    raw = _value(name, value)
    size = len(raw)
    return _prefix(name, never_indexed) + (LENGTHS[size] if size < 512 else integer(size, 7)) + raw


@lru_cache(256)
def _prefix(name: str, never_indexed: bool) -> bytes:
    first = 0x10 if never_indexed else 0
    index = _STATIC_NAMES.get(_name(name))
    return bytes((first,)) + text(name.encode()) if index is None else integer(index, 4, first)


def _name(name: str) -> str:
    if not name or not name.isascii() or not name.isprintable() or name != name.lower() or " " in name:
        raise ValueError(f"{name!r} is no HTTP/2 field name: use lower-case ASCII without spaces.")
    if name in _HOP_BY_HOP or ":" in name:
        raise ValueError(f"{name!r} may not be sent as a field of an HTTP/2 request: leave it out.")
    return name


def _value(name: str, value: str) -> bytes:
    # Printable ASCII is 0x20 to 0x7E. A tab inside would be allowed too (RFC 9113, section 8.2.1), but nothing needs
    # it.
    if not (value.isascii() and value.isprintable()) or value[:1] == " " or value[-1:] == " ":
        raise ValueError(f"The value of {name!r} has characters outside printable ASCII, or outer blanks: remove them.")
    return value.encode()


class Head:
    """The part that many requests share: method, scheme, authority and constant fields. Immutable, and equal only to
    itself.

    Make one per credential and topic and keep it: a head that is used once costs the most.

    Args:
        method: The method, such as `POST`.
        scheme: `https` or `http`.
        authority: The authority, as `H2Pool.authority` has it.
        fields: Names in lower case and values of further fields that all of the requests have.

    Raises:
        ValueError: HTTP/2 forbids a name or a value.
    """

    __slots__ = ("fields", "pseudo")

    def __init__(self, method: str, scheme: str, authority: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        pseudo = ((":method", method), (":scheme", scheme), (":authority", authority))
        self.pseudo = tuple((name.encode(), _value(name, value)) for name, value in pseudo)
        self.fields = tuple((_name(name).encode(), _value(name, value)) for name, value in fields)

    def __repr__(self) -> str:
        return f"<Head of {len(self.fields)} fields>"


class HeadTable:
    """The peer's dynamic table, as the encoder knows it, and the bytes of each head as they stand.

    `ready` maps a head to (bytes before the path, bytes after it, length of both), and holds only heads whose every
    field is in the table or cannot enter it. Any insertion or eviction shifts the indices, so it empties `ready`.
    """

    __slots__ = ("_entries", "_limit", "_positions", "_pushed", "_size", "_updates", "ready")

    OWN_LIMIT = 4096
    """We never use more than the initial size (RFC 9113, section 6.5.2), even where the peer offers more."""

    MOST_READY = 1024
    """Heads remembered per connection; beyond that all are encoded anew."""

    def __init__(self) -> None:
        self._limit = self.OWN_LIMIT
        self._size = 0
        self._entries: deque[tuple[bytes, bytes]] = deque()
        self._positions: dict[tuple[bytes, bytes], int] = {}
        self._pushed = 0
        self._updates: list[int] = []
        self.ready: dict[Head, tuple[bytes, bytes, int]] = {}

    def resize(self, offered: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE changed. The next block starts with the size updates that this calls
        for."""
        limit = min(offered, self.OWN_LIMIT)
        if limit == self._limit and not self._updates:
            return
        # Section 4.2: several changes between two blocks are signalled as the smallest, then the last.
        smallest = min([limit, *self._updates])
        self._updates = [limit] if smallest == limit else [smallest, limit]
        self._limit = limit
        self._shrink(limit)
        self.ready.clear()

    def encode(self, head: Head) -> tuple[bytes, bytes, int]:
        """The bytes of one use of `head`, which must be sent in the order in which they were made."""
        updates = b"".join(integer(size, 5, 0x20) for size in self._updates)
        self._updates = []
        entered: set[tuple[bytes, bytes]] = set()
        pushed = self._pushed
        before = updates + b"".join(self._field(field, entered) for field in head.pseudo) + _PATH
        after = b"".join(self._field(field, entered) for field in head.fields)
        block = (before, after, len(before) + len(after))
        if self._pushed == pushed and not updates:
            if len(self.ready) >= self.MOST_READY:
                self.ready.clear()
            self.ready[head] = block
        return block

    def _field(self, field: tuple[bytes, bytes], entered: set[tuple[bytes, bytes]]) -> bytes:
        name, value = field
        static = _STATIC_FIELDS.get((name.decode(), value.decode()))
        if static is not None:
            return integer(static, 7, 0x80)
        position = self._positions.get(field)
        if position is not None:
            entered.add(field)
            return integer(_DYNAMIC + self._pushed - 1 - position, 7, 0x80)
        size = _cost(field)
        if size + sum(map(_cost, entered)) > self._limit:
            # Entering it would evict another field of this very head, which would then enter again each time.
            return self._literal(name, value, 4, 0)
        entered.add(field)
        encoded = self._literal(name, value, 6, 0x40)
        self._shrink(self._limit - size)
        self._entries.append(field)
        self._positions[field] = self._pushed
        self._pushed += 1
        self._size += size
        self.ready.clear()
        return encoded

    @staticmethod
    def _literal(name: bytes, value: bytes, bits: int, first: int) -> bytes:
        index = _STATIC_NAMES.get(name.decode())
        if index is not None:
            return integer(index, bits, first) + text(value)
        return bytes((first,)) + text(name) + text(value)

    def _shrink(self, room: int) -> None:
        while self._entries and self._size > room:
            field = self._entries.popleft()
            self._size -= _cost(field)
            del self._positions[field]
            self.ready.clear()


def _cost(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1]) + _OVERHEAD
