"""A running service on a loopback socket, over scripted gateways of all platforms and a clock that can be set."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
from blockbuster import blockbuster_ctx

from fanout.config import Limits
from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, Delivery, Outcome, Policy, StorageContext
from fanout.registry import Registry
from fanout.service.app import create_app
from fanout.service.feed import FeedService, FeedSettings, NewItem
from fanout.service.server import serving
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

BINDINGS = ("apns", "fcm", "wns", "webpush")
FAST = Policy(backoff_base=0.02, backoff_throttled=0.02, probe=0.02, request_timeout=5.0)


class Clock:
    """The machine's, and as much ahead as the test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    monotonic = staticmethod(time.monotonic)


class Gateways:
    """Every push that arrived, by address; `outcomes` answers an address with something else than acceptance."""

    def __init__(self) -> None:
        self.pushes: dict[str, list[Notification]] = {}
        self.outcomes: dict[str, Outcome] = {}

    def __call__(self, message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if delivery.address in self.outcomes:
            return self.outcomes[delivery.address]
        self.pushes.setdefault(delivery.address, []).append(message.notification)
        return ACCEPTED

    def data(self, address: str) -> list[Mapping[str, Any]]:
        """What was said about the feed to one device, push by push."""
        return [push.data["feed"] for push in self.pushes.get(address, ())]

    def take(self) -> dict[str, list[Notification]]:
        """All that has arrived since the last time."""
        found, self.pushes = self.pushes, {}
        return found


class Rig:
    """One service and its gateways."""

    def __init__(self, url: str, engine: Engine, feed: FeedService, clock: Clock, gateways: Gateways) -> None:
        self.url = url
        self.engine = engine
        self.feed = feed
        self.clock = clock
        self.gateways = gateways

    @asynccontextmanager
    async def client(self, user: str, app: str = "default", unsid: str = "") -> AsyncIterator[httpx.AsyncClient]:
        """A client that acts for a user of an app, on one of her devices."""
        headers = {"x-fanout-user": user, "x-fanout-app": app} | ({"x-uns-id": unsid} if unsid else {})
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30.0) as client:
            yield client

    async def subscribe(
        self, user: str, binding: str, name: str = "", *, app: str = "default", **more: Any
    ) -> dict[str, Any]:
        """Subscribe a device; its address is USER-BINDING or USER-NAME."""
        device = name or binding
        asked = {"device_id": device, "binding": binding, "address": f"{user}-{device}"} | more
        async with self.client(user, app) as client:
            answer = await client.post("/v1/me/subscriptions", json=asked)
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def post(self, user: str, text: str = "hello", *, app: str = "default", **more: Any) -> str:
        """A visible post; the item's id. Returns when it has been pushed."""
        item = NewItem(content={"title": text}, **more)
        posted = await self.feed.post(app, f"user:{user}", item, Notification(title=text))
        await self.quiet()
        return posted.item_id

    async def quiet(self) -> None:
        """Nothing that is due waits to be pushed any more."""
        storage = self.engine.storage
        while (await storage.outstanding()).keys() - {"scheduled"} or await self._due():
            await asyncio.sleep(0.005)

    async def _due(self) -> bool:
        now = self.clock.now()
        places = self.engine.transports
        return any([any((await self.engine.storage.waiting(app, binding, now))[0]) for app, binding in places])

    async def jump(self, seconds: float) -> None:
        """Time passes, and everything that time brings about has happened."""
        self.clock.ahead += seconds
        while await self.engine.storage.expire(self.clock.now(), limit=100):
            pass
        # A commit makes workers look again at what is due.
        await self.engine.send(Notification(data={"n": 1}), "user:nobody")
        await self.quiet()


@asynccontextmanager
async def running(
    where: str,
    *,
    feed: FeedSettings | None = None,
    apps: tuple[str, ...] = ("default", "other"),
    **more: Any,
) -> AsyncIterator[Rig]:
    """The service over the storage `where`. `more` goes to `create_app`."""
    clock, gateways = Clock(), Gateways()
    feed = FeedSettings(burst=0) if feed is None else feed
    storage = Registry().make_storage(where, StorageContext(clock=clock))
    transports = {(app, binding): ScriptedTransport(gateways, record=False) for app in apps for binding in BINDINGS}
    engine = Engine(storage, transports, EngineOptions(clock=clock, rng=random.Random(1), policy=FAST))
    known = "authenticator" in more or ("settings" in more and more["settings"].service.authenticated)
    app = create_app(engine, clock=clock, feed=feed, unprotected=not known, **more)
    async with app.state.service, serving(app, "127.0.0.1", 0, Limits()) as url:
        try:
            # A call of ours that blocks the loop fails the test; making an app reads files, and asyncpg looks for some
            # when it connects.
            with blockbuster_ctx(
                ["fanout"], excluded_modules=["fanout.registry", "fanout.config", "fanout.service.app"]
            ) as watch:
                watch.functions["threading.Lock.acquire"].deactivate()
                watch.functions["os.stat"].deactivate()
                watch.functions["os.path.abspath"].can_block_in("asyncpg/connect_utils.py", "_dot_postgresql_path")
                yield Rig(url, engine, app.state.service.feed, clock, gateways)
        finally:
            await app.state.service.feed.close_streams()


class Events:
    """The events of one stream as they arrive: (event, id, data). Those of counts are kept apart."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.counts: list[tuple[int, int]] = []
        self.comments = 0
        self.last_id = ""

    async def next(self, *, counts: bool = False) -> tuple[str, str, Any]:
        """The next event, of which counts are only with `counts`. Raises `StopAsyncIteration` at the end of the
        stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(120):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields.get("event") == "counts":
                    data = orjson.loads(fields["data"])
                    self.counts.append((data["unread"], data["unseen"]))
                    fields = {}
                    if counts:
                        return "counts", "", self.counts[-1]
                elif fields.keys() - {"retry"}:
                    self.last_id = fields.get("id", self.last_id)
                    return fields.get("event", "message"), fields.get("id", ""), orjson.loads(fields["data"])
        raise StopAsyncIteration


@asynccontextmanager
async def events(client: httpx.AsyncClient, **headers: str) -> AsyncIterator[Events]:
    """An open event stream of that client's user."""
    async with client.stream("GET", "/v1/me/feed/events", headers=headers) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)
