"""The client's half of HTTP/2 (RFC 9113) without I/O: requests in, bytes out; bytes in, resolved requests out.

The caller gives each request a token and gets it back exactly once, in `answered` (with a `Response`) or in `failed`
(with a `RequestFailed`). There is no object per stream: a map from stream id to token, and a second one for the few
streams whose response has begun but not ended. Requests of a run have tuples as tokens; of those the ones that are
answered with status 200 are in `taken`, without a `Response`.

`receive` has a fast path for the two usual shapes of success, a header block of status 200 alone or with one DATA
frame, and hands every other frame to `inbound`, which would treat these two no differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fanout.http.frames import (
    END_HEADERS,
    END_STREAM,
    HEADER,
    LAST_STREAM,
    PREFACE,
    SMALLEST_FRAME_LIMIT,
    ErrorCode,
    FrameType,
    Setting,
    goaway,
    ping,
    rst_stream,
    settings,
    window_update,
)
from fanout.http.hpack_encoder import LENGTHS, Head, integer
from fanout.http.inbound import Fatal, Inbound, Partial
from fanout.http.response import RequestFailed, Response, sound

__all__ = ["Codec", "Requests"]

_HEADERS = int(FrameType.HEADERS)
_CONTINUATION = int(FrameType.CONTINUATION)
_DATA = int(FrameType.DATA)
_RST_STREAM = int(FrameType.RST_STREAM)
_WHOLE = END_HEADERS | END_STREAM
_STATUS_200 = 0x88
_PACK = HEADER.pack


class Requests(NamedTuple):
    """Requests of one run: the fields that they share, and by index those of each alone.

    `common` and each of `own` are literals made by `literal`, joined; `paths` are sent as they are.
    """

    head: Head
    paths: Sequence[bytes]
    common: bytes
    own: Sequence[bytes]
    bodies: Sequence[bytes]

    def part(self, begin: int, end: int) -> Requests:
        """Some of them.

        Args:
            begin: The index of the first.
            end: The index behind the last.

        Returns:
            The requests.
        """
        if begin == 0 and end == len(self.paths):
            return self
        return Requests(self.head, self.paths[begin:end], self.common, self.own[begin:end], self.bodies[begin:end])


class Codec(Inbound):
    """One client connection. Not started until `start`; over once `closed`.

    `max_body`: bytes of a response body that are kept. `first_stream`: odd; for tests in which ids run out.
    """

    def __init__(self, *, max_body: int = 65_536, first_stream: int = 1, name: str = "the connection") -> None:
        super().__init__(max_body=max_body, name=name)
        self.next_stream = first_stream
        self._taken = first_stream
        self._ready = self._heads.ready
        self._tail = b""

    # -- requests

    def start(self) -> None:
        """Write the preface and our SETTINGS (section 3.4)."""
        self.out += (
            PREFACE,
            settings(
                (
                    (Setting.HEADER_TABLE_SIZE, 0),
                    (Setting.ENABLE_PUSH, 0),
                    (Setting.INITIAL_WINDOW_SIZE, self.stream_window),
                    (Setting.MAX_HEADER_LIST_SIZE, self.MOST_HEADERS),
                )
            ),
            window_update(0, self.CONNECTION_WINDOW - 65_535),
        )

    @property
    def usable(self) -> bool:
        """Whether `request` may be called, as far as ids, GOAWAY and the connection's state go."""
        return self.ready and not self.going and not self.closed and self.next_stream <= LAST_STREAM

    def request(self, token: Any, head: Head, path: bytes, fields: bytes, body: bytes) -> int:
        """Open a stream and return its id. The caller has checked `usable` and keeps to `peer_streams`."""
        stream = self.next_stream
        self.next_stream = stream + 2
        before, after, fixed = self._ready.get(head) or self._heads.encode(head)
        length = len(path)
        prefix = LENGTHS[length] if length < 512 else integer(length, 7)
        size = fixed + len(prefix) + length + len(fields)
        flow = self.outflow
        weight = len(body)
        if size > SMALLEST_FRAME_LIMIT or weight > flow.fits or weight > flow.window:
            self._request_in_parts(stream, before + prefix + path + after + fields, body)
        elif weight:
            flow.window -= weight
            self.out += (
                _PACK(size << 8 | _HEADERS, END_HEADERS, stream),
                before,
                prefix,
                path,
                after,
                fields,
                _PACK(weight << 8, END_STREAM, stream),
                body,
            )
        else:
            self.out += (_PACK(size << 8 | _HEADERS, _WHOLE, stream), before, prefix, path, after, fields)
        self.streams[stream] = token
        return stream

    def start_run(self, tokens: Sequence[tuple[Any, int]], requests: Requests) -> None:
        """Open a stream for each of `tokens`, in their order. The caller has checked `usable` and keeps to
        `peer_streams`."""
        head, paths, common, own, bodies = requests
        block = self._ready.get(head)
        if block is None:
            # The first request with this head enters it into the peer's table; the block of the others is another.
            for token, path, fields, body in zip(tokens, paths, own, bodies, strict=True):
                self.request(token, head, path, common + fields, body)
            return
        before, after, fixed = block
        after += common
        fixed += len(common)
        flow, streams, stream = self.outflow, self.streams, self.next_stream
        out: list[bytes] = []
        spent = 0
        for token, path, fields, body in zip(tokens, paths, own, bodies, strict=True):
            length, weight = len(path), len(body)
            prefix = LENGTHS[length] if length < 512 else integer(length, 7)
            size = fixed + len(prefix) + length + len(fields)
            if not weight or size > SMALLEST_FRAME_LIMIT or weight > flow.fits or weight > flow.window - spent:
                flow.window -= spent
                self.out += out
                self.next_stream, out, spent = stream, [], 0
                self.request(token, head, path, common + fields, body)
            else:
                spent += weight
                out += (
                    _PACK(size << 8 | _HEADERS, END_HEADERS, stream),
                    before,
                    prefix,
                    path,
                    after,
                    fields,
                    _PACK(weight << 8, END_STREAM, stream),
                    body,
                )
                streams[stream] = token
            stream += 2
        flow.window -= spent
        self.out += out
        self.next_stream = stream

    def _request_in_parts(self, stream: int, block: bytes, body: bytes) -> None:
        limit = SMALLEST_FRAME_LIMIT
        kind, flags = _HEADERS, 0 if body else END_STREAM
        for start in range(0, len(block), limit):
            fragment = block[start : start + limit]
            if start + limit >= len(block):
                # END_STREAM belongs to HEADERS alone, END_HEADERS to the last frame of the block (section 6.10).
                flags |= END_HEADERS
            self.out += (_PACK(len(fragment) << 8 | kind, flags, stream), fragment)
            kind, flags = _CONTINUATION, 0
        if body:
            self.out += self.outflow.add(stream, body)

    def cancel(self, stream: int, code: int = ErrorCode.CANCEL) -> None:
        """Reset a stream whose answer is not awaited any more. Its token is not given back."""
        if self.streams.pop(stream, None) is not None:
            self.partial.pop(stream, None)
            self.outflow.drop(stream)
            self.out.append(rst_stream(stream, code))

    def expire(self, stream: int) -> None:
        """Reset a stream whose answer did not end within its deadline. Its token is given back, where the
        stream is open."""
        if stream in self.streams:
            self._fail(stream, "unknown", "timeout")
            self.out.append(rst_stream(stream, ErrorCode.CANCEL))

    def ping(self, payload: bytes) -> None:
        """Send a PING of 8 bytes; `pinged` is None again once it is answered."""
        self.pinged = payload
        self.out.append(ping(payload))

    def take(self) -> bytes:
        """The bytes to be written. A request that was not written when the connection ends was certainly not sent."""
        data = b"".join(self.out)
        self.out.clear()
        self._taken = self.next_stream
        return data

    def close(self, reason: str, *, code: int | None = None, debug: bytes = b"", own: bool = False) -> None:
        """The connection is over: fail every request that is left and has no status of success (`known`). With `code`,
        a GOAWAY is left to be written, and nothing else: requests that were not taken yet have just been reported as
        not sent. `own`: this side closes it, for no fault of the peer's.
        """
        if self.closed:
            return
        self.closed = True
        for stream, token in self.streams.items():
            known = self.known(stream)
            if known is not None:
                self.answered.append((token, known))
                continue
            whole = stream < self._taken and stream not in self.outflow.waiting
            # A gateway that says why it hangs up says it in the GOAWAY before.
            failure = RequestFailed(
                "unknown" if whole else "no", reason, self.goaway_debug, self.goaway_code, own=own, cause=self.name
            )
            self.failed.append((token, failure))
        self.streams.clear()
        self.partial.clear()
        self.outflow.waiting.clear()
        self.out.clear()
        if code is not None:
            self.out.append(goaway(code, debug))

    # -- answers

    def receive(self, data: bytes) -> None:
        """Read the bytes that came: resolves requests into `answered` and `failed`, and writes answers to `out`."""
        if self.closed:
            return
        try:
            self._read(data)
        except Fatal as fault:
            self.fault = str(fault)
            self.close("protocol", code=fault.code, debug=self.fault.encode())

    def _read(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        position = 0
        end = len(data)
        unpack: Callable[[bytes, int], tuple[int, int, int]] = HEADER.unpack_from
        streams = self.streams
        partial = self.partial
        answered = self.answered
        taken = self.taken
        waiting = self.outflow.waiting
        most = self.max_body
        plain = self.ready and self.assembling is None
        while end - position >= 9:
            word, flags, stream = unpack(data, position)
            start = position + 9
            size = word >> 8
            position = start + size
            if position > end:
                if size > SMALLEST_FRAME_LIMIT:
                    raise Fatal(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
                position = start - 9
                break
            if plain and not waiting and size <= SMALLEST_FRAME_LIMIT:
                kind = word & 0xFF
                if (
                    kind == _HEADERS
                    and size
                    and data[start] == _STATUS_200
                    and (size == 1 or sound(data[start:position]))
                ):
                    if flags == _WHOLE:
                        if stream not in partial and stream in streams:
                            token = streams.pop(stream)
                            if token.__class__ is tuple:
                                taken.append(token)
                            else:
                                answered.append((token, Response(200, b"", data[start:position])))
                            continue
                    elif flags == END_HEADERS and stream not in partial and stream in streams:
                        partial[stream] = Partial(200, data[start:position], self.stream_window)
                        continue
                elif kind == _DATA and flags == END_STREAM and size <= self.until_update and size <= most:
                    part = partial.get(stream)
                    if part is not None and not part.body:
                        self.until_update -= size
                        del partial[stream]
                        token = streams.pop(stream)
                        if part.status == 200 and token.__class__ is tuple:
                            taken.append(token)
                        else:
                            answered.append((token, Response(part.status, data[start:position], part.block)))
                        continue
                elif (
                    kind == _RST_STREAM
                    and size == 4
                    and stream not in streams
                    and stream & 1
                    and stream < self.next_stream
                ):
                    # Of a stream that is done. nginx sends one behind each answer that it gave before it read the body.
                    self._noisy()
                    continue
            self.frame(word & 0xFF, flags, stream & 0x7FFF_FFFF, data[start:position])
            plain = self.ready and self.assembling is None
        self._tail = data[position:] if position < end else b""
