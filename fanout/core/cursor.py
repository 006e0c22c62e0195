"""Cursors of the feed: a position in a database's sequence of changes, as a text that describes itself. Pure.

A cursor is 26 characters of base32hex (RFC 4648, section 7), which sorts as its bytes do: of two cursors of one
database the greater covers the smaller. It needs no key: a made-up cursor names another position in the same user's own
feed, for which the reader is authenticated, or it is answered with a demand to read anew.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from fanout.errors import UsageError

__all__ = ["CURSOR_LENGTH", "Cursor", "Listing", "parse", "topics_digest"]

CURSOR_LENGTH = 26
_CHANGES = 1
_LISTING = 2
_NEWEST = 3


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands: everything up to the change `seq` of the database `database` has been read.

    `topics` is the digest of the topics that the reader was in (`topics_digest`); 0 is "not known". When they change,
    so does the content of the feed, and the reader must begin anew.
    """

    database: int
    seq: int
    topics: int = 0

    def __str__(self) -> str:
        return _text(_CHANGES, self.database, self.seq, self.topics)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor of that text. Raises `UsageError` for a text that is no cursor."""
        kind, database, seq, topics, rest = _fields(text)
        if kind != _CHANGES or rest:
            raise _wrong()
        return cls(database, seq, topics)


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a reader of the whole feed stands, which was at the change `seq` when the reading began.

    Items that have not changed since are listed, from `position` on: with `newest` the number of an item, newest first,
    otherwise a `seq`, in the order of their last changes. Changes since then come afterwards, from the cursor `then`.
    """

    database: int
    seq: int
    topics: int
    position: int
    newest: bool = False

    @property
    def then(self) -> Cursor:
        """The cursor with which the reader goes on when it has seen all it wants."""
        return Cursor(self.database, self.seq, self.topics)

    def __str__(self) -> str:
        kind = _NEWEST if self.newest else _LISTING
        return _text(kind, self.database, self.seq, self.topics) + _encode(self.position.to_bytes(8, "big"))

    @classmethod
    def parse(cls, text: str) -> Listing:
        """The place of that text. Raises `UsageError` for a text that is no place."""
        kind, database, seq, topics, rest = _fields(text)
        position = int.from_bytes(rest, "big")
        if kind not in (_LISTING, _NEWEST) or len(rest) != 8 or position >= 2**63:
            raise _wrong()
        return cls(database, seq, topics, position, kind == _NEWEST)


def parse(text: str) -> Cursor | Listing:
    """Either of the two. Raises `UsageError` for neither."""
    return Listing.parse(text) if len(text) > CURSOR_LENGTH else Cursor.parse(text)


def topics_digest(topics: Iterable[str]) -> int:
    """24 bits that tell one set of topics from another; never 0."""
    joined = "\0".join(sorted(topics)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(joined, digest_size=3).digest(), "big") or 1


def _text(kind: int, database: int, seq: int, topics: int) -> str:
    return _encode(
        bytes((kind,))
        + (database & 0xFFFFFFFF).to_bytes(4, "big")
        + seq.to_bytes(8, "big")
        + (topics & 0xFFFFFF).to_bytes(3, "big")
    )


def _encode(data: bytes) -> str:
    return base64.b32hexencode(data).rstrip(b"=").decode()


def _fields(text: str) -> tuple[int, int, int, int, bytes]:
    head, rest = text[:CURSOR_LENGTH], text[CURSOR_LENGTH:]
    try:
        raw = base64.b32hexdecode(head + "=" * (-len(head) % 8))
        more = base64.b32hexdecode(rest + "=" * (-len(rest) % 8))
    except ValueError:
        raise _wrong() from None
    if len(raw) != 16 or len(text) > 2 * CURSOR_LENGTH or _encode(raw) + _encode(more) != text:
        raise _wrong()
    seq = int.from_bytes(raw[5:13], "big")
    if seq >= 2**63:
        raise _wrong()
    return raw[0], int.from_bytes(raw[1:5], "big"), seq, int.from_bytes(raw[13:16], "big"), more


def _wrong() -> UsageError:
    return UsageError("The cursor is none of this service: read the feed from the beginning, without a cursor.")
