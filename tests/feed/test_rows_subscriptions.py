"""Subscriptions, as Microsoft Graph's notifications had them: rows 10 to 18 of the checklist."""

from __future__ import annotations

import httpx
import pytest
from feedrig import BINDINGS, Rig, events, running

from fanout.core.endpoint import EndpointState
from fanout.core.records import EndpointFilter
from fanout.plugin import Gone
from fanout.service.feed import FeedSettings

pytestmark = pytest.mark.anyio


async def post_by_unsid(rig: Rig, unsid: str, app: str = "default") -> httpx.Response:
    """Post as an app does, to whom the UNSID addresses."""
    async with httpx.AsyncClient(base_url=rig.url, headers={"x-fanout-app": app, "x-uns-id": unsid}) as client:
        answer = await client.post(
            "/me/notifications",
            json={
                "targetHostName": "app.example.com",
                "appNotificationId": "n",
                "payload": {"rawContent": f"by {unsid}"},
                "targetPolicy": {"platformTypes": ["windows", "ios", "android", "webpush"]},
            },
        )
    await rig.quiet()
    return answer


async def test_row_10_each_platform_gets_an_unsid_and_an_expiry(backend: str) -> None:
    async with running(backend) as rig:
        found = [await rig.subscribe("alice", binding) for binding in BINDINGS]
        assert [each["platform"] for each in found] == ["ios", "android", "windows", "webpush"]
        assert all(len(each["unsid"]) >= 22 and each["expires_at"] > rig.clock.now() for each in found)
        async with rig.client("alice") as client:
            polling = await client.post("/v1/me/subscriptions", json={"device_id": "tv"})
            assert polling.status_code == 201
            assert polling.json()["binding"] is None
            listed = (await client.get("/v1/me/subscriptions")).json()["subscriptions"]
            assert [each["id"] for each in listed] == [*(each["id"] for each in found), polling.json()["id"]]
            one = await client.get(polling.headers["location"])
            assert one.json() == polling.json()


async def test_row_11_any_unsid_addresses_all_devices_of_the_user(backend: str) -> None:
    async with running(backend) as rig:
        found = [await rig.subscribe("alice", "apns", name) for name in ("phone", "tablet", "watch")]
        assert len({each["unsid"] for each in found}) == 3
        for each in found:
            answer = await post_by_unsid(rig, each["unsid"])
            assert answer.status_code in (200, 201), answer.text
            assert set(rig.gateways.take()) == {"alice-phone", "alice-tablet", "alice-watch"}


async def test_row_12_subscribing_again_renews(backend: str) -> None:
    async with running(backend) as rig:
        first = await rig.subscribe("alice", "apns", expires_in=100)
        rig.clock.ahead += 50
        second = await rig.subscribe("alice", "apns", expires_in=100)
        assert (first["id"], first["unsid"]) == (second["id"], second["unsid"])
        assert second["expires_at"] > first["expires_at"]
        await rig.post("alice")
        assert [len(pushes) for pushes in rig.gateways.take().values()] == [1]


async def test_row_13_an_expired_subscription_receives_nothing_and_posts_nothing(backend: str) -> None:
    async with running(backend) as rig:
        gone = await rig.subscribe("alice", "apns", "old", expires_in=100)
        await rig.subscribe("alice", "apns", "new", expires_in=10_000)
        assert (await post_by_unsid(rig, gone["unsid"])).status_code == 201
        rig.gateways.take()
        await rig.jump(101)
        assert (await post_by_unsid(rig, gone["unsid"])).status_code == 403
        await rig.post("alice")
        assert set(rig.gateways.take()) == {"alice-new"}
        renewed = await rig.subscribe("alice", "apns", "old")
        assert renewed["unsid"] == gone["unsid"]
        assert (await post_by_unsid(rig, gone["unsid"])).status_code == 200


async def test_row_14_expiring_and_expired_are_told_to_the_client(backend: str) -> None:
    settings = FeedSettings(heartbeat=0.02, warning=50.0)
    async with running(backend, feed=settings) as rig:
        held = await rig.subscribe("alice", "apns", expires_in=100)
        async with rig.client("alice", unsid=held["unsid"]) as client:
            path = f"/v1/me/subscriptions/{held['id']}"
            assert (await client.get(path)).json()["state"] == "active"
            async with events(client) as stream:
                assert (await stream.next())[0] == "cursor"
                rig.clock.ahead += 60
                kind, _, data = await stream.next()
                assert (kind, data["state"], data["id"]) == ("subscription", "expiring", held["id"])
                assert (await client.get(path)).json()["state"] == "expiring"
                rig.clock.ahead += 60
                kind, _, data = await stream.next()
                assert (kind, data["state"]) == ("subscription", "expired")
                assert (await client.get(path)).json()["state"] == "expired"
                await rig.subscribe("alice", "apns", expires_in=100)
                assert (await client.get(path)).json()["state"] == "active"
        now = rig.clock.now()
        soon = await rig.engine.storage.feed.expiring("default", after=now, until=now + 101)
        assert [each.id for each in soon] == [held["id"]]


async def test_row_15_unsubscribing_stops_delivery(backend: str) -> None:
    async with running(backend) as rig:
        held = await rig.subscribe("alice", "apns")
        async with rig.client("bob") as client:
            assert (await client.delete(f"/v1/me/subscriptions/{held['id']}")).status_code == 404
        async with rig.client("alice", app="other") as client:
            assert (await client.delete(f"/v1/me/subscriptions/{held['id']}")).status_code == 404
        async with rig.client("alice") as client:
            assert (await client.delete(f"/v1/me/subscriptions/{held['id']}")).status_code == 204
            assert (await client.delete(f"/v1/me/subscriptions/{held['id']}")).status_code == 404
            assert (await client.get("/v1/me/subscriptions")).json() == {"subscriptions": []}
        await rig.post("alice")
        assert rig.gateways.take() == {}
        assert (await post_by_unsid(rig, held["unsid"])).status_code == 403


async def test_row_16_a_new_handle_takes_the_old_ones_place(backend: str) -> None:
    async with running(backend) as rig:
        first = await rig.subscribe("alice", "apns", "phone")
        second = await rig.subscribe("alice", "apns", "phone", address="alice-rotated")
        assert first["unsid"] == second["unsid"]
        await rig.post("alice")
        assert set(rig.gateways.take()) == {"alice-rotated"}


async def test_row_17_a_dead_handle_is_retired_and_the_others_live(backend: str) -> None:
    async with running(backend) as rig:
        dead = await rig.subscribe("alice", "apns", "dead")
        await rig.subscribe("alice", "apns", "well")
        rig.gateways.outcomes["alice-dead"] = Gone("Unregistered")
        await rig.post("alice")
        rig.gateways.outcomes.clear()
        assert set(rig.gateways.take()) == {"alice-well"}
        await rig.post("alice")
        assert set(rig.gateways.take()) == {"alice-well"}
        async with rig.client("alice") as client:
            assert (await client.get(f"/v1/me/subscriptions/{dead['id']}")).json()["state"] == "unreachable"
        gone = await rig.engine.storage.list_endpoints(EndpointFilter(user="alice", state=EndpointState.GONE))
        assert len(gone) == 1
        await rig.subscribe("alice", "apns", "dead", address="alice-again")
        await rig.post("alice")
        assert set(rig.gateways.take()) == {"alice-well", "alice-again"}


async def test_row_18_pushes_with_content_bare_signals_or_nothing(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns", "full")
        await rig.subscribe("alice", "fcm", "bare", receive="signal")
        await rig.subscribe("alice", "wns", "none", receive="none")
        item = await rig.post("alice", "secret text")
        pushes = rig.gateways.take()
        assert set(pushes) == {"alice-full", "alice-bare"}
        (full,), (bare,) = pushes["alice-full"], pushes["alice-bare"]
        assert full.title == "secret text"
        assert full.data["feed"]["item"] == item
        assert not bare.visible
        assert set(bare.data) == {"feed"}
        assert set(bare.data["feed"]) == {"cursor"}
        assert bare.data["feed"]["cursor"] == full.data["feed"]["cursor"]
        await rig.subscribe("alice", "wns", "none", receive="push")
        await rig.post("alice")
        assert "alice-none" in rig.gateways.take()


async def test_another_user_of_the_device_ends_the_former_subscription(backend: str) -> None:
    async with running(backend) as rig:
        mine = await rig.subscribe("alice", "apns", "shared")
        theirs = await rig.subscribe("bob", "apns", "shared", address="alice-shared")
        assert theirs["unsid"] != mine["unsid"]
        await rig.post("alice")
        assert rig.gateways.take() == {}
        assert await rig.feed.user_of_unsid("default", mine["unsid"]) is None
        assert await rig.feed.user_of_unsid("default", theirs["unsid"]) == "bob"
        assert await rig.feed.user_of_unsid("other", theirs["unsid"]) is None


@pytest.mark.parametrize(
    "body",
    [
        {"device_id": ""},
        {"device_id": "d", "binding": "apns"},
        {"device_id": "d", "address": "x"},
        {"device_id": "d", "binding": "apns", "address": "NOT AN ADDRESS!"},
        {"device_id": "d", "binding": "nothing", "address": "alice-1"},
        {"device_id": "d", "receive": "all"},
        {"device_id": "d", "expires_in": -1},
        {"device_id": "d", "expires_in": 1e12},
        {"device_id": "d", "more": 1},
    ],
)
async def test_what_no_subscription_can_be_made_of(body: dict[str, object]) -> None:
    async with running("memory:") as rig, rig.client("alice") as client:
        answer = await client.post("/v1/me/subscriptions", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalidRequest"
        assert "NOT AN ADDRESS" not in answer.text


async def test_an_app_has_no_feed_of_its_own() -> None:
    async with running("memory:") as rig, httpx.AsyncClient(base_url=rig.url) as client:
        for path in ("/v1/me/feed", "/v1/me/subscriptions", "/v1/me/feed/events"):
            assert (await client.get(path)).status_code == 403
