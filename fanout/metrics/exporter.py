"""Metrics and health over HTTP, for a process that serves nothing else, in the engine's own loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from fanout.engine import Engine
from fanout.errors import UsageError
from fanout.metrics.collector import CONTENT_TYPE, LoopLag, render
from fanout.metrics.readiness import Readiness

__all__ = ["Exporter", "listen_address"]


def listen_address(text: str) -> tuple[str, int]:
    """Host and port of an address to listen on.

    Args:
        text: `HOST:PORT`, `[IPv6]:PORT`, or `PORT` alone, which means loopback. Port 0 is any free one.

    Returns:
        The host and the TCP port.

    Raises:
        UsageError: It is no such address.

    Example:
        ```python
        assert listen_address("9464") == ("127.0.0.1", 9464)
        ```
    """
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
    """`GET /metrics`, `/health` and `/ready` on `host`:`port` while this async context manager is entered, the loop's
    lag included.

    `/health` is 200 as long as the loop turns and the engine has not failed; `/ready` is 200 where it can work, else
    503, with a word for each part (`Readiness`). There is no authentication: metrics name apps, bindings and reasons,
    so listen on loopback or on a network of your own. Raises `UsageError` where the address cannot be listened on.
    `refused` gives a service's security events by app and reason. `url` is the address to scrape, with the port that
    was found for 0.
    """

    def __init__(
        self,
        engine: Engine,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        refused: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        self._engine = engine
        self._refused = refused
        self._host = host
        self._port = port
        self._lag = LoopLag()
        self._readiness = Readiness(engine, time.monotonic)
        self._turn = asyncio.Lock()
        self.url = ""

    async def __aenter__(self) -> Self:
        from aiohttp import web  # 0.15 s of a processor, which a service that serves no metrics takes for nothing

        async def answered(request: web.Request) -> web.Response:
            return web.Response(**await answers[request.path]())

        answers = {"/metrics": self._answer, "/health": self._health, "/ready": self._ready}
        app = web.Application(client_max_size=1024)
        app.add_routes(web.get(path, answered) for path in answers)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
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
        await self._readiness.aclose()
        await self._runner.cleanup()

    async def _answer(self) -> dict[str, Any]:
        async with self._turn:  # however many ask, storage is read by one of them at a time
            body = await render(self._engine, lag=self._lag, refused=self._refused())
        return {"body": body, "headers": {"Content-Type": CONTENT_TYPE}}

    async def _health(self) -> dict[str, Any]:
        return _json({"status": "ok"}, 200) if self._engine.fault is None else _json({"status": "failed"}, 503)

    async def _ready(self) -> dict[str, Any]:
        async with self._turn:
            found = await self._readiness.look()
        return _json(found, 200 if found["ready"] else 503)


def _json(values: dict[str, Any], status: int) -> dict[str, Any]:
    headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    return {"body": json.dumps(values).encode(), "status": status, "headers": headers}
