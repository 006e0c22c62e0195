"""The simulator is strict, and its HTTP/1.1 server too; judged by clients that share no code with the transport."""

from __future__ import annotations

import asyncio
import base64
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from yarl import URL

from fanout.plugin import Address
from fanout.testing.simulator import Faults, Reply, read_ledger
from fanout_wns.simulator import WnsSimulator

pytestmark = pytest.mark.anyio

TOAST = b"<toast launch='{&quot;fanout&quot;:{&quot;id&quot;:&quot;01890a5d-ac96-774b-bcce-b302099a8057&quot;}}'/>"
HEADERS = {"X-WNS-Type": "wns/toast", "Content-Type": "text/xml", "X-WNS-TTL": "60"}
Post = Callable[..., Any]


@pytest.fixture
async def wns(tmp_path: Path) -> AsyncIterator[WnsSimulator]:
    async with WnsSimulator(folder=tmp_path / "ca", ledger=tmp_path / "ledger") as simulator:
        yield simulator


async def raw(wns: WnsSimulator, sent: bytes, *, close: bool = True) -> bytes:
    """What the server says to these bytes, to the end of the connection."""
    context = ssl.create_default_context(cafile=wns.ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", wns._port, ssl=context)
    writer.write(sent)
    answer = await reader.read() if close else await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def token(wns: WnsSimulator, **changes: str) -> tuple[int, dict[str, Any]]:
    form = {
        "grant_type": "client_credentials",
        "client_id": wns.client_id,
        "client_secret": wns.secret,
        "scope": "https://wns.windows.com/.default",
    } | changes
    async with aiohttp.ClientSession() as session:
        context = ssl.create_default_context(cafile=wns.ca_file)
        async with session.post(wns.settings()["token_url"], data=form, ssl=context) as response:
            return response.status, orjson.loads(await response.read())


@pytest.fixture
async def post(wns: WnsSimulator) -> AsyncIterator[Post]:
    """`await post(behaviour, headers, body)` with a good token; gives (status, headers)."""
    bearer = (await token(wns))[1]["access_token"]
    context = ssl.create_default_context(cafile=wns.ca_file)
    async with aiohttp.ClientSession() as session:

        async def send(
            behaviour: str = "good",
            changes: dict[str, str | None] | None = None,
            body: bytes = TOAST,
            *,
            method: str = "POST",
            path: str = "",
        ) -> tuple[int, Any]:
            headers = {**HEADERS, "Authorization": f"Bearer {bearer}", "Host": "wns2-by3p.notify.windows.com"}
            headers = {name: value for name, value in (headers | (changes or {})).items() if value is not None}
            where = URL(wns.url + (path or wns.address(0, behaviour).partition(".com")[2]), encoded=True)
            async with session.request(method, where, headers=headers, data=body, ssl=context) as response:
                return response.status, response.headers

        yield send


async def test_a_good_push_is_accepted_and_written_down(wns: WnsSimulator, post: Post, tmp_path: Path) -> None:
    delivery = uuid.uuid4()
    status, headers = await post(changes={"MS-CV": base64.b64encode(delivery.bytes).decode()[:22] + ".1"})
    assert (status, headers["X-WNS-Status"]) == (200, "received")
    assert len(headers["X-WNS-Msg-ID"]) == 16
    (entry,) = read_ledger(tmp_path / "ledger")
    assert entry.delivery == str(delivery)
    assert entry.notification == "01890a5d-ac96-774b-bcce-b302099a8057"
    assert entry.address == Address(wns.address(0)).digest


@pytest.mark.parametrize(
    ("changes", "body", "status"),
    [
        ({"Authorization": None}, TOAST, 401),
        ({"Authorization": "Bearer made-up"}, TOAST, 401),
        ({"X-WNS-Type": None}, TOAST, 400),
        ({"X-WNS-Type": "wns/balloon"}, TOAST, 400),
        ({"X-WNS-Type": "wns/tile"}, TOAST, 400),
        ({"Content-Type": "application/octet-stream"}, TOAST, 400),
        ({"X-WNS-Type": "wns/raw"}, b"x", 400),
        ({"X-WNS-Type": "wns/raw", "Content-Type": "application/octet-stream"}, b"", 400),
        ({"X-WNS-Type": "wns/raw", "Content-Type": "application/octet-stream"}, b"x" * 5000, 200),
        ({"X-WNS-Type": "wns/raw", "Content-Type": "application/octet-stream"}, b"x" * 5001, 413),
        ({}, b"<toast>", 400),
        ({}, b"", 400),
        ({"X-WNS-TTL": "soon"}, TOAST, 400),
        ({"X-WNS-TTL": "-1"}, TOAST, 400),
        ({"X-WNS-TTL": "0"}, TOAST, 400),
        ({"X-WNS-TTL": "0", "X-WNS-Cache-Policy": "cache"}, TOAST, 400),
        ({"X-WNS-TTL": "0", "X-WNS-Cache-Policy": "no-cache"}, TOAST, 200),
        ({"X-WNS-TTL": None}, TOAST, 200),
        ({"X-WNS-Cache-Policy": "maybe"}, TOAST, 400),
        ({"X-WNS-Tag": "seventeen17171717"}, TOAST, 400),
        ({"X-WNS-Tag": "a b"}, TOAST, 400),
        ({"X-WNS-Priority": "5"}, TOAST, 400),
        ({"X-WNS-SuppressPopup": "true"}, TOAST, 400),
        ({"MS-CV": "nonsense"}, TOAST, 400),
        ({"Host": "evil.example.com"}, TOAST, 404),
    ],
)
async def test_what_wns_refuses(post: Post, changes: dict[str, str | None], body: bytes, status: int) -> None:
    assert (await post("good", changes, body))[0] == status


async def test_paths_methods_and_tokens(wns: WnsSimulator, post: Post) -> None:
    assert (await post(method="PUT"))[0] == 405
    assert (await post(path="/"))[0] == 404
    assert (await post(path="/?token=other"))[0] == 404
    wns.revoke()
    assert (await post())[0] == 401


@pytest.mark.parametrize(
    ("behaviour", "status", "told"),
    [("expired", 410, None), ("unknown", 404, None), ("other", 403, None), ("dropped", 200, "dropped")],
)
async def test_channels_that_misbehave(post: Post, behaviour: str, status: int, told: str | None) -> None:
    found, headers = await post(behaviour)
    assert (found, headers.get("X-WNS-Status")) == (status, told)


async def test_tokens_are_given_to_the_right_form_only(wns: WnsSimulator) -> None:
    status, values = await token(wns)
    assert status == 200
    assert values["expires_in"] == "86399"
    for changes, expected, error in (
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "other"}, 400, "unauthorized_client"),
        ({"scope": "notify.windows.com"}, 400, "invalid_scope"),
        ({"grant_type": "password"}, 400, "invalid_scope"),
    ):
        status, values = await token(wns, **changes)
        assert (status, values["error"]) == (expected, error)
    assert wns.fetched == 1


async def test_the_lean_mode_accepts_everything(tmp_path: Path) -> None:
    async with WnsSimulator(folder=tmp_path, lean=True) as wns:
        answer = await raw(wns, b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", close=False)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert wns.counters.accepted == 1


# -- the HTTP/1.1 server

GOOD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST https://a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n", 411),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 411),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 411),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", 417),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /x HTTP/1.1\r\nHost: a\r\n bad: folded\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost : a\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 20_000, 431),
        (GOOD + GOOD, 400),
    ],
)
async def test_breaches_are_counted_and_end_the_connection(wns: WnsSimulator, sent: bytes, status: int) -> None:
    answer = await raw(wns, sent)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert len(wns.counters.violations) == 1
    assert wns.counters.accepted == 0


async def test_a_request_in_pieces_and_several_on_one_connection(wns: WnsSimulator) -> None:
    wns.script = lambda request: Reply(200, {"X-Body": request.body.decode()}, b"yes")
    context = ssl.create_default_context(cafile=wns.ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", wns._port, ssl=context)
    for round_ in range(3):
        for position in range(len(GOOD)):
            writer.write(GOOD[position : position + 1])
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"X-Body: hi\r\n" in head
        assert await reader.readexactly(3) == b"yes"
        assert wns.counters.requests == round_ + 1
    writer.close()
    assert wns.counters.connections == 1


async def test_connection_close_and_goaway(wns: WnsSimulator) -> None:
    closing = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert b"Connection: close" in await raw(wns, closing)
    wns.faults = Faults(goaway_every=1)
    assert b"Connection: close" in await raw(wns, GOOD)


async def test_a_stalled_client_that_leaves_is_counted(wns: WnsSimulator) -> None:
    wns.faults = Faults(stall=1.0)
    context = ssl.create_default_context(cafile=wns.ca_file)
    _, writer = await asyncio.open_connection("127.0.0.1", wns._port, ssl=context)
    writer.write(GOOD)
    await wns.requested(1)
    writer.transport.abort()
    async with asyncio.timeout(60):
        while not wns.counters.cancelled:
            await asyncio.sleep(0.001)
    assert wns.counters.stalls == 1
