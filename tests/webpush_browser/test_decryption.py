"""What we encrypt, WebCrypto decrypts: in a real Chromium, and in Node, with keys that were made there and never
leave."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import running_chromium

from fanout_webpush.address import parse
from fanout_webpush.encryption import DELIMITER, MAX_PLAINTEXT, encrypt
from fanout_webpush.pywebpush_encryption import encrypt as encrypt_with_pywebpush

pytestmark = [pytest.mark.anyio, pytest.mark.external]

SCRIPT = (Path(__file__).parent / "decrypt.mjs").read_text(encoding="utf-8")
SIZES = (0, 1, 2, 15, 16, 17, 255, 1000, MAX_PLAINTEXT - 1, MAX_PLAINTEXT)
_NODE = """
import { createInterface } from "node:readline";
import { decrypt, subscriber } from "./decrypt.mjs";
Object.assign(globalThis, { decrypt, subscriber });
for await (const line of createInterface({ input: process.stdin }))
  try { console.log(JSON.stringify({ value: await eval(JSON.parse(line)) })); }
  catch (error) { console.log(JSON.stringify({ error: `${error.name}: ${error.message}` })); }
"""

Run = Callable[[str], Awaitable[Any]]


@asynccontextmanager
async def in_node(folder: Path) -> AsyncIterator[Run]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not there: install Node.js")
    (folder / "decrypt.mjs").write_text(SCRIPT)
    (folder / "main.mjs").write_text(_NODE)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(node, str(folder / "main.mjs"), stdin=pipe, stdout=pipe, limit=2**20)

    async def run(expression: str) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(expression).encode() + b"\n")
        async with asyncio.timeout(120):
            found = json.loads(await process.stdout.readline())
        if "error" in found:
            raise AssertionError(found["error"])
        return found.get("value")

    try:
        yield run
    finally:
        process.kill()
        await process.communicate()


@asynccontextmanager
async def in_chromium(chromium: Any) -> AsyncIterator[Run]:
    from aiohttp import web

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>subscriber</title>", content_type="text/html")

    async def script(_: web.Request) -> web.Response:
        return web.Response(text=SCRIPT, content_type="text/javascript")

    application = web.Application()
    application.add_routes([web.get("/", page), web.get("/decrypt.mjs", script)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tab = await chromium.open(f"http://localhost:{runner.addresses[0][1]}/")
        assert await tab.run("isSecureContext")
        await tab.run("import('/decrypt.mjs').then((found) => { Object.assign(globalThis, found); })")
        yield tab.run
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module", params=["chromium", "node"])
async def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, anyio_backend: Any
) -> AsyncIterator[Run]:
    folder = tmp_path_factory.mktemp(request.param)
    async with AsyncExitStack() as stack:
        if request.param == "node":
            yield await stack.enter_async_context(in_node(folder))
        else:
            chromium = await stack.enter_async_context(running_chromium(folder / "profile"))
            yield await stack.enter_async_context(in_chromium(chromium))


async def subscribe(run: Run) -> tuple[bytes, bytes]:
    """A new subscriber there; its public key and secret, read as those of any subscription."""
    keys = await run("subscriber().then((made) => { globalThis.me = made; return made.keys; })")
    subscription = parse({"endpoint": "https://push.example/x", "keys": keys})
    return subscription.p256dh, subscription.auth


async def decrypted(run: Run, body: bytes) -> bytes:
    text = await run(f"decrypt(globalThis.me, {json.dumps(base64.b64encode(body).decode())})")
    return base64.b64decode(text)


@pytest.mark.parametrize("ours", [True, False], ids=["fanout", "pywebpush"])
async def test_webcrypto_reads_what_we_encrypt(run: Run, ours: bool) -> None:
    for size in SIZES if ours else SIZES[1:]:  # pywebpush refuses to encrypt nothing, and is never asked to
        p256dh, auth = await subscribe(run)
        plaintext = os.urandom(size)
        made = encrypt if ours else encrypt_with_pywebpush
        body = made(plaintext + DELIMITER, p256dh, auth)
        assert await decrypted(run, body) == plaintext


async def test_padding_after_the_delimiter_is_taken_off(run: Run) -> None:
    p256dh, auth = await subscribe(run)
    assert await decrypted(run, encrypt(b"padded" + DELIMITER + bytes(100), p256dh, auth)) == b"padded"


async def test_the_check_can_fail(run: Run) -> None:
    p256dh, auth = await subscribe(run)
    body = bytearray(encrypt(b"for the other" + DELIMITER, p256dh, auth))
    for wrong in (body[:-1] + bytes([body[-1] ^ 1]), bytes([body[0] ^ 1]) + body[1:], encrypt(b"no end", p256dh, auth)):
        with pytest.raises(AssertionError):
            await decrypted(run, bytes(wrong))
    await subscribe(run)
    with pytest.raises(AssertionError):
        await decrypted(run, bytes(body))
