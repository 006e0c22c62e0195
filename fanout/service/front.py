"""The steps that every request passes first: its kind, its caller, the body's bounds, and errors made into answers.

It stands before FastAPI, whose routing and dependencies cost more than a whole durable post: the hot routes are
answered from here, by the same functions that FastAPI's routes call and the OpenAPI document describes. And it makes
refusal the default: a route that forgets to check its caller is not open to every caller.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fanout.core.peer import peer_of
from fanout.core.roles import ROLES, may
from fanout.engine.acting import act_as
from fanout.errors import EngineClosed, FanoutError, StorageError, StorageFull
from fanout.service.auth import AuthError, Caller
from fanout.service.body import ClientGone
from fanout.service.call import Call, Reply, Service
from fanout.service.edge import read_request
from fanout.service.errors import CODES, Problem, Refused, problem_of
from fanout.service.security import is_security

__all__ = ["GRAPH_PREFIXES", "Fast", "Front", "answer_error"]

_log = logging.getLogger("fanout.service")

Fast = Callable[[Call], Awaitable[Reply]]

METRICS = "/metrics"
_NO_METRICS = "Nothing is here for this caller: metrics are served by `fanout serve --metrics`, or here with [service] metrics = true and a key of the role operator."
GRAPH_PREFIXES = ("", "/beta", "/v1.0")
_PUBLIC = frozenset({"/health", "/ready", "/openapi.json", "/docs", "/redoc"})
_STREAMS = frozenset({"/v1/endpoints/import"})
_REFUSALS = frozenset({400, 403, 404, 405, 408, 413, 415})
"""Refusals of requests that a known caller could have avoided. A conflict, a cursor too old or an item that has changed
is how clients work."""
_WITH_BODY = frozenset({"POST", "PATCH", "DELETE"})
_ASKED_FROM_PAGES = ("authorization", "content-type", "x-uns-id", "last-event-id", "if-match", "idempotency-key")
_TOLD_TO_PAGES = ("etag", "location", "request-id", "retry-after")


class Front:
    """Middleware (ASGI). `fast` answers (method, path) without FastAPI; `public` are more paths that need no
    credential."""

    def __init__(
        self, app: ASGIApp, *, service: Service, fast: Mapping[tuple[str, str], Fast], public: tuple[str, ...] = ()
    ) -> None:
        self._app = app
        self.service = service
        self._fast = fast
        self._public = public
        # Before a caller is asked for: a browser asks beforehand without a credential, and must be able to read
        # refusals.
        self._pages = _Pages(self._inside, service)

    def answers(self, scope: Scope) -> bool:
        """Whether a request is one of `fast`, as far as its scope tells that before it is judged."""
        return (scope["method"], scope["path"]) in self._fast and not scope.get("root_path")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = Call(self.service, scope, receive)
        try:
            call.enter(read_request(scope, self.service.edge))
        except Refused as error:
            problem = problem_of(error)
            _tell(call, problem, scope)
            await _Answer(call, send).reply(call.refusal(problem))
            return
        scope["fanout.call"] = call
        try:
            if self.service.settings.origins:
                _separate(scope)
                await self._pages(scope, receive, send)
            else:
                await self._inside(scope, receive, send)
        finally:
            del scope["fanout.call"]  # the call refers to the scope

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope["fanout.call"]
        answer = _Answer(call, send)
        path = call.asked.path
        try:
            self.service.engine.ensure_loop()
            if not self._is_public(path):
                if path == METRICS and not self.service.settings.metrics:
                    raise Refused(404, CODES[404], _NO_METRICS, reason="route")
                call.caller = await self._authenticated(call)
                self._check_refusals(call.caller)
                _check_role(call, path)
            _check_address(path, scope["query_string"])
            fast = self._fast.get((call.asked.method, path))
            if fast is not None:
                await answer.reply(await fast(call))
            else:
                _separate(scope)
                try:
                    await self._app(scope, _checked(call, path), answer.send)
                finally:
                    _forget(scope)
        except ClientGone:
            return
        except Exception as error:
            if answer.started:
                raise
            await answer.reply(call.refusal(_problem(call, error, path)))

    async def _authenticated(self, call: Call) -> Caller:
        try:
            caller = await self.service.authenticator.authenticate(call.asked)
            act_as("user" if caller.user is not None else f"{caller.kind}:{caller.client_id}")
            return caller
        except AuthError as error:
            wait = self.service.failed(call.asked.peer) if error.status == 401 else 0.0
            if not wait:
                raise
        text = "Too many credentials from this address were not good: wait as Retry-After says."
        raise Refused(429, CODES[429], text, {"retry-after": str(max(1, int(wait + 0.999)))}, reason="failures")

    def _check_refusals(self, caller: Caller) -> None:
        wait = self.service.held_back(caller)
        if wait:
            text = "Too many requests of this caller were refused: mend them, and wait as Retry-After says."
            raise Refused(429, CODES[429], text, {"retry-after": str(max(1, int(wait + 0.999)))}, reason="refusals")

    def _is_public(self, path: str) -> bool:
        return path in _PUBLIC or path.startswith(self._public)


async def answer_error(request: Request, error: Exception) -> Response:
    """The replacement of FastAPI's own handlers of errors: the same envelope."""
    call: Call = request.scope["fanout.call"]
    reply = call.refusal(_problem(call, error, call.asked.path))
    response = Response(reply.body, reply.status)
    response.raw_headers.extend(reply.headers)
    return response


def _problem(call: Call, error: Exception, path: str) -> Problem:
    problem = problem_of(error)
    if isinstance(error, StorageError | EngineClosed) and not isinstance(error, StorageFull):
        call.service.not_done(error)
    if problem.status in _REFUSALS and call.caller is not None:
        call.service.refused(call.caller)
    if problem.status == 500:
        _log.error("The request %s failed.", call.request_id, exc_info=error)
    if problem.status == 429 and is_graph(path):
        # Graph's notifications answered so, and not 429 ("Create and send a notification", error responses).
        problem = replace(problem, status=406)
    _tell(call, problem, call.scope)
    return problem


def _tell(call: Call, problem: Problem, scope: Scope) -> None:
    """A refusal that is a security event is one. Before the request could be read, the connection alone says the
    peer."""
    asked = call.request
    if not is_security(problem.status, ambiguous=asked is None):
        return
    call.service.security.refused(
        reason=problem.word,
        status=problem.status,
        peer=peer_of((scope.get("client") or ("",))[0]) if asked is None else asked.peer,
        method=scope["method"],
        path=scope["path"] if asked is None else asked.path,
        request_id=call.request_id,
        caller=call.caller,
        now=call.service.clock.monotonic(),
    )


def is_graph(path: str) -> bool:
    """Whether the path is of Microsoft Graph's shape."""
    return path.rstrip("/").removeprefix("/beta").removeprefix("/v1.0").startswith("/me/")


def _check_role(call: Call, path: str) -> None:
    """Raise `Refused` for an app's credential whose role does not allow this; `/metrics` is there for an operator
    only."""
    caller = call.authenticated
    if caller.user is None and may(caller.role, call.asked.method, path):
        return
    if path == METRICS:
        raise Refused(404, CODES[404], _NO_METRICS, reason="route")
    if caller.user is None:
        text = f"A key of the role {caller.role} may {ROLES[caller.role]}, and not this."
        raise Refused(403, CODES[403], text, reason="role")


def _check_address(path: str, query: bytes) -> None:
    """Refuse a request that would be read in another sense than it is written."""
    if "\n" in path:
        # Starlette's patterns end before a last line break: `/v1/users/alice%0A` would be alice.
        raise Refused(400, CODES[400], "A path has no line break.")
    if b"&" in query:
        names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
        if len(names) != len(set(names)):
            # No parameter here is a list, and FastAPI would take the last.
            raise Refused(400, CODES[400], "The query names a parameter twice.")


def _separate(scope: Scope) -> None:
    """Give the scope the request's headers in a list of our own, for code that reads them there: a server that appends
    trailers to its list (uvicorn with httptools) appends them without a reader."""
    scope["headers"] = list(scope["fanout.call"].asked)


def _forget(scope: Scope) -> None:
    """Take the objects of FastAPI and Starlette out of the request's scope: exit stacks that refer to the scope again.

    Such a cycle would keep the request's body until the cycle collector runs, which is set to run rarely.
    """
    for key in [key for key in scope if key.startswith(("fastapi", "starlette"))]:
        del scope[key]


class _Pages(CORSMiddleware):
    """The rights of browsers on web pages of the origins that are configured at the moment."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        super().__init__(
            app,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=_ASKED_FROM_PAGES,
            expose_headers=_TOLD_TO_PAGES,
        )
        self._service = service

    def is_allowed_origin(self, origin: str) -> bool:
        """See `CORSMiddleware`."""
        return origin in self._service.settings.origins


def _short_way(send: Send) -> Callable[[int, Sequence[tuple[bytes, bytes]], bytes], bool] | None:
    """`Cycle.fanout_answer` of the connection whose own `send` this is. None for another server's `send`, and for one
    that a layer around the service has put in its place: such a layer must see each message."""
    return getattr(getattr(send, "__self__", None), "fanout_answer", None)


class _Answer:
    """Sends an answer with the ids that every answer carries, and knows whether one has begun."""

    __slots__ = ("_call", "_send", "started")

    def __init__(self, call: Call, send: Send) -> None:
        self._call = call
        self._send = send
        self.started = False

    async def reply(self, reply: Reply) -> None:
        # A refusal may close the connection, or leave a body unread.
        if reply.status < 400 and not self._call.unread and (answer := _short_way(self._send)) is not None:
            self.started = answer(reply.status, [*reply.headers, *self._ids()], reply.body)
            if self.started:
                return
        length = (b"content-length", b"%d" % len(reply.body))
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [*reply.headers, length, *self._ids()],
            }
        )
        await self._send({"type": "http.response.body", "body": reply.body})

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", ()), *self._ids()]
        await self._send(message)

    def _ids(self) -> list[tuple[bytes, bytes]]:
        ids = [(b"request-id", self._call.request_id.encode())]
        if self._call.client_request_id:
            ids.append((b"client-request-id", self._call.client_request_id.encode()))
        if self._call.unread and self._call.asked.version.startswith("1.") and self._call.still_unread():
            # The rest of the body would be read, as long as it lasts, only to be thrown away.
            ids.append((b"connection", b"close"))
        return ids


def _checked(call: Call, path: str) -> Receive:
    """The request as FastAPI receives it: the body as a whole, after every check. Of a stream, the stream itself."""
    if path in _STREAMS or call.asked.method not in _WITH_BODY:
        return call.receive
    read = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal read
        if read:
            return await call.receive()
        read = True
        return {"type": "http.request", "body": await _json_body(call), "more_body": False}

    return receive


async def _json_body(call: Call) -> bytes:
    """A JSON body that has passed `parse`, or none."""
    try:
        return await call.json_bytes()
    except FanoutError as error:
        problem = problem_of(error)
        raise Refused(problem.status, problem.code, problem.message) from None
