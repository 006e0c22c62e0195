"""A post as the service makes it: one commit, as few notifications as it takes, and what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from feedrig import running

from fanout.core.model import Notification, Target
from fanout.core.shorten import MARK
from fanout.errors import Conflict, MessageTooLarge, UsageError
from fanout.service.feed import NewItem, PushPart
from fanout.service.feed.plan import Platforms

pytestmark = pytest.mark.anyio

HELLO = Notification(title="hello")
ITEM = NewItem(content={"title": "hello"})


async def test_a_post_takes_one_notification_unless_somebody_wants_signals(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        one = await rig.feed.post("default", "user:alice", ITEM, HELLO)
        assert (one.receipt.total, one.parts) == (1, ())
        await rig.subscribe("alice", "fcm", receive="signal")
        two = await rig.feed.post("default", "user:alice", ITEM, HELLO)
        assert (two.receipt.total, len(two.parts)) == (1, 1)
        nobody = await rig.feed.post("default", "user:nobody", ITEM, HELLO)
        assert (nobody.receipt.total, nobody.parts, nobody.item is not None) == (0, (), True)


async def test_each_platform_gets_its_form(backend: str) -> None:
    async with running(backend) as rig:
        for binding in ("apns", "fcm", "wns", "webpush"):
            await rig.subscribe("alice", binding)
        parts = [
            PushPart(notification=HELLO, platforms=frozenset(("ios", "windows"))),
            PushPart(notification=Notification(data={"raw": "x"}), platforms=frozenset(("webpush",))),
        ]
        await rig.feed.post("default", "user:alice", ITEM, parts)
        await rig.quiet()
        pushes = {address: push.title for address, (push,) in rig.gateways.take().items()}
        assert pushes == {"alice-apns": "hello", "alice-wns": "hello", "alice-webpush": None}


async def test_parts_with_one_collapse_key_do_not_take_each_others_place(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        await rig.subscribe("alice", "fcm")
        keyed = Notification(title="hello", collapse_key="k")
        parts = [
            PushPart(notification=keyed, platforms=frozenset(("ios",))),
            PushPart(notification=keyed, platforms=frozenset(("ios",)), inverse=True),
        ]
        await rig.feed.post("default", "user:alice", ITEM, parts)
        await rig.quiet()
        assert {address: len(pushes) for address, pushes in rig.gateways.take().items()} == {
            "alice-apns": 1,
            "alice-fcm": 1,
        }


async def test_a_raw_push_that_is_too_large_becomes_a_signal(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        await rig.subscribe("alice", "fcm", receive="signal")
        large = {"rawContent": "x" * 10_000}
        posted = await rig.feed.post("default", "user:alice", NewItem(content=large), Notification(data=large))
        await rig.quiet()
        assert posted.item is not None
        assert {address: set(push.data) for address, (push,) in rig.gateways.take().items()} == {
            "alice-apns": {"feed"},
            "alice-fcm": {"feed"},
        }
        async with rig.client("alice") as client:
            (item,) = (await client.get("/v1/me/feed")).json()["items"]
            assert item["content"] == large


async def test_a_visible_push_that_is_too_large_is_stored_whole_and_pushed_with_less_text(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        long = {"title": "Shipped", "body": "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}" * 1000}
        visual = Notification(title=long["title"], body=long["body"])
        posted = await rig.feed.post("default", "user:alice", NewItem(content=long), visual)
        await rig.quiet()
        assert posted.item is not None
        (push,) = rig.gateways.take()["alice-apns"]
        assert push.title == "Shipped"
        assert push.body is not None
        assert long["body"].startswith(push.body.removesuffix(MARK))
        assert push.body.endswith("\N{ROCKET}" + MARK)
        id = posted.receipt.id
        ((endpoint, _, _),) = [each async for each in rig.engine.deliveries(id)]
        reasons = {step.what: step.reason for step in await rig.engine.explain(id, endpoint)}
        assert reasons["queued"] == "shortened"
        async with rig.client("") as app:
            del app.headers["x-fanout-user"]
            status = (await app.get(f"/v1/notifications/{id}")).json()
            assert status["shortened"] == ["apns", "fcm", "webpush", "wns"]
        async with rig.client("alice") as client:
            (item,) = (await client.get("/v1/me/feed")).json()["items"]
            assert item["content"] == long
        with pytest.raises(MessageTooLarge):
            await rig.engine.send(visual, "user:alice")
        with pytest.raises(MessageTooLarge):
            await rig.feed.post("default", "user:alice", None, visual)
        data = Notification(title="x", data={"much": "x" * 10_000})
        await rig.feed.post("default", "user:alice", NewItem(content={"title": "x"}), data)
        await rig.quiet()
        (signal,) = rig.gateways.take()["alice-apns"]
        assert (signal.title, set(signal.data)) == (None, {"feed"}), "where the text is not what is too large"


async def test_an_item_alone_is_pushed_to_nobody(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        posted = await rig.feed.post("default", "user:alice", ITEM)
        assert posted.receipt.id == ""
        keyed = await rig.feed.post("default", "user:alice", ITEM, idempotency_key="k")
        again = await rig.feed.post("default", "user:alice", ITEM, idempotency_key="k")
        assert (again.item_id, again.receipt.replayed) == (keyed.item_id, True)
        await rig.quiet()
        assert rig.gateways.take() == {}


async def test_the_same_key_posts_once_and_another_post_with_it_is_refused(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        await rig.subscribe("alice", "fcm", receive="signal")
        first = await rig.feed.post("default", "user:alice", ITEM, HELLO, idempotency_key="k")
        second = await rig.feed.post("default", "user:alice", ITEM, HELLO, idempotency_key="k")
        await rig.quiet()
        assert second.receipt.replayed
        assert second.item == first.item
        assert {address: len(pushes) for address, pushes in rig.gateways.take().items()} == {
            "alice-apns": 1,
            "alice-fcm": 1,
        }
        for target, item, push in (
            ("user:bob", ITEM, HELLO),
            ("user:alice", NewItem(content={"title": "other"}), HELLO),
            ("user:alice", ITEM, Notification(title="other")),
        ):
            with pytest.raises(Conflict):
                await rig.feed.post("default", target, item, push, idempotency_key="k")


async def test_posts_at_once_are_stored_together_and_a_bad_one_spoils_no_other(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        await rig.feed.post("default", "user:alice", ITEM, HELLO, idempotency_key="k")
        calls = [rig.feed.post("default", "user:alice", NewItem(content={"n": n}), HELLO) for n in range(20)]
        bad = rig.feed.post("default", "user:bob", ITEM, HELLO, idempotency_key="k")
        results = await asyncio.gather(*calls[:10], bad, *calls[10:], return_exceptions=True)
        assert [type(result) for result in results if isinstance(result, BaseException)] == [Conflict]
        await rig.quiet()
        assert len(rig.gateways.take()["alice-apns"]) == 21
        async with rig.client("alice") as client:
            assert len((await client.get("/v1/me/feed")).json()["items"]) == 21


async def test_what_can_not_be_posted() -> None:
    async with running("memory:") as rig:
        for target, item, push, more in (
            (Target.endpoints([1]), ITEM, HELLO, {}),
            ("user:alice", ITEM, HELLO, {"at": rig.clock.now() + 60}),
            ("user:alice", None, (), {}),
            ("user:alice", NewItem(content={"x": object()}), HELLO, {}),
            ("user:alice", NewItem(content={}, expires_at=rig.clock.now() - 1), HELLO, {}),
            ("user:alice", NewItem(content={}, expires_at=rig.clock.now() + 31 * 86_400), HELLO, {}),
            ("user:alice", NewItem(content={}, external_id=""), HELLO, {}),
            ("user:alice", ITEM, Notification(title="x", data={"feed": 1}), {}),
        ):
            with pytest.raises(UsageError):
                await rig.feed.post("default", target, item, push, **more)  # type: ignore[arg-type]
        async with rig.client("alice") as client:
            assert (await client.get("/v1/me/feed", params={"status": "any"})).json()["items"] == []


async def test_without_an_item_it_is_pushed_as_chosen_and_not_stored(backend: str) -> None:
    async with running(backend) as rig:
        await rig.subscribe("alice", "apns")
        await rig.subscribe("alice", "fcm", receive="signal")
        await rig.subscribe("alice", "wns", receive="none")
        posted = await rig.feed.post("default", "user:alice", None, HELLO)
        await rig.quiet()
        assert (posted.item, posted.item_id) == (None, "")
        assert {address: push.title for address, (push,) in rig.gateways.take().items()} == {
            "alice-apns": "hello",
            "alice-fcm": None,
        }


def test_platforms_know_their_transports_and_their_other_names() -> None:
    platforms = Platforms({"apns_sandbox": "apns", "push": "fcm", "own": "carrier-pigeon"})
    ios = platforms.audience(frozenset(("iOS",)), frozenset(("push",)))
    assert ios.admits("push", "ios", "x")
    assert ios.admits("push", "APNS", "x")
    assert ios.admits("push", "", "apns_sandbox")
    assert not ios.admits("push", "", "push")
    assert not ios.admits("signal", "ios", "x")
    own = platforms.audience(frozenset(("carrier-pigeon",)), frozenset(("push",)))
    assert own.admits("push", "", "own")
    assert not own.admits("push", "ios", "own")


async def test_a_post_that_is_made_again_keeps_what_was_done_and_pushes_nothing(backend: str) -> None:
    """As a client of Graph's makes it again that heard no answer: with the sender's id, and no key."""
    async with running(backend) as rig, rig.client("alice") as client:
        await rig.subscribe("alice", "apns")
        first = {"title": "Shipped", "order": 42}

        async def again(content: dict[str, Any], **more: Any) -> tuple[bool, int]:
            item = NewItem(content=content, external_id="order-42", **more)
            posted = await rig.feed.post("default", "user:alice", item, HELLO)
            await rig.quiet()
            return posted.replaced, len(rig.gateways.take())

        assert await again(first) == (False, 1)
        await client.patch("/v1/me/feed/order-42", json={"action": "dismissed"})
        await rig.quiet()
        rig.gateways.take()
        assert await again({"order": 42, "title": "Shipped"}) == (True, 0)
        (item,) = (await client.get("/v1/me/feed")).json()["items"]
        assert (item["action"], item["content"]) == ("dismissed", first)
        assert await again(first, priority="high") == (True, 1), "another priority is news"
        await client.delete("/v1/me/feed/order-42")
        await rig.quiet()
        rig.gateways.take()
        assert await again(first, priority="high") == (True, 0)
        assert (await client.get("/v1/me/feed")).json()["items"] == []
        assert await again({"title": "Delivered"}) == (False, 1)
