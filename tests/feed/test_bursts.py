"""Many changes at once: one push to each other device, whose last word always arrives; and one call for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from feedrig import events, running

from fanout.core.feed import FeedChange
from fanout.core.model import Notification
from fanout.service.feed import FeedSettings, NewItem, PushPart

pytestmark = pytest.mark.anyio

BURST = FeedSettings(burst=3600.0, heartbeat=60.0, poll=0.005)


async def test_a_hundred_marks_are_one_push_to_each_other_device(backend: str) -> None:
    async with running(backend, feed=BURST) as rig:
        phone = await rig.subscribe("alice", "apns", "phone")
        await rig.subscribe("alice", "fcm", "tablet")
        await rig.subscribe("alice", "wns", "laptop", receive="signal")
        await rig.subscribe("alice", "webpush", "browser")
        made = [(await rig.feed.post("default", "user:alice", NewItem(content={"n": n}))).item_id for n in range(100)]
        async with rig.client("alice") as reader, events(reader) as stream:
            assert (await stream.next())[0] == "cursor"
            for id in made:
                change = FeedChange(item=id, read=True, writer=phone["unsid"])
                _, cursor = await rig.feed.change("default", "alice", change)
            assert [(await stream.next())[2]["id"] for _ in made] == made, "what is open is told at once"
        await rig.quiet()
        assert rig.gateways.take() == {}
        await rig.jump(3600.0)
        told = {address: [push.data["feed"] for push in pushes] for address, pushes in rig.gateways.take().items()}
        assert told == {"alice-tablet": [{"cursor": cursor}], "alice-laptop": [{"cursor": cursor}]}
        await rig.jump(7200.0)
        assert rig.gateways.take() == {}


async def test_a_change_alone_says_what_it_was_and_a_writer_hears_of_another(backend: str) -> None:
    async with running(backend, feed=BURST) as rig:
        phone = await rig.subscribe("alice", "apns", "phone")
        tablet = await rig.subscribe("alice", "fcm", "tablet")
        id = (await rig.feed.post("default", "user:alice", NewItem(content={}))).item_id
        await rig.feed.change("default", "alice", FeedChange(item=id, action="dismissed", writer=phone["unsid"]))
        await rig.feed.change("default", "alice", FeedChange(item=id, read=True, writer=tablet["unsid"]))
        await rig.jump(3600.0)
        (dismissed,), (read,) = rig.gateways.data("alice-tablet"), rig.gateways.data("alice-phone")
        assert (dismissed["action"], read["read"], dismissed["item"]) == ("dismissed", True, id)
        rig.gateways.take()
        await rig.feed.change("default", "alice", FeedChange(item=id, read=False, writer=phone["unsid"]))
        await rig.jump(3600.0)
        assert [data["read"] for data in rig.gateways.data("alice-tablet")] == [False], "a later one is told by itself"


async def test_one_call_marks_what_fits_and_one_signal_tells(backend: str) -> None:
    async with running(backend, feed=replace(BURST, burst=0)) as rig:
        phone = await rig.subscribe("alice", "apns", "phone")
        await rig.subscribe("alice", "fcm", "tablet")

        async def put(group: str | None = None, target: str = "user:alice", **more: Any) -> str:
            item = NewItem(content={"title": "x"}, group=group, **more)
            return (await rig.feed.post("default", target, item)).item_id

        orders = [await put("orders") for _ in range(3)]
        named = await put(external_id="a/1")
        every = await put(target="all")
        async with rig.client("alice", unsid=phone["unsid"]) as client:
            cursor = (await client.get("/v1/me/feed")).json()["cursor"]
            late = await put()

            async def mark(**asked: Any) -> int:
                answer = await client.patch("/v1/me/feed", json=asked)
                assert answer.status_code == 200, answer.text
                assert answer.headers["cache-control"] == "no-store"
                await rig.quiet()
                told = [push.data["feed"] for push in rig.gateways.take().get("alice-tablet", ())]
                changed: int = answer.json()["changed"]
                assert told == ([{"cursor": answer.json()["cursor"]}] if changed else [])
                return changed

            async def unread() -> set[str]:
                page = await client.get("/v1/me/feed", params={"unread": True})
                return {item["id"] for item in page.json()["items"]}

            assert await mark(read=True, group="orders", items=[orders[0], named]) == 1, "every filter counts"
            assert await mark(read=True, group="orders") == 2
            assert await mark(read=True, items=["a/1", "nothing"]) == 1
            assert await unread() == {every, late}
            assert await mark(read=True, until=cursor) == 1
            assert await unread() == {late}, "what has come since stays"
            assert await mark(read=True, all=True) == 1
            assert await mark(read=True, all=True) == 0
            assert await mark(delete=True, all=True) == 6
            assert (await client.get("/v1/me/feed")).json()["items"] == []
            for wrong in (
                {"read": True},
                {"all": True},
                {"read": True, "all": True, "group": "x"},
                {"read": True, "delete": True, "all": True},
                {"read": True, "items": [""]},
                {"read": True, "until": "nonsense"},
            ):
                assert (await client.patch("/v1/me/feed", json=wrong)).status_code == 400, wrong
        async with rig.client("alice", unsid="unknown") as client:
            assert (await client.patch("/v1/me/feed", json={"read": True, "all": True})).status_code == 403


async def test_a_bulk_goes_on_past_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.service.feed.service._SWEEP", 3)
    async with running("memory:", feed=BURST) as rig, rig.client("alice") as client:
        await rig.subscribe("alice", "fcm")
        for _ in range(10):
            await rig.feed.post("default", "user:alice", NewItem(content={}))
        answer = (await client.patch("/v1/me/feed", json={"action": "dismissed", "all": True})).json()
        assert answer["changed"] == 10
        await rig.jump(3600.0)
        assert rig.gateways.data("alice-fcm") == [{"cursor": answer["cursor"]}], "which is one signal all the same"


async def test_a_raw_part_collapses_in_the_queue_and_no_gateway_is_told_a_key(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "fcm")
        await rig.engine.pause_binding("fcm")
        for n in range(5):
            part = PushPart(notification=Notification(data={"n": n}), collapse_key="order-42")
            await rig.feed.post("default", "user:alice", NewItem(content={"n": n}, external_id="order-42"), [part])
        await rig.engine.resume_binding("fcm")
        await rig.quiet()
        (push,) = rig.gateways.take()["alice-fcm"]
        assert (push.data["n"], push.collapse_key) == (4, None)
