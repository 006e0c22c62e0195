"""One request as the routes see it, their answers, and the values that they share."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol, Self
from urllib.parse import parse_qsl

import orjson
from fastapi import Depends
from fastapi import Request as HttpRequest

from fanout.config import ServiceSettings, Settings
from fanout.core.peer import peer_of
from fanout.core.reasons import BY_STATUS
from fanout.engine import Engine
from fanout.engine.randomness import fork_safe_random
from fanout.metrics import LoopLag
from fanout.metrics.readiness import Readiness
from fanout.plugin import Clock
from fanout.service.auth import Authenticator, Caller
from fanout.service.auth.granted import Granted
from fanout.service.begun import Begun
from fanout.service.body import Headers, Receive, read_body
from fanout.service.edge import Edge
from fanout.service.errors import Problem, Refused, envelope
from fanout.service.feed import FeedService
from fanout.service.following import Follows, owner_of
from fanout.service.rates import Rates
from fanout.service.request import Request
from fanout.service.security import SecurityEvents
from fanout.service.strict_json import parse

__all__ = ["AnyCall", "AppCall", "Authenticates", "Call", "Reply", "Service", "UserCall"]

_log = logging.getLogger("fanout.service")

_JSON = (b"content-type", b"application/json")

_LINES = 10
"""Lines a minute about requests that could not be done."""
_ARRIVED = 16
"""Messages of an unread body that are passed over for the sake of the connection."""
_draw = fork_safe_random().randbytes


def _next_id() -> str:
    """A request's id: a random UUID, version 4. `uuid.uuid4` takes five times as long, and asks the system."""
    drawn = _draw(16).hex()
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-a{drawn[17:20]}-{drawn[20:]}"


class Authenticates(Protocol):
    """The authenticator: `fanout.service.auth.Authenticator`, or the host's own."""

    async def authenticate(self, request: Request, /) -> Caller:
        """The caller of a request, whose `headers` have names in lower case, each once. Raises `AuthError`."""
        ...

    async def aclose(self) -> None:
        """Let go of the objects that it holds."""
        ...


class Service:
    """The state that all routes share. An async context manager: it opens the engine, unless that is open already,
    and closes only the objects that it opened.

    `draining` becomes true when the service is about to end: `/ready` says so.
    """

    def __init__(
        self, engine: Engine, settings: Settings, authenticator: Authenticates, feed: FeedService, clock: Clock
    ) -> None:
        self.engine = engine
        self.authenticator = authenticator
        self.feed = feed
        self.clock = clock
        self.draining = False
        self._readiness = Readiness(engine, clock.monotonic)
        self.lag = LoopLag()
        self._rates = Rates()
        self._not_logged = 0
        self.security = SecurityEvents()
        self.granted = Granted(
            engine.reads.access if engine.reads.has("access") else None, clock, lambda: engine.apps, self._signers_ended
        )
        """The keys and host names in the database."""
        self._stack: AsyncExitStack | None = None
        self.feed_is_hosts = False
        """Whether the host has given settings of the feed, which a change of `[service]` leaves as they are."""
        self.follows: Follows | None = None
        """Set before it is entered: completes a changed `[service]` of the engine's configuration before it is taken
        into use."""
        self.use(settings.service)

    def use(self, settings: ServiceSettings) -> None:
        """From now on these settings hold, for everything except the authentication of callers."""
        self.settings = settings
        self.limits = settings.limits
        self.edge = Edge.of(settings)
        self._apps_of_hosts = settings.host_names
        self._named_apps = frozenset(settings.host_names.values())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.authenticator.aclose)
            if not self.engine.opened:
                await stack.enter_async_context(self.engine)
            await stack.enter_async_context(self.feed)
            stack.push_async_callback(self.granted.stop)
            await self.granted.start()
            stack.enter_context(self.lag)
            if self.follows is not None and self.engine.watcher is not None:
                stack.callback(self.engine.watcher.register(owner_of(self, self.follows)))
            elif self.engine.watcher is not None and self.engine.watcher.settings.origin:
                _log.warning(
                    "The service's settings are its host's own: a change of [service] in %s is not taken.",
                    self.engine.watcher.settings.origin,
                )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()
        await self._readiness.aclose()
        if self._stack is not None:
            await self._stack.aclose()

    async def drain(self) -> None:
        """Get ready to end: say so to each caller, and end the streams, which would never end by themselves.
        Idempotent."""
        self.draining = True
        await self.feed.close_streams()

    async def readiness(self) -> dict[str, Any]:
        """Whether requests should be sent here, and the trouble, in a word for each part. Storage's answer serves for
        a second.

        Trouble with an issuer is told, and does not make the service unready: its own callers are answered 503 and all
        others are served, and as their requests make its keys be fetched again, a service without callers would never
        get well.
        """
        found = await self._readiness.look()
        service = "draining" if self.draining else "ok"
        issuers = self.authenticator.issuers if isinstance(self.authenticator, Authenticator) else "ok"
        return found | {"ready": found["ready"] and service == "ok", "service": service, "issuers": issuers}

    def unreadable(self, address: str, status: int) -> None:
        """A security event: bytes from this address that were no request, answered by the server itself."""
        self.security.refused(
            reason=BY_STATUS[status],
            status=status,
            peer=peer_of(address),
            method="",
            path="/",
            request_id="-",
            caller=None,
            now=self.clock.monotonic(),
        )

    def not_done(self, error: Exception) -> None:
        """Log why a request was not done for want of the database, in at most ten lines a minute: while it is away,
        each request ends so."""
        if self._rates.take("not done", _LINES, self.clock.monotonic()):
            self._not_logged += 1
            return
        _log.error("Not done: %s (%d more requests since the last such line)", error, self._not_logged)
        self._not_logged = 0

    def take(self, kind: str, caller: Caller) -> float:
        """Count one event of that kind: 0.0 if the caller may have it, else after how many seconds.

        A user has rates of her own, and a post of hers counts beside the posts of her app, never among them: no user
        and no number of users takes from the rate of the app itself.
        """
        limits, now = self.limits, self.clock.monotonic()
        app, user = caller.app, caller.user
        if user is None:
            return self._rates.take((kind, app), limits.posts_per_minute, now)
        per_user = {
            "posts": limits.user_posts_per_minute,
            "changes": limits.user_changes_per_minute,
            "streams": limits.user_streams_per_minute,
        }
        wait = self._rates.take((kind, app, user), per_user[kind], now)
        if wait == 0.0 and kind == "posts":
            wait = self._rates.take(("posts of users", app), limits.posts_per_minute, now)
        return wait

    def failed(self, peer: str) -> float:
        """Count a credential of that peer that was not good: 0.0, or where there were too many the seconds until the
        next may come."""
        if not peer:
            return 0.0
        return self._rates.take(("failures", peer), self.limits.failures_per_minute, self.clock.monotonic())

    def _signers_ended(self, apps: Collection[str]) -> None:
        self.feed.hub.check_all(apps)

    def held_back(self, caller: Caller) -> float:
        """For how many seconds nothing of that caller is taken up, because so much of it was refused; 0.0 for nearly
        all callers."""
        return self._rates.wait(_refusals_of(caller), self.clock.monotonic())

    def refused(self, caller: Caller) -> None:
        """Count a request of that caller that was refused. A request that another peer presents in its name is none of
        it: that is refused before."""
        self._rates.take(_refusals_of(caller), self.limits.refusals_per_minute, self.clock.monotonic())

    def host_allowed(self, app: str, host: str) -> bool:
        """Whether `host` may be the `targetHostName` of a notification of `app`.

        A host that is configured belongs to its app. One that is not is taken only from an app that has none
        configured: then the credential alone says the app.
        """
        name, granted = host.lower(), self.granted
        owner = self._apps_of_hosts.get(name) or granted.hosts.get(name)
        return owner == app if owner is not None else app not in self._named_apps and app not in granted.named_apps


def _refusals_of(caller: Caller) -> tuple[str, str, str]:
    return "refusals", caller.app, caller.client_id if caller.user is None else f"user {caller.user}"


class Reply:
    """A whole answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = (_JSON,)) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    @classmethod
    def json(cls, status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """A JSON answer."""
        more = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in (headers or {}).items()]
        return cls(status, orjson.dumps(value), [_JSON, *more])


class Call:
    """One request. `caller` is set before a route sees it, except on the few public paths."""

    __slots__ = ("_receive", "caller", "client_request_id", "request", "request_id", "scope", "service", "unread")

    def __init__(self, service: Service, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.service = service
        self.scope = scope
        self._receive = receive
        self.unread = False
        """Whether something of the body is yet to come: then nothing else can follow on its connection."""
        self.request: Request | None = None
        self.request_id = _next_id()
        self.client_request_id = ""
        self.caller: Caller | None = None

    def enter(self, request: Request) -> None:
        """The scope is a valid request: later code reads that and not the scope."""
        self.request = request
        length = request.headers.get(b"content-length")
        self.unread = b"transfer-encoding" in request.headers or length not in (None, b"0")
        given = request.headers.get(b"client-request-id", b"").decode("latin-1")
        if given.isascii() and given.isprintable() and len(given) <= 128:
            self.client_request_id = given

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message of the request, as ASGI has it."""
        message = await self._receive()
        if not message.get("more_body"):
            self.unread = False
        return message

    def still_unread(self) -> bool:
        """Whether something of the body is yet to come, when all that has arrived is passed over. Nothing is waited
        for."""
        for _ in range(_ARRIVED):
            # Where the client waits for leave to send it (RFC 9110, section 10.1.1), to ask would give leave.
            if not self.unread or b"expect" in self.headers:
                break
            asked = Begun(self._receive())
            if not asked.ended:
                asked.close()  # it waits for the client
                break
            self.unread = bool(asked.result.get("more_body"))
        return self.unread

    @property
    def asked(self) -> Request:
        """The request. Raises `AssertionError` before the edge has let it in."""
        assert self.request is not None
        return self.request

    @property
    def headers(self) -> Headers:
        """The request's headers, names in lower case."""
        return self.asked.headers

    def check_app(self) -> None:
        """Raise `Refused` 403 for a caller that does not act as an app."""
        if self.authenticated.user is not None:
            raise Refused(
                403,
                "accessDenied",
                "This is for the app itself: call it with an app's token or key, not a user's.",
                reason="app_only",
            )

    def check_query(self, known: Collection[str] = ()) -> None:
        """Raise `Refused` 400 for a parameter of the query that the call does not know: misspelt, a filter would be
        none, and a field of the body such as `dry_run` would change nothing."""
        query = self.scope["query_string"]
        for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else ():
            if name not in known:
                there = f"use one of {', '.join(sorted(known))}, or take it out" if known else "take it out"
                raise Refused(
                    400, "invalidRequest", f"The query has {name[:64]!r}, which this call does not know: {there}."
                )

    @property
    def authenticated(self) -> Caller:
        """The caller, of any kind."""
        assert self.caller is not None
        return self.caller

    @property
    def owner(self) -> tuple[str, str]:
        """App and user of a user's call, whose devices and feed it is about."""
        return self.authenticated.app, self.authenticated.user or ""

    def header(self, name: bytes) -> str | None:
        """One header's text, or None. `name` is in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def charge(self, kind: Literal["posts", "changes", "streams"] = "posts") -> None:
        """Count a post, a user's change of her feed or subscriptions, or an event stream of hers. Raises `Refused`
        429."""
        wait = self.service.take(kind, self.authenticated)
        if wait > 0:
            whose = "This app" if self.authenticated.user is None else "This user"
            raise Refused(
                429,
                "activityLimitReached",
                f"{whose} makes more {kind} than the limit allows: wait as Retry-After says.",
                {"retry-after": str(max(1, int(wait + 0.999)))},
            )

    async def json(self) -> Any:
        """The body's value. Raises `Refused` (400, 408, 413, 415), and `UsageError` for a body that is no acceptable
        JSON."""
        self._check_type()
        return parse(await read_body(self.receive, self.headers, self.service.limits), self.service.limits.depth)

    async def json_bytes(self) -> bytes:
        """A body that `json` would have taken, as it is, or an empty one. Raises as `json` does."""
        body = await read_body(self.receive, self.headers, self.service.limits)
        if body:
            self._check_type()
            parse(body, self.service.limits.depth)
        return body

    def _check_type(self) -> None:
        kind = self.headers.get(b"content-type", b"")
        if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
            raise Refused(415, "notSupported", "Content-Type must be application/json.")

    @property
    def base(self) -> str:
        """The service's address as the client knows it: scheme, host and the path that it is mounted at."""
        return self.asked.base

    def refusal(self, problem: Problem) -> Reply:
        """The answer that says `problem`."""
        date = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S")
        headers = [
            (name.encode("latin-1"), text.encode("latin-1", "replace")) for name, text in problem.headers.items()
        ]
        return Reply(
            problem.status, envelope(problem, self.request_id, self.client_request_id, date), [_JSON, *headers]
        )


async def _call(request: HttpRequest) -> Call:
    call: Call = request.scope["fanout.call"]
    return call


async def _app(request: HttpRequest) -> Call:
    call: Call = request.scope["fanout.call"]
    call.check_app()
    _check_query(call)
    return call


async def _user(request: HttpRequest) -> Call:
    call: Call = request.scope["fanout.call"]
    if call.authenticated.user is None:
        text = "This is for one user: call it with a user's token, not an app's."
        raise Refused(403, "accessDenied", text, reason="user_only")
    _check_query(call)
    return call


def _check_query(call: Call) -> None:
    if call.scope["query_string"]:
        call.check_query([field.alias for field in call.scope["route"].dependant.query_params])


# Coroutines, though they await nothing: FastAPI sends plain functions to a thread.
AnyCall = Annotated[Call, Depends(_call)]
"""A route's parameter: the call, of any caller."""
AppCall = Annotated[Call, Depends(_app)]
"""A route's parameter: the call of an app (or an API key); any other caller is refused with 403."""
UserCall = Annotated[Call, Depends(_user)]
"""A route's parameter: the call of the user `call.authenticated.user`; any other caller is refused with 403."""
