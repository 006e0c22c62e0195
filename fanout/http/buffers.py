"""Reading into one buffer for each event loop.

Without it, asyncio and uvloop allocate 256 KB for each TLS record and shrink it to the bytes that came; where the
allocator gives such pieces back to the system, this costs up to three system calls and two page faults for each answer
of a hundred bytes.
"""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from weakref import WeakKeyDictionary

__all__ = ["Buffered", "Forwarding", "SmallTls"]

_SIZE = 65_536
"""Bytes that one read takes at most; the rest is read in the next turn of the loop."""

_BUFFERS: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _buffer() -> memoryview:
    """The running loop's buffer. A read fills it and hands it over in one call, so that connections can share it."""
    loop = asyncio.get_running_loop()
    found = _BUFFERS.get(loop)
    if found is None:
        found = _BUFFERS[loop] = memoryview(bytearray(_SIZE))
    return found


class Buffered(asyncio.BufferedProtocol):
    """A protocol that is handed copies of the bytes that came, by `data_received`."""

    def __init__(self) -> None:
        # A proactor (Windows) fills the buffer while others run.
        shared = hasattr(asyncio.get_running_loop(), "add_reader")
        self._view = _buffer() if shared else memoryview(bytearray(_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._view[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        raise NotImplementedError


class Forwarding(Buffered):
    """A protocol around another one, which knows nothing of it: `inner` is handed copies of the bytes that came."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        super().__init__()
        self.inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)


class SmallTls(SSLProtocol):
    """asyncio's TLS, whose buffer for each connection is 256 KB otherwise. One TLS record is no longer than this."""

    max_size = 16_384
