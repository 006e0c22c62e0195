"""HTTP/2 frames as a server writes them (RFC 9113, section 6), and response header blocks that need no table (RFC
7541)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

__all__ = [
    "CONTINUATION", "DATA", "END_HEADERS", "END_STREAM", "ENHANCE_YOUR_CALM", "FLOW_CONTROL_ERROR",
    "FRAME_SIZE_ERROR", "GOAWAY", "HEADERS", "HEADER_TABLE_SIZE", "INITIAL_WINDOW_SIZE", "MAX_CONCURRENT_STREAMS",
    "MAX_FRAME_SIZE", "MAX_HEADER_LIST_SIZE", "NO_ERROR", "PADDED", "PING", "PREFACE", "PRIORITY", "PRIORITY_FLAG",
    "PROTOCOL_ERROR", "PUSH_PROMISE", "REFUSED_STREAM", "RST_STREAM", "SETTINGS", "STREAM_CLOSED", "WINDOW_UPDATE",
    "Violation", "encode_headers", "frame", "goaway", "rst_stream", "settings", "window_update",
]  # fmt: skip

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 1, 4, 5, 6
MAX_CONCURRENT_STREAMS = 3
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0x0, 0x1, 0x3, 0x5
FRAME_SIZE_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 0x6, 0x7, 0xB

_INDEXED_STATUS = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}


class Violation(Exception):
    """The client broke a rule of HTTP/2: the connection ends with GOAWAY `code` and the text as its debug data."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", key, value) for key, value in values.items()))


def rst_stream(stream: int, code: int) -> bytes:
    """An RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def window_update(stream: int, more: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", more))


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, struct.pack("!II", last, code) + debug)


def encode_headers(status: int, headers: Mapping[str, str]) -> bytes:
    """A response's header block: static entries and literals without indexing, so that it means the same at any
    time."""
    index = _INDEXED_STATUS.get(status)
    out = [bytes([0x80 | index])] if index else [b"\x08" + _string(str(status))]
    out += [b"\x00" + _string(name.lower()) + _string(value) for name, value in headers.items()]
    return b"".join(out)


def _string(text: str) -> bytes:
    raw = text.encode("latin-1")
    length = len(raw)
    if length < 127:
        return bytes([length]) + raw
    prefix = bytearray(b"\x7f")
    length -= 127
    while length >= 128:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + raw
