"""Web pages of other origins: which browsers let call the service, and what of its answers they let them read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from servicerig import Gateways, engine_of, key_of, settings_of

from fanout.service import create_app
from fanout.service.server import serving

pytestmark = pytest.mark.anyio

OURS, OTHER = "https://app.example.com", "https://evil.example"
ORIGINS = (OURS, "http://localhost:3000")
CLIENT_HEADERS = "authorization,content-type,idempotency-key,if-match,last-event-id,x-uns-id"


@pytest.fixture
async def http(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_of(origins=getattr(request, "param", ORIGINS))
    app = create_app(engine_of(Gateways(), tmp_path), settings)
    async with (
        app.state.service as service,
        serving(app, "127.0.0.1", 0, service.limits) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        yield client


def preflight(origin: str, method: str = "PATCH", headers: str = CLIENT_HEADERS) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("path", ["/v1/me/feed/some-id", "/v1/notifications", "/beta/me/notifications"])
async def test_a_browser_asks_beforehand_without_a_credential(http: httpx.AsyncClient, origin: str, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = await http.options(path, headers=preflight(origin, method))
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == origin
        assert method in answer.headers["access-control-allow-methods"].split(", ")
        allowed = set(answer.headers["access-control-allow-headers"].lower().split(", "))
        assert set(CLIENT_HEADERS.split(",")) <= allowed
        assert "access-control-allow-credentials" not in answer.headers


async def test_each_route_of_the_document_can_be_called_from_a_page(http: httpx.AsyncClient) -> None:
    """Of a method that is left out a browser tells its page nothing but "CORS error"."""
    paths = (await http.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            answer = await http.options(path, headers=preflight(OURS, method.upper()))
            assert answer.status_code == 200, (method, path)


async def test_other_origins_and_other_headers_are_refused(http: httpx.AsyncClient) -> None:
    for headers in (
        preflight(OTHER),
        preflight("null"),
        preflight(f"{OURS}.evil.example"),
        preflight(OURS.replace("https", "http")),
        preflight(f"{OURS}:8443"),
        preflight(OURS, "TRACE"),
        preflight(OURS, headers="x-fanout-user"),
    ):
        answer = await http.options("/v1/notifications", headers=headers)
        assert answer.status_code == 400, headers


async def test_answers_and_refusals_can_be_read(http: httpx.AsyncClient) -> None:
    body = {"target": {"user": "alice"}, "title": "Hi"}
    good = {"authorization": f"Bearer {key_of('shop')}", "origin": OURS}
    for headers, status in ((good, 202), ({"origin": OURS}, 401)):
        answer = await http.post("/v1/notifications", json=body, headers=headers)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == OURS
        assert "Origin" in answer.headers["vary"]
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert exposed == {"etag", "location", "request-id", "retry-after"}
        assert exposed & set(answer.headers) >= {"request-id"}
    answer = await http.post("/v1/notifications", json=body, headers={**good, "origin": OTHER})
    assert answer.status_code == 202, "a credential is a credential; it is the browser that does not show the answer"
    assert "access-control-allow-origin" not in answer.headers


async def test_the_module_is_for_pages_of_every_origin(http: httpx.AsyncClient) -> None:
    for origin, allowed in ((OURS, OURS), (OTHER, "*")):
        answer = await http.get("/client/fanout.js", headers={"origin": origin})
        assert answer.headers.get_list("access-control-allow-origin") == [allowed]


@pytest.mark.parametrize("http", [()], indirect=True)
async def test_none_is_allowed_by_default(http: httpx.AsyncClient) -> None:
    answer = await http.options("/v1/notifications", headers=preflight(OURS))
    assert answer.status_code == 401
    assert not [name for name in answer.headers if name.startswith("access-control")]
