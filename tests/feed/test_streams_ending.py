"""Event streams end when they must: with a token, a subscription, the service, or the reader."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from feedrig import events, running
from streamrig import QUICK, put, took

from fanout.core.model import Notification
from fanout.service.auth import Caller
from fanout.service.auth.errors import unauthorized, unavailable
from fanout.service.feed import FeedSettings, NewItem

pytestmark = pytest.mark.anyio


async def test_signs_of_life_come_while_nothing_happens() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        waiting = asyncio.create_task(stream.next())
        while stream.comments < 3:
            await asyncio.sleep(0.005)
        await put(rig)
        assert (await waiting)[0] == "change"


class Gate:
    """An authenticator whose tokens can end."""

    protected = True

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def authenticate(self, headers: Any) -> Caller:
        if self.error is not None:
            raise self.error
        return Caller("default", "alice", "client", frozenset(), "delegated")

    async def aclose(self) -> None:
        return None


async def test_a_stream_ends_with_the_callers_token() -> None:
    gate = Gate()
    async with running("memory:", feed=QUICK, authenticator=gate) as rig, rig.client("alice") as client:
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            # Nobody can say whether the token is good: that is no reason to end.
            gate.error = unavailable("keys", "The issuer's keys cannot be had.", 1)
            waiting = asyncio.create_task(stream.next())
            before = stream.comments
            while stream.comments < before + 2:
                await asyncio.sleep(0.005)
            gate.error = unauthorized("expired", "The access token has expired.")
            kind, _, data = await waiting
            assert (kind, data) == ("unauthorized", {"message": "The access token has expired."})
            with pytest.raises(StopAsyncIteration):
                await stream.next()
        assert len(rig.feed.hub) == 0


class Ending(Gate):
    """An authenticator whose token says when it ends, and that is never asked again in time."""

    def __init__(self, ends_at: float) -> None:
        super().__init__()
        self.ends_at = ends_at

    async def authenticate(self, headers: Any) -> Caller:
        return Caller("default", "alice", "client", frozenset(), "delegated", ends_at=self.ends_at)


async def test_a_busy_stream_ends_with_its_token_all_the_same() -> None:
    """With a change each second no heartbeat is due, at which the token was looked at."""
    seldom = FeedSettings(poll=0.005, heartbeat=3600.0)
    gate = Ending(time.time() + 600)
    async with running("memory:", feed=seldom, authenticator=gate) as rig, rig.client("alice") as client:
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            for n in range(5):
                rig.clock.ahead += 119
                id = await put(rig, n=n)
                assert await took(stream, 1) == [id]
            rig.clock.ahead += 119
            await put(rig, text="too late")
            kind, _, data = await stream.next()
            assert (kind, "too late" in str(data)) == ("unauthorized", False)
            with pytest.raises(StopAsyncIteration):
                await stream.next()
        assert len(rig.feed.hub) == 0


async def test_a_broadcast_does_not_reach_a_stream_whose_token_has_ended() -> None:
    seldom = FeedSettings(poll=0.005, heartbeat=3600.0)
    gate = Ending(time.time() + 600)
    async with (
        running("memory:", feed=seldom, authenticator=gate) as rig,
        rig.client("alice") as client,
        events(client) as stream,
    ):
        assert (await stream.next())[0] == "cursor"
        rig.clock.ahead += 601
        await rig.feed.post("default", "all", NewItem(content={"title": "x"}), Notification(data={"n": 1}))
        assert (await stream.next())[0] == "unauthorized"


async def test_a_token_that_is_good_by_the_clocks_difference_alone_opens_a_stream_for_that_long() -> None:
    gate = Ending(time.time() - 30)
    async with (
        running("memory:", feed=QUICK, authenticator=gate) as rig,
        rig.client("alice") as client,
        events(client) as stream,
    ):
        assert (await stream.next())[0] == "cursor"
        id = await put(rig)
        assert await took(stream, 1) == [id]
        rig.clock.ahead += 31
        assert (await stream.next())[0] == "unauthorized"


@pytest.mark.parametrize("how", ["expired", "ended"])
async def test_a_stream_ends_with_its_subscription(how: str) -> None:
    async with running("memory:", feed=QUICK) as rig:
        device = await rig.subscribe("alice", "apns", expires_in=3600)
        async with rig.client("alice", unsid=device["unsid"]) as client, events(client) as stream:
            found = {(await stream.next())[0] for _ in range(2)}  # it is about to expire from the first
            assert found == {"cursor", "subscription"}
            if how == "ended":
                assert (await client.delete(f"/v1/me/subscriptions/{device['id']}")).status_code == 204
            else:
                rig.clock.ahead += 3601
            kind, _, data = await stream.next()
            assert (kind, data["state"]) == ("subscription", how)
            with pytest.raises(StopAsyncIteration):
                await stream.next()
            assert (await client.get("/v1/me/feed/events")).status_code == 403, "and it does not begin again"


async def test_streams_end_when_the_service_does() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        await rig.feed.close_streams()
        with pytest.raises(StopAsyncIteration):
            await stream.next()
        assert (await client.get("/v1/me/feed/events")).status_code == 429
        assert len(rig.feed.hub) == 0


async def test_a_server_that_cancels_what_is_open_ends_a_stream_and_logs_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As uvicorn does with `timeout_graceful_shutdown`, in whose log each exception of an app's is an error."""
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        (request,) = [each.task for each in rig.feed.hub._all()]
        assert request is not None
        request.cancel()
        with pytest.raises(StopAsyncIteration):
            await stream.next()
        await asyncio.wait([request])
        assert len(rig.feed.hub) == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_reader_who_leaves_is_forgotten() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client:
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            assert len(rig.feed.hub) == 1
        while len(rig.feed.hub):
            await asyncio.sleep(0.005)


async def test_one_user_may_open_so_many() -> None:
    settings = FeedSettings(streams_per_user=2, streams=3)
    async with (
        running("memory:", feed=settings) as rig,
        rig.client("alice") as client,
        rig.client("bob") as other,
        rig.client("carol") as last,
        events(client) as one,
        events(client) as two,
    ):
        for stream in (one, two):
            assert (await stream.next())[0] == "cursor"
        assert (await client.get("/v1/me/feed/events")).status_code == 429
        async with events(other) as three:
            assert (await three.next())[0] == "cursor"
            assert (await last.get("/v1/me/feed/events")).status_code == 429
