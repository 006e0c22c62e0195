"""A service of two apps on a socket, spoken to in bytes; and the proxies that stand before it. Imported by the tests of
this folder."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from fanout.bootstrap import SystemClock
from fanout.config import ApiKeySettings, BindingSettings, Limits, ServiceSettings, Settings, UserKeySettings
from fanout.engine import Engine, EngineOptions
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.service import create_app
from fanout.service.auth import new_api_key, new_user_key, user_token
from fanout.service.server import serving
from fanout.testing.scripted import ScriptedTransport

APP_KEY, OTHER_KEY, USER_KEY = new_api_key(), new_api_key(), new_user_key()
BEARER = f"Bearer {APP_KEY.key.reveal()}"
POST = json.dumps({"target": {"user": "alice"}, "title": "Hi"}).encode()


@dataclass(frozen=True)
class Answer:
    """One answer as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Rig:
    """A running service."""

    app: FastAPI
    engine: Engine
    url: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    async def say(self, data: bytes, *, address: tuple[str, int] | None = None) -> list[Answer]:
        """Everything that is answered to these bytes until the other end closes, or says nothing more for a request
        that is whole."""
        return await say(address or self.address, data)

    async def one(self, data: bytes, *, address: tuple[str, int] | None = None) -> Answer:
        """The first answer to these bytes."""
        return (await self.say(data, address=address))[0]

    def user(self, name: str = "alice") -> str:
        """The credential of a user of the first app."""
        return f"Bearer {user_token(USER_KEY.secret, 'default', name)}"


def request(
    method: str = "GET",
    path: str = "/v1/endpoints",
    *lines: str,
    body: bytes = b"",
    version: str = "1.1",
    host: str | None = "service",
) -> bytes:
    """One request; after it the connection is to be closed."""
    head = [f"{method} {path} HTTP/{version}", *([f"Host: {host}"] if host is not None else []), *lines]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        head.append(f"Content-Length: {len(body)}")
    if not any(line.lower().startswith("connection") for line in lines):
        head.append("Connection: close")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


async def say(address: tuple[str, int], data: bytes) -> list[Answer]:
    """All answers to these bytes until the connection is closed. Raises `TimeoutError`."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(data)
            heard = await reader.read()
        except ConnectionResetError:
            heard = b""
        finally:
            writer.close()
    return answers(heard)


def answers(heard: bytes) -> list[Answer]:
    """The answers in what was heard."""
    found = []
    while heard:
        head, _, heard = heard.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = re.match(r"HTTP/1\.[01] (\d{3})", first)
        assert status is not None, first
        if status.group(1).startswith("1"):
            continue
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size, _, heard = heard.partition(b"\r\n")
                length = int(size or b"0", 16)
                body, heard = body + heard[:length], heard[length + 2 :]
                if not length:
                    break
        else:
            length = int(headers.get("content-length", len(heard)))
            body, heard = heard[:length], heard[length:]
        found.append(Answer(int(status.group(1)), headers, body))
    return found


def settings_of(**service: Any) -> Settings:
    """Two apps, a key for each, and a user key of the first."""
    keys = (
        ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash),
        ApiKeySettings(id=OTHER_KEY.id, hash=OTHER_KEY.hash, app="other"),
    )
    given = {"keys": keys, "user_keys": (UserKeySettings(id=USER_KEY.id, secret=USER_KEY.secret),), **service}
    apps = {app: {name: BindingSettings(name, None) for name in ("apns", "webpush")} for app in ("default", "other")}
    return Settings(storage="", apps=apps, service=ServiceSettings(**given))


def engine_of(where: str = "memory:") -> Engine:
    """An engine, in memory unless it is told where, that delivers to scripted transports."""
    clock = SystemClock()
    storage = Registry().make_storage(where, StorageContext(clock=clock))
    transports: Any = {(app, name): ScriptedTransport() for app in ("default", "other") for name in ("apns", "webpush")}
    return Engine(storage, transports, EngineOptions(clock=clock, rng=random.Random(1)))


@asynccontextmanager
async def running(
    host: str = "127.0.0.1", *, limits: Limits | None = None, where: str = "memory:", **service: Any
) -> AsyncIterator[Rig]:
    """The service as `fanout serve` runs it."""
    engine = engine_of(where)
    settings = settings_of(limits=limits or Limits(), **service)
    app = create_app(engine, settings)
    async with (
        app.state.service as service,
        serving(
            app, host, 0, settings.service.limits, proxies=service.edge.proxies, unreadable=service.unreadable
        ) as url,
    ):
        yield Rig(app, engine, url)
