"""The app as a whole: alone, mounted in others, its document, its health, and what it refuses before a route sees
it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from servicerig import Gateways, Rig, Stub, engine_of, key_of, running, settings_of
from starlette.applications import Starlette
from starlette.routing import Mount

import fanout
from fanout.config import Limits, Settings
from fanout.errors import ConfigurationError, StorageError, StorageFull
from fanout.service import create_app
from fanout.service.server import serving

pytestmark = pytest.mark.anyio

POST = {"target": {"user": "alice"}, "title": "Hi"}


def host_of(kind: str, service_app: Any) -> Any:
    """A host's app with the service below /push; its lifespan says start and end."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with service_app.state.service:
            yield

    if kind == "starlette":
        return Starlette(routes=[Mount("/push", app=service_app)], lifespan=lifespan)
    host = fastapi.FastAPI(lifespan=lifespan)

    @host.get("/own")
    async def own() -> dict[str, str]:
        return {"whose": "the host's"}

    host.mount("/push", service_app)
    return host


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
async def test_it_mounts_in_anothers_app(kind: str, tmp_path: Path) -> None:
    gateways = Gateways()
    engine = engine_of(gateways, tmp_path)
    host = host_of(kind, create_app(engine, settings_of()))
    bearer = {"authorization": f"Bearer {key_of('shop')}"}
    async with (
        host.router.lifespan_context(host),
        serving(host, "127.0.0.1", 0, Limits()) as url,
        httpx.AsyncClient(base_url=f"{url}/push", headers=bearer) as http,
    ):
        device = {"user": "alice", "binding": "apns", "address": "alice-1"}
        made = await http.post("/v1/endpoints", json=device)
        assert made.headers["location"] == f"{url}/push/v1/endpoints/1"
        posted = await http.post("/v1/notifications", json=POST)
        assert posted.status_code == 202
        assert posted.headers["location"].startswith(f"{url}/push/v1/notifications/")
        assert (await http.get(posted.headers["location"])).status_code == 200
        await gateways.arrived(1)
        assert (await http.post("/beta/me/notifications", json={})).status_code == 400
        assert (await http.get("/ready")).status_code == 200
        document = (await http.get("/openapi.json")).json()
        assert document["servers"] == [{"url": "/push"}]
        if kind == "fastapi":
            assert (await http.get(f"{url}/own")).json() == {"whose": "the host's"}
        assert (await http.get(f"{url}/v1/notifications")).status_code == 404
    assert engine.opened


async def test_alone_its_lifespan_opens_and_closes_the_engine(tmp_path: Path) -> None:
    engine = engine_of(Gateways(), tmp_path)
    app = create_app(engine, settings_of())
    transport = httpx.ASGITransport(app)
    bearer = {"authorization": f"Bearer {key_of('shop')}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=bearer) as http:
        assert (await http.post("/v1/notifications", json=POST)).status_code == 503
        assert (await http.get("/ready")).json()["engine"] == "closed"
        async with app.router.lifespan_context(app):
            assert (await http.post("/v1/notifications", json=POST)).status_code == 202
        assert (await http.post("/v1/notifications", json=POST)).status_code == 503


async def test_an_engine_that_is_open_already_stays_open(tmp_path: Path) -> None:
    async with engine_of(Gateways(), tmp_path) as engine:
        app = create_app(engine, settings_of())
        async with app.router.lifespan_context(app):
            pass
        await engine.send(fanout.Notification(title="x"), "user:alice", app="shop")


async def test_a_host_brings_its_own_authentication(tmp_path: Path) -> None:
    app = create_app(engine_of(Gateways(), tmp_path), Settings(storage="", apps={}), authenticator=Stub())
    async with (
        app.state.service,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://push.example.com") as http,
    ):
        assert (await http.post("/v1/notifications", json=POST, headers={"authorization": "shop"})).status_code == 202
        answer = await http.get("/v1/me/feed", headers={"authorization": "shop/alice"})
        assert answer.status_code == 200, answer.text


async def test_without_callers_there_is_no_service_unless_the_host_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fanout keys api"):
        create_app(engine_of(Gateways(), tmp_path))
    for more in ({"authenticator": Stub()}, {"settings": settings_of()}):
        with pytest.raises(ConfigurationError, match="unprotected=True"):
            create_app(engine_of(Gateways(), tmp_path), unprotected=True, **more)
    app = create_app(engine_of(Gateways(), tmp_path), unprotected=True)
    body = {"json": POST, "headers": {"x-fanout-app": "shop"}}
    async with app.state.service:
        for peer, base, status in (
            ("127.0.0.1", "http://127.0.0.1:8080", 202),
            ("::1", "http://localhost", 202),
            ("127.0.0.1", "http://push.example.com", 403),
            ("192.0.2.1", "http://localhost", 403),
            ("192.0.2.1", "http://127.0.0.1:8080", 403),
        ):
            transport = httpx.ASGITransport(app, client=(peer, 5))
            async with httpx.AsyncClient(transport=transport) as http:
                assert (await http.post(f"{base}/v1/notifications", **body)).status_code == status, (peer, base)
                marked = {**body["headers"], "x-forwarded-for": "1.2.3.4"}
                refused = await http.delete(f"{base}/v1/users/alice", headers=marked)
                assert refused.status_code == 403
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            page = {"x-fanout-app": "shop", "origin": "https://evil.example"}
            assert (await http.post("http://127.0.0.1/v1/notifications", json=POST, headers=page)).status_code == 403


async def test_the_hot_routes_and_fastapis_own_answer_alike(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (unsid,) = await rig.subscribe("alice", "apns")
    cases: list[tuple[str, Any, dict[str, str]]] = [
        ("/v1/notifications", POST, {}),
        ("/v1/notifications", {**POST, "dry_run": True}, {}),
        ("/v1/notifications", {"target": "nonsense"}, {}),
        ("/v1/notifications", {}, {}),
        ("/v1/notifications", POST, {"idempotency-key": "x" * 300}),
        ("/beta/me/notifications", {"payload": {"rawContent": "x"}}, {"x-uns-id": unsid}),
        ("/beta/me/notifications", {"payload": {}}, {"x-uns-id": unsid}),
        ("/beta/me/notifications", {"payload": {"rawContent": "x"}}, {}),
        ("/me/notifications/", {"payload": {"rawContent": "x"}}, {"x-uns-id": unsid, "if-range": "x"}),
    ]

    async def answers() -> list[tuple[int, set[str], Any]]:
        found = []
        for path, body, headers in cases:
            answer = await rig.as_app("POST", path, json=body, headers=headers)
            values = answer.json()
            shape = values["error"]["message"] if "error" in values else sorted(values)
            kinds = {name for name in answer.headers if name not in ("date",)}
            found.append((answer.status_code, kinds, shape))
        return found

    fast = await answers()
    front = next(part for part in _stack(rig.app) if type(part).__name__ == "Front")
    monkeypatch.setattr(front, "_fast", {})
    assert await answers() == fast
    assert [status for status, _, _ in fast] == [202, 200, 400, 400, 400, 201, 400, 400, 400]


def _stack(app: Any) -> list[Any]:
    found, part = [], app.middleware_stack
    while part is not None:
        found.append(part)
        part = getattr(part, "app", None) or getattr(part, "_app", None)
    return found


async def test_the_document_has_every_route_with_schemas_examples_and_security(rig: Rig) -> None:
    answer = await rig.call("GET", "/openapi.json")
    document = answer.json()
    assert set(document["components"]["securitySchemes"]) == {"accessToken", "apiKey", "userToken"}
    assert document["security"]
    routes = {(method, path) for path, item in document["paths"].items() for method in item}
    for method, path in (
        ("post", "/beta/me/notifications"),
        ("post", "/v1/notifications"),
        ("get", "/v1/notifications/{id}"),
        ("get", "/v1/notifications/{id}/deliveries"),
        ("get", "/v1/notifications/{id}/deliveries/{endpoint}"),
        ("post", "/v1/notifications/{id}/cancel"),
        ("post", "/v1/endpoints"),
        ("patch", "/v1/endpoints/{id}"),
        ("post", "/v1/endpoints/import"),
        ("post", "/v1/endpoints/{id}/restore"),
        ("delete", "/v1/users/{user}"),
        ("get", "/v1/me/feed"),
        ("patch", "/v1/me/feed/{id}"),
        ("post", "/v1/me/subscriptions"),
        ("get", "/health"),
        ("get", "/ready"),
        ("get", "/metrics"),
    ):
        assert (method, path) in routes
    for path, item in document["paths"].items():
        for method, route in item.items():
            good = [status for status in route["responses"] if status.startswith("2")]
            assert good, (method, path)
            assert route["summary"], (method, path)
            assert "422" not in route["responses"], (method, path)
            if path.startswith(("/v1", "/beta")):
                assert "401" in route["responses"], (method, path)
            if method == "post" and "requestBody" in route:
                assert route["requestBody"]["content"]
    schemas = document["components"]["schemas"]
    for name in ("NotificationIn", "GraphNotification", "EndpointIn"):
        assert schemas[name]["examples"], name


async def test_health_and_readiness_tell_the_truth(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ready() -> tuple[int, dict[str, Any]]:
        answer = await rig.call("GET", "/ready")
        rig.service._readiness.forget()
        return answer.status_code, answer.json()

    good = {"ready": True, "storage": "ok", "engine": "ok", "service": "ok", "issuers": "ok", "configuration": "ok"}
    assert await ready() == (200, good)
    for error, word in ((StorageFull("full"), "full"), (StorageError("/secret/path"), "failed")):

        async def probe(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(rig.engine.storage, "probe", probe)
        assert await ready() == (503, {**good, "ready": False, "storage": word})
    monkeypatch.undo()
    assert await ready() == (200, good)
    monkeypatch.setattr(rig.engine, "_fault", RuntimeError("/secret"))
    assert await ready() == (503, {**good, "ready": False, "engine": "failed"})
    monkeypatch.undo()
    rig.service.draining = True
    assert await ready() == (503, {**good, "ready": False, "service": "draining"})
    assert (await rig.call("GET", "/health")).json() == {"status": "ok"}


async def test_a_database_that_is_read_only_is_not_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        assert (await rig.call("GET", "/ready")).status_code == 200
        (tmp_path / "fanout.db").rename(tmp_path / "elsewhere.db")
        rig.service._readiness.forget()
        assert (await rig.call("GET", "/ready")).json()["storage"] == "failed"
        (tmp_path / "elsewhere.db").rename(tmp_path / "fanout.db")


async def test_everything_else_needs_a_credential(rig: Rig) -> None:
    for path in (
        "/v1/endpoints",
        "/v1/me/feed",
        "/v1/me/feed/events",
        "/nowhere",
        "/v1/notifications/x",
        "/health/x",
        "//health",
    ):
        answer = await rig.call("GET", path)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "unauthenticated"
    for path in ("/health", "/ready", "/openapi.json", "/docs"):
        assert (await rig.call("GET", path)).status_code == 200, path
    assert (await rig.as_app("GET", "/nowhere")).status_code == 404


async def test_headers_have_bounds(rig: Rig) -> None:
    many = {f"x-{n}": "1" for n in range(120)}
    answer = await rig.as_app("GET", "/v1/endpoints", headers=many)
    assert answer.status_code == 431
    assert answer.json()["error"]["code"] == "invalidRequest"
    assert (await rig.as_app("GET", "/v1/endpoints", headers={"x-long": "x" * 40_000})).status_code == 431


async def test_a_head_without_end_is_cut_off(rig: Rig) -> None:
    host, port = rig.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: ")
    sent = 0
    try:
        while sent < 5_000_000:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()
    except OSError:
        pass
    try:
        answer = await asyncio.wait_for(reader.read(100), 50)
    except OSError:
        answer = b""
    assert sent < 5_000_000 or answer.startswith(b"HTTP/1.1 431")
    writer.close()
    assert (await rig.call("GET", "/health")).status_code == 200


async def test_a_client_that_never_says_what_it_wants_is_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.service.server._SLOW", -1.0)
    host, port = rig.url.removeprefix("http://").split(":")
    for beginning in (b"", b"GET /health HTTP/1.1\r\nhost"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(beginning)
        assert await asyncio.wait_for(reader.read(100), 50) == b""
        writer.close()


async def test_a_fault_of_ours_is_500_without_a_word_about_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: Any, **more: Any) -> Any:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(rig.engine.storage, "list_endpoints", broken)
    monkeypatch.setattr(rig.engine.storage, "put", broken)
    for method, path, body in (("GET", "/v1/endpoints", None), ("POST", "/v1/notifications", POST)):
        answer = await rig.as_app(method, path, json=body)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "generalException"
        assert "secret" not in answer.text
        assert answer.json()["error"]["innerError"]["request-id"] == answer.headers["request-id"]


async def test_a_port_in_use_is_said_in_words(rig: Rig) -> None:
    from fanout.errors import UsageError

    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(UsageError, match="choose another"):
        async with serving(rig.app, "127.0.0.1", taken.getsockname()[1], Limits()):
            pass
