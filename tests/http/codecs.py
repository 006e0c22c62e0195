"""A codec after its handshake, and what is read of it."""

from __future__ import annotations

from fanout.http.codec import Codec
from fanout.http.frames import (
    END_HEADERS,
    END_STREAM,
    FrameType,
    goaway,
    settings,
)
from fanout.http.hpack_encoder import Head
from fanout.http.response import RequestFailed, Response

HEAD = Head("POST", "https", "gateway.test")
OK = b"\x88"
WHOLE = END_HEADERS | END_STREAM


def opened(*values: tuple[int, int], requests: int = 1, body: bytes = b"x", max_body: int = 65_536) -> Codec:
    """A codec after the handshake, with requests on streams 1, 3, … whose tokens are their ids."""
    codec = Codec(max_body=max_body)
    codec.start()
    codec.receive(settings(values))
    for _ in range(requests):
        codec.request(codec.next_stream, HEAD, b"/", b"", body)
    codec.take()
    return codec


def results(codec: Codec) -> dict[int, Response | RequestFailed]:
    return {**dict(codec.answered), **dict(codec.failed)}


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def farewell(codec: Codec) -> int:
    """The error code of the GOAWAY that the codec wrote last."""
    kind, _, _, payload = frames_of(codec.take())[-1]
    assert kind == FrameType.GOAWAY
    return int.from_bytes(payload[4:8], "big")


def bye(last: int, code: int = 0, debug: bytes = b"") -> bytes:
    raw = goaway(code, debug)
    return raw[:9] + last.to_bytes(4, "big") + raw[13:]
