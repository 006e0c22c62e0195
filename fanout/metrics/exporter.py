"""Metrics over HTTP, for a process that serves nothing else: one route, in the engine's own loop."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web

from fanout.engine import Engine
from fanout.errors import UsageError
from fanout.metrics.collector import CONTENT_TYPE, LoopLag, render

__all__ = ["Exporter", "listen_address"]


def listen_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[IPv6]:PORT` or `PORT`, which means loopback. Port 0 is any free one. Raises `UsageError`."""
    refusal = UsageError(
        f"{text!r} is no address to listen on: write HOST:PORT, such as 127.0.0.1:9464, or the port alone."
    )
    try:
        parts = urlsplit(f"//{text}" if ":" in text else f"//127.0.0.1:{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refusal from None
    if not host or port is None or parts.path or parts.query or parts.username is not None:
        raise refusal
    return host, port


class Exporter:
    """`GET /metrics` on `host`:`port` while this async context manager is entered, the loop's lag included.

    There is no authentication: metrics name apps, bindings and reasons, so listen on loopback or on a network of your own. Raises
    `UsageError` where the address cannot be listened on. `url` is what to scrape, with the port that was found for 0.
    """

    def __init__(self, engine: Engine, host: str = "127.0.0.1", port: int = 0) -> None:
        self._engine = engine
        self._host = host
        self._port = port
        self._lag = LoopLag()
        self._turn = asyncio.Lock()
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"Metrics cannot be served on {self._host}:{self._port} ({error.strerror}): choose another address."
            ) from None
        (host, port, *_) = self._runner.addresses[0]
        self.url = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
        self._lag.__enter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._lag.__exit__(*exc)
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        async with self._turn:  # however many ask, storage is read by one of them at a time
            body = await render(self._engine, lag=self._lag)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
