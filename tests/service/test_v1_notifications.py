"""`/v1/notifications`: posts to every kind of target, and what becomes of them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from servicerig import Rig, running

from fanout.config import Limits
from fanout.plugin import Gone, Rejected

pytestmark = pytest.mark.anyio

PATH = "/v1/notifications"


async def register(rig: Rig, user: str, address: str, *tags: str, app: str = "shop", binding: str = "apns") -> int:
    body = {"user": user, "binding": binding, "address": address, "tags": list(tags)}
    answer = await rig.as_app("POST", "/v1/endpoints", app, json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def sent(rig: Rig, status: int = 202, app: str = "shop", key: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await rig.as_app("POST", PATH, app, json={"title": "Hi", **body}, headers=headers)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def addresses(rig: Rig) -> list[str]:
    return sorted(push.address for push in rig.gateways.pushes)


@pytest.fixture
async def people(rig: Rig) -> dict[str, int]:
    """Four devices of three users, two of them with a topic; and one of another app."""
    await register(rig, "alice", "other-apps", "news", app="news")
    return {
        "alice-1": await register(rig, "alice", "alice-1", "news"),
        "alice-2": await register(rig, "alice", "alice-2"),
        "bob-1": await register(rig, "bob", "bob-1", "news"),
        "carol/1": await register(rig, "carol", "carol/1"),
    }


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        ({"user": "alice"}, ["alice-1", "alice-2"]),
        ("user:alice", ["alice-1", "alice-2"]),
        ({"users": ["bob", "carol", "nobody", "bob"]}, ["bob-1", "carol/1"]),
        ({"topic": "news"}, ["alice-1", "bob-1"]),
        ("topic:news", ["alice-1", "bob-1"]),
        ({"all": True}, ["alice-1", "alice-2", "bob-1", "carol/1"]),
        ("all", ["alice-1", "alice-2", "bob-1", "carol/1"]),
        ({"user": "nobody"}, []),
    ],
)
async def test_every_target(rig: Rig, people: dict[str, int], target: Any, reached: list[str]) -> None:
    found = await sent(rig, target=target)
    await rig.quiet()
    assert addresses(rig) == reached
    status = (await rig.as_app("GET", f"{PATH}/{found['id']}")).json()
    assert status["state"] == "done"
    assert status["total"] == status["counts"]["accepted"] == len(reached)


async def test_explicit_endpoints_of_the_own_app_only(rig: Rig, people: dict[str, int]) -> None:
    foreign = [each["id"] for each in (await rig.as_app("GET", "/v1/endpoints", "news")).json()["endpoints"]]
    found = await sent(rig, target={"endpoints": [people["bob-1"], people["carol/1"], *foreign, 999]})
    await rig.quiet()
    assert addresses(rig) == ["bob-1", "carol/1"]
    assert found["total"] == 2


async def test_all_that_a_notification_can_say_reaches_the_transport(rig: Rig, people: dict[str, int]) -> None:
    body = {
        "title": "t", "body": "b", "subtitle": "s", "data": {"a": [1, None, {"b": 2.5}]}, "image": "https://e.example/i.png",
        "icon": "i", "badge": 3, "sound": "ping", "url": "https://e.example/", "category": "c", "thread": "th",
        "actions": [{"id": "yes", "title": "Yes"}, {"id": "go", "title": "Go", "url": "https://e.example/go"}],
        "ttl": "1h", "lane": "urgent", "collapse_key": "k", "repeat": "at_most_once", "transports": {"apns": {"priority": 5}},
    }  # fmt: skip
    await sent(rig, target={"user": "bob"}, **body)
    (push,) = await rig.gateways.arrived(1)
    said = push.notification
    assert (said.title, said.body, said.subtitle, said.image, said.icon) == ("t", "b", "s", body["image"], "i")
    assert (said.badge, said.sound, said.url, said.category, said.thread) == (3, "ping", body["url"], "c", "th")
    assert said.data == body["data"]
    assert [(action.id, action.title, action.url) for action in said.actions] == [
        ("yes", "Yes", None),
        ("go", "Go", "https://e.example/go"),
    ]
    assert (said.ttl, said.lane, said.collapse_key, said.repeat) == (3600.0, "urgent", "k", "at_most_once")
    assert said.transports == {"apns": {"priority": 5}}


async def test_a_query_that_a_call_does_not_know_is_refused(rig: Rig) -> None:
    """`dry_run` in the query sent, and `usr` listed the endpoints of all users."""
    await register(rig, "a", "a-1")
    post = {"target": {"user": "a"}, "title": "Hi"}
    for method, path, known in (
        ("POST", f"{PATH}?dry_run=true", "take it out"),
        ("POST", f"{PATH}?", ""),
        ("GET", "/v1/endpoints?usr=a", "use one of "),
        ("GET", "/v1/endpoints?User=a", "user"),
        ("GET", "/v1/endpoints?=a", "user"),
        ("GET", "/v1/endpoints?user=a&limit=1", ""),
        ("DELETE", "/v1/users/a?dry_run=1", "take it out"),
    ):
        answer = await rig.as_app(method, path, **({"json": post} if method == "POST" else {}))
        assert answer.is_client_error == bool(known), path
        assert known in answer.text, path
    answer = await rig.call("GET", "/v1/me/feed?unred=1", rig.user_token("a"))
    assert (answer.status_code, "does not know: use one of action, cursor" in answer.text) == (400, True), answer.text
    await rig.quiet()
    assert addresses(rig) == ["a-1"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"target": None},
        {"target": {}},
        {"target": {"user": "a", "topic": "b"}},
        {"target": {"user": None}},
        {"target": {"user": ""}},
        {"target": {"users": []}},
        {"target": {"endpoints": [0]}},
        {"target": {"endpoints": [2**70]}},
        {"target": {"endpoints": ["1"]}},
        {"target": {"all": False}},
        {"target": "user:"},
        {"target": "everybody"},
        {"target": {"user": "x" * 513}},
        {"target": {"user": "a"}, "lane": "fast"},
        {"target": {"user": "a"}, "ttl": -1},
        {"target": {"user": "a"}, "ttl": "soon"},
        {"target": {"user": "a"}, "ttl": True},
        {"target": {"user": "a"}, "ttl": 1e12},
        {"target": {"user": "a"}, "badge": "3"},
        {"target": {"user": "a"}, "badge": -1},
        {"target": {"user": "a"}, "titel": "x"},
        {"target": {"user": "a"}, "data": []},
        {"target": {"user": "a"}, "actions": [{"id": "x"}]},
        {"target": {"user": "a"}, "transports": {"apns": 1}},
        {"target": {"user": "a"}, "transports": {"apns": {"nonsense": 1}}},
        {"target": {"user": "a"}, "transports": {"apsn": {"priority": 5}}},
        {"target": {"user": "a"}, "transports": {"apns": {"priority": 5}, "": {}}, "feed": True},
        {"target": {"user": "a"}, "transports": {"APNS": {}}, "dry_run": True},
        {"target": {"user": "a"}, "collapse_key": ""},
        {"target": {"user": "a"}, "collapse_key": "é" * 200},
        {"target": {"user": "a"}, "at": "yesterday"},
        {"target": {"user": "a"}, "at": 1e300},
        {"target": {"user": "a"}, "at": "+2000d"},
        {"target": {"user": "a"}, "body": "x" * 60_000},
        {"target": {"endpoints": [1]}, "feed": True},
        {"target": {"user": "a"}, "feed": True, "at": "+1h"},
        {"target": {"user": "a"}, "feed": {"expires_in": "31d"}},
        {"target": {"user": "a"}, "feed": {"unknown": 1}},
        {"target": {"user": "a"}, "data": {"feed": 1}, "feed": True},
    ],
)
async def test_what_cannot_be_is_400_in_the_envelope(rig: Rig, body: dict[str, Any]) -> None:
    await register(rig, "a", "a-1")
    answer = await rig.as_app("POST", PATH, json={"title": "Hi", **body})
    if "transports" in body and "nonsense" in str(body):
        return  # the scripted transport takes any override
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalidRequest"
    assert len(answer.json()["error"]["message"]) > 5
    await rig.quiet()
    assert rig.gateways.pushes == []


async def test_an_idempotency_key_stores_once(rig: Rig, people: dict[str, int]) -> None:
    asked = [sent(rig, target={"user": "bob"}, key="order-42") for _ in range(20)]
    found = await asyncio.gather(*asked)
    assert len({each["id"] for each in found}) == 1
    assert [each["replayed"] for each in found].count(False) == 1
    await rig.quiet()
    assert addresses(rig) == ["bob-1"]
    refused = await sent(rig, 409, target={"user": "alice"}, key="order-42")
    assert refused["error"]["code"] == "conflict"
    assert (await sent(rig, target={"user": "alice"}, key="order-42", app="news"))["replayed"] is False
    await sent(rig, 400, target={"user": "bob"}, key="x" * 256)


async def test_a_dry_run_counts_and_stores_nothing(rig: Rig, people: dict[str, int]) -> None:
    found = await sent(rig, 200, target={"all": True}, dry_run=True)
    assert found["endpoints"] == {"apns": 4}
    assert found["total"] == 4
    assert found["bytes"]["apns"] > 10
    await rig.quiet()
    assert rig.gateways.pushes == []


async def test_a_schedule_waits_for_its_time(rig: Rig, people: dict[str, int]) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for at in (later, "+1h", time.time() + 3600):
        found = await sent(rig, target={"user": "bob"}, at=at)
        status = (await rig.as_app("GET", f"{PATH}/{found['id']}")).json()
        assert status["state"] == "scheduled"
        assert status["total"] is None
        assert (await rig.as_app("POST", f"{PATH}/{found['id']}/cancel")).json()["state"] == "cancelled"
    assert rig.gateways.pushes == []


async def test_deliveries_by_state_with_a_cursor_and_every_decision_about_one(rig: Rig) -> None:
    ids = [await register(rig, "dora", f"dora-{n}") for n in range(5)]
    rig.gateways.answers["dora-1"] = Rejected("BadTopic")
    rig.gateways.answers["dora-3"] = Gone("Unregistered", since=4e9)
    id = (await sent(rig, target={"user": "dora"}))["id"]
    await rig.quiet()
    status = (await rig.as_app("GET", f"{PATH}/{id}")).json()
    assert (status["counts"]["accepted"], status["counts"]["rejected"], status["counts"]["gone"]) == (3, 1, 1)
    assert status["reasons"]["rejected"] == {"BadTopic": 1}
    page = (await rig.as_app("GET", f"{PATH}/{id}/deliveries", params={"limit": 2})).json()
    seen = page["deliveries"]
    while page["cursor"] is not None:
        page = (
            await rig.as_app("GET", f"{PATH}/{id}/deliveries", params={"limit": 2, "cursor": page["cursor"]})
        ).json()
        seen += page["deliveries"]
    assert [each["endpoint"] for each in seen] == ids
    assert [each["state"] for each in seen] == ["accepted", "rejected", "accepted", "gone", "accepted"]
    only = (await rig.as_app("GET", f"{PATH}/{id}/deliveries", params={"state": "gone"})).json()
    assert only == {"deliveries": [{"endpoint": ids[3], "state": "gone", "reason": "Unregistered"}], "cursor": None}
    steps = (await rig.as_app("GET", f"{PATH}/{id}/deliveries/{ids[1]}")).json()
    assert steps[0]["what"] == "accepted"
    assert (steps[-1]["what"], steps[-1]["state"], steps[-1]["reason"]) == ("ended", "rejected", "BadTopic")
    for wrong in (
        {"state": "lost"},
        {"cursor": "zzz"},
        {"cursor": "a"},
        {"cursor": "a" + "f" * 16},
        {"limit": 0},
        {"limit": 1001},
    ):
        assert (await rig.as_app("GET", f"{PATH}/{id}/deliveries", params=wrong)).status_code == 400
    assert (await rig.as_app("GET", f"{PATH}/{id}/deliveries/999999")).status_code == 404
    assert (await rig.as_app("GET", f"{PATH}/{id}/deliveries/{2**63}")).status_code == 400


async def test_pause_resume_and_cancel(rig: Rig) -> None:
    await register(rig, "alice", "alice-1")
    rig.gateways.answers["alice-1"] = held = asyncio.Event()
    first = (await sent(rig, target={"user": "alice"}))["id"]
    await rig.gateways.arrived(1)
    held.set()
    await rig.quiet()
    second = (await sent(rig, target={"user": "alice"}, at="+1h"))["id"]
    paused = (await rig.as_app("POST", f"{PATH}/{second}/pause")).json()
    assert paused["state"] == "paused"
    assert (await rig.as_app("POST", f"{PATH}/{second}/resume")).json()["state"] == "scheduled"
    assert (await rig.as_app("POST", f"{PATH}/{second}/cancel")).json()["state"] == "cancelled"
    assert (await rig.as_app("POST", f"{PATH}/{first}/cancel")).json()["state"] == "done"


@pytest.mark.parametrize("path", ["", "/deliveries", "/deliveries/1"])
async def test_another_apps_notification_is_as_unknown_as_none(rig: Rig, people: dict[str, int], path: str) -> None:
    id = (await sent(rig, target={"user": "bob"}))["id"]
    for app, which in (("news", id), ("shop", "0" * 36), ("shop", "é"), ("shop", "x" * 64)):
        answer = await rig.as_app("GET", f"{PATH}/{which}{path}", app)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "itemNotFound"
    if not path:
        for verb in ("cancel", "pause", "resume"):
            assert (await rig.as_app("POST", f"{PATH}/{id}/{verb}", "news")).status_code == 404


async def test_a_user_is_not_an_app(rig: Rig) -> None:
    token = rig.user_token("alice")
    for method, path in (("POST", PATH), ("GET", f"{PATH}/x"), ("GET", "/v1/endpoints"), ("DELETE", "/v1/users/bob")):
        answer = await rig.call(method, path, token, json={"target": {"user": "bob"}})
        assert answer.status_code == 403, path
    assert (await rig.as_app("GET", "/v1/me/feed")).status_code == 403


async def test_what_a_device_asked_to_receive_is_kept(rig: Rig) -> None:
    for receive, binding in (("push", "apns"), ("signal", "fcm"), ("none", "wns")):
        await rig.subscribe("alice", binding, receive=receive)
    await sent(rig, target={"user": "alice"})
    await rig.quiet()
    assert addresses(rig) == ["alice-shop-apns"]
    found = await sent(rig, target={"user": "alice"}, feed={"id": "order-42", "group": "orders"})
    await rig.quiet()
    assert addresses(rig) == ["alice-shop-apns", "alice-shop-apns", "alice-shop-fcm"]
    (item,) = await rig.history()
    assert (item["id"], item["external_id"], item["group"]) == (found["item"], "order-42", "orders")
    assert item["content"] == {"title": "Hi"}
    assert len(found["parts"]) == 1


async def test_a_broadcast_enters_the_feed_of_everybody(rig: Rig) -> None:
    await sent(rig, target={"all": True}, body="b", data={"x": 1}, feed=True)
    for user in ("alice", "bob"):
        (item,) = await rig.history(user)
        assert item["content"] == {"title": "Hi", "body": "b", "data": {"x": 1}}


async def test_one_post_names_only_so_many_recipients(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(recipients=3)) as rig:
        await sent(rig, target={"users": ["a", "b", "c"]})
        for target in ({"users": ["a", "b", "c", "d"]}, {"endpoints": [1, 2, 3, 4]}):
            assert "recipients" in (await sent(rig, 400, target=target))["error"]["message"]


async def test_the_location_is_where_it_can_be_read(rig: Rig) -> None:
    answer: httpx.Response = await rig.as_app("POST", PATH, json={"target": {"user": "x"}, "title": "Hi"})
    assert (await rig.as_app("GET", answer.headers["location"])).json()["id"] == answer.json()["id"]
