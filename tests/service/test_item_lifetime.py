"""An item's whole life: its Location after it was deleted, a replayed post, deleting twice, ids of the sender, and
following from a page."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from servicerig import Rig

pytestmark = pytest.mark.anyio

PATH = "/beta/me/notifications"
POST = {
    "targetHostName": "shop.example.com",
    "appNotificationId": "order-42",
    "payload": {"visualContent": {"title": "T", "body": "B"}},
}


@pytest.mark.parametrize("prefix", ["", "/beta", "/v1.0"])
async def test_the_location_of_a_deleted_item_is_404(rig: Rig, prefix: str) -> None:
    made = await rig.post(POST, path=f"{prefix}/me/notifications")
    token, location = rig.user_token("alice"), made.headers["location"]
    assert (await rig.call("GET", location, token)).status_code == 200
    assert (await rig.call("DELETE", f"/v1/me/feed/{made.json()['id']}", token)).status_code == 200
    gone = await rig.call("GET", location, token)
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "itemNotFound"


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("payload", [{"rawContent": "x"}, POST["payload"]])
async def test_a_replayed_post_has_the_first_answer_whatever_became_of_the_item(
    rig: Rig, deleted: bool, payload: Any
) -> None:
    body, headers = {**POST, "payload": payload}, {"idempotency-key": "once"}
    first = await rig.post(body, headers=headers)
    assert first.status_code == 201
    token = rig.user_token("alice")
    path = f"/v1/me/feed/{first.json()['id']}"
    assert (await rig.call("PATCH", path, token, json={"read": True})).status_code == 200
    if deleted:
        assert (await rig.call("DELETE", path, token)).status_code == 200
    again = await rig.post(body, headers=headers)
    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    items = await rig.history()
    assert [item["status"] for item in items] == ([] if deleted else ["active"])


async def test_deleting_twice_by_the_senders_id_answers_the_same(rig: Rig) -> None:
    made = await rig.post(POST)
    token = rig.user_token("alice")
    first = await rig.call("DELETE", "/v1/me/feed/order-42", token)
    again = await rig.call("DELETE", "/v1/me/feed/order-42", token)
    assert [first.status_code, again.status_code] == [200, 200]
    assert first.json() == again.json()
    assert first.json()["item"]["id"] == made.json()["id"]
    assert (await rig.call("DELETE", "/v1/me/feed/order-42", rig.user_token("bob"))).status_code == 404
    assert (await rig.call("PATCH", "/v1/me/feed/order-42", token, json={"read": True})).status_code == 404


@pytest.mark.parametrize("id", ["a/b", "/a", "a//b/", "ä/ö", "100%/2", "a?b#c", "...", "a..b/.c", "..a", "events/1"])
async def test_what_a_sender_may_call_it_can_be_read_changed_and_deleted(rig: Rig, id: str) -> None:
    made = await rig.post({**POST, "appNotificationId": id})
    assert made.status_code == 201, made.text
    token = rig.user_token("alice")
    for path in (f"/v1/me/feed/{quote(id, safe='')}", f"{PATH}/{quote(id, safe='')}"):
        found = await rig.call("GET", path, token)
        assert found.status_code == 200, found.text
        assert found.json()["id"] == made.json()["id"]
    path = f"/v1/me/feed/{quote(id, safe='')}"
    assert (await rig.call("PATCH", path, token, json={"read": True})).status_code == 200
    assert (await rig.call("DELETE", path, token)).status_code == 200


@pytest.mark.parametrize(
    "id",
    [
        ".",
        "..",
        "a/../b",
        "./a",
        "a/.",
        "events",
        "a\nb",
        "\x00",
        "a\x1f",
        "\x7f",
        "a\x85b",
        "\x9f",
        "a\u2028b",
        "\u2029",
    ],
)
async def test_what_a_sender_may_not_call_it_is_refused_at_the_post(rig: Rig, id: str) -> None:
    for answer in (
        await rig.post({**POST, "appNotificationId": id}),
        await rig.as_app(
            "POST", "/v1/notifications", json={"target": {"user": "alice"}, "title": "T", "feed": {"id": id}}
        ),
    ):
        assert answer.status_code == 400, answer.text
        assert "id" in answer.json()["error"]["message"] or "NUL" in answer.json()["error"]["message"]
    assert await rig.history() == []


@pytest.mark.parametrize("order", ["newest", "changed"])
async def test_the_newest_items_and_then_follow(rig: Rig, order: str) -> None:
    """A page that is not the last one has a cursor that the stream takes: it goes on from when the reading began."""
    for number in range(5):
        await rig.post({**POST, "appNotificationId": f"order-{number}"})
    token = rig.user_token("alice")
    page = (await rig.call("GET", "/v1/me/feed", token, params={"order": order, "limit": 2})).json()
    assert page["more"]
    assert len(page["items"]) == 2
    late = (await rig.post({**POST, "appNotificationId": "late"})).json()["id"]
    url, headers = f"/v1/me/feed/events?cursor={page['cursor']}", {"authorization": f"Bearer {token}"}
    async with rig.http.stream("GET", url, headers=headers) as stream:
        assert stream.status_code == 200
        told = []
        async for line in stream.aiter_lines():
            if line.startswith("data:") and '"status"' in line:
                told.append(line)
                break
    assert late in told[0]
