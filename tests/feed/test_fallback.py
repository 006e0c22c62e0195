"""What iOS shows where a raw push was not heard: only on devices that have not fetched the item, and not when it is
settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from feedrig import Rig, running

from fanout.core.feed import FeedChange
from fanout.core.model import Notification
from fanout.errors import UsageError
from fanout.service.feed import Fallback, NewItem

pytestmark = pytest.mark.anyio

FALLBACK = Fallback(delay=60.0, title="Order 42", body="Open the app")


async def phones(rig: Rig) -> tuple[str, str]:
    """Two iOS devices and an Android one; the UNSIDs of the first two."""
    one = await rig.subscribe("alice", "apns", "one")
    two = await rig.subscribe("alice", "apns", "two", receive="signal")
    await rig.subscribe("alice", "fcm", "droid")
    return one["unsid"], two["unsid"]


async def post(rig: Rig, **more: Any) -> str:
    """A raw post with a fallback; the item's id. Its silent pushes are taken."""
    posted = await rig.feed.post(
        "default",
        "user:alice",
        NewItem(content={"rawContent": "x"}, **more),
        Notification(data={"rawContent": "x"}),
        fallback=FALLBACK,
    )
    await rig.quiet()
    assert set(rig.gateways.take()) == {"alice-one", "alice-two", "alice-droid"}
    return posted.item_id


def alerts(rig: Rig) -> Mapping[str, str | None]:
    """Who has been shown what."""
    return {address: push.title for address, pushes in rig.gateways.take().items() for push in pushes}


async def test_row_43_it_is_shown_after_the_delay_where_the_item_has_not_been_fetched(backend: str) -> None:
    async with running(backend) as rig:
        one, _ = await phones(rig)
        id = await post(rig)
        async with rig.client("alice", unsid=one) as client:
            assert [item["id"] for item in (await client.get("/v1/me/feed")).json()["items"]] == [id]
        await rig.jump(58)
        assert alerts(rig) == {}
        await rig.jump(3)
        assert alerts(rig) == {"alice-two": "Order 42"}
        await rig.jump(60)
        assert alerts(rig) == {}, "once"


async def test_fetching_one_item_by_its_id_or_by_the_stream_counts(backend: str) -> None:
    from feedrig import events

    async with running(backend) as rig:
        one, two = await phones(rig)
        async with rig.client("alice", unsid=two) as client, events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            id = await post(rig)
            assert (await stream.next())[2]["id"] == id
        async with rig.client("alice", unsid=one) as client:
            assert (await client.get(f"/v1/me/feed/{id}")).status_code == 200
        await rig.jump(61)
        assert alerts(rig) == {}


async def test_a_reader_that_names_no_device_has_fetched_for_none(backend: str) -> None:
    async with running(backend) as rig:
        await phones(rig)
        await post(rig)
        async with rig.client("alice") as client:
            await client.get("/v1/me/feed")
        await rig.jump(61)
        assert alerts(rig) == {"alice-one": "Order 42", "alice-two": "Order 42"}


@pytest.mark.parametrize("how", ["dismissed", "deleted", "read", "expired", "replaced"])
async def test_row_45_it_is_not_shown_once_the_item_is_settled(backend: str, how: str) -> None:
    async with running(backend) as rig:
        await phones(rig)
        if how == "expired":
            await post(rig, expires_at=rig.clock.now() + 30)
        else:
            id = await post(rig, external_id="order-42")
            changes = {
                "dismissed": FeedChange(item=id, action="dismissed"),
                "deleted": FeedChange(item=id, delete=True),
                "read": FeedChange(item=id, read=True),
            }
            if how in changes:
                await rig.feed.change("default", "alice", changes[how])
            else:
                await rig.feed.post(
                    "default", "user:alice", NewItem(content={}, external_id="order-42"), Notification(data={"n": 2})
                )
            await rig.quiet()
            rig.gateways.take()
        await rig.jump(61)
        assert alerts(rig) == {}


async def test_it_outlives_a_restart(tmp_path: Any) -> None:
    where = f"sqlite:{tmp_path}/feed.db"
    async with running(where) as rig:
        await phones(rig)
        await post(rig)
    async with running(where) as rig:
        rig.clock.ahead += 55
        assert alerts(rig) == {}
        await rig.jump(6)
        assert alerts(rig) == {"alice-one": "Order 42", "alice-two": "Order 42"}


async def test_it_goes_with_a_post_to_one_user() -> None:
    async with running("memory:") as rig:
        with pytest.raises(UsageError, match="one user"):
            await rig.feed.post("default", "all", NewItem(content={}), Notification(data={"n": 1}), fallback=FALLBACK)
        with pytest.raises(UsageError, match="give an item"):
            await rig.feed.post("default", "user:alice", None, Notification(data={"n": 1}), fallback=FALLBACK)
