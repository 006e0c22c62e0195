"""Reading in slices: a thousand answers that arrive at once are read over several turns of the loop."""

from __future__ import annotations

import asyncio

from fanout.core.turns import Turns
from fanout.http.buffers import Buffered

__all__ = ["SlicedReading"]

_SLICE = 4096
"""Bytes that are read in one turn of the loop: some eighty answers with an id in their headers."""
_UNREAD = 262_144
"""Bytes that may lie unread before the transport is asked to wait."""


class SlicedReading(Buffered):
    """A protocol that hands the bytes of its transport to `_receive`, at most one slice in a turn of the loop.

    A subclass sets `_transport` in `connection_made`. `_heard` becomes True when bytes arrive, and the subclass sets it
    back. `_unread` holds the bytes that have arrived and are not read yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._heard = False
        self._unread = bytearray()
        self._turns = Turns.on(self._loop)
        self._choked = False

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if not self._unread and len(data) <= _SLICE and not self._turns.reading:
            self._receive(data)
            return
        # A thousand answers at once would keep the loop, and everything else in it, for tens of milliseconds.
        if not self._unread:
            self._turns.add(self._loop, self._read_on, reads=True)
        self._unread += data
        if len(self._unread) > _UNREAD and self._transport is not None and not self._choked:
            self._choked = True
            self._transport.pause_reading()

    def _read_on(self) -> bool:
        """The next slice of the bytes that have arrived; whether there is more."""
        unread = self._unread
        piece = bytes(unread[:_SLICE])
        del unread[:_SLICE]
        if self._choked and len(unread) < _UNREAD // 2 and self._transport is not None:
            self._choked = False
            self._transport.resume_reading()
        if piece:
            self._receive(piece)
        return bool(self._unread)

    def _receive(self, data: bytes) -> None:
        raise NotImplementedError
