"""Every frame that a server can send, handled to the letter of RFC 9113. Pure; `codec.Codec` adds the sending half.

The table in `states` says which effect a frame has on its stream; this module carries it out. A breach of the protocol
raises `Fatal`, which the codec turns into GOAWAY.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import iter_unpack
from typing import Any, Literal

from fanout.http.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    LARGEST_WINDOW,
    LAST_STREAM,
    PADDED,
    PRIORITY,
    SMALLEST_FRAME_LIMIT,
    ErrorCode,
    FrameType,
    Setting,
    ping,
    rst_stream,
    settings_ack,
    window_update,
)
from fanout.http.hpack_encoder import HeadTable
from fanout.http.response import MISDIRECTED, NotAResponse, RequestFailed, Response, sound, status_if_any, status_of
from fanout.http.sending import Outflow
from fanout.http.states import ON_STREAM, Action, Got, StreamState

__all__ = ["Fatal", "Inbound", "Partial"]


class Fatal(Exception):
    """A connection error (RFC 9113, section 5.4.1)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Partial:
    """A response whose head has come and whose end has not. `window` is the number of bytes that the peer may still
    send on the stream."""

    __slots__ = ("block", "body", "status", "window")

    def __init__(self, status: int, block: bytes, window: int) -> None:
        self.status = status
        self.block = block
        self.body = bytearray()
        self.window = window


class _Block:
    """A header block that CONTINUATION frames have yet to complete."""

    __slots__ = ("data", "flags", "frames", "stream")

    def __init__(self, stream: int, flags: int, data: bytes) -> None:
        self.stream = stream
        self.flags = flags
        self.data = bytearray(data)
        self.frames = 0


class Inbound:
    """The receiving half of a client connection and the state that both halves share.

    `streams` maps the ids in flight to the callers' tokens; `peer_streams` is how many of them the peer allows.
    `changed` is set when a limit moved, a GOAWAY or the answer to a PING came or streams were reset, and is for the
    caller to clear. `until_update` is how much DATA may come before the connection's window is topped up; half of the
    window is left then.
    """

    CONNECTION_WINDOW = 2**24
    """The window of all responses together: large, so that answers to pushes never wait for a WINDOW_UPDATE."""

    MOST_HEADERS = 32_768
    """Bytes of one header block, advertised and enforced."""

    MOST_CONTINUATIONS = 32
    """CONTINUATION frames of one block: more are a flood (CVE-2024-27316 and its kin)."""

    NOISE = 2_000
    """Frames that move no request forward, tolerated between two calls of `calm`, besides four per request sent."""

    def __init__(self, *, max_body: int, name: str) -> None:
        self.max_body = max_body
        self.name = name
        """Names the connection, for the requests that ended with it."""
        self.stream_window = max(65_535, max_body + SMALLEST_FRAME_LIMIT)
        self.out: list[bytes] = []
        self.streams: dict[int, Any] = {}
        self.partial: dict[int, Partial] = {}
        self.answered: list[tuple[Any, Response]] = []
        self.taken: list[Any] = []
        self.failed: list[tuple[Any, RequestFailed]] = []
        self.outflow = Outflow()
        self.next_stream = 1
        self.peer_streams = LARGEST_WINDOW
        self.ready = False
        self.going = False
        self.goaway_code: int | None = None
        self.goaway_debug = b""
        self.closed = False
        self.changed = False
        self.fault = ""
        self.pinged: bytes | None = None
        self.resets = 0
        self.refusals = 0
        self.assembling: _Block | None = None
        self._heads = HeadTable()
        self._last_allowed = LAST_STREAM
        self.until_update = self.CONNECTION_WINDOW // 2
        self._noise = 0
        self._calm_stream = 1

    def calm(self) -> None:
        """Some time has passed: forget the noise so far. The caller's clock decides how often."""
        self._noise = 0
        self._calm_stream = self.next_stream

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Handle one whole frame. Raises `Fatal`."""
        if len(payload) > SMALLEST_FRAME_LIMIT:
            raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
        if self.assembling is not None:
            if kind != FrameType.CONTINUATION or stream != self.assembling.stream:
                raise Fatal(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        elif not self.ready and (kind != FrameType.SETTINGS or flags & ACK):
            raise Fatal(ErrorCode.PROTOCOL_ERROR, "the connection did not begin with SETTINGS")
        rule = _RULES.get(kind)
        if rule is None:
            self._noisy()  # section 4.1: unknown types are ignored
            return
        handle, scope = rule
        if scope is not None and (stream == 0) != (scope == "connection"):
            raise Fatal(ErrorCode.PROTOCOL_ERROR, f"a {FrameType(kind).name} frame on stream {stream}")
        handle(self, flags, stream, payload)

    # -- frames of a stream

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        weight = len(payload)  # padding included (section 6.1)
        half = self.CONNECTION_WINDOW // 2
        self.until_update -= weight
        if self.until_update < -half:
            raise Fatal(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        if self.until_update < 0:
            self.out.append(window_update(0, half - self.until_update))
            self.until_update = half
        data = _unpad(payload) if flags & PADDED else payload
        if not data and not flags & END_STREAM:
            self._noisy()
        action = self._action(stream, Got.DATA_END if flags & END_STREAM else Got.DATA)
        if action is Action.MALFORMED:
            self._malformed(stream)
        elif action is not Action.IGNORE:
            self._add(stream, data, weight, end=action is Action.ADD_FINISH)

    def _add(self, stream: int, data: bytes, weight: int, *, end: bool) -> None:
        part = self.partial[stream]
        part.window -= weight
        if part.window < 0:
            self._give_up(stream, ErrorCode.FLOW_CONTROL_ERROR, "malformed")
            return
        over = len(part.body) + len(data) > self.max_body
        part.body += data[: self.max_body - len(part.body)]
        if end:
            self._finish(stream)
        elif over:
            # The status is known, and it decides: deliver it with the part of the body that fits rather than lose it.
            self._finish(stream)
            self.out.append(rst_stream(stream, ErrorCode.CANCEL))
        elif part.window < self.stream_window // 2:
            self.out.append(window_update(stream, self.stream_window - part.window))
            part.window = self.stream_window

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpad(payload)
        if flags & PRIORITY:
            if len(payload) < 5:
                raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(flags, stream, payload)
        else:
            self.assembling = _Block(stream, flags, payload)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        block = self.assembling
        if block is None:
            raise Fatal(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.data += payload
        block.frames += 1
        if block.frames > self.MOST_CONTINUATIONS or len(block.data) > self.MOST_HEADERS:
            raise Fatal(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self.assembling = None
            self._on_block(block.flags, stream, bytes(block.data))

    def _on_block(self, flags: int, stream: int, block: bytes) -> None:
        end = flags & END_STREAM
        status, got = 0, Got.HEADERS_END if end else Got.HEADERS
        if not sound(block):
            self._keep_status(stream, block)
            raise Fatal(ErrorCode.COMPRESSION_ERROR, "a header block cannot be decoded")
        if stream in self.streams:
            try:
                status = status_of(block)
            except NotAResponse:
                got = Got.TRAILERS_END if end else Got.TRAILERS
            except ValueError:
                raise Fatal(ErrorCode.COMPRESSION_ERROR, "a header block cannot be decoded") from None
            else:
                if status < 200:
                    got = Got.INTERIM_END if end or status == 101 else Got.INTERIM  # no 101 in HTTP/2 (section 8.6)
        action = self._action(stream, got)
        if status == MISDIRECTED and action in (Action.BEGIN, Action.FINISH):
            self.going = self.changed = True
            self._fail(stream, "no", "misdirected")
            self.out.append(rst_stream(stream, ErrorCode.CANCEL))
        elif action is Action.BEGIN:
            self.partial[stream] = Partial(status, block, self.stream_window)
        elif action is Action.FINISH:
            self._finish(stream, Response(status, b"", block) if status else None)
        elif action is Action.MALFORMED:
            self._malformed(stream)
        else:
            self._noisy()

    def _keep_status(self, stream: int, block: bytes) -> None:
        """The connection ends over this block; a delivery that has a final status, by it or by an earlier one, keeps
        that."""
        if self._state(stream) is StreamState.RECEIVING:
            self._finish(stream)
        elif stream in self.streams and (status := status_if_any(block)) >= 200:
            self._finish(stream, Response(status, b"", block))

    def _on_rst_stream(self, flags: int, stream: int, payload: bytes) -> None:
        code = _u32(payload)
        if self._action(stream, Got.RST_STREAM) is Action.IGNORE:
            return
        refused = code == ErrorCode.REFUSED_STREAM and stream not in self.partial
        self.resets += 1
        self.refusals += refused
        self.changed = True
        self._fail(stream, "no" if refused else "unknown", "refused" if refused else "reset", code=code)

    def _on_window_update(self, flags: int, stream: int, payload: bytes) -> None:
        increment = _u32(payload) & LARGEST_WINDOW
        if stream == 0:
            if not increment:
                raise Fatal(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            if not self.outflow.credit(increment):
                raise Fatal(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31-1")
        elif self._action(stream, Got.WINDOW_UPDATE) is Action.IGNORE:
            return
        elif not increment:
            self._malformed(stream)
        elif not self.outflow.credit_stream(stream, increment):
            self._give_up(stream, ErrorCode.FLOW_CONTROL_ERROR, "malformed")
        data = self.outflow.flow() if self.outflow.waiting else []
        if data:
            self.out += data
        else:
            self._noisy()

    def _on_priority(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 5:
            raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY without 5 bytes")
        self._noisy()

    def _on_push_promise(self, flags: int, stream: int, payload: bytes) -> None:
        self._action(stream, Got.PUSH_PROMISE)

    # -- frames of the connection

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        self._noisy()
        if flags & ACK:
            if payload:
                raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with values")
            return
        if len(payload) % 6:
            raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of odd length")
        window = None
        for name, value in iter_unpack(">HI", payload):
            if name == Setting.HEADER_TABLE_SIZE:
                self._heads.resize(value)
            elif name == Setting.ENABLE_PUSH and value:
                raise Fatal(ErrorCode.PROTOCOL_ERROR, "a server may not enable push")
            elif name == Setting.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            elif name == Setting.INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise Fatal(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE exceeds 2^31-1")
                window = value
            elif name == Setting.MAX_FRAME_SIZE:
                if not SMALLEST_FRAME_LIMIT <= value < 2**24:
                    raise Fatal(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE out of range")
                self.outflow.set_max_frame(value)
        # Only the last of several window sizes counts: applying each would let one frame cost a walk over all streams
        # 2,730 times.
        if window is not None and not self.outflow.set_initial_window(window):
            raise Fatal(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window exceeds 2^31-1")
        self.out.append(settings_ack())
        if self.outflow.waiting:
            self.out += self.outflow.flow()
        self.ready = True
        self.changed = True

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "PING without 8 bytes")
        if flags & ACK and payload == self.pinged:
            self.pinged = None
            self.changed = True
            return
        self._noisy()
        if not flags & ACK:
            self.out.append(ping(payload, ack=True))

    def _on_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) < 8:
            raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY too short")
        self._noisy()
        last = _u32(payload[:4]) & LAST_STREAM
        self.going = True
        self.changed = True
        self.goaway_code = _u32(payload[4:8])
        self.goaway_debug = payload[8:1032]
        # Section 6.8: the number may only fall; 2^31-1 first announces a shutdown, a second GOAWAY then says the truth.
        self._last_allowed = min(self._last_allowed, last)
        for excluded in [number for number in self.streams if number > self._last_allowed]:
            sent: Literal["no", "unknown"] = "unknown" if excluded in self.partial else "no"
            self._fail(excluded, sent, "goaway", debug=self.goaway_debug, code=self.goaway_code, cause=self.name)

    # -- steps

    def _state(self, stream: int) -> StreamState:
        if stream in self.partial:
            return StreamState.RECEIVING
        if stream in self.streams:
            return StreamState.WAITING
        if stream & 1 and stream < self.next_stream:
            return StreamState.CLOSED
        return StreamState.IDLE

    def _action(self, stream: int, got: Got) -> Action:
        state = self._state(stream)
        action = ON_STREAM[state][got]
        if action is Action.FATAL:
            raise Fatal(ErrorCode.PROTOCOL_ERROR, f"{got.value} on {state.value} stream {stream}")
        if state is StreamState.CLOSED:
            self._noisy()
        return action

    def _finish(self, stream: int, response: Response | None = None) -> None:
        token = self.streams.pop(stream)
        part = self.partial.pop(stream, None)
        if part is not None:
            response = Response(part.status, bytes(part.body), part.block)
        assert response is not None
        self.answered.append((token, response))
        if self.outflow.drop(stream):
            # Answered before the body was out (section 8.1): the rest is not needed.
            self.out.append(rst_stream(stream, ErrorCode.CANCEL))

    def _fail(
        self,
        stream: int,
        sent: Literal["no", "unknown"],
        reason: str,
        *,
        debug: bytes = b"",
        code: int | None = None,
        cause: str = "",
    ) -> None:
        known, token = self.known(stream), self.streams.pop(stream)
        self.partial.pop(stream, None)
        if self.outflow.drop(stream):
            sent = "no"  # without the end of its body
        if known is not None:
            self.answered.append((token, known))
        else:
            self.failed.append((token, RequestFailed(sent, reason, debug, code, cause=cause)))

    def known(self, stream: int) -> Response | None:
        """The answer to a request whose response began and will not end: a status of success alone says that the
        message was taken. A refusal without its body may have lost its reason, and a request is tried again then."""
        block, part = self.assembling, self.partial.get(stream)
        if part is None and block is not None and block.stream == stream and stream in self.streams:
            part = Partial(status_if_any(bytes(block.data)), bytes(block.data), 0)
        if part is None or not 200 <= part.status < 300:
            return None
        return Response(part.status, bytes(part.body), part.block)

    def _give_up(self, stream: int, code: int, reason: str) -> None:
        self._fail(stream, "unknown", reason, code=code)
        self.out.append(rst_stream(stream, code))

    def _malformed(self, stream: int) -> None:
        self._give_up(stream, ErrorCode.PROTOCOL_ERROR, "malformed")

    def _noisy(self) -> None:
        self._noise += 1
        if self._noise > self.NOISE + 2 * (self.next_stream - self._calm_stream):
            raise Fatal(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that move no request forward")


def _unpad(payload: bytes) -> bytes:
    """The payload without its padding (sections 6.1 and 6.2)."""
    if not payload:
        raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise Fatal(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - padding]


def _u32(payload: bytes) -> int:
    if len(payload) != 4:
        raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "a frame that needs 4 bytes has another length")
    return int.from_bytes(payload, "big")


_Handler = Callable[[Inbound, int, int, bytes], None]

_RULES: dict[int, tuple[_Handler, Literal["stream", "connection"] | None]] = {
    FrameType.DATA: (Inbound._on_data, "stream"),
    FrameType.HEADERS: (Inbound._on_headers, "stream"),
    FrameType.PRIORITY: (Inbound._on_priority, "stream"),
    FrameType.RST_STREAM: (Inbound._on_rst_stream, "stream"),
    FrameType.SETTINGS: (Inbound._on_settings, "connection"),
    FrameType.PUSH_PROMISE: (Inbound._on_push_promise, "stream"),
    FrameType.PING: (Inbound._on_ping, "connection"),
    FrameType.GOAWAY: (Inbound._on_goaway, "connection"),
    FrameType.WINDOW_UPDATE: (Inbound._on_window_update, None),
    FrameType.CONTINUATION: (Inbound._on_continuation, "stream"),
}
"""The handler of a frame type, and whether it belongs to a stream, to the connection, or (None) to either."""
