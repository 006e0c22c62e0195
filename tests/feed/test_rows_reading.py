"""Reading the feed and its state on every device: rows 46 to 49 and 54 to 61 of the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from feedrig import Rig, events, running

from fanout.config import ServiceSettings, Settings, UserKeySettings
from fanout.core.model import Notification
from fanout.service.auth import new_user_key, user_token
from fanout.service.feed import FeedSettings, NewItem

pytestmark = pytest.mark.anyio


async def read(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.get("/v1/me/feed", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def patch(client: httpx.AsyncClient, id: str, **asked: Any) -> dict[str, Any]:
    answer = await client.patch(f"/v1/me/feed/{id}", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["item"]
    return found


def ids(page: Mapping[str, Any]) -> list[str]:
    return [item["id"] for item in page["items"]]


async def test_row_46_history_returns_read_and_dismissed_items_too(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        one, two = await rig.post("alice", "one"), await rig.post("alice", "two")
        await patch(client, one, read=True, action="dismissed")
        page = await read(client)
        assert sorted(ids(page)) == sorted([one, two])
        assert {item["content"]["title"] for item in page["items"]} == {"one", "two"}


async def test_row_47_who_subscribes_later_gets_earlier_items(backend: str) -> None:
    async with running(backend) as rig:
        item = await rig.post("alice")
        held = await rig.subscribe("alice", "apns")
        async with rig.client("alice", unsid=held["unsid"]) as client:
            assert ids(await read(client)) == [item]


async def test_row_48_filters_and_both_ends_to_begin_at(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        a, b, c, d = [await rig.post("alice", text) for text in "abcd"]
        await patch(client, a, read=True, action="activated")
        await patch(client, b, action="snoozed")
        await client.delete(f"/v1/me/feed/{c}")
        matrix: list[tuple[dict[str, Any], list[str]]] = [
            ({}, [d, a, b]),
            ({"status": "any"}, [d, a, b, c]),
            ({"status": "deleted"}, [c]),
            ({"unread": "true"}, [d, b]),
            ({"unread": "false"}, [a]),
            ({"action": "snoozed"}, [b]),
            ({"action": "none"}, [d]),
            ({"action": "activated", "unread": "true"}, []),
            ({"order": "newest"}, [d, b, a]),
            ({"order": "newest", "unread": "true"}, [d, b]),
            ({"order": "newest", "limit": "1"}, [d]),
        ]
        for asked, expected in matrix:
            assert ids(await read(client, **asked)) == expected, asked
        for wrong in ({"action": "seen"}, {"status": "gone"}, {"limit": "0"}, {"order": "oldest"}, {"unread": "x"}):
            assert (await client.get("/v1/me/feed", params=wrong)).status_code == 400, wrong


@pytest.mark.parametrize("order", ["changed", "newest"])
async def test_row_49_pages_resume_at_the_cursor_and_a_failed_one_is_repeated(backend: str, order: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        made = [await rig.post("alice", str(n)) for n in range(7)]
        whole = made if order == "changed" else made[::-1]
        first = await read(client, limit=3, order=order)
        assert ids(first) == whole[:3]
        assert first["more"]
        # What changes while pages are read is not among the rest of them, and comes once, after them.
        await patch(client, whole[0], read=True)
        await patch(client, whole[5], read=True)
        late = await rig.post("alice", "late")
        second = await read(client, limit=3, cursor=first["cursor"])
        assert await read(client, limit=3, cursor=first["cursor"]) == second, "a page that was lost is the same again"
        assert ids(second) == [id for id in whole[3:] if id != whole[5]]
        assert not second["more"]
        third = await read(client, cursor=second["cursor"])
        assert ids(third) == [whole[0], whole[5], late]
        fourth = await read(client, cursor=third["cursor"])
        assert (ids(fourth), fourth["cursor"], fourth["more"]) == ([], third["cursor"], False)


async def test_row_54_states_persist_and_say_when_they_changed(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        id = await rig.post("alice")
        new = (await client.get(f"/v1/me/feed/{id}")).json()
        assert (new["read"], new["action"], new["modified_at"]) == (False, "none", None)
        for change in (
            {"read": True},
            {"action": "activated"},
            {"action": "dismissed"},
            {"action": "snoozed"},
            {"read": False},
        ):
            rig.clock.ahead += 1
            changed = await patch(client, id, **change)
            assert changed["modified_at"] == pytest.approx(rig.clock.now(), abs=30)
            again = await client.get(f"/v1/me/feed/{id}")
            assert again.json() == changed
            assert again.headers["etag"] == changed["etag"]
        assert (changed["read"], changed["action"]) == (False, "snoozed")
        same = await patch(client, id, read=False)
        assert same == changed, "what is so already is no change"


async def devices(rig: Rig) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A phone, a tablet that takes signals, and a browser."""
    phone = await rig.subscribe("alice", "apns", "phone")
    tablet = await rig.subscribe("alice", "fcm", "tablet", receive="signal")
    browser = await rig.subscribe("alice", "webpush", "browser")
    return phone, tablet, browser


async def test_row_55_a_change_is_pushed_to_the_other_devices_and_not_to_the_writer(backend: str) -> None:
    async with running(backend) as rig:
        phone, tablet, _ = await devices(rig)
        laptop = await rig.subscribe("alice", "wns", "laptop")
        id = await rig.post("alice")
        rig.gateways.take()
        async with rig.client("alice", unsid=phone["unsid"]) as client:
            answer = (await client.patch(f"/v1/me/feed/{id}", json={"action": "dismissed"})).json()
            await rig.quiet()
            (seen,), (signal,) = rig.gateways.data("alice-laptop"), rig.gateways.data("alice-tablet")
            assert seen == {"item": id, "cursor": answer["cursor"], "change": "updated", "action": "dismissed"}
            assert signal == {"cursor": answer["cursor"]}
            assert set(rig.gateways.take()) == {"alice-laptop", "alice-tablet"}
            # The cursor says whether there is something to fetch: the greater text covers the smaller.
            page = await read(client)
            assert page["cursor"] >= answer["cursor"]
            await patch(client, id, action="dismissed")
            await rig.quiet()
            assert rig.gateways.take() == {}, "what changes nothing is told to nobody"
        async with rig.client("alice", unsid=tablet["unsid"]) as client:
            await client.delete(f"/v1/me/feed/{id}")
            await rig.quiet()
            assert [data["change"] for data in rig.gateways.data("alice-phone")] == ["deleted"]
            assert set(rig.gateways.take()) == {"alice-laptop", "alice-phone"}
        async with rig.client("alice") as client:
            again = await rig.post("alice")
            rig.gateways.take()
            await patch(client, again, read=True)
            await rig.quiet()
            assert set(rig.gateways.take()) == {"alice-laptop", "alice-phone", "alice-tablet"}, (
                "a writer without a name"
            )
        async with rig.client("bob", unsid=laptop["unsid"]) as client:
            refused = await client.patch(f"/v1/me/feed/{again}", json={"read": False})
            assert refused.status_code == 404
        async with rig.client("alice", unsid="no-such-device") as client:
            refused = await client.patch(f"/v1/me/feed/{again}", json={"read": False})
            assert refused.status_code == 403


async def test_row_56_the_web_is_not_pushed_changes_but_reads_them(backend: str) -> None:
    async with running(backend) as rig:
        phone, _, browser = await devices(rig)
        id = await rig.post("alice")
        assert "alice-browser" in rig.gateways.take()
        async with (
            rig.client("alice", unsid=browser["unsid"]) as web,
            rig.client("alice", unsid=phone["unsid"]) as client,
        ):
            before = await read(web)
            async with events(web) as stream:
                assert (await stream.next())[0] == "cursor"
                await patch(client, id, action="dismissed")
                await rig.quiet()
                assert set(rig.gateways.take()) == {"alice-tablet"}
                kind, _, data = await stream.next()
                assert (kind, data["id"], data["action"]) == ("change", id, "dismissed")
            after = await read(web, cursor=before["cursor"])
            assert [item["action"] for item in after["items"]] == ["dismissed"]


async def test_row_57_a_dismissed_item_stays_in_the_history(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        id = await rig.post("alice")
        await patch(client, id, action="dismissed")
        (item,) = (await read(client))["items"]
        assert (item["status"], item["content"]) == ("active", {"title": "hello"})


async def test_row_58_a_deleted_item_is_a_tombstone_until_clean_up(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        id, kept = await rig.post("alice", external_id="order-42"), await rig.post("alice")
        before = await read(client)
        deleted = await client.delete("/v1/me/feed/order-42")
        assert deleted.status_code == 200
        assert (await client.delete(f"/v1/me/feed/{id}")).json()["item"] == deleted.json()["item"], (
            "once more changes nothing"
        )
        assert ids(await read(client)) == [kept]
        (tombstone,) = (await read(client, cursor=before["cursor"]))["items"]
        assert (tombstone["status"], tombstone["content"], tombstone["external_id"]) == ("deleted", None, "order-42")
        assert (await client.patch(f"/v1/me/feed/{id}", json={"read": True})).status_code == 404
        rig.clock.ahead += 31 * 86_400
        while await rig.engine.storage.expire(rig.clock.now(), limit=100):
            pass
        while await rig.engine.storage.prune(rig.clock.now(), limit=100):
            pass
        assert id not in ids(await read(client, status="any"))
        # Its reader may hold the item, of which nobody speaks any more.
        answer = await client.get("/v1/me/feed", params={"cursor": before["cursor"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "resyncRequired")


async def test_row_59_expiry_removes_an_item_and_raises_a_change(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        id = await rig.post("alice", expires_at=rig.clock.now() + 100)
        before = await read(client)
        assert ids(before) == [id]
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            rig.clock.ahead += 101
            assert ids(await read(client)) == []
            answer = await client.get(f"/v1/me/feed/{id}")
            # The engine's own janitor may have come by already.
            assert answer.status_code == 404 or answer.json()["status"] == "deleted"
            while await rig.engine.storage.expire(rig.clock.now(), limit=100):
                pass
            kind, _, data = await stream.next()
            assert (kind, data["id"], data["status"], data["content"]) == ("change", id, "deleted", None)
        assert [item["status"] for item in (await read(client, cursor=before["cursor"]))["items"]] == ["deleted"]


async def test_row_60_a_client_sees_only_its_own_apps_feed(backend: str) -> None:
    async with running(backend) as rig:
        mine, theirs = await rig.post("alice"), await rig.post("alice", app="other")
        async with rig.client("alice") as client, rig.client("alice", app="other") as other:
            assert ids(await read(client)) == [mine]
            assert ids(await read(other)) == [theirs]
            assert (await client.get(f"/v1/me/feed/{theirs}")).status_code == 404
            assert (await client.patch(f"/v1/me/feed/{theirs}", json={"read": True})).status_code == 404
            async with events(client) as stream:
                assert (await stream.next())[0] == "cursor"
                await patch(other, theirs, read=True)
                again = await rig.post("alice")
                assert (await stream.next())[2]["id"] == again


async def test_row_61_unknown_ids_and_expired_tokens_have_answers_of_their_own(backend: str) -> None:
    key = new_user_key()
    users = UserKeySettings(id=key.id, secret=key.secret)
    settings = Settings(storage="", apps={}, service=ServiceSettings(user_keys=(users,)))
    async with running(backend, apps=("default",), settings=settings) as rig:
        now = rig.clock.now()
        async with httpx.AsyncClient(base_url=rig.url) as client:
            client.headers["authorization"] = f"Bearer {user_token(key.secret, 'default', 'alice', 60, now=now)}"
            unknown = await client.patch("/v1/me/feed/nothing", json={"read": True})
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "itemNotFound")
            assert (await client.delete("/v1/me/feed/nothing")).status_code == 404
            rig.clock.ahead += 3600
            expired = await client.get("/v1/me/feed")
            assert (expired.status_code, expired.json()["error"]["code"]) == (401, "unauthenticated")
            renewed = user_token(key.secret, "default", "alice", 60, now=rig.clock.now())
            client.headers["authorization"] = f"Bearer {renewed}"
            assert (await client.get("/v1/me/feed")).status_code == 200


async def test_two_devices_at_once_each_change_their_own_property(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        id = await rig.post("alice")
        etag = (await client.get(f"/v1/me/feed/{id}")).headers["etag"]
        await patch(client, id, read=True)
        both = await patch(client, id, action="activated")
        assert (both["read"], both["action"]) == (True, "activated")
        late = await client.patch(f"/v1/me/feed/{id}", json={"read": False}, headers={"if-match": etag})
        assert (late.status_code, late.json()["error"]["code"]) == (412, "resourceModified")
        assert (await client.get(f"/v1/me/feed/{id}")).json() == both
        fits = await client.patch(f"/v1/me/feed/{id}", json={"read": False}, headers={"if-match": both["etag"]})
        assert fits.status_code == 200
        assert (await client.delete(f"/v1/me/feed/{id}", headers={"if-match": both["etag"]})).status_code == 412
        listed = await client.delete(f"/v1/me/feed/{id}", headers={"if-match": '"0", ' + both["etag"]})
        assert (listed.status_code, "write one" in listed.text) == (400, True)
        assert (await client.delete(f"/v1/me/feed/{id}", headers={"if-match": "*"})).status_code == 200
        assert (await client.patch(f"/v1/me/feed/{id}", json={}, headers={"if-match": "W/x"})).status_code == 400


async def test_a_broadcast_is_stored_once_and_read_by_everybody(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns", "a")
        await rig.subscribe("bob", "apns", "b")
        posted = await rig.feed.post("default", "all", NewItem(content={"title": "all"}), Notification(title="all"))
        await rig.quiet()
        assert set(rig.gateways.take()) == {"alice-a", "bob-b"}
        async with rig.client("alice") as alice, rig.client("bob") as bob, rig.client("carol") as carol:
            for client in (alice, bob, carol):
                (item,) = (await read(client))["items"]
                assert (item["id"], item["broadcast"], item["read"]) == (posted.item_id, True, False)
            await patch(alice, posted.item_id, read=True)
            await bob.delete(f"/v1/me/feed/{posted.item_id}")
            await rig.quiet()
            assert set(rig.gateways.take()) == {"alice-a", "bob-b"}
            assert [item["read"] for item in (await read(alice))["items"]] == [True]
            assert ids(await read(bob)) == []
            assert [item["read"] for item in (await read(carol))["items"]] == [False]


async def test_a_topics_item_is_for_whose_devices_are_in_it_and_a_change_of_topics_asks_to_read_anew(
    backend: str,
) -> None:
    async with running(backend) as rig, rig.client("alice") as client:
        await rig.engine.endpoints.register(user="alice", binding="apns", address="alice-phone", tags=["news"])
        await rig.subscribe("alice", "apns", "phone")
        posted = await rig.feed.post("default", "topic:news", NewItem(content={}), Notification(data={"a": 1}))
        before = await read(client)
        assert ids(before) == [posted.item_id], "a subscription leaves the endpoint in its topics"
        async with rig.client("bob") as bob:
            assert ids(await read(bob)) == []
        await rig.engine.endpoints.register(user="alice", binding="apns", address="alice-phone", tags=["sport"])
        assert (await client.get("/v1/me/feed", params={"cursor": before["cursor"]})).status_code == 410
        assert ids(await read(client)) == []


async def test_an_erased_user_is_told_to_read_anew(backend: str) -> None:
    async with running(backend, feed=FeedSettings(poll=0.01)) as rig, rig.client("alice") as client:
        await rig.subscribe("alice", "apns")
        await rig.post("alice")
        before = await read(client)
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            assert await rig.feed.erase_user("default", "alice") == 1
            assert (await stream.next())[0] == "resync"
        assert (await client.get("/v1/me/feed", params={"cursor": before["cursor"]})).status_code == 410
        assert ids(await read(client, status="any")) == []
        assert (await client.get("/v1/me/subscriptions")).json() == {"subscriptions": []}
        rig.gateways.take()
        await rig.post("alice")
        assert rig.gateways.take() == {}


async def test_a_cursor_of_another_database_asks_to_read_anew(backend: str) -> None:
    async with running("memory:") as other, other.client("alice") as client:
        foreign = (await read(client))["cursor"]
    async with running(backend) as rig, rig.client("alice") as client:
        assert (await client.get("/v1/me/feed", params={"cursor": foreign})).status_code == 410
        for text in ("", "x", foreign[:-1], foreign + "0", foreign.lower(), "é" * 26, "0" * 26, "V" * 39):
            answer = await client.get("/v1/me/feed", params={"cursor": text})
            assert answer.status_code in (400, 410), text
