"""An app takes back what it has posted."""

from __future__ import annotations

from typing import Any

import pytest
from feedrig import Rig, running

from fanout.core.model import Notification
from fanout.service.feed import NewItem

pytestmark = pytest.mark.anyio


async def withdraw(rig: Rig, **query: str) -> tuple[int, Any]:
    # Whoever names no user speaks for the app.
    async with rig.client("") as client:
        del client.headers["x-fanout-user"]
        answer = await client.delete("/v1/feed", params=query)
        return answer.status_code, answer.json()


async def test_a_withdrawn_item_leaves_every_feed_and_tray_and_may_be_posted_again(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice/feed/7") as client:
        user = "alice/feed/7"
        await rig.subscribe(user, "apns", address="phone")
        await rig.subscribe(user, "fcm", address="tablet", receive="signal")
        id = await rig.post(user, external_id="order/42")
        rig.gateways.take()
        assert await withdraw(rig, user=user, external_id="order/42") == (200, {"item": id})
        await rig.quiet()
        (seen,), (signal,) = rig.gateways.data("phone"), rig.gateways.data("tablet")
        assert (seen["change"], seen["item"], set(signal)) == ("deleted", id, {"cursor"})
        rig.gateways.take()
        assert (await client.get("/v1/me/feed")).json()["items"] == []
        for named in ({"external_id": "order/42"}, {"id": id}):
            assert await withdraw(rig, user=user, **named) == (200, {"item": id}), "again it changes nothing"
        await rig.quiet()
        assert rig.gateways.take() == {}
        again = await rig.post(user, external_id="order/42")
        assert again != id
        assert set(rig.gateways.take()) == {"phone", "tablet"}, "the same post is news again"


async def test_what_is_still_queued_of_it_is_not_sent(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "fcm")
        await rig.subscribe("alice", "apns", receive="signal")
        for binding in ("fcm", "apns"):
            await rig.engine.pause_binding(binding)
        item = NewItem(content={"title": "Wrong"}, external_id="a")
        await rig.feed.post("default", "user:alice", item, Notification(title="Wrong"))
        other = NewItem(content={"title": "Right"}, external_id="a")
        await rig.feed.post("default", "user:alice", other, Notification(title="Right"))
        assert (await withdraw(rig, user="alice", external_id="a"))[0] == 200
        for binding in ("fcm", "apns"):
            await rig.engine.resume_binding(binding)
        await rig.quiet()
        pushes = rig.gateways.take()
        assert [push.title for push in pushes["alice-fcm"]] == [None], "only the deletion"
        assert len(pushes["alice-apns"]) == 1


async def test_who_may_withdraw_what(backend: str) -> None:
    async with running(backend) as rig, rig.client("bob") as bob:
        id = await rig.post("alice")
        for query in ({"user": "bob", "id": id}, {"user": "alice", "id": "nothing"}):
            status, body = await withdraw(rig, **query)
            assert (status, body["error"]["innerError"]["code"]) == (404, "item")
        for query in (
            {"user": "alice"},
            {"id": id},
            {"user": "alice", "id": id, "external_id": "x"},
            {"user": "", "id": id},
        ):
            assert (await withdraw(rig, **query))[0] == 400, query
        refused = await bob.delete("/v1/feed", params={"user": "alice", "id": id})
        assert (refused.status_code, refused.json()["error"]["innerError"]["code"]) == (403, "app_only")
        every = (await rig.feed.post("default", "all", NewItem(content={}))).item_id
        assert await withdraw(rig, user="alice", id=every) == (200, {"item": every})
        assert [item["id"] for item in (await bob.get("/v1/me/feed")).json()["items"]] == [every], "of one user only"
