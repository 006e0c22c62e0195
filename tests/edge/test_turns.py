"""One connection, several requests: each is answered in its turn, whatever follows it, and also to a client that has
ended its side."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import ExitStack

import pytest
from edgerig import BEARER, POST, Rig, answers, request, running

pytestmark = pytest.mark.anyio

JSON = "Content-Type: application/json"
KEEP = "Connection: keep-alive"
GOOD = request("POST", "/v1/notifications", f"Authorization: {BEARER}", JSON, KEEP, body=POST)
HEALTH = request("GET", "/health", KEEP)
CHUNKED = "Transfer-Encoding: chunked"


async def begun_stream(rig: Rig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which alice's stream has begun."""
    reader, writer = await asyncio.open_connection(*rig.address)
    writer.write(request("GET", "/v1/me/feed/events", f"Authorization: {rig.user()}", KEEP))
    await reader.readuntil(b"event: counts")
    return reader, writer


BROKEN = {
    "bytes that are no request": (b"GARBAGE\r\n\r\n", 400),
    "NULs": (b"\0\0\0\0", 400),
    "another host's target": (b"GET http://other/ HTTP/1.1\r\nHost: service\r\n\r\n", 400),
    "another coding": (b"GET /health HTTP/1.1\r\nHost: service\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "another version": (b"GET /health HTTP/2.0\r\nHost: service\r\n\r\n", 505),
    "no version": (b"GET /health HTTP/0.9\r\nHost: service\r\n\r\n", 400),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x00\xf1\x01", 400),
    "a body whose first chunk has no size": (request("POST", "/v1/notifications", CHUNKED) + b"ZZ\r\n", 400),
}


async def test_what_stands_before_a_broken_request_is_answered_first(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as rig:
        for name, (broken, status) in BROKEN.items():
            for before in (0, 1, 3):
                found = await rig.say(GOOD * before + broken)
                assert [each.status for each in found] == [202] * before + [status], (name, before)
                assert found[-1].headers["connection"] == "close"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_no_broken_request_is_a_line_of_the_log_for_each(caplog: pytest.LogCaptureFixture) -> None:
    """What the server refuses itself is counted and logged like any other refusal."""
    async with running() as rig:
        for _ in range(30):
            assert (await rig.one(b"GARBAGE\r\n\r\n")).status == 400
        assert rig.app.state.service.security.summed() == {("", "invalid"): 30}
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in said] == ["fanout.security"] * 10
    assert "peer 127.0.0.1" in said[0].getMessage()


async def test_who_has_ended_its_side_is_answered() -> None:
    """TCP has two halves (RFC 9293, section 3.6): `printf … | nc -N` ends its own with the last byte."""
    async with running() as rig, asyncio.timeout(120):
        for count in (1, 3):
            for rest in (b"", b"GET /hea", GOOD[:-5], b"GARBAGE\r\n\r\n"):
                reader, writer = await asyncio.open_connection(*rig.address)
                writer.write(GOOD * count + rest)
                writer.write_eof()
                found = answers(await reader.read())
                writer.close()
                wanted = [202] * count + ([400] if rest.startswith(b"GARBAGE") else [])
                assert [each.status for each in found] == wanted, (count, rest)


async def test_a_stream_ends_with_its_clients_side() -> None:
    """It has no end of its own, and a client that has gone would not be noticed before the next sign of life."""
    async with running() as rig, asyncio.timeout(120):
        reader, writer = await begun_stream(rig)
        writer.write_eof()
        await reader.read()
        writer.close()


async def test_nothing_is_written_into_a_stream_for_what_follows_it() -> None:
    async with running() as rig, asyncio.timeout(120):
        reader, writer = await begun_stream(rig)
        writer.write(b"GARBAGE\r\n\r\n")
        posted = await rig.one(
            request(
                "POST",
                "/v1/notifications",
                f"Authorization: {BEARER}",
                JSON,
                body=b'{"target": {"user": "alice"}, "title": "Hi", "feed": {}}',
            )
        )
        assert posted.status == 202
        heard = b""
        while b"event: " not in heard or b'"Hi"' not in heard:
            part = await reader.read(65_536)
            assert part
            heard += part
        assert b"HTTP/1.1" not in heard
        writer.close()


async def test_clients_that_leave_in_the_midst_leave_no_fault_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as rig:
        for number in range(40):
            with ExitStack() as stack:
                client = stack.enter_context(socket.create_connection(rig.address))
                client.sendall(GOOD * (1 + number % 4) + b"GARBAGE\r\n\r\n" * (number % 2))
                await asyncio.sleep(0)
                if number % 3:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert (await rig.one(request("GET", "/health"))).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_no_body_is_asked_for_that_would_be_refused() -> None:
    """RFC 9110, section 10.1.1: a final status at once, in place of `100 Continue`."""
    known = f"Authorization: {BEARER}"
    async with running() as rig, asyncio.timeout(120):
        for status, path, *lines in (
            (401, "/v1/notifications", "Content-Length: 100"),
            (413, "/v1/notifications", "Content-Length: 100000000", known),
            (401, "/v1/endpoints/import", CHUNKED),
            (404, "/nowhere", "Content-Length: 100", known),
        ):
            reader, writer = await asyncio.open_connection(*rig.address)
            writer.write(request("POST", str(path), "Expect: 100-continue", JSON, KEEP, *map(str, lines)))
            heard = await reader.read()
            writer.close()
            assert heard.startswith(b"HTTP/1.1 %d " % status)
            assert answers(heard)[0].headers["connection"] == "close"


async def test_leave_to_send_a_body_is_given_in_http_1_1_alone() -> None:
    head = ("POST", "/v1/notifications", "Expect: 100-continue", JSON, f"Authorization: {BEARER}")
    async with running() as rig, asyncio.timeout(120):
        for version in ("1.1", "1.0"):
            reader, writer = await asyncio.open_connection(*rig.address)
            writer.write(request(*head, f"Content-Length: {len(POST)}", version=version))
            if version == "1.1":
                assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
            writer.write(POST)
            assert (await reader.read()).lstrip().startswith(b"HTTP/1.1 202 ")
            writer.close()
