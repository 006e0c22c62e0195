"""What a key of each role may do, on every route that there is; and metrics, which are there for an operator of the own
app alone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from edgerig import APP_KEY, OTHER_KEY, engine_of, request, running, settings_of
from hypothesis import given
from hypothesis import strategies as st

from fanout.config import ApiKeySettings
from fanout.core.roles import ROLES, Role, may
from fanout.service import create_app

anyio = pytest.mark.anyio
DOCUMENT = create_app(engine_of(), settings_of()).openapi()
ROUTES = sorted(
    (method.upper(), re.sub(r"\{[^}]+\}", "x", path)) for path, item in DOCUMENT["paths"].items() for method in item
)
SENDS = {("POST", "/v1/notifications"), ("POST", "/beta/me/notifications"), ("POST", "/v1/notifications/x/cancel")}
FOLLOWS = {("GET", f"/v1/notifications/x{more}") for more in ("", "/deliveries", "/deliveries/x")}
KEYS = {(method, path) for method, path in ROUTES if path.startswith(("/v1/keys", "/v1/hosts", "/v1/audit"))}
RULES = {
    "send": SENDS | FOLLOWS | {("GET", "/beta/me/notifications/x")},
    "devices": {(method, path) for method, path in ROUTES if path.startswith("/v1/endpoints")},
    "read": {(method, path) for method, path in ROUTES if method == "GET" and path not in ("/metrics", "/v1/export")}
    - KEYS,
    "operator": {
        ("GET", "/metrics"),
        *KEYS,
        *FOLLOWS,
        *(("POST", f"/v1/notifications/x/{verb}") for verb in ("cancel", "pause", "resume")),
    },
    "app": {route for route in ROUTES if route[1] != "/metrics"} - KEYS,
}


@pytest.mark.parametrize("role", ROLES)
def test_each_route_is_open_to_the_roles_that_it_is_for(role: Role) -> None:
    assert {route for route in ROUTES if may(role, *route)} == RULES[role] & set(ROUTES)


@given(
    st.sampled_from(list(ROLES)),
    st.sampled_from(["GET", "POST", "DELETE", "PATCH", "PUT", "HEAD"]),
    st.text(max_size=60),
)
def test_no_path_gives_metrics_or_a_change_to_who_may_only_read(role: Role, method: str, path: str) -> None:
    assert may("app", method, "/metrics") is False
    if method not in ("GET", "HEAD"):
        assert not may("read", method, "/" + path)
        if not path.startswith("v1/endpoints"):
            assert not may("devices", method, "/" + path)
    if may(role, method, "/" + path) and role == "operator":
        assert path in ("metrics", "v1/audit") or path.startswith(("v1/notifications/", "v1/keys", "v1/hosts"))


@anyio
async def test_a_key_does_what_its_role_says_and_no_more() -> None:
    key = ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash, role="devices")
    async with running(keys=(key,)) as rig:
        bearer = f"Authorization: Bearer {APP_KEY.key.reveal()}"
        assert (await rig.one(request("GET", "/v1/endpoints", bearer))).status == 200
        for method, path in (
            ("POST", "/v1/notifications"),
            ("DELETE", "/v1/users/alice"),
            ("POST", "/me/notifications"),
        ):
            answer = await rig.one(request(method, path, bearer, "Content-Type: application/json", body=b"{}"))
            assert answer.status == 403
            assert answer.json()["error"]["innerError"]["code"] == "role"


@anyio
@pytest.mark.parametrize("opened", [False, True])
async def test_metrics_are_there_for_an_operator_of_its_own_app(opened: bool) -> None:
    operator = ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash, role="operator")
    other = ApiKeySettings(id=OTHER_KEY.id, hash=OTHER_KEY.hash, app="other")
    async with running(keys=(operator, other), metrics=opened) as rig:
        for lines in ((), (f"Authorization: Bearer {OTHER_KEY.key.reveal()}",), (f"Authorization: {rig.user()}",)):
            answer = await rig.one(request("GET", "/metrics", *lines))
            assert answer.status in ((401,) if opened and not lines else (404,))
            assert b"fanout_" not in answer.body
        answer = await rig.one(request("GET", "/metrics", f"Authorization: Bearer {APP_KEY.key.reveal()}"))
        if not opened:
            assert answer.status == 404
            return
        text = answer.body.decode()
        assert answer.status == 200
        assert 'app="default"' in text
        assert "fanout_storage_up 1" in text
        assert 'app="other"' not in text


@anyio
async def test_a_key_that_has_ended_is_refused() -> None:
    key = ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash, expires="2020-01-31")
    async with running(keys=(key, replace(key, id=OTHER_KEY.id, hash=OTHER_KEY.hash, expires="2100-01-31"))) as rig:
        ended = await rig.one(request("GET", "/v1/endpoints", f"Authorization: Bearer {APP_KEY.key.reveal()}"))
        good = await rig.one(request("GET", "/v1/endpoints", f"Authorization: Bearer {OTHER_KEY.key.reveal()}"))
        assert (ended.status, good.status) == (401, 200)
        assert ended.json()["error"]["innerError"]["code"] == "expired"
