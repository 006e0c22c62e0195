"""The service on a socket, over scripted transports and an issuer on loopback. Imported by the tests of this folder."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from fanout.bootstrap import SystemClock
from fanout.config import ApiKeySettings, BindingSettings, IssuerSettings, Limits, ServiceSettings, Settings
from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions
from fanout.engine.engine import Role
from fanout.plugin import Accepted, Delivery, Outcome, Policy, Storage, StorageContext
from fanout.registry import Registry
from fanout.service import create_app
from fanout.service.auth import Caller, new_api_key
from fanout.service.call import Service
from fanout.service.server import serving
from fanout.testing.issuer import Client, LoopbackIssuer, SigningKey
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

__all__ = ["APPS", "UNLIMITED", "Gateways", "Rig", "Stub", "key_of", "running", "settings_of"]

FAST = Policy(backoff_base=0.02, backoff_throttled=0.02, probe=0.02, request_timeout=2.0)
KEY = SigningKey.make("key-1")
APPS = {"shop": ("apns", "fcm", "wns", "webpush"), "news": ("apns",)}
UNLIMITED = Limits(
    posts_per_minute=10_000_000,
    user_posts_per_minute=10_000_000,
    user_changes_per_minute=10_000_000,
    user_streams_per_minute=10_000_000,
    failures_per_minute=10_000_000,
    refusals_per_minute=10_000_000,
)
HOSTS = {"shop.example.com": "shop", "news.example.com": "news"}
_KEYS = {app: new_api_key() for app in APPS}


def key_of(app: str) -> str:
    """The API key of an app."""
    return _KEYS[app].key.reveal()


@dataclass(frozen=True)
class Pushed:
    """One push as it reached a gateway."""

    app: str
    binding: str
    address: str
    notification: Notification


@dataclass
class Gateways:
    """What the scripted gateways were given, and how they answer: by address, else that they accept."""

    pushes: list[Pushed] = field(default_factory=list)
    answers: dict[str, Outcome | asyncio.Event] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def transport(self, app: str, binding: str) -> ScriptedTransport:
        async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
            async with self.news:
                self.pushes.append(Pushed(app, binding, delivery.address, message.notification))
                self.news.notify_all()
            found = self.answers.get(delivery.address, Accepted())
            if isinstance(found, asyncio.Event):
                await found.wait()
                return Accepted()
            return found

        return ScriptedTransport(answer)

    async def arrived(self, count: int) -> list[Pushed]:
        """Wait for so many pushes in all; those so far, in the order of their bindings."""
        async with self.news, asyncio.timeout(50):
            await self.news.wait_for(lambda: len(self.pushes) >= count)
        return sorted(self.pushes, key=lambda push: (push.binding, push.address))


class Stub:
    """Believes the header `authorization: APP` or `APP/USER`."""

    protected = True

    async def authenticate(self, headers: Any) -> Caller:
        text = dict(headers)[b"authorization"].decode()
        app, _, user = text.partition("/")
        return Caller(app, user or None, "stub", frozenset(), "delegated" if user else "app")

    async def aclose(self) -> None:
        pass


def settings_of(issuer: LoopbackIssuer | None = None, *, limits: Limits | None = None, **more: Any) -> Settings:
    """The configuration: two apps, a key for each, host names, and the issuer if there is one."""
    issuers = ()
    if issuer is not None:
        found = issuer.settings({"shop-server": "shop", "page": "shop", "news-server": "news", "blocked": "shop"})
        issuers = (IssuerSettings(**{**found, "algorithms": tuple(found["algorithms"])}),)
    keys = tuple(ApiKeySettings(id=key.id, hash=key.hash, app=app) for app, key in _KEYS.items())
    service = ServiceSettings(
        host_names=HOSTS, issuers=issuers, keys=keys, blocked=("blocked",), limits=limits or Limits(), **more
    )
    apps = {app: {name: BindingSettings(name, None) for name in names} for app, names in APPS.items()}
    return Settings(storage="", apps=apps, service=service)


def storage_at(path: Path | None) -> Storage:
    """SQLite in that folder, or memory."""
    url = "memory:" if path is None else f"sqlite:{path}/fanout.db"
    return Registry().make_storage(url, StorageContext(clock=SystemClock()))


def engine_of(gateways: Gateways, path: Path | None, *, role: Role = "both", **more: Any) -> Engine:
    """An engine over scripted transports."""
    transports: Any = {(app, name): gateways.transport(app, name) for app, names in APPS.items() for name in names}
    return Engine(
        storage_at(path),
        transports,
        EngineOptions(clock=SystemClock(), rng=random.Random(1), policy=FAST, role=role, **more),
    )


@dataclass
class Rig:
    """A running service, and those who call it."""

    app: FastAPI
    service: Service
    engine: Engine
    gateways: Gateways
    issuer: LoopbackIssuer
    url: str
    http: httpx.AsyncClient

    async def call(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        """One request with a bearer."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return await self.http.request(method, path, headers=headers, **more)

    async def as_app(self, method: str, path: str, app: str = "shop", **more: Any) -> httpx.Response:
        """One request with an app's API key."""
        return await self.call(method, path, key_of(app), **more)

    async def post(self, body: Any, *, user: str = "alice", path: str = "/beta/me/notifications", **more: Any) -> Any:
        """A post on the Graph facade in a user's name."""
        return await self.call("POST", path, self.user_token(user), json=body, **more)

    def user_token(self, user: str, client: str = "page") -> str:
        """A user's own token."""
        return self.issuer.sign_in(user, client)

    def app_token(self, client: str = "shop-server") -> str:
        """An app's token, by client credentials."""
        return self.issuer.app_token(client)

    async def subscribe(self, user: str, *bindings: str, app: str = "shop", **more: Any) -> list[str]:
        """Devices of a user; their UNSIDs."""
        found = []
        for binding in bindings:
            made, _ = await self.service.feed.subscribe(
                app, user, device=f"{user}-{binding}", binding=binding, address=f"{user}-{app}-{binding}", **more
            )
            found.append(made.unsid)
        return found

    async def history(self, user: str = "alice") -> list[dict[str, Any]]:
        """A user's feed as her own client reads it."""
        answer = await self.call("GET", "/v1/me/feed", self.user_token(user))
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def quiet(self) -> None:
        """Until nothing is left to deliver."""
        async with asyncio.timeout(50):
            await self.engine.drain(poll=0.02)


@asynccontextmanager
async def running(path: Path | None = None, *, limits: Limits | None = None, **more: Any) -> AsyncIterator[Rig]:
    """The service on a free port, with an issuer beside it."""
    clients = [
        Client("shop-server", "secret"),
        Client("page"),
        Client("news-server", "secret"),
        Client("blocked", "secret"),
    ]
    gateways = Gateways()
    engine = engine_of(gateways, path, **more)
    async with LoopbackIssuer(clients=clients, key=KEY) as issuer:
        settings = settings_of(issuer, limits=limits)
        app = create_app(engine, settings)
        async with (
            app.state.service as service,
            serving(app, "127.0.0.1", 0, settings.service.limits) as url,
            httpx.AsyncClient(base_url=url, timeout=20) as http,
        ):
            yield Rig(app, service, engine, gateways, issuer, url, http)
