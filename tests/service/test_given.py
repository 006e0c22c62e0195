"""The service judges what it is given by the library's rules, and refuses with the field's name."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from servicerig import Rig

from fanout.errors import EngineClosed, WrongLoop

pytestmark = pytest.mark.anyio

DEVICE: dict[str, Any] = {"user": "alice", "binding": "apns", "address": "alice-1"}
POST: dict[str, Any] = {"target": {"user": "alice"}, "title": "Hi"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": {"user": ""}}, "target.user: String should have at least 1 character"),
        ({"target": {"user": "", "topic": 1}}, "target.user: String should have at least 1 character"),
        ({"target": {}}, "target: give exactly one of user, users, topic, endpoints and all"),
        ({"target": 5}, "target: Input should be a JSON object or a string"),
        ({"target": {"users": [1]}}, "target.users.0: Input should be a string"),
        ({"target": {"user": "a", "str": 1}}, "target.str: Extra inputs are not permitted"),
        ({"ttl": []}, "ttl: Input should be a number or a string"),
        ({"ttl": -1}, "ttl: Input should be greater than or equal to 0"),
        ({"feed": {"id": ""}}, "feed.id: String should have at least 1 character"),
        ({"feed": {"group": 5}}, "feed.group: Input should be a string"),
        ({"feed": {"expires_in": []}}, "feed.expires_in: Input should be a number or a string"),
        ({"feed": "x"}, "feed: Input should be a boolean or a JSON object"),
        ({"body": ["x"]}, "body: Input should be a string"),
        ({"bool": 1}, "bool: Extra inputs are not permitted"),
        ({"badge": "y", "actions": "x"}, "badge: Input should be an integer (1 more)"),
    ],
)
async def test_a_refusal_names_the_field_and_no_form_of_ours(rig: Rig, change: dict[str, Any], message: str) -> None:
    """Where a field may have one of several forms, the fault is told of the form that was meant."""
    answer = await rig.as_app("POST", "/v1/notifications", "shop", json=POST | change)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


async def test_a_body_that_is_no_object_is_told_so(rig: Rig) -> None:
    for path in ("/v1/notifications", "/v1/endpoints"):
        answer = await rig.as_app("POST", path, "shop", json=[])
        assert answer.json()["error"]["message"] == "Input should be a JSON object"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tags": ["a b"]}, "tag"),
        ({"tags": ["a&b"]}, "tag"),
        ({"tags": ["a\x00"]}, "NUL"),
        ({"user": "a\x00"}, "NUL"),
        ({"platform": "\x00"}, "NUL"),
    ],
)
async def test_a_device_is_refused_by_the_field(rig: Rig, body: dict[str, Any], field: str) -> None:
    answer = await rig.as_app("POST", "/v1/endpoints", "shop", json=DEVICE | body)
    assert answer.status_code == 400, answer.text
    assert field in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"target": "topic:news && !android"}, "topic"),
        ({"target": "topic:a b"}, "topic"),
        ({"target": {"topic": "a\x00"}}, "NUL"),
        ({"target": {"users": ["a\x00"]}}, "NUL"),
        ({"title": 5}, "title"),
        ({"sound": 5}, "sound"),
        ({"badge": 1.5}, "badge"),
        ({"data": ["a"]}, "data"),
        ({"collapse_key": "a\x00"}, "NUL"),
        ({"collapse_key": "ä" * 200}, "collapse_key"),
        ({"actions": [{"id": "a", "title": ""}]}, "title"),
        ({"at": 1e300}, "at"),
        ({"ttl": "soon"}, "soon"),
    ],
)
async def test_a_notification_is_refused_by_the_field(rig: Rig, body: dict[str, Any], field: str) -> None:
    answer = await rig.as_app("POST", "/v1/notifications", "shop", json=POST | body)
    assert answer.status_code == 400, answer.text
    assert field in answer.json()["error"]["message"]


async def test_a_tag_of_old_is_reached_by_the_literal_form_without_a_warning(rig: Rig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = await rig.as_app("POST", "/v1/notifications", "shop", json=POST | {"target": {"topic": "old & odd"}})
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("query", ["user=%00", "binding=%00", "tag=%00"])
async def test_a_filter_that_no_database_can_hold_is_refused(rig: Rig, query: str) -> None:
    answer = await rig.as_app("GET", f"/v1/endpoints?{query}", "shop")
    assert answer.status_code == 400, answer.text
    assert query.partition("=")[0] in answer.json()["error"]["message"]


async def test_a_request_and_a_call_of_the_feed_in_another_loop_do_nothing(rig: Rig) -> None:
    service = rig.service
    before = await service.engine.storage.changes()

    async def there() -> list[str]:
        said = []
        feed = service.feed
        for call in (
            feed.subscriptions("shop", "alice"),
            feed.subscribe("shop", "alice", device="phone"),
            feed.unsubscribe("shop", "alice", 1),
            feed.list("shop", "alice"),
            feed.get("shop", "alice", "x"),
            feed.post("shop", "user:alice", None, ()),
            feed.erase_user("shop", "alice"),
        ):
            try:
                await call
            except (WrongLoop, EngineClosed) as error:
                said.append(type(error).__name__)
        return said

    assert await asyncio.to_thread(lambda: asyncio.run(there())) == ["WrongLoop"] * 7
    assert await service.engine.storage.changes() == before
