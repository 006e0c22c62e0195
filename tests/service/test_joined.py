"""An answer of `serving` is one write, and nothing of it waits for what may never come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout.config import Limits
from fanout.service import server
from fanout.service.joined import Joined
from fanout.service.server import serving

HEAD = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Written:
    """A transport that keeps each write apart."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        ([HEAD, b"{}"], [HEAD + b"{}"]),
        ([HEAD, b""], [HEAD]),
        ([HEAD, b"{}", HEAD, b"{}"], [HEAD + b"{}"] * 2),
        ([STREAM, b"5\r\nhello\r\n"], [STREAM, b"5\r\nhello\r\n"]),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", HEAD, b"{}"], [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"{}"]),
        ([HEAD, HEAD, b"{}"], [HEAD + HEAD, b"{}"]),
    ],
)
def test_a_head_that_has_a_length_goes_with_what_follows(writes: list[bytes], expected: list[bytes]) -> None:
    transport = Written()
    joined = Joined(transport)
    for each in writes:
        joined.write(each)
    assert transport.writes == expected
    assert joined.get_write_buffer_size() == 7


@pytest.mark.parametrize("end", ["flush", "close"])
def test_a_head_whose_body_never_comes_goes_at_the_end(end: str) -> None:
    transport = Written()
    joined = Joined(transport)
    joined.write(HEAD)
    assert transport.writes == []
    getattr(joined, end)()
    joined.flush()
    assert transport.writes == [HEAD]
    assert (transport.closed, joined.is_closing()) == (end == "close", end == "close")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "headers", "body", "writes"),
    [
        ("GET", [(b"content-length", b"2")], b"{}", 1),
        ("HEAD", [(b"content-length", b"2")], b"{}", 1),
        ("GET", [], b"{}", 3),
    ],
)
async def test_an_answer_is_one_write_and_a_streams_head_waits_for_nothing(
    method: str, headers: list[Any], body: bytes, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream is written as it comes: its head, its piece, its end."""
    seen: list[bytes] = []
    began, go_on = asyncio.Event(), asyncio.Event()

    class Watched(Joined):
        def __init__(self, transport: Any) -> None:
            super().__init__(transport)
            self._transport = transport

        def write(self, data: bytes) -> None:
            self._write = self._noted
            super().write(data)

        def _noted(self, data: bytes) -> None:
            seen.append(data)
            self._transport.write(data)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        began.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": body, "more_body": not headers})
        if not headers:
            await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(server, "Joined", Watched)
    async with serving(app, "127.0.0.1", 0, Limits()) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"{method} / HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        await began.wait()
        head = await reader.readuntil(b"\r\n\r\n") if not headers else b""
        go_on.set()
        head = head or await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        if method == "GET":
            await reader.readuntil(body)
        if not headers:
            await reader.readuntil(b"0\r\n\r\n")
        assert len(seen) == writes
        writer.close()
        await writer.wait_closed()
