"""The end of a connection on which the client still sends.

A close with bytes unread resets the connection, and the reset takes an answer from the client that it has not read yet
(RFC 9112, section 9.6): it would see a broken connection in place of 413, and a proxy would tell its own client 502.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Lingering"]

_PATIENCE = 10.0
"""Seconds that a client has to end its side."""
_SILENCE = 2.0
"""Seconds without a byte after which it has read the answer, and does not end its side."""
_MOST = 8 * 1024 * 1024
"""Bytes that are read and dropped for a client that sends all before it reads."""


class Lingering:
    """The transport as the makers of answers see it: where the client is still sending a body, `close` ends our side
    alone, and the rest follows when the client ends its side, is silent for a while, or has had its time.

    `transport` is a `Joined`, and `flow` is uvicorn's of it. `sends`, kept by the connection: whether a body is yet to
    come.
    """

    __slots__ = ("_end", "_flow", "_left", "_transport", "is_closing", "sends", "until", "write")

    def __init__(self, transport: Any, flow: Any) -> None:
        self._transport = transport
        self._flow = flow
        self._left = _MOST
        self._end = 0.0
        self.sends = False
        self.until = 0.0
        """When the connection is closed at the latest, by the loop's time; 0.0 while it does not linger."""
        self.is_closing = transport.is_closing
        self.write = transport.write

    def close(self) -> None:
        """End our side, and the client's where it sends nothing."""
        if not self.sends:
            self._transport.close()
        elif not self.until and not self.is_closing():
            self._end = asyncio.get_running_loop().time() + _PATIENCE
            self.drop(0)
            self._transport.flush()
            try:
                if self._transport.can_write_eof():  # TLS of asyncio cannot; the answer says `Connection: close`
                    self._transport.write_eof()
            except OSError:  # the client has gone
                self._transport.close()
            else:
                self._flow.resume_reading()

    def drop(self, size: int) -> None:
        """So many bytes came after the end of our side."""
        self.until = min(self._end, asyncio.get_running_loop().time() + _SILENCE)
        self._left -= size
        if self._left < 0:
            self._transport.close()
