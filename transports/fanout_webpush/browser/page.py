"""The server of the page: four routes on loopback, for one browser on the same machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fanout.plugin import AddressInvalid, Notification

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Page", "serve"]

_FOLDER = Path(__file__).parent
_TYPES = {"index.html": "text/html", "sw.js": "text/javascript"}
_MOST = 16_384
"""Bytes of a request's body; a subscription has under a thousand."""
_WAIT = 30.0
"""Seconds that the page waits for the push service's answer."""


class _Endpoints(Protocol):
    def register(self, *, user: str, binding: str, address: Any) -> Awaitable[Any]: ...


class _Engine(Protocol):
    """The parts of the engine that it needs: a transport does not import it."""

    @property
    def endpoints(self) -> _Endpoints: ...

    def send(self, notification: Notification, target: str, /) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Page:
    """The page while it is served. `done` is set once a push service has accepted a push for the browser."""

    url: str
    done: asyncio.Event


@asynccontextmanager
async def serve(
    engine: _Engine,
    *,
    application_server_key: str,
    binding: str = "webpush",
    user: str = "browser",
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Page]:
    """Serve the page until the block ends. `engine` must both accept and send; `binding` is its Web Push binding, whose
    VAPID public key `application_server_key` is. The browser is registered for `user`. `host` must be a loopback
    address, which browsers take for a secure context; `port` 0 is a free one.

    Raises `OSError` where it cannot listen.
    """
    from aiohttp import web

    done = asyncio.Event()

    async def subscribe(content: Mapping[str, Any]) -> dict[str, Any]:
        endpoint = await engine.endpoints.register(user=user, binding=binding, address=content["subscription"])
        return {"id": endpoint.id}

    async def push(content: Mapping[str, Any]) -> dict[str, Any]:
        notification = Notification(
            title=_text(content, "title", "Hello from fanout"),
            body=_text(content, "body", "This came through your browser vendor's push service."),
            url=page.url,
            ttl=300,
        )
        receipt = await engine.send(notification, f"endpoint:{int(content['id'])}")
        status = await receipt.wait(_WAIT)
        if not status.total:
            raise AddressInvalid("This browser is not registered any more: subscribe it again.")
        states = [state for state, count in status.counts.items() if count and state != "pending"]
        if states == ["accepted"]:
            done.set()
        return {"id": receipt.id, "state": states[0] if states else "pending"}

    async def file(request: web.Request) -> web.Response:
        name = request.path.removeprefix("/") or "index.html"
        text = (_FOLDER / name).read_text(encoding="utf-8").replace("APPLICATION_SERVER_KEY", application_server_key)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, content_type=_TYPES[name], headers=headers)

    application = web.Application(middlewares=[_only_our_own_page()], client_max_size=_MOST)
    application.router.add_get("/", file)
    application.router.add_get("/sw.js", file)
    application.router.add_post("/subscribe", _answering(subscribe))
    application.router.add_post("/push", _answering(push))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        address = runner.addresses[0]
        page = Page(f"http://localhost:{address[1]}/", done)
        yield page
    finally:
        await runner.cleanup()


def _text(content: Mapping[str, Any], name: str, default: str) -> str:
    value = content.get(name)
    return value[:200] if isinstance(value, str) and value.strip() else default


def _only_our_own_page() -> Any:
    """No other site may speak through the user's browser: not under another name (DNS rebinding), not from another
    origin."""
    from aiohttp import web

    @web.middleware
    async def check(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        name = (request.host or "").rpartition(":")[0] or request.host
        if name not in ("localhost", "127.0.0.1", "[::1]"):
            raise web.HTTPForbidden(text="This page is for this machine only: open it as http://localhost.")
        if request.method == "POST":
            origin = request.headers.get("Origin")
            if origin not in (None, f"http://{request.host}") or request.content_type != "application/json":
                raise web.HTTPForbidden(text="Only this page itself may ask for this.")
        return await handler(request)

    return check


def _answering(act: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]) -> Any:
    """A handler that gives JSON to `act` and answers with its JSON, or with one sentence about the fault."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        try:
            content = await request.json()
            if not isinstance(content, dict):
                raise TypeError
            return web.json_response(await act(content))
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
            return web.json_response({"problem": "The request is not what this page sends: reload it."}, status=400)
        except (AddressInvalid, ValueError) as error:
            return web.json_response({"problem": str(error)}, status=400)
        except TimeoutError:
            return web.json_response(
                {"problem": "The push service has not answered yet: is there a network?"}, status=504
            )

    return handle
