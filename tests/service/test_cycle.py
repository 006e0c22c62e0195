"""A whole answer is written as its messages would be, and only where nothing stands around `send`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from servicerig import Gateways, engine_of, key_of, settings_of

from fanout.config import Limits
from fanout.service import create_app
from fanout.service.cycle import Cycle
from fanout.service.server import serving

pytestmark = pytest.mark.anyio
FIELDS = [(b"content-type", b"application/json"), (b"location", b"http://push.example.com/v1/x")]
GET, HEAD = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n", b"HEAD %b HTTP/1.1\r\nhost: x\r\n\r\n"
OLD, LAST = b"GET %b HTTP/1.0\r\nhost: x\r\n\r\n", b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
ASKS = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n{}"


async def _said(url: str, asked: bytes) -> bytes:
    """All that a server answers to these bytes, behind which the client ends its side; without the time of day."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(asked)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return re.sub(rb"date: [^\r]*\r\n", b"", said)


async def test_both_ways_write_the_same_bytes() -> None:
    taken: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            assert (await receive())["body"] == b"{}"
        body = b'{"id":"1"}' if scope["path"].endswith("/full") else b""
        if scope["path"].startswith("/short"):
            taken.append(send.__self__.fanout_answer(202, FIELDS, body))
            if taken[-1]:
                return
        fields = [*FIELDS, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 202, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    cases: dict[bytes, list[bool]] = {
        GET: [True],
        GET * 3: [True] * 3,
        HEAD + GET: [False, True],
        OLD: [False],
        LAST: [False],
        ASKS: [True],
    }
    async with serving(app, "127.0.0.1", 0, Limits()) as url:
        for asked, ways in cases.items():
            for body in (b"full", b"empty"):
                taken.clear()
                short = await _said(url, asked.replace(b"%b", b"/short/" + body))
                long = await _said(url, asked.replace(b"%b", b"/long/" + body))
                assert short == long
                assert short.count(b" 202 Accepted\r\n") == len(ways)
                assert taken == ways


async def test_a_field_with_a_control_character_is_never_written() -> None:
    values = iter([b"a\r\nx: y", b"a\nx: y", b"a\x00", b"a\x7f"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        send.__self__.fanout_answer(202, [(b"location", next(values))], b"")

    async with serving(app, "127.0.0.1", 0, Limits()) as url:
        for _ in range(4):
            said = await _said(url, GET % b"/")
            assert said.startswith(b"HTTP/1.1 500 ")
            assert b"location" not in said


@pytest.mark.parametrize("around", [False, True])
async def test_the_service_takes_it_where_nothing_stands_around_send(
    around: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands around it sees each message of a post's answer."""
    seen: list[str] = []
    ways: list[bool] = []
    own = Cycle.fanout_answer

    def noted(self: Cycle, *answer: Any) -> bool:
        ways.append(own(self, *answer))
        return ways[-1]

    monkeypatch.setattr(Cycle, "fanout_answer", noted)
    app = create_app(engine_of(Gateways(), tmp_path), settings_of())

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        async def watched(message: Any) -> None:
            seen.append(message["type"])
            await send(message)

        await app(scope, receive, watched if around else send)

    text = b'{"target":{"user":"alice"},"title":"Hi"}'
    head = f"POST /v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key_of('shop')}\r\n".encode()
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
    async with app.state.service, serving(layer, "127.0.0.1", 0, Limits()) as url:
        said = await _said(url, (head + text) * 2)  # the first makes FastAPI's layers, and passes them
    assert said.count(b"HTTP/1.1 202 Accepted\r\n") == said.count(b"request-id: ") == 2
    assert (ways, seen) == (([], ["http.response.start", "http.response.body"] * 2) if around else ([True], []))
