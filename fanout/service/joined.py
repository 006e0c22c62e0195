"""The writes of an answer, joined."""

from __future__ import annotations

from typing import Any

__all__ = ["Joined"]


class Joined:
    """A transport that writes the head of an answer together with the body that follows: one call of the system and one
    segment instead of two.

    Held is a head with a content-length, until the next `write`, `close` or `flush`: the head of a stream, which has
    none, goes at once. An ASGI server need send no head before it has something of the body (ASGI's HTTP and WebSocket
    message format, "Response Start").
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._write = transport.write
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """See `asyncio.WriteTransport`."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and b"\r\ncontent-length: " in data:
            self._head = data
            return
        self._write(data)

    def flush(self) -> None:
        """The answer is complete: a head without a body goes by itself."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        self.flush()
        self._transport.close()
