"""The pool over TLS on loopback: requests, answers and closing."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from fanout.http import H2Pool, Head, RequestFailed, literal
from tests.http.gateway import Certificates, gateway

pytestmark = pytest.mark.anyio


async def test_a_request_is_answered(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    async with gateway(certificates.server()) as server, H2Pool(server.url, ssl_context=trusting) as pool:
        head = Head("POST", "https", pool.authority, [("apns-topic", "com.example.app"), ("apns-priority", "10")])
        future = pool.request(head, b"/3/device/abc", literal("apns-id", "one"), b'{"aps":{}}')
        peer = await server.accept()
        theirs = await peer.hello()
        assert theirs[1] == 0
        assert theirs[2] == 0
        got = await peer.request()
        assert got.body == b'{"aps":{}}'
        assert got.headers == {
            ":method": "POST",
            ":scheme": "https",
            ":authority": pool.authority,
            ":path": "/3/device/abc",
            "apns-topic": "com.example.app",
            "apns-priority": "10",
            "apns-id": "one",
        }
        peer.answer(got.stream, b"\x88\x00\x07apns-id\x03one")
        response = await future
        assert response.status == 200
        assert response.body == b""
        assert response.header("apns-id") == "one"
        assert response.header("nothing") is None
        assert pool.in_flight == 0
        assert pool.capacity() == 500


async def test_closing_resolves_what_is_pending(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    tasks = asyncio.all_tasks()
    async with gateway(certificates.server()) as server:
        async with H2Pool(server.url, ssl_context=trusting) as pool:
            head = Head("POST", "https", pool.authority)
            sent = pool.request(head, b"/", b"", b"x")
            peer = await server.accept()
            await peer.hello()
            await peer.request()
        with pytest.raises(RequestFailed) as failure:
            await sent
        assert (failure.value.sent, failure.value.reason) == ("unknown", "closed")
        await pool.aclose()
        late = pool.request(head, b"/", b"", b"x")
        with pytest.raises(RequestFailed) as failure:
            await late
        assert (failure.value.sent, failure.value.reason) == ("no", "closed")
    assert asyncio.all_tasks() == tasks
