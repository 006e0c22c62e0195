"""The hot routes pass the layers of FastAPI by, unless something of a host or a tool stands around the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from servicerig import Gateways, engine_of, key_of, settings_of
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware

from fanout.service import create_app

pytestmark = pytest.mark.anyio
POST = {"target": {"user": "alice"}, "title": "Hi"}


def _layered(app: Any, seen: list[str]) -> Any:
    """Another ASGI app around this one, which notes the paths of requests."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await app(scope, receive, send)

    return layer


def _nothing(app: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def _middleware(app: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app.add_middleware(lambda inner: _layered(inner, seen))


def _stack_built_otherwise(app: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = app.build_middleware_stack
    app.build_middleware_stack = lambda: _layered(own(), seen)


def _stack_replaced(app: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app.middleware_stack = _layered(app.build_middleware_stack(), seen)


def _call_replaced(app: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = Starlette.__call__

    async def replaced(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await own(self, scope, receive, send)

    monkeypatch.setattr(Starlette, "__call__", replaced)


def _telemetry(app: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(app, "_native_telemetry"):
        pytest.skip("this FastAPI has no telemetry of its own")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    class Noting(SpanProcessor):  # type: ignore[misc]
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if "url.path" in span.attributes:
                seen.append(span.attributes["url.path"])

    provider = TracerProvider()
    provider.add_span_processor(Noting())
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)


@pytest.mark.parametrize(
    ("around", "passes"),
    [
        (_nothing, False),
        (_middleware, True),
        (_stack_built_otherwise, True),
        (_stack_replaced, True),
        (_call_replaced, True),
        (_telemetry, True),
    ],
)
async def test_a_post_passes_what_stands_around_the_service(
    around: Callable[..., None], passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(engine_of(Gateways(), tmp_path), settings_of())
    seen: list[str] = []
    layers: list[str] = []
    around(app, seen, monkeypatch)
    own = ServerErrorMiddleware.__call__

    async def counted(self: Any, scope: Any, receive: Any, send: Any) -> None:
        layers.append(scope["path"])
        await own(self, scope, receive, send)

    monkeypatch.setattr(ServerErrorMiddleware, "__call__", counted)
    bearer = {"authorization": f"Bearer {key_of('shop')}"}
    async with (
        app.state.service,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://push", headers=bearer) as http,
    ):
        assert (await http.get("/health")).status_code == 200  # the first request makes FastAPI's layers
        for path in ("/v1/notifications", "/v1/notifications", "/v1/notifications/"):
            status = (await http.post(path, json=POST)).status_code
            assert status == (404 if path.endswith("/") else 202)
    # A path that is no hot route, though nearly one, goes the long way.
    hot = ["/v1/notifications"] * 2
    assert layers == ["/health", *(hot if passes else []), "/v1/notifications/"]
    assert seen == (["/health", *hot, "/v1/notifications/"] if passes else [])


async def test_below_a_path_of_a_host_a_post_is_found_by_its_own_path(tmp_path: Path) -> None:
    """A mount at /v1 makes `/v1/notifications` of a path that is none of the service's."""
    app = create_app(engine_of(Gateways(), tmp_path), settings_of())
    bearer = {"authorization": f"Bearer {key_of('shop')}"}
    transport = httpx.ASGITransport(app, root_path="/v1")
    async with (
        app.state.service,
        httpx.AsyncClient(transport=transport, base_url="http://push", headers=bearer) as http,
    ):
        for _ in range(2):
            assert (await http.post("/v1/notifications", json=POST)).status_code == 404
            assert (await http.post("/v1/v1/notifications", json=POST)).status_code == 202
