"""The numbers of RFC 9113 and the frames that a client sends, as bytes. No state."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "HEADER",
    "LARGEST_WINDOW",
    "LAST_STREAM",
    "PADDED",
    "PREFACE",
    "PRIORITY",
    "SMALLEST_FRAME_LIMIT",
    "ErrorCode",
    "FrameType",
    "Setting",
    "frame",
    "goaway",
    "ping",
    "rst_stream",
    "settings",
    "settings_ack",
    "window_update",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113, section 3.4."""

HEADER = Struct(">IBI")
"""A frame header (section 4.1): 24 bits of length and 8 of type read as one number, flags, reserved bit and stream."""

SMALLEST_FRAME_LIMIT = 16_384
"""The least and the initial SETTINGS_MAX_FRAME_SIZE (section 6.5.2), which we never raise for the peer."""

LARGEST_WINDOW = 2**31 - 1
LAST_STREAM = 2**31 - 1

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class FrameType(IntEnum):
    """Section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """Section 6.5.2."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


_U32 = Struct(">I")
_U32X2 = Struct(">II")
_SETTING = Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; the caller keeps `payload` within the peer's SETTINGS_MAX_FRAME_SIZE."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame of (identifier, value) pairs (section 6.5)."""
    return frame(FrameType.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values))


def settings_ack() -> bytes:
    """The acknowledgement of the peer's SETTINGS."""
    return frame(FrameType.SETTINGS, ACK, 0)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """A PING frame (section 6.7); `payload` has exactly 8 bytes."""
    return frame(FrameType.PING, ACK if ack else 0, 0, payload)


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame (section 6.4)."""
    return frame(FrameType.RST_STREAM, 0, stream, _U32.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame (section 6.9); stream 0 is the connection."""
    return frame(FrameType.WINDOW_UPDATE, 0, stream, _U32.pack(increment))


def goaway(code: int, debug: bytes = b"") -> bytes:
    """A GOAWAY frame (section 6.8) that names no stream: the peer of a client has none, since push is off."""
    return frame(FrameType.GOAWAY, 0, 0, _U32X2.pack(0, code) + debug)
