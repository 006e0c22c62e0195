"""The lean connection: every push is accepted, nothing is checked, as fast as Python can answer. For load, never for
truth."""

from __future__ import annotations

import asyncio
import struct

from fanout.testing.simulator import frames as h2
from fanout.testing.simulator.link import Connection, Gateway

__all__ = ["LeanConnection"]

_LARGE = 0x7FFF_FFFF
_head = struct.Struct("!IBI").unpack_from
_OK = b"\x00\x00\x01\x01\x05"
_OK_AND_BODY = b"\x00\x00\x01\x01\x04"
_STATUS = b"\x88"


class LeanConnection(Connection):
    """Scans frame headers only, and answers the end of each stream with a header block of one byte (`:status 200`).

    Where the simulator has a `lean_body`, that follows in a DATA frame. With a ledger, the simulator's `lean_push`
    finds the ids in the raw header block and the body.
    """

    def __init__(self, simulator: Gateway) -> None:
        super().__init__(simulator)
        self._rest = b""
        self._consumed = 0
        self._blocks: dict[bytes, bytes] = {}
        self._first = True
        self._position = len(h2.PREFACE)
        self._last = 0
        self._body = simulator.lean_body
        self._opening = _OK_AND_BODY if self._body else _OK
        self._closing = h2.frame(h2.DATA, h2.END_STREAM, 0, self._body)[:5]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        first = {h2.MAX_CONCURRENT_STREAMS: self.simulator.streams, h2.INITIAL_WINDOW_SIZE: _LARGE}
        self.transport.write(h2.settings(first) + h2.window_update(0, _LARGE - 65_535))

    def go_away(self, *, short: int = 0, code: int = h2.NO_ERROR, debug: bytes = b"") -> None:
        self.counters.goaways += 1
        self.transport.write(h2.goaway(self._last, code, debug))
        self.transport.close()

    def announce(self, streams: int) -> None:
        self.transport.write(h2.settings({h2.MAX_CONCURRENT_STREAMS: streams}))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        end = len(data)
        position = self._position
        if position and end < position:
            self._rest = data
            return
        ledger = self.simulator.ledger is not None
        body, closing = self._body, self._closing
        out: list[bytes] = []
        answered = 0
        while end - position >= 9:
            start, flags, number = _head(data, position)
            following = position + 9 + (start >> 8)
            if following > end:
                break
            kind = start & 0xFF
            if kind <= 1:
                stream = data[position + 5 : position + 9]
                if kind == 0:
                    self._consumed += start >> 8
                if ledger:
                    self._record(kind, flags, stream, data[position + 9 : following])
                if flags & 1:
                    if body:
                        out.append(_OK_AND_BODY + stream + _STATUS + closing + stream + body)
                    else:
                        out.append(_OK + stream + _STATUS)
                    answered += 1
                    self._last = number
            elif kind == h2.SETTINGS and not flags & 1:
                out.append(h2.frame(h2.SETTINGS, 1, 0))
            elif kind == h2.PING and not flags & 1:
                out.append(h2.frame(h2.PING, 1, 0, data[position + 9 : following]))
            position = following
        self._rest = data[position:]
        self._position = 0
        if self._consumed > _LARGE // 2:
            out.append(h2.window_update(0, self._consumed))
            self._consumed = 0
        if not out:
            return
        if answered:
            if self._first:
                # A client that asked for a table of size 0 wants this confirmed in the first block; to others it is
                # harmless.
                at = next(i for i, answer in enumerate(out) if answer.startswith(self._opening))
                out[at] = b"\x00\x00\x02" + out[at][3:9] + b"\x20" + out[at][9:]
                self._first = False
            self.counters.requests += answered
            self.counters.accepted += answered
        self.simulator.flush_ledger()
        self.transport.write(b"".join(out))

    def _record(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        if kind == h2.HEADERS and not flags & 1:
            self._blocks[stream] = payload
            return
        block, body = (payload, b"") if kind == h2.HEADERS else (self._blocks.pop(stream, b""), payload)
        if not flags & 1:
            self._blocks[stream] = block
            return
        push = self.simulator.lean_push(block, body)
        if push is None:
            self.counters.unrecorded += 1
        else:
            self.simulator.record(push)
