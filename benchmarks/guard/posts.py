"""Single sends that come as requests of HTTP: through the ASGI app as uvicorn calls it, without uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from fanout.config import ApiKeySettings, ServiceSettings, Settings
from fanout.engine import Engine
from fanout.engine.observing import observe
from fanout.service import create_app
from fanout.service.auth.api_key import API_KEY_PREFIX, hash_of

__all__ = ["CALLERS", "Posts"]

CALLERS = 20
_KEY = f"{API_KEY_PREFIX}{'5' * 12}_{'k' * 43}"
"""An API key that is no secret: of a service that listens nowhere."""
_LOOK = 0.01
"""Virtual seconds between two looks whether all is delivered."""


class Posts:
    """The service over the engine that is counted, and its callers. With `graph` they post in the shape of Microsoft
    Graph, with an item for the feed."""

    def __init__(self, *, graph: bool) -> None:
        self._graph = graph
        self._path = "/beta/me/notifications" if graph else "/v1/notifications"
        self._unsids: list[str] = []
        self._sent = 0

    @asynccontextmanager
    async def service(self, engine: Engine) -> AsyncIterator[None]:
        """The service, for as long as it is entered."""
        key = ApiKeySettings(id="5" * 12, hash=hash_of(_KEY))
        self._app = create_app(
            engine, Settings(storage="", apps={}, service=ServiceSettings(keys=(key,))), clock=engine._clock
        )
        self._feed = self._app.state.service.feed
        async with self._app.state.service:
            yield

    async def enrol(self, engine: Engine, addresses: list[str]) -> None:
        """A user with one device for each of these addresses."""
        for number, address in enumerate(addresses):
            made, _ = await self._feed.subscribe(
                "default", f"u{number}", device=f"d{number}", binding="apns", address=address
            )
            self._unsids.append(made.unsid)

    async def act(self, engine: Engine, devices: int) -> None:
        """A post to each of the first so many users, by callers of which each waits for its answer; until all are
        delivered."""
        before, users = _delivered(engine), iter(range(devices))

        async def caller() -> None:
            for user in users:
                await self._post(user)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        await engine.drain(poll=_LOOK)
        if _delivered(engine) != before + devices:
            raise RuntimeError(f"Not all of {devices} were accepted: {observe(engine)}")

    async def _post(self, user: int) -> None:
        self._sent += 1
        body = orjson.dumps(self._content(user))
        headers = [
            (b"host", b"push.example.com"),
            (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {_KEY}".encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        if self._graph:
            headers.append((b"x-uns-id", self._unsids[user].encode()))
        answer: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            answer.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("192.0.2.7", 40_000),
            "server": ("192.0.2.1", 80),
        }
        # As uvicorn calls it, which has a task for each request.
        await asyncio.create_task(self._app(scope, receive, send))
        if answer[0]["status"] != (201 if self._graph else 202):
            raise RuntimeError(f"A post was answered {answer[0]['status']}: {answer[1]['body']!r}")

    def _content(self, user: int) -> dict[str, Any]:
        title, body = "Shipped", f"Order {self._sent:06} is on its way"
        if not self._graph:
            return {"target": {"user": f"u{user}"}, "title": title, "body": body}
        return {
            "targetHostName": "app.example.com",
            "appNotificationId": f"order-{self._sent:06}",
            "payload": {"visualContent": {"title": title, "body": body}},
            "priority": "High",
            "displayTimeToLive": "3600",
        }


def _delivered(engine: Engine) -> int:
    outcomes = [each for binding in observe(engine).bindings for each in binding.counters.outcomes.items()]
    return sum(count for (state, _), count in outcomes if state == "accepted")
