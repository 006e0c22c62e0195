"""One client connection of a simulator, held to RFC 9113 to the letter: a client's error ends it, and is counted."""

from __future__ import annotations

import asyncio
import struct

from fanout.testing.simulator import frames as h2
from fanout.testing.simulator.answers import Disconnect, Peer, Reply, Request, Reset, Stall
from fanout.testing.simulator.fields import check_order
from fanout.testing.simulator.frames import Violation
from fanout.testing.simulator.hpack_decoder import BadBlock, Decoder
from fanout.testing.simulator.link import Connection, Gateway

__all__ = ["Connection", "StrictConnection"]

_WINDOW = 65_535
_FRAME_LIMIT = 16_384
_HEADER_LIST_LIMIT = 8_000
"""MAX_HEADER_LIST_SIZE as captured from api.push.apple.com (jchambers/pushy issue 878)."""
_LINGER = 0.5
"""Seconds for which a connection stays open after its GOAWAY and last answer, for the client to close it. Closed at
once, a request that was on its way makes the kernel send RST, on which the client's kernel drops answers that were not
read yet. nginx lingers too."""
_ON_STREAM = frozenset((h2.DATA, h2.HEADERS, h2.PRIORITY, h2.RST_STREAM, h2.CONTINUATION))
_ON_CONNECTION = frozenset((h2.SETTINGS, h2.PING, h2.GOAWAY))


class _Stream:
    __slots__ = ("body", "ended", "fields", "out", "pseudo", "timer", "window")

    def __init__(self, window: int, pseudo: dict[str, str], fields: list[tuple[str, str]]) -> None:
        self.pseudo = pseudo
        self.fields = fields
        self.body = bytearray()
        self.ended = False
        self.window = window
        self.out = b""
        self.timer: asyncio.TimerHandle | None = None


class StrictConnection(Connection):
    """Decodes every header, checks every frame, and hands complete requests to the simulator."""

    def __init__(self, simulator: Gateway) -> None:
        super().__init__(simulator)
        self._decoder = Decoder()
        self._buffer = b""
        self._preface = False
        self._streams: dict[int, _Stream] = {}
        self._ignored: set[int] = set()  # reset or refused by us while the client was still sending
        self._last = 0
        self._goaway: int | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._limit = 0
        self._announced: list[int] = []  # limits sent and not yet acknowledged
        self._window = _WINDOW
        self._credit = 0
        self._peer_window = _WINDOW
        self._peer_frame = _FRAME_LIMIT
        self._shrink_table = False
        self._block: tuple[int, int, bytearray] | None = None
        self._handled = 0
        self._shrunk = False
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self._limit = self.simulator.first_streams(certificate)
        self.peer = Peer(self.counters.connections, certificate, self._limit)
        first = {
            h2.HEADER_TABLE_SIZE: 4096,
            h2.MAX_CONCURRENT_STREAMS: self._limit,
            h2.INITIAL_WINDOW_SIZE: _WINDOW,
            h2.MAX_FRAME_SIZE: _FRAME_LIMIT,
            h2.MAX_HEADER_LIST_SIZE: _HEADER_LIST_LIMIT,
        }
        self._announced.append(self._limit)
        self._out.append(h2.settings(first))
        if not self.simulator.silent:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams.values():
            if stream.timer is not None:
                stream.timer.cancel()
        self._streams.clear()
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.simulator.silent:
            return
        self._buffer += data
        try:
            self._parse()
        except Violation as broken:
            self._violated(broken)
        except BadBlock as broken:
            self._violated(Violation(0x9, f"header block: {broken}"))
        self._flush()

    def go_away(self, *, short: int = 0, code: int = h2.NO_ERROR, debug: bytes = b"") -> None:
        if self._goaway is not None:
            return
        self._goaway = max(0, self._last - 2 * short)
        self.counters.goaways += 1
        self._out.append(h2.goaway(self._goaway, code, debug))
        for number in [n for n in self._streams if n > self._goaway]:
            self._drop(number)
        self._flush()

    def announce(self, streams: int) -> None:
        self.peer.streams = streams
        self._announce()
        self._flush()

    # -- received frames

    def _parse(self) -> None:
        buffer, position = self._buffer, 0
        if not self._preface:
            if not h2.PREFACE.startswith(buffer[:24]):
                raise Violation(h2.PROTOCOL_ERROR, "no HTTP/2 connection preface")
            if len(buffer) < 24:
                return
            self._preface = True
            position = 24
        end = len(buffer)
        while end - position >= 9:
            start, flags, stream = struct.unpack_from("!IBI", buffer, position)
            length, kind = start >> 8, start & 0xFF
            if length > _FRAME_LIMIT:
                raise Violation(h2.FRAME_SIZE_ERROR, "a frame above SETTINGS_MAX_FRAME_SIZE")
            if end - position - 9 < length:
                break
            payload = buffer[position + 9 : position + 9 + length]
            position += 9 + length
            self._frame(kind, flags, stream & 0x7FFF_FFFF, payload)
            if self.transport.is_closing():
                break
        self._buffer = buffer[position:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != h2.CONTINUATION or stream != self._block[0]):
            raise Violation(h2.PROTOCOL_ERROR, "a header block was interrupted")
        if kind > h2.CONTINUATION:
            return
        if (stream == 0 and kind in _ON_STREAM) or (stream and kind in _ON_CONNECTION):
            raise Violation(h2.PROTOCOL_ERROR, f"frame type {kind} on stream {stream}")
        match kind:
            case h2.HEADERS:
                payload = self._unpad(flags, payload)
                if flags & h2.PRIORITY_FLAG:
                    payload = payload[5:]
                self._block = (stream, flags, bytearray(payload))
                if flags & h2.END_HEADERS:
                    self._headers()
            case h2.CONTINUATION:
                if self._block is None:
                    raise Violation(h2.PROTOCOL_ERROR, "CONTINUATION without a header block")
                self._block[2].extend(payload)
                if len(self._block[2]) > 4 * _HEADER_LIST_LIMIT:
                    raise Violation(h2.ENHANCE_YOUR_CALM, "an endless header block")
                if flags & h2.END_HEADERS:
                    self._headers()
            case h2.DATA:
                self._data(stream, flags, payload)
            case h2.SETTINGS:
                self._settings(flags, payload)
            case h2.WINDOW_UPDATE:
                self._window_update(stream, payload)
            case h2.RST_STREAM:
                self._reset_by_client(stream, payload)
            case h2.PING:
                if len(payload) != 8:
                    raise Violation(h2.FRAME_SIZE_ERROR, "a PING of another length than 8")
                if not flags & 0x1:
                    self.counters.pings += 1
                    self._out.append(h2.frame(h2.PING, 0x1, 0, payload))
            case h2.GOAWAY:
                self._goaway = self._last if self._goaway is None else self._goaway
                self._close_when_done()
            case h2.PUSH_PROMISE:
                raise Violation(h2.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
            case _:
                pass

    @staticmethod
    def _unpad(flags: int, payload: bytes) -> bytes:
        if not flags & h2.PADDED:
            return payload
        if not payload or payload[0] >= len(payload):
            raise Violation(h2.PROTOCOL_ERROR, "more padding than payload")
        return payload[1 : len(payload) - payload[0]]

    def _headers(self) -> None:
        assert self._block is not None
        number, flags, block = self._block
        self._block = None
        # Decoded even without a reader: the block may change the table.
        fields = self._decoder.decode(bytes(block))
        ended = bool(flags & h2.END_STREAM)
        open_stream = self._streams.get(number)
        if open_stream is not None:
            if open_stream.ended or not ended:
                raise Violation(h2.PROTOCOL_ERROR, "a second header block that does not end the stream")
            self._request(number, open_stream)
            return
        if number in self._ignored:
            return
        if number % 2 == 0 or number <= self._last:
            raise Violation(h2.PROTOCOL_ERROR, f"stream {number} opened after stream {self._last}")
        if self._goaway is not None and number > self._goaway:
            self._ignored.add(number)
            return
        self._last = number
        if len(self._streams) >= max(self._limit, *self._announced, 0):
            self.counters.refused += 1
            self._reset(number, h2.REFUSED_STREAM, ended=ended)
            return
        pseudo = check_order(fields)
        stream = self._streams[number] = _Stream(self._peer_window, pseudo, fields[len(pseudo) :])
        self.counters.most_streams = max(self.counters.most_streams, len(self._streams))
        if ended:
            self._request(number, stream)

    def _data(self, number: int, flags: int, payload: bytes) -> None:
        self._credit += len(payload)
        if self._credit > _WINDOW:
            raise Violation(h2.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        if self._credit > _WINDOW // 2:
            self._out.append(h2.window_update(0, self._credit))
            self._credit = 0
        stream = self._streams.get(number)
        if stream is None:
            if number not in self._ignored and number > self._last:
                raise Violation(h2.PROTOCOL_ERROR, f"DATA on idle stream {number}")
            if number not in self._ignored and (self._goaway is None or number <= self._goaway):
                raise Violation(h2.STREAM_CLOSED, f"DATA on closed stream {number}")
            return
        if stream.ended:
            raise Violation(h2.STREAM_CLOSED, f"DATA after the end of stream {number}")
        stream.body += self._unpad(flags, payload)
        if flags & h2.END_STREAM:
            self._request(number, stream)
        elif len(stream.body) > 1 << 20:
            self._reset(number, h2.ENHANCE_YOUR_CALM, ended=False)
        elif payload:
            self._out.append(h2.window_update(number, len(payload)))

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & 0x1:
            if payload:
                raise Violation(h2.FRAME_SIZE_ERROR, "a SETTINGS acknowledgement with a payload")
            if self._announced:
                self._limit = self._announced.pop(0)
            return
        if len(payload) % 6:
            raise Violation(h2.FRAME_SIZE_ERROR, "SETTINGS of a length that is no multiple of 6")
        for key, value in struct.iter_unpack("!HI", payload):
            if key == h2.INITIAL_WINDOW_SIZE:
                if value > 0x7FFF_FFFF:
                    raise Violation(h2.FLOW_CONTROL_ERROR, "an initial window above 2^31-1")
                for stream in self._streams.values():
                    stream.window += value - self._peer_window
                self._peer_window = value
            elif key == h2.MAX_FRAME_SIZE:
                if not _FRAME_LIMIT <= value <= 0xFF_FFFF:
                    raise Violation(h2.PROTOCOL_ERROR, "a maximum frame size out of range")
                self._peer_frame = value
            elif key == h2.HEADER_TABLE_SIZE and value < 4096:
                self._shrink_table = True
        self._out.append(h2.frame(h2.SETTINGS, 0x1, 0))
        self._pump()

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Violation(h2.FRAME_SIZE_ERROR, "a WINDOW_UPDATE of another length than 4")
        more = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if more == 0:
            raise Violation(h2.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0")
        if number == 0:
            self._window += more
            if self._window > 0x7FFF_FFFF:
                raise Violation(h2.FLOW_CONTROL_ERROR, "a connection window above 2^31-1")
        elif number in self._streams:
            self._streams[number].window += more
        elif number > self._last and number not in self._ignored:
            raise Violation(h2.PROTOCOL_ERROR, f"WINDOW_UPDATE on idle stream {number}")
        self._pump()

    def _reset_by_client(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Violation(h2.FRAME_SIZE_ERROR, "an RST_STREAM of another length than 4")
        if number > self._last and number not in self._ignored:
            raise Violation(h2.PROTOCOL_ERROR, f"RST_STREAM on idle stream {number}")
        self._ignored.discard(number)
        if number in self._streams:
            self.counters.cancelled += 1
            self._drop(number)
            self._close_when_done()

    # -- sent frames

    def _request(self, number: int, stream: _Stream) -> None:
        stream.ended = True
        said = stream.pseudo
        request = Request(said[":method"], said[":path"], stream.fields, bytes(stream.body), self.peer)
        length = request.headers.get("content-length")
        if length is not None and length != str(len(stream.body)):
            raise Violation(h2.PROTOCOL_ERROR, "content-length differs from the body")
        answer = self.simulator.answer(request)
        if isinstance(answer, Reply):
            if answer.after > 0:
                loop = asyncio.get_running_loop()
                stream.timer = loop.call_later(answer.after, self._late, number, answer)
            else:
                self._reply(number, stream, answer)
        elif isinstance(answer, Reset):
            self.counters.resets += 1
            self._reset(number, answer.code, ended=True)
        elif isinstance(answer, Stall):
            self.counters.stalls += 1
        elif isinstance(answer, Disconnect):
            self.counters.disconnects += 1
            self.simulator.flush_ledger()
            self._out.clear()
            self.transport.abort()
            return
        self._after_request()

    def _after_request(self) -> None:
        self._handled += 1
        self._announce()
        faults = self.simulator.faults
        if faults.shrink_every and self._handled % faults.shrink_every == 0:
            self._shrunk = not self._shrunk
            self._announced.append(faults.shrink_to if self._shrunk else self.peer.streams)
            self._out.append(h2.settings({h2.MAX_CONCURRENT_STREAMS: self._announced[-1]}))
        if faults.goaway_every and self._handled >= faults.goaway_every:
            self.go_away(short=faults.goaway_short)
        self._close_when_done()

    def _announce(self) -> None:
        latest = self._announced[-1] if self._announced else self._limit
        if self.peer.streams != latest and not self._shrunk:
            self._announced.append(self.peer.streams)
            self._out.append(h2.settings({h2.MAX_CONCURRENT_STREAMS: self.peer.streams}))

    def _late(self, number: int, answer: Reply) -> None:
        stream = self._streams.get(number)
        if stream is not None and not self.simulator.silent:
            if answer.undecided:
                self.simulator.decided(answer)
            self._reply(number, stream, answer)
            self._close_when_done()
            self._flush()

    def _reply(self, number: int, stream: _Stream, answer: Reply) -> None:
        block = h2.encode_headers(answer.status, answer.headers)
        if self._shrink_table:
            # RFC 9113, section 4.3.1: a reduced table must be confirmed in the next block.
            block, self._shrink_table = b"\x20" + block, False
        if not answer.body:
            self._out.append(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, block))
            self._drop(number)
            return
        self._out.append(h2.frame(h2.HEADERS, h2.END_HEADERS, number, block))
        stream.out = answer.body
        self._pump_stream(number, stream)

    def _pump(self) -> None:
        for number, stream in [item for item in self._streams.items() if item[1].out]:
            self._pump_stream(number, stream)

    def _pump_stream(self, number: int, stream: _Stream) -> None:
        chunk = self.simulator.faults.body_chunk or self._peer_frame
        while stream.out:
            size = min(len(stream.out), self._window, stream.window, self._peer_frame, chunk)
            if size <= 0:
                return
            piece, stream.out = stream.out[:size], stream.out[size:]
            self._window -= size
            stream.window -= size
            self._out.append(h2.frame(h2.DATA, 0 if stream.out else h2.END_STREAM, number, piece))
        self._drop(number)

    def _reset(self, number: int, code: int, *, ended: bool) -> None:
        self._out.append(h2.rst_stream(number, code))
        if not ended:
            self._ignored.add(number)
        self._drop(number)

    def _drop(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            if stream.timer is not None:
                stream.timer.cancel()
            if not stream.ended:
                self._ignored.add(number)

    def _close_when_done(self) -> None:
        if self._goaway is not None and not self._streams:
            self._flush()
            if self._lingering is None:
                self._lingering = asyncio.get_running_loop().call_later(_LINGER, self.transport.close)

    def _violated(self, broken: Violation) -> None:
        self.counters.violations.append(str(broken))
        self._out.append(h2.goaway(self._last, broken.code, str(broken).encode()))
        self._streams.clear()
        self._flush()
        self.transport.close()

    def _flush(self) -> None:
        if self._out:
            self.simulator.flush_ledger()
            if not self.transport.is_closing():
                self.transport.write(b"".join(self._out))
            self._out.clear()
