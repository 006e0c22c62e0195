"""The issuer's HTTP side, on loopback."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson
from aiohttp import web

from fanout.testing.issuer.grants import Client, Desk
from fanout.testing.issuer.keys import KeyRing, SigningKey
from fanout.testing.issuer.tokens import Style, user_id
from fanout.testing.simulator import Authority

__all__ = ["Fault", "LoopbackIssuer"]

SCOPE = "Notifications.ReadWrite.CreatedByApp"


@dataclass(slots=True)
class Fault:
    """The fault of one of the issuer's endpoints."""

    down: bool = False
    """The connection is dropped without an answer."""
    status: int | None = None
    """The answer is this status, with an empty body and `Retry-After: 2`."""
    body: bytes | None = None
    """The answer is 200 with this body."""
    hold: asyncio.Event | None = None
    """The answer waits until this is set."""


class LoopbackIssuer:
    """An OAuth issuer on 127.0.0.1, as an async context manager.

    `audience` is how its tokens name the service. `clients` are those that may ask for tokens. `style` is the form of
    the tokens, `algorithm` signs them, with a new key or the one that is given. `now` gives UNIX seconds. With an
    `authority` it speaks https, else http.

    `keys` may be rotated, `faults` set, and `desk` told other lifetimes while it runs; `requests` counts requests, by
    endpoint: `discovery`, `keys`, `token`, `sign_in`.
    """

    def __init__(
        self,
        *,
        audience: str = "https://push.example.com",
        clients: Sequence[Client] = (Client("shop", "shop-secret"), Client("page")),
        style: Style = "rfc9068",
        algorithm: str = "RS256",
        key: SigningKey | None = None,
        now: Callable[[], float] = time.time,
        authority: Authority | None = None,
        port: int = 0,
    ) -> None:
        self.keys = KeyRing(algorithm, key)
        self.desk = Desk("", audience, self.keys, style, now)
        self.desk.clients = {client.id: client for client in clients}
        self.faults: dict[str, Fault] = {}
        self.requests: Counter[str] = Counter()
        self.stated_issuer: str | None = None
        """The false issuer that the discovery document names."""
        self._authority = authority
        self._port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._endpoint("discovery", self._discovery))
        app.router.add_get("/keys", self._endpoint("keys", self._keys))
        app.router.add_post("/token", self._endpoint("token", self._token))
        app.router.add_post("/sign_in", self._endpoint("sign_in", self._sign_in))
        app.router.add_post("/rotate", self._endpoint("rotate", self._rotate))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._authority is not None:
            context = self._authority.server_context()
            context.set_alpn_protocols(["http/1.1"])
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"https://localhost:{port}" if context else f"http://127.0.0.1:{port}"
        self.desk.issuer = self.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        for fault in self.faults.values():
            if fault.hold is not None:
                fault.hold.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def token_url(self) -> str:
        """Where clients ask for tokens."""
        return f"{self.url}/token"

    def settings(self, apps: Mapping[str, str] | None = None) -> dict[str, Any]:
        """This issuer as an entry of `[[service.issuers]]`; `apps` is by default every client for the app `default`."""
        found: dict[str, Any] = {
            "issuer": self.url,
            "audience": self.desk.audience,
            "algorithms": [self.keys.current.algorithm],
            "apps": dict(apps) if apps is not None else dict.fromkeys(self.desk.clients, "default"),
        }
        if self.desk.style != "rfc9068":
            found["user_claim"] = "oid"
        if self._authority is not None:
            found["ca_file"] = str(self._authority.ca_file)
        return found

    def user_id(self, user: str) -> str:
        """The user's id for the service."""
        return user_id(user, self.desk.style)

    def app_token(self, client: str = "shop") -> str:
        """The token that client credentials would bring, without a request."""
        return self.desk.app_token(client)

    def sign_in(
        self, user: str, client: str = "page", *, audience: str | None = None, scopes: Sequence[str] = (SCOPE,)
    ) -> str:
        """The token that a client gets when this user has signed in and agreed to `scopes`.

        It is for the service; for an on-behalf-of exchange `audience` is the id of the client that makes the exchange.
        """
        return self.desk.user_token(user, client, audience, scopes)

    def _endpoint(
        self, name: str, answer: Callable[[web.Request], Awaitable[tuple[int, Mapping[str, Any]]]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            self.requests[name] += 1
            fault = self.faults.get(name, Fault())
            if fault.hold is not None:
                await fault.hold.wait()
            if fault.down and request.transport is not None:
                request.transport.abort()
            if fault.status is not None:
                return web.Response(status=fault.status, headers={"Retry-After": "2"})
            if fault.body is not None:
                return web.Response(body=fault.body, content_type="application/json")
            status, values = await answer(request)
            headers = {"Cache-Control": "no-store"}
            body = orjson.dumps(values)
            return web.Response(status=status, body=body, headers=headers, content_type="application/json")

        return handle

    async def _discovery(self, request: web.Request) -> tuple[int, Mapping[str, Any]]:
        return 200, {
            "issuer": self.stated_issuer or self.url,
            "jwks_uri": f"{self.url}/keys",
            "token_endpoint": self.token_url,
            "id_token_signing_alg_values_supported": [self.keys.current.algorithm],
        }

    async def _keys(self, request: web.Request) -> tuple[int, Mapping[str, Any]]:
        return 200, self.keys.jwks()

    async def _token(self, request: web.Request) -> tuple[int, Mapping[str, Any]]:
        return self.desk.answer(await _form(request), request.headers.get("Authorization"))

    async def _sign_in(self, request: web.Request) -> tuple[int, Mapping[str, Any]]:
        """The parameters of a browser's sign-in, for people with curl: user and client_id, perhaps audience and
        scope."""
        form = await _form(request)
        client = form.get("client_id", "page")
        if not form.get("user") or client not in self.desk.clients:
            return 400, {"error": "invalid_request", "error_description": "user and a known client_id are needed."}
        scopes = form.get("scope", SCOPE).split()
        token = self.sign_in(form["user"], client, audience=form.get("audience"), scopes=scopes)
        return 200, {"token_type": "Bearer", "access_token": token, "expires_in": int(self.desk.lifetime)}

    async def _rotate(self, request: web.Request) -> tuple[int, Mapping[str, Any]]:
        """Sign with a new key from now on; tokens of the old ones stay good, for their keys are still published."""
        return 200, {"kid": self.keys.rotate().kid}


async def _form(request: web.Request) -> dict[str, str]:
    return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
