"""Accepting connections of TLS, so that each counts from its first moment.

asyncio's and uvloop's servers give a connection to its protocol when the handshake has ended: until then strangers'
open connections would not be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Handshake", "TlsListener"]

_AGAIN = 0.1
"""Seconds until the next try where a connection cannot be accepted: the process has no descriptor left."""


class Handshake:
    """A connection whose handshake is under way."""

    task: asyncio.Task[None] | None = None

    @property
    def transport(self) -> Handshake:
        """The object that is closed to end it, as with a connection that is served."""
        return self

    def close(self) -> None:
        """End it."""
        if self.task is not None:
            self.task.cancel()


class TlsListener:
    """One listening socket, with the methods that uvicorn calls of an `asyncio.Server`.

    `make` makes the protocol of a connection, `admit` says whether one from this address may stay (and ends another for
    it), and `forget` is told when a handshake has ended. `timeout` are the seconds that a handshake may take.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        make: Callable[[Handshake], asyncio.BaseProtocol],
        admit: Callable[[Handshake, str], bool],
        forget: Callable[[Handshake], None],
        context: ssl.SSLContext,
        timeout: float,
        backlog: int,
    ) -> None:
        self.sockets = (listener,)
        self._listener = listener
        self._make, self._admit, self._forget = make, admit, forget
        self._context, self._timeout = context, timeout
        listener.setblocking(False)
        listener.listen(backlog)
        self._tasks: set[asyncio.Task[None]] = set()
        self._begin(self._accept())

    def close(self) -> None:
        """Accept no more, and end the handshakes."""
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Until they have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(_AGAIN)
                continue
            handshake = Handshake()
            if self._admit(handshake, address[0]):
                handshake.task = self._begin(self._agree(connection, handshake))
            else:
                connection.close()

    async def _agree(self, connection: socket.socket, handshake: Handshake) -> None:
        try:
            # A handshake that fails is the client's affair.
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: self._make(handshake), connection, ssl=self._context, ssl_handshake_timeout=self._timeout
                )
        finally:
            self._forget(handshake)
