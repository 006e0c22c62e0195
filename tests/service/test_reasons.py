"""One table of reasons: whatever refuses gives one of them, and clients and the document are made of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from servicerig import Rig

import fanout.service
from fanout.client import AppClient, ServiceError
from fanout.core.reasons import BY_STATUS, REASONS
from fanout.service.errors import CODES

SERVICE = Path(fanout.service.__file__).parent


def given_reasons() -> Iterator[tuple[str, str]]:
    """Each reason that stands in the code of the service, with its place."""
    for path in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = {"unauthorized": 0, "forbidden": 0, "unavailable": 0, "AuthError": 1, "FeedError": 1}.get(name)
            found = [node.args[place]] if place is not None and len(node.args) > place else []
            if name in ("Refused", "Problem"):
                found += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            for each in found:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value, f"{path.name}:{each.lineno}"


def test_every_reason_is_in_the_table() -> None:
    found = list(given_reasons())
    assert len(found) > 30
    assert [(word, place) for word, place in found if word and word not in REASONS] == []


def test_every_status_has_a_reason_and_every_reason_one_sentence() -> None:
    assert CODES.keys() <= BY_STATUS.keys()
    assert set(BY_STATUS.values()) <= REASONS.keys()
    assert all(re.fullmatch("[a-z_]+", word) for word in REASONS)
    assert all(text.endswith(".") for text in REASONS.values())


def test_what_the_web_client_decides_by_is_in_the_table() -> None:
    script = "\n".join(path.read_text() for path in sorted((SERVICE / "web").glob("*.js")))
    (listed,) = re.findall(r"const REVOKED = \[([^\]]*)\]", script)
    assert set(re.findall(r'"([a-z_]+)"', listed)) <= REASONS.keys()
    assert set(re.findall(r'reason === "([a-z_]+)"', script)) <= REASONS.keys()


@pytest.mark.anyio
async def test_answers_document_and_client_say_the_same(rig: Rig) -> None:
    user = rig.user_token("alice")
    asked = [
        ("missing", await rig.call("GET", "/v1/me/feed")),
        ("route", await rig.as_app("GET", "/v1/nothing")),
        ("method", await rig.as_app("PUT", "/v1/endpoints")),
        ("app_only", await rig.call("GET", "/v1/endpoints", user)),
        ("user_only", await rig.as_app("GET", "/v1/me/feed")),
        ("item", await rig.call("GET", "/v1/me/feed/none", user)),
        ("unsid", await rig.call("POST", "/me/notifications", user, json={}, headers={"x-uns-id": "none"})),
        ("device", await rig.call("GET", "/v1/me/feed/events", user, headers={"x-uns-id": "none"})),
        ("invalid", await rig.as_app("POST", "/v1/notifications", json={"title": 5})),
        ("media", await rig.as_app("POST", "/v1/notifications", content=b"x")),
        ("gone", await rig.as_app("GET", "/v1/notifications/none")),
    ]
    for reason, answer in asked:
        error = answer.json()["error"]
        assert error["innerError"]["code"] == reason, answer.text
        assert error["code"] == CODES[answer.status_code]
    document = (await rig.as_app("GET", "/openapi.json")).json()
    inner = document["components"]["schemas"]["InnerError"]["properties"]["code"]
    assert inner["enum"] == list(REASONS)
    async with AppClient(rig.url, "wrong") as client:
        with pytest.raises(ServiceError) as refused:
            await client.status("none")
    assert (refused.value.status, refused.value.reason) == (401, "malformed")
