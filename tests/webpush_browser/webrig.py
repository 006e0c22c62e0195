"""The service on a socket, and browsers in Node that use it: `browsers.mjs` around the files that the service
serves."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

import fanout
from fanout.config import ApiKeySettings, BindingSettings, Limits, ServiceSettings, Settings, UserKeySettings
from fanout.service import create_app
from fanout.service.auth import new_api_key
from fanout.service.auth.user_token import new_user_key, user_token
from fanout.service.server import serving
from fanout_webpush.simulator import WebPushSimulator

_PATIENCE = 30.0
_RATES = 10_000_000


class Node:
    """A Node that has the web client. `run` is the body of an async function of `h` and `args`; see `browsers.mjs`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, code: str, **args: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"code": code, "args": args}).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE):
            line = await self._process.stdout.readline()
        assert line, "Node has ended"
        found = json.loads(line)
        assert "error" not in found, found["error"]
        return found["value"]


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not there: install Node.js")
    script, web = Path(__file__).parent / "browsers.mjs", Path(str(files("fanout.service.web")))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, str(script), str(web), stdin=pipe, stdout=pipe, limit=2**22)
    try:
        yield Node(process)
    finally:
        process.kill()
        await process.communicate()


@dataclass
class Web:
    """One service after the other at the same address, over the same gateway."""

    gateway: WebPushSimulator
    cap: int = 50
    url: str = ""
    storage: str = "memory:"
    number: int = 0
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    api: Any = field(default_factory=new_api_key)
    user: Any = field(default_factory=new_user_key)
    tokens: dict[str, str] = field(default_factory=dict)

    def named(self, user: str) -> str:
        """Of one service for many tests, each has users of its own by these names."""
        return f"{user}-{self.number}"

    def token(self, user: str, ttl: int = 3600) -> str:
        """The same each time: a token tells without a network whose it is only where the browser had it before."""
        name = self.named(user)
        if name not in self.tokens:
            self.tokens[name] = user_token(self.user.secret, "default", name, ttl=ttl)
        return self.tokens[name]

    def addresses(self, *numbers: int) -> list[str]:
        return [json.dumps(self.gateway.subscribe(f"browser{number}")) for number in numbers]

    def caller(self, bearer: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {bearer}"}, timeout=30)

    async def ask(self, user: str, method: str, path: str, **more: Any) -> httpx.Response:
        async with self.caller(self.token(user)) as caller:
            return await caller.request(method, path, **more)

    async def items(self, user: str) -> list[dict[str, Any]]:
        found = (await self.ask(user, "GET", "/v1/me/feed?limit=1000")).json()["items"]
        assert isinstance(found, list)
        return found

    async def devices(self, user: str) -> list[dict[str, Any]]:
        found = (await self.ask(user, "GET", "/v1/me/subscriptions")).json()["subscriptions"]
        assert isinstance(found, list)
        return found

    async def post(self, target: str = "user:alice", **more: Any) -> str:
        if target.startswith("user:"):
            target = f"user:{self.named(target.removeprefix('user:'))}"
        body = {"target": target, "title": "Shipped", "body": "Order 42", "feed": True, **more}
        async with self.caller(self.api.key.reveal()) as app:
            answer = await app.post("/v1/notifications", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["item"])

    async def post_graph(self, unsid: str, **more: Any) -> str:
        async with self.caller(self.api.key.reveal()) as app:
            answer = await app.post("/me/notifications", json=more, headers={"x-uns-id": unsid})
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    async def start(self) -> Self:
        limits = Limits(
            subscriptions=self.cap,
            posts_per_minute=_RATES,
            user_posts_per_minute=_RATES,
            user_changes_per_minute=_RATES,
            user_streams_per_minute=_RATES,
        )
        service = ServiceSettings(
            keys=(ApiKeySettings(id=self.api.id, hash=self.api.hash),),
            user_keys=(UserKeySettings(id=self.user.id, secret=self.user.secret),),
            limits=limits,
            host_names={"app.example.com": "default"},
        )
        settings = Settings(
            storage=self.storage, apps={"default": {"webpush": BindingSettings("webpush", None)}}, service=service
        )
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        engine = fanout.open(storage=self.storage, transports={"webpush": self.gateway.settings()}, drain_timeout=0.5)
        app = create_app(engine, settings)
        running = await self.stack.enter_async_context(app.state.service)
        self.url = await self.stack.enter_async_context(serving(app, "127.0.0.1", port, running.limits))
        self.stack.push_async_callback(running.drain)
        return self

    async def stop(self) -> None:
        await self.stack.aclose()


@asynccontextmanager
async def web(storage: str = "memory:", cap: int = 50) -> AsyncIterator[Web]:
    async with WebPushSimulator() as gateway:
        service = await Web(gateway, cap, storage=storage).start()
        try:
            yield service
        finally:
            await service.stop()
