"""The pages on which keys are pasted: nothing from elsewhere, nothing in a frame; and answers that no cache may
keep."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import pytest
from edgerig import Rig, request, say

from fanout.service.web import reference

pytestmark = pytest.mark.anyio

PAGES = ("/docs", "/redoc", "/client/")


async def got(rig: Rig, path: str, *lines: str) -> tuple[int, dict[str, str], str]:
    (answer,) = await say(rig.address, request("GET", path, *lines))
    return answer.status, answer.headers, answer.body.decode()


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_loads_what_is_here_and_stands_in_no_frame(rig: Rig, path: str) -> None:
    pytest.importorskip("fastapi_offline")
    status, headers, text = await got(rig, path)
    assert status == 200
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] in ("'none'", "'self'")
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in policy.get("script-src", policy["default-src"])
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert scripts
    for attributes, inline in scripts:
        assert not inline.strip(), "the policy forbids it"
        assert "src=" in attributes
    sources = re.findall(r'(?:src|href|spec-url)="([^"]+)"', text)
    for source in sources:
        assert not urlsplit(source).netloc, source
        if urlsplit(source).scheme == "data":
            continue  # it is in the page
        found, _, _ = await got(rig, urlsplit(urljoin(f"http://service{path}", source)).path)
        assert found == 200, source


async def test_scripts_come_from_the_installed_package(rig: Rig) -> None:
    pytest.importorskip("fastapi_offline")
    status, headers, text = await got(rig, "/docs/swagger-ui-bundle.js")
    assert status == 200
    assert len(text) > 500_000
    status, _, _ = await got(rig, "/docs/swagger-ui-bundle.js", f"If-None-Match: {headers['etag']}")
    assert status == 304
    for path in ("/docs/..%2fcore.py", "/docs/core.py", "/docs/%2e%2e/core.py", "/docs/static%2fswagger-ui.css"):
        assert (await got(rig, path))[0] in (400, 401, 404), path


async def test_without_the_package_the_page_says_what_to_install(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_PACKAGE", "fanout_has_no_such_package")
    reference._file.cache_clear()
    for path in ("/docs", "/redoc"):
        status, headers, text = await got(rig, path)
        assert (status, "openapi.json" in text, "<script" in text) == (200, True, False)
        assert headers["x-frame-options"] == "DENY"
    assert (await got(rig, "/docs/swagger-ui.css"))[0] == 404


async def test_no_cache_keeps_an_unsid(rig: Rig) -> None:
    user = f"Authorization: {rig.user()}"
    body = b'{"device_id": "phone"}'
    for _ in range(2):
        said = request("POST", "/v1/me/subscriptions", user, "Content-Type: application/json", body=body)
        made = await rig.one(said)
        assert (made.status in (200, 201), made.headers["cache-control"]) == (True, "no-store")
    for path in ("/v1/me/subscriptions", f"/v1/me/subscriptions/{made.json()['id']}"):
        status, headers, text = await got(rig, path, user)
        assert (status, headers["cache-control"]) == (200, "no-store")
        assert made.json()["unsid"] in text
