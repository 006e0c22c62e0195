"""The whole service as one ASGI app."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Never

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fanout import bootstrap
from fanout.config import Settings
from fanout.engine import Engine
from fanout.errors import ConfigurationError, FanoutError
from fanout.plugin import Clock
from fanout.registry import Registry
from fanout.service.application import Application
from fanout.service.auth import Authenticator
from fanout.service.auth.loopback import LoopbackCallers
from fanout.service.call import Authenticates, Service
from fanout.service.docs import describe
from fanout.service.feed import FeedService, FeedSettings
from fanout.service.following import feed_limits
from fanout.service.front import Fast, answer_error
from fanout.service.graph import routes as graph
from fanout.service.security import SecurityEvents
from fanout.service.v1 import (
    audit,
    endpoints,
    events,
    export,
    health,
    keys,
    me,
    notifications,
    subscriptions,
    users,
    withdrawal,
)
from fanout.service.v1 import feed as feed_routes
from fanout.service.web import reference
from fanout.service.web import routes as web

__all__ = ["create_app", "from_config"]

_log = logging.getLogger("fanout.service")

_ABOUT = """One post to a user reaches every device she has, and a feed that all of them read.

Every refusal has one envelope, `{"error": {"code", "message", "innerError": {"code", "request-id", "date"}}}`, and every answer a
`request-id`; a `client-request-id` is echoed."""


def create_app(
    engine: Engine,
    settings: Settings | None = None,
    *,
    authenticator: Authenticates | None = None,
    clock: Clock | None = None,
    feed: FeedSettings | None = None,
    unprotected: bool = False,
) -> FastAPI:
    """The service over an engine, for uvicorn or to be mounted in another app.

    Run alone, the app opens the engine when it starts, unless it is open, and closes it when it ends. An app that is
    mounted is not told of start and end, so the host says it: `async with app.state.service:` in the host's own
    lifespan.

    Args:
        engine: The engine, open or not yet.
        settings: The configuration that the engine was made of; its `[service]` names the callers. Where the engine
            follows its file, the service follows it too; a host's own settings are not read again.
        authenticator: The host's own judge of callers, in place of the configured one.
        clock: The clock, in tests; None for the machine's.
        feed: How long things of the feed last; None for the defaults and the limits of `settings`.
        unprotected: For programs of one's own on one machine: without callers in `settings` and without an
            authenticator, every request that comes from loopback, and through no proxy, is believed.

    Returns:
        The ASGI app.

    Raises:
        ConfigurationError: No caller could use the service, or arguments contradict each other.

    Example:
        ```python
        service = create_app(engine, unprotected=True)
        ```
    """
    settings = settings or Settings(storage="", apps={})
    host_feed = feed is not None
    clock = engine.reads.clock(bootstrap.SystemClock() if clock is None else clock)
    apps = set(engine.apps)
    feed = feed or FeedSettings(**feed_limits(settings.service.limits))
    if authenticator is not None and unprotected:
        raise ConfigurationError("unprotected=True and an authenticator contradict each other: take one of them out.")
    authenticates = authenticator or _authenticator(settings, clock, apps, unprotected)
    service = Service(
        engine,
        settings,
        authenticates,
        FeedService(engine, settings if settings.apps else None, feed, clock=clock),
        clock,
    )

    service.feed_is_hosts = host_feed
    service.feed.hub.authenticator = authenticates
    if authenticator is None and isinstance(authenticates, Authenticator):
        authenticates.granted = service.granted  # a host's own knows its own callers
    if engine.watcher is not None and engine.watcher.settings.service is settings.service:
        service.follows = lambda part: part

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = Application(
        title="fanout",
        version=version("fanout-push"),
        description=_ABOUT,
        lifespan=lifespan,
        # One path, one resource: a redirect would turn a post with a wrong slash into two requests.
        redirect_slashes=False,
        docs_url=None,  # pages of our own, which load nothing from elsewhere
        redoc_url=None,
        openapi_tags=[
            {"name": "Microsoft Graph", "description": "Notifications in the shape of Microsoft Graph."},
            {"name": "notifications", "description": "Send to users, topics, devices or all endpoints, and follow it."},
            {"name": "endpoints", "description": "The directory of devices."},
            {"name": "users", "description": "Forget one."},
            {"name": "audit", "description": "The audit log."},
            {"name": "keys", "description": "Keys and host names in the database, for a key of the role operator."},
            {"name": "subscriptions", "description": "A user's own devices, each with its UNSID."},
            {
                "name": "feed",
                "description": "The items of a user, for the user's own clients, and changes as they happen.",
            },
            {"name": "operation", "description": "For operators."},
        ],
    )
    app.state.service = service
    for error in (HTTPException, RequestValidationError, FanoutError):
        app.add_exception_handler(error, answer_error)
    routers: Sequence[APIRouter] = (
        graph.router,
        notifications.router,
        endpoints.router,
        users.router,
        export.router,
        audit.router,
        withdrawal.router,
        keys.router,
        me.router,
        subscriptions.router,
        events.router,
        feed_routes.router,
        health.router,
        web.router,
        reference.router,
    )
    for router in routers:
        app.router.routes.extend(router.routes)  # `include_router` makes each route anew, with its models, in each app
    service.security = SecurityEvents(
        route.path for router in routers for route in router.routes if isinstance(route, Route)
    )
    fast: dict[tuple[str, str], Fast] = {("POST", "/v1/notifications"): notifications.post_notification}
    fast |= {("POST", path): graph.post_notification for path in graph.fast_paths()}
    app.add_front(service=service, fast=fast, public=(*web.PATHS, *reference.PATHS))
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _authenticator(settings: Settings, clock: Clock, apps: Collection[str], unprotected: bool) -> Authenticates:
    if settings.service.authenticated:
        if unprotected:
            raise ConfigurationError(
                "unprotected=True and callers in [service] contradict each other: take one of them out."
            )
        return Authenticator(settings.service, clock)
    if unprotected:
        return LoopbackCallers(apps)
    raise ConfigurationError(
        "No caller could use this service: make a key with `fanout keys api` and write its output into [service], or "
        "configure [[service.issuers]]. fanout serve makes keys of its own for loopback."
    )


def from_config(config: str | os.PathLike[str] | None = None, *, unprotected: bool = False) -> FastAPI:
    """The service that a configuration describes. For `uvicorn --factory fanout.service:from_config`.

    Without `config`, as servers call it, an error is told when the app starts: uvicorn ends with it then. A factory
    that raises would leave `uvicorn --workers` starting processes, and holding a port that never answers.

    Args:
        config: The path of a TOML file; None finds the configuration as `fanout.open` does.
        unprotected: As for `create_app`.

    Returns:
        The ASGI app.

    Raises:
        FanoutError: With `config` given: as `fanout.open` raises, or no caller is configured.

    Example:
        ```python
        app = from_config("fanout.toml")
        ```
    """
    try:
        registry = Registry()
        made = bootstrap.prepare(bootstrap.make_settings(config, registry=registry), registry)
        if "uvicorn.protocols.http.httptools_impl" in sys.modules:
            _log.warning(
                "uvicorn with httptools takes the trailers of a request for headers, and keeps them without a limit: run it with --http h11, "
                "or use fanout serve."
            )
        return create_app(made.engine(), made.settings, clock=made.clock, unprotected=unprotected)
    except FanoutError as error:
        if config is not None:
            raise
        return _Refused(error)


class _Refused(FastAPI):
    """Tells the program that starts it, and each caller, why there is no service."""

    def __init__(self, error: FanoutError) -> None:
        super().__init__()
        self._error = error
        self.state.service = self

    async def __aenter__(self) -> Never:
        raise self._error

    async def __aexit__(self, *exc: object) -> None:
        raise AssertionError("it was never entered")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise self._error
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(self._error)})


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = describe(FastAPI.openapi(app), health.PATHS)
    return app.openapi_schema
