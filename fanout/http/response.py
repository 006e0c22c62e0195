"""The result of a request: a response, or a failure that says whether the gateway may have seen it.

We advertise SETTINGS_HEADER_TABLE_SIZE = 0, so every header block stands alone and can be read long after it came. Most
are never read: the status is recognised from the first bytes, and the rest is decoded when a header is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Literal, TypedDict

__all__ = [
    "MISDIRECTED",
    "NotAResponse",
    "RequestFailed",
    "Response",
    "decode_block",
    "sound",
    "status_if_any",
    "status_of",
]

MISDIRECTED = 421
"""The status for a request that came over a connection to another server, and was not processed (RFC 9110, section
15.5.20). It is handed on as a `RequestFailed`, and never as a response."""

_SHORT = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
"""The statuses of the static table (RFC 7541, appendix A) as indexed fields of one byte."""

_LITERAL_STATUS = frozenset(first | index for first in (0x00, 0x10, 0x40) for index in range(8, 15))
"""A literal field whose name is one of the static `:status` entries: without indexing, never indexed, incremental."""

_STATIC = 61
"""Fields of the static table (RFC 7541, appendix A)."""

_shapes: dict[int, tuple[Callable[[bytes], object], object]] = {}
"""By the length of a block: the selector of the bytes that a walk looks at, and their values in a sound block."""

_MOST_HEADERS = 65_536
"""Bytes of decoded headers (names, values, 32 each), after which a block counts as unreadable."""

_seen: dict[bytes, int] = {}
"""Status fields met before, as bytes; bounded, since there are few ways to write a three-digit number."""


class NotAResponse(ValueError):
    """A header block that can be decoded and does not begin with a status."""


def decode_block(block: bytes) -> list[tuple[str, str]]:
    """The fields of a self-contained header block. Raises `ValueError` where it is not one, or is a bomb."""
    from hpack import Decoder  # imported by the first answer that is looked into
    from hpack.exceptions import HPACKError

    decoder = Decoder(max_header_list_size=_MOST_HEADERS)
    decoder.max_allowed_table_size = 0
    decoder.header_table_size = 0
    try:
        fields = decoder.decode(block, raw=True)
    except (HPACKError, IndexError) as error:
        raise ValueError(f"The header block cannot be decoded ({type(error).__name__}).") from None
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def sound(block: bytes) -> bool:
    """Whether a header block is one, by its indexes and lengths; the inside of texts (Huffman's code) is not looked at.

    Decoding costs fifty times as much, and most blocks are never decoded. A gateway's answers differ in ids and dates
    and hardly in shape: where the bytes that a walk would look at are those of a block of the same length that was
    walked, it need not be repeated.
    """
    shape = _shapes.get(len(block))
    if shape is not None and shape[0](block) == shape[1]:
        return True
    positions = _walk(block)
    if positions is None:
        return False
    if shape is None and positions and len(_shapes) < 1024:
        pick = itemgetter(*positions)
        _shapes[len(block)] = (pick, pick(block))
    return True


def _walk(block: bytes) -> list[int] | None:
    """The places of all indexes and lengths, or None where they do not make a header block.

    Our table has no room, so that an index beyond the static table (RFC 7541, appendix A), or an update to another size
    than 0 or behind a field, is as wrong as a length beyond the end.
    """
    position, end, begun = 0, len(block), False
    positions: list[int] = []
    try:
        while position < end:
            byte = block[position]
            positions.append(position)
            position += 1
            if byte >= 0x80:
                if byte == 0x80 or byte > 0x80 + _STATIC:
                    return None
                begun = True
                continue
            if byte >= 0x40:
                index = byte & 0x3F
                if index > _STATIC:
                    return None
            elif byte >= 0x20:
                if byte != 0x20 or begun:
                    return None
                continue
            else:
                index = byte & 0x0F
                if index == 0x0F:
                    index, after = _integer(block, position, 0x0F)
                    positions += range(position, after)
                    position = after
                    if index > _STATIC:
                        return None
            begun = True
            for _ in (0,) if index else (0, 0):
                length, after = block[position] & 0x7F, position + 1
                if length == 0x7F:
                    length, after = _integer(block, after, 0x7F)
                positions += range(position, after)
                position = after + length
    except IndexError:
        return None
    return positions if position == end else None


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """The rest of an integer (RFC 7541, section 5.1) that did not fit into its prefix: its value, and where it ends."""
    for shift in range(0, 28, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError  # four bytes more than any length that a frame could hold


def status_of(block: bytes) -> int:
    """The status that a response's header block begins with. Raises `NotAResponse`, or `ValueError` for an undecodable
    block.

    `:status` is the only pseudo-header of a response, and pseudo-headers come first (RFC 9113, section 8.3).
    """
    start = 0
    while start < len(block) and block[start] == 0x20:  # a table size update to zero
        start += 1
    status = _SHORT.get(block[start]) if start < len(block) else None
    if status is not None:
        return status
    if len(block) > start + 2 and block[start] in _LITERAL_STATUS and (length := block[start + 1] & 0x7F) < 8:
        field = block[start : start + 2 + length]
        status = _seen.get(field)
        if status is None:
            status = _status_field(decode_block(field))
            if len(_seen) < 4096:
                _seen[field] = status
        return status
    return _status_field(decode_block(block))


def status_if_any(block: bytes) -> int:
    """The same of a block that may be broken or incomplete; 0 without a status."""
    try:
        return status_of(block)
    except ValueError:
        return 0


def _status_field(fields: list[tuple[str, str]]) -> int:
    if fields and fields[0][0] == ":status":
        value = fields[0][1]
        if len(value) == 3 and value.isascii() and value.isdigit() and value >= "100":
            return int(value)
    raise NotAResponse("The header block does not begin with a three-digit :status.")


class Response:
    """A complete answer, made by the HTTP client: `block` holds its header fields as they came.

    Attributes:
        status: The final status.
        body: The bytes up to the pool's `max_body`; the rest is cut off.
    """

    __slots__ = ("_block", "body", "status")

    def __init__(self, status: int, body: bytes, block: bytes) -> None:
        self.status = status
        self.body = body
        self._block = block

    def headers(self) -> list[tuple[str, str]]:
        """All fields but `:status`, in order, decoded now; empty where the gateway's block cannot be decoded.

        The status stands nevertheless: it was read by itself, and says whether the push was taken.
        """
        try:
            fields = decode_block(self._block)
        except ValueError:
            return []
        return [field for field in fields if not field[0].startswith(":")]

    def header(self, name: str) -> str | None:
        """The first value of a field.

        Args:
            name: The field's name, in lower case.

        Returns:
            The value; None where the answer has no such field.
        """
        return next((value for field, value in self.headers() if field == name), None)

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


class Evidence(TypedDict):
    """See `RequestFailed`."""

    own: bool
    cause: str
    connected: bool


class RequestFailed(Exception):
    """No answer will come. `sent` is `"no"` where the gateway certainly did not process the request, else `"unknown"`.

    `reason` is one short word for programs and metrics:

    | reason | event |
    |---|---|
    | connect, dns, tls, alpn, settings | no connection came about: refused or unreachable, name not found, handshake failed, no `h2`, no SETTINGS |
    | descriptors | no connection came about, for this process may open no more files: raise its limit (`ulimit -n`, `LimitNOFILE=`) |
    | alert certificate_expired, … (`CERTIFICATE_ALERTS`) | the gateway's TLS refuses our certificate, or misses one |
    | proxy | the egress proxy made no tunnel: it refused, asked for credentials, hung or broke off |
    | refused | REFUSED_STREAM |
    | goaway | the gateway's GOAWAY excluded this request |
    | misdirected | the gateway answered 421: its connection was not for this request, and takes no other |
    | reset | the gateway reset the stream; `code` says why |
    | timeout | the request's own deadline passed |
    | ping | the connection no longer answered a PING and was given up |
    | closed | the connection ended, or the pool was closed |
    | protocol | the gateway broke RFC 9113 and the connection was given up |
    | malformed | the gateway's answer to this request was not a response |
    | overload | too many requests wait for a connection |

    `code` is the error code of the RST_STREAM or GOAWAY (RFC 9113, section 7), else None; `debug` is the text of the
    GOAWAY, or a proxy's answer over HTTP/1.1.
    `own` is True where this side ended the request (overload, a closed pool, time used up while it waited here): that
    says nothing about the gateway. `cause` names the connection whose end was the end of this request, else "":
    requests that one connection ended are one piece of evidence. `connected` is False where no connection took the
    request.
    """

    def __init__(
        self,
        sent: Literal["no", "unknown"],
        reason: str,
        debug: bytes = b"",
        code: int | None = None,
        *,
        own: bool = False,
        cause: str = "",
        connected: bool = True,
    ) -> None:
        super().__init__(sent, reason, debug, code)
        self.sent: Literal["no", "unknown"] = sent
        self.reason = reason
        self.debug = debug
        self.code = code
        self.own = own
        self.cause = cause
        self.connected = connected

    @property
    def evidence(self) -> Evidence:
        """The last three arguments of `unanswered`: how far the failure speaks of the gateway."""
        return {"own": self.own, "cause": self.cause, "connected": self.connected}

    def __str__(self) -> str:
        doubt = "was not sent" if self.sent == "no" else "may have been sent"
        return f"The request got no answer ({self.reason}); it {doubt}."
