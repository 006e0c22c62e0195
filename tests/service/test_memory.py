"""A refused request leaves nothing behind that only the cycle collector could free: `fanout` sets that to run
rarely."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import orjson
import pytest
from servicerig import UNLIMITED, Gateways, Stub, engine_of, settings_of

import fanout
from fanout.service import create_app

pytestmark = pytest.mark.anyio

Headers = tuple[tuple[bytes, bytes], ...]
APP: Headers = ((b"authorization", b"shop"),)
USER: Headers = ((b"authorization", b"shop/alice"),)
LARGE = "x" * 60_000
HOST = "shop.example.com"


def graph(**payload: Any) -> bytes:
    return orjson.dumps({"targetHostName": HOST, "appNotificationId": "order", "payload": payload})


REFUSED = {
    "content too large": ("POST", "/beta/me/notifications", USER, graph(rawContent=LARGE * 3)),
    "no JSON": ("POST", "/beta/me/notifications", USER, b"{" + LARGE.encode()),
    "no model": ("POST", "/beta/me/notifications", USER, orjson.dumps({"payload": {"rawContent": [LARGE]}})),
    "foreign host": ("POST", "/v1.0/me/notifications", USER, graph(rawContent=LARGE).replace(b"shop.", b"news.")),
    "too large for each binding": (
        "POST",
        "/v1/notifications",
        APP,
        orjson.dumps({"target": "user:alice", "body": LARGE}),
    ),
    "not for users": ("POST", "/v1/notifications", USER, orjson.dumps({"target": "user:alice", "body": LARGE})),
    "conflict": (
        "POST",
        "/v1/notifications",
        (*APP, (b"idempotency-key", b"used")),
        orjson.dumps({"target": "user:bob", "body": LARGE[:2000]}),
    ),
    "no such item": ("PATCH", "/v1/me/feed/none", USER, b'{"read":true}'),
    "no such key": ("PATCH", "/v1/me/feed/none", USER, orjson.dumps({"rad": LARGE})),
    "no such binding": (
        "POST",
        "/v1/me/subscriptions",
        USER,
        orjson.dumps({"device_id": "a", "binding": "x", "address": LARGE[:2000]}),
    ),
    "no such route": ("POST", "/v1/nothing", USER, orjson.dumps({"body": LARGE})),
    "no such device": ("DELETE", "/v1/endpoints/77", APP, b""),
}


async def ask(app: Any, method: str, path: str, headers: Headers, body: bytes) -> int:
    """One request without a socket; the answer's status."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


@asynccontextmanager
async def service(path: Path) -> AsyncIterator[Any]:
    app = create_app(engine_of(Gateways(), path), settings_of(limits=UNLIMITED), authenticator=Stub())
    async with app.state.service:
        first = orjson.dumps({"target": "user:bob", "title": "first"})
        assert await ask(app, "POST", "/v1/notifications", (*APP, (b"idempotency-key", b"used")), first) == 202
        yield app


_PACKAGE = str(Path(fanout.__file__).parent)


@contextmanager
def uncollected() -> Iterator[list[object]]:
    """What only the cycle collector freed of what was made inside."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _ours(held: BaseException | TracebackType | FrameType) -> bool:
    """Whether the service has part in it: the runner of the tests leaves cycles of its own."""
    if isinstance(held, FrameType):
        return held.f_code.co_filename.startswith(_PACKAGE)
    step = held if isinstance(held, TracebackType) else held.__traceback__
    if step is None:
        return True
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            return True
        step = step.tb_next
    return False


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_keeps_neither_frames_nor_content(name: str, tmp_path: Path) -> None:
    async with service(tmp_path) as app:
        await ask(app, *REFUSED[name])  # what is imported or cached at the first refusal
        with uncollected() as left:
            statuses = [await ask(app, *REFUSED[name]) for _ in range(10)]
            await asyncio.sleep(0)
        assert all(400 <= status < 500 for status in statuses), statuses
        held = [each for each in left if isinstance(each, BaseException | TracebackType | FrameType) and _ours(each)]
        assert not held, held[:3]
        assert not [each for each in left if isinstance(each, str | bytes | bytearray) and len(each) > 1000]
        assert not [
            each for each in left if isinstance(each, dict) and any(len(str(value)) > 1000 for value in each.values())
        ]


async def test_refusals_leave_the_memory_flat(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """2,000 of them; 10,000 with --soak."""
    refusals = 10_000 if request.config.getoption("--soak") else 2_000
    async with service(tmp_path) as app:
        refused = REFUSED["too large for each binding"]
        gc.collect()
        gc.disable()
        try:
            for _ in range(500):
                assert await ask(app, *refused) == 400
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(refusals - 500):
                await ask(app, *refused)
            # Each holds the body of 60 KB and its encodings: kept, 2,000 would be above 100 MB.
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16_384
        finally:
            gc.enable()
