"""The edge under nonsense in bytes: HTTP/1.1's grammar, chunks, trailers, gzip, JSON, tokens and NDJSON, each a little
wrong.

Whatever comes, no answer is a 500, nothing hangs, and the process stays as large as it was. The short form has some
hundred inputs; `make soak` has 100,000.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from edgerig import APP_KEY, POST, USER_KEY, Rig, request, running

from fanout.config import Limits
from fanout.service.auth import user_token

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3000)]

SEED = 17
MUCH = 10_000_000
LIMITS = Limits(
    posts_per_minute=MUCH,
    user_posts_per_minute=MUCH,
    user_changes_per_minute=MUCH,
    user_streams_per_minute=MUCH,
    failures_per_minute=MUCH,
    refusals_per_minute=MUCH,
)
KEY = APP_KEY.key.reveal()
TOKEN = user_token(USER_KEY.secret, "default", "alice", ttl=86_000)
LINE = b'{"user": "alice", "transport": "apns", "address": "a", "tags": ["x"]}\n'
BYTES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b"\x0b",
    b"\x80",
    b"\xff",
    b"0",
    b"G",
    b"/",
    b"%",
    b"#",
    b"..",
    b",",
    b'"',
    b"{",
    b"[",
]
HEADERS = [
    b"Host: x", b"Host: service", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x", b"Connection: close", b"Connection: keep-alive",
    b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Expect: 100-continue", b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Content-Type: text/plain", b"Authorization: Bearer x", b"Authorization: Basic eDp5", b"X-UNS-ID: \xff", b"If-Match: *", b"Range: bytes=0-1",
    b"Forwarded: for=\"", b"X-Forwarded-For: ,,,", b"Trailer: Authorization", b"TE: trailers", b"Last-Event-ID: 0-0-0", b"Origin: null",
    b"Idempotency-Key: \xe9", b"Accept: " + b"x" * 5000, b"Cookie: " + b"a=b; " * 500, b" folded", b"\tfolded", b": empty", b"x" * 3000,
]  # fmt: skip
TOKENS = [
    KEY, TOKEN, KEY[:-1], TOKEN[:-1], "fak_", "fut_..", "a.b.c", "." * 50, "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJSUzI1NiJ9.e30.AA", "x" * 20_000,
    "fut_" + "0" * 12 + ".e30." + "A" * 43,
]  # fmt: skip
TARGETS = [
    ("POST", "/v1/notifications"), ("POST", "/me/notifications"), ("POST", "/v1/endpoints"), ("POST", "/v1/endpoints/import"),
    ("POST", "/v1/me/subscriptions"), ("GET", "/v1/me/feed?limit=5"), ("GET", "/v1/endpoints?cursor=x"), ("DELETE", "/v1/users/alice"),
    ("PATCH", "/v1/me/feed/x"), ("GET", "/v1/notifications/x"), ("GET", "/health"), ("GET", "/docs"), ("OPTIONS", "/v1/notifications"), ("BREW", "/"),
    ("GET", "/%00"), ("GET", "/v1/users/%0a"), ("HEAD", "/ready"), ("GET", "//x"), ("GET", "http://service/health"), ("GET", "*"),
]  # fmt: skip
JSONS = [
    POST, b"{}", b"[" * 500, b'{"a":' * 200 + b"1e30" + b"}" * 200, b"1e999", b'"\\ud800"', b"\xff", b'{"a":1,"a":2}', b"nul", b"", LINE * 50, LINE[:-9] + LINE,
    b'{"device_id": "d"}', b'{"read": true}', b'{"user":"alice","binding":"apns","address":"\\u0000"}',
]  # fmt: skip


def body_of(draw: random.Random) -> tuple[list[bytes], bytes]:
    """A body and the headers that go with it, or nearly."""
    body = draw.choice(JSONS)
    lines = [b"Content-Type: " + draw.choice([b"application/json", b"application/x-ndjson"])]
    if draw.random() < 0.3:
        body = gzip.compress(body * draw.choice([1, 1, 50]))
        if draw.random() < 0.3:
            body = mutated(draw, body)
        lines.append(b"Content-Encoding: gzip")
    if draw.random() < 0.5:
        return [*lines, b"Content-Length: %d" % len(body)], body
    chunks, at = b"", 0
    while at < len(body):
        size = draw.randrange(1, 60)
        chunks += b"%x%s\r\n%s\r\n" % (
            len(body[at : at + size]),
            draw.choice([b"", b"", b";x=y"]),
            body[at : at + size],
        )
        at += size
    trailers = b"".join(draw.choice(HEADERS) + b"\r\n" for _ in range(draw.choice([0, 0, 1, 5])))
    return [*lines, b"Transfer-Encoding: chunked"], chunks + b"0\r\n" + trailers + b"\r\n"


def mutated(draw: random.Random, data: bytes) -> bytes:
    """A little of it taken out, doubled, or replaced."""
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(data) + 1)
        data = draw.choice(
            [
                data[:at] + draw.choice(BYTES) + data[at:],
                data[:at] + draw.choice(BYTES) + data[at + 1 :],
                data[:at] + data[at + draw.randrange(1, 20) :],
                data[:at] + data[max(0, at - draw.randrange(1, 40)) :],
                data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
                data[:at],
            ]
        )
    return data


def input_of(draw: random.Random) -> bytes:
    """One or a few requests, most of them wrong somewhere."""
    said = b""
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        method, path = draw.choice(TARGETS)
        lines, body = body_of(draw) if method in ("POST", "PATCH") or draw.random() < 0.2 else ([], b"")
        if draw.random() < 0.8:
            token = draw.choice(TOKENS[:2]) if draw.random() < 0.7 else draw.choice(TOKENS)
            lines.append(f"Authorization: Bearer {token}".encode())
        lines += [draw.choice(HEADERS) for _ in range(draw.choice([0, 0, 0, 0, 1, 3]))]
        draw.shuffle(lines)
        head = b"%s %s HTTP/1.1\r\nHost: service\r\n" % (method.encode(), path.encode())
        said += head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    return mutated(draw, said) if draw.random() < 0.4 else said


async def heard(rig: Rig, data: bytes) -> bytes:
    """What is answered, until the connection is closed or nothing more comes for a moment: much of what is sent has no
    end."""
    reader, writer = await asyncio.open_connection(*rig.address)
    found = b""
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(0.05 if found else 0.1):
                part = await reader.read(65_536)
            if not part:
                break
            found += part
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return found


def statuses(found: bytes) -> list[int]:
    """The statuses in what was heard. A body never begins a line with HTTP/1.1."""
    lines = [line for line in found.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return [int(line[9:12]) for line in lines]


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_nothing_is_a_fault_of_ours(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    many = 100_000 if request.config.getoption("--soak") else 400
    draw, seen = random.Random(SEED), Counter[int]()
    caplog.set_level("CRITICAL", "uvicorn.error")
    async with running(where=f"sqlite:{tmp_path}/fanout.db", limits=LIMITS) as rig:
        inputs = (input_of(draw) for _ in range(many))
        for _ in range(20):  # what is made once is made
            await heard(rig, input_of(random.Random(1)))
        before = resident()

        async def worker() -> None:
            for data in inputs:
                for status in statuses(await heard(rig, data)):
                    seen[status] += 1
                    assert status < 500 or status == 501, (status, data)
                caplog.clear()

        await asyncio.gather(*(worker() for _ in range(32)))
        assert resident() - before < 64_000_000
        (alive,) = await rig.say(ask_health())
        assert alive.status == 200
    wanted = {200, 400, 401, *((202, 404, 405, 415, 501) if many > 1000 else ())}
    assert wanted <= set(seen), f"the inputs reach too little: {seen}"


def ask_health() -> bytes:
    return request_of("GET", "/health")


request_of: Callable[..., bytes] = request
