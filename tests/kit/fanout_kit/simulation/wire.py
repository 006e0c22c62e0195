"""The meaning of HTTP/2 bytes, in words, for the readable trace."""

from __future__ import annotations

import struct

__all__ = ["describe"]

_NAMES = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def describe(data: bytes) -> str:
    """The frames of one write, such as `HEADERS 3, DATA 3 end`. A write begins with a whole frame: that is how both
    ends write."""
    words: list[str] = []
    if data.startswith(_PREFACE):
        words.append("preface")
        data = data[len(_PREFACE) :]
    position = 0
    while len(data) - position >= 9:
        word, flags, stream = struct.unpack_from("!IBI", data, position)
        size, kind = word >> 8, word & 0xFF
        payload = data[position + 9 : position + 9 + size]
        position += 9 + size
        name = _NAMES[kind] if kind < len(_NAMES) else f"type {kind}"
        text = f"{name} {stream}" if stream else name
        if kind in (0, 1) and flags & 1:
            text += " end"
        elif kind in (4, 6) and flags & 1:
            text += " ack"
        elif kind == 4:
            values = (f"{key}={value}" for key, value in struct.iter_unpack("!HI", payload))
            text += " " + " ".join(values)
        elif kind == 3 and size == 4:
            text += f" code {int.from_bytes(payload, 'big')}"
        elif kind == 7 and size >= 8:
            last, code = struct.unpack_from("!II", payload)
            text += f" last {last} code {code}"
        words.append(text)
    return ", ".join(words)
