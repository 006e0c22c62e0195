"""The laws of a post that is made again: where nothing is new in it, its user's changes to the item stay."""

from __future__ import annotations

from dataclasses import replace

from fanout.core.feed import PUSHES, Audience, FeedChange, FeedPost
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import Put
from fanout.plugin import Storage, feed_of
from fanout.testing.storage_feed import alter, enter, ids, posting, read
from fanout.testing.storage_kit import ALICE, T0, Kit, device, known, law, submission


async def _again(storage: Storage, now: float, target: Target = ALICE, name: str = "a") -> list[Put]:
    """The same post, and a part of it."""
    part = replace(submission(target, now=now), follows=True)
    return await storage.put([posting(target, external_id=name, now=now), part], now)


async def feed_repeats_are_no_news(kit: Kit) -> None:
    """The same content, group and priority of the same sender's id: state stays, the expiry moves, and nothing is
    pushed."""
    async with kit.open(retention=Retention(tombstones=50.0)) as storage:
        await storage.register([device("alice", "1"), device("bob", "2")], T0)
        item = await enter(storage, posting(external_id="a"))
        await alter(storage, "alice", FeedChange(item="a", read=True, action="dismissed"), T0 + 1)
        puts = await _again(storage, T0 + 2)
        law([(put.dropped, put.id) for put in puts] == [(True, "")] * 2, f"nothing of it is pushed: {puts}")
        written = known(puts[0].feed, "put answers with the result of a repeated post")
        law(written.replaced and not written.changed and written.id == item.id, f"it says so: {written}")
        (found,) = (await read(storage, now=T0 + 2)).items
        law((found.read, found.action) == (True, "dismissed"), "the user's changes stay")
        law((found.expires_at, found.created_at, found.number) == (T0 + 1002, T0, item.number), "only the expiry moves")
        law(written.item == found, "and the answer is the item as it stands")
        law(("default", "alice") in (await feed_of(storage).touched(item.seq)).users, "which readers are told")
        law(found.content == item.content and found.modified_at == T0 + 2, "with its content")

        await alter(storage, "alice", FeedChange(item="a", delete=True), T0 + 3)
        (puts, head) = await _again(storage, T0 + 40), (await read(storage)).head
        law(puts[0].dropped and puts[1].dropped, "a deleted one is not brought back")
        law(puts[0].feed is not None and puts[0].feed.id == item.id, "but named")
        page = await read(storage, now=T0 + 40)
        law([each.deleted for each in page.items] == [True], "it stays a tombstone")
        while await storage.prune(T0 + 60, limit=9):
            pass
        law((await _again(storage, T0 + 61))[0].dropped, "which stays for as long as it is posted")
        law(ids(await read(storage, now=T0 + 61)) == [item.id] and head > 0, "and is all there is")
        law(not (await _again(storage, T0 + 61, name="b"))[0].dropped, "another sender's id is another item")

        every = await enter(storage, posting(Target.all(), external_id="x", now=T0 + 62))
        await alter(storage, "alice", FeedChange(item=every.id, action="dismissed"), T0 + 63)
        await alter(storage, "bob", FeedChange(item=every.id, delete=True), T0 + 63)
        law((await _again(storage, T0 + 64, Target.all(), "x"))[0].dropped, "one of everybody is no news either")
        states = [await feed_of(storage).item("default", user, every.id, T0 + 64) for user in ("alice", "bob", "carol")]
        law(
            [each is not None and (each.action, each.deleted) for each in states]
            == [("dismissed", False), ("none", True), ("none", False)],
            f"each user's state stays: {states}",
        )
        mine = (await read(storage, now=T0 + 64)).items[-1]
        law(mine.id == every.id and mine.expires_at == T0 + 1064, "and each who has one is told that the expiry moved")
        both = Target.users(["alice", "bob"])
        await _again(storage, T0 + 65, both, "m")
        await alter(storage, "bob", FeedChange(item="m", delete=True), T0 + 66)
        law((await _again(storage, T0 + 67, both, "m"))[0].dropped, "nor is one of many users")
        law([each.deleted for each in (await read(storage, "bob", T0 + 67)).items][-1], "of whom each keeps her state")


async def feed_repeats_end_where_something_is_new(kit: Kit) -> None:
    """Another content, group or priority, a key, an end that has passed: then it is a post as any."""
    async with kit.sent(1) as (storage, _):
        first = await enter(storage, posting(external_id="a"))
        post = first and posting(external_id="a").feed
        assert isinstance(post, FeedPost)
        now = T0
        for other in (
            replace(post, content=b'{"n":2}'),
            replace(post, group="g"),
            replace(post, group=""),
            replace(post, priority="high"),
            post,
        ):
            now += 1
            await alter(storage, "alice", FeedChange(item="a", action="dismissed"), now)
            (put,) = await storage.put([replace(posting(now=now), feed=other)], now)
            law(put.id and put.feed is not None and put.feed.replaced and put.feed.changed, f"it is pushed: {other}")
            found = await feed_of(storage).item("default", "alice", "a", now)
            law(found is not None and found.action == "none" and found.id == first.id, "and is new to her")
        await alter(storage, "alice", FeedChange(item="a", action="dismissed"), now)
        (put,) = await storage.put([posting(external_id="a", key="k", now=now)], now)
        law(put.id and put.feed is not None and put.feed.changed, "a sender with a key says when a post is the same")
        await alter(storage, "alice", FeedChange(item="a", delete=True), now + 1)
        (put,) = await storage.put([posting(external_id="a", content=b'{"n":3}', now=now + 2)], now + 2)
        law(put.id and put.feed is not None and put.feed.id != first.id, "after a deletion something new is an item")
        (put,) = await storage.put([posting(external_id="a", now=now + 3)], now + 3)
        law(put.id and put.feed is not None and put.feed.changed, "and an item that was deleted before is new again")

        short = await enter(storage, posting(external_id="s", lasts=10.0, now=now))
        late = await enter(storage, posting(external_id="s", now=now + 10))
        law(late.id != short.id, "one that has expired is over")
        brief = await enter(storage, posting(external_id="t", lasts=10.0, now=now))
        await alter(storage, "alice", FeedChange(item=brief.id, delete=True), now + 1)
        late = await enter(storage, posting(external_id="t", now=now + 10))
        law(late.id != brief.id, "deleted or not")
        puts = await storage.put([posting(external_id="z", now=now), posting(external_id="z", now=now)], now)
        law(puts[0].id and puts[1].dropped, "of two in one put the second is no news")

        fallback = replace(posting(external_id="f", now=now).feed, fallback_at=now + 60)  # type: ignore[type-var]
        unseen = Audience(receive=frozenset(("push", "signal")), unseen=True)
        later = replace(submission(now=now, due_at=now + 60), follows=True, optional=True, audience=unseen)
        put = (await storage.put([replace(posting(now=now), feed=fallback), later], now))[1]
        (again,) = await storage.put([replace(posting(now=now + 1), feed=fallback)], now + 1)
        law(again.dropped, "the same with a fallback")
        await storage.expand("default", "apns", now + 60, ahead=99)
        status = await storage.status(put.id, now + 60)
        law(status is not None and status.total == 1, "its fallback is still due")


async def feed_items_are_withdrawn(kit: Kit) -> None:
    """An item knows the notifications that pushed it. An item that its sender has taken back comes again when it is
    posted again."""
    async with kit.sent(1) as (storage, _):
        part = replace(submission(), follows=True)
        first = await storage.put([posting(external_id="a"), part], T0)
        second = await storage.put([posting(external_id="a", content=b'{"n":2}', now=T0 + 1)], T0 + 1)
        await storage.put([posting(external_id="a", content=b'{"n":2}', now=T0 + 2)], T0 + 2)
        other = await enter(storage, posting(external_id="b"))
        every = await enter(storage, posting(Target.all(), external_id="c"))

        async def pushes(id: str, user: str = "alice") -> tuple[str, ...]:
            return await feed_of(storage).pushes("default", user, id, T0 + 3)

        ours = (first[0].id, first[1].id, second[0].id)
        law(await pushes("a") == ours, f"its pushes are those of all its posts: {await pushes('a')}")
        law(await pushes(other.id) == (other.id,), "another item has its own")
        law(await pushes(every.id) == (), "one of everybody is not hers to stop")
        law(await pushes("a", "bob") == await pushes("none") == (), "no user has another's")
        gone = await alter(storage, "alice", FeedChange(item="a", delete=True, withdraw=True), T0 + 4)
        law(gone.item is not None and gone.item.deleted and gone.changed, "a withdrawn item is a tombstone")
        law(await pushes("a") == ours, "a repeated post knows its pushes")
        again = await alter(storage, "alice", FeedChange(item="a", delete=True, withdraw=True), T0 + 5)
        law(not again.problem and not again.changed, "withdrawing it again changes nothing")
        puts = await storage.put([posting(external_id="a", content=b'{"n":2}', now=T0 + 6)], T0 + 6)
        law(puts[0].id and puts[0].feed is not None and puts[0].feed.id != first[0].id, "the same post is a new item")
        for n in range(20):
            content = b'{"n":%d}' % (10 + n)
            await storage.put([posting(external_id="b", content=content, now=T0 + 7)], T0 + 7)
        law(len(await pushes("b")) == PUSHES, "of many pushes the last ones are known")
