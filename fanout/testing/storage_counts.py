"""The laws of counts: how many items are unread, and how many have come since their user looked."""

from __future__ import annotations

from fanout.core.counts import Counts
from fanout.core.feed import FeedChange
from fanout.core.model import Target
from fanout.plugin import Storage, feed_of
from fanout.testing.storage_feed import alter, enter, posting
from fanout.testing.storage_kit import T0, Kit, device, law


async def _counted(storage: Storage, user: str = "alice", now: float = T0, app: str = "default") -> tuple[int, int]:
    found = await feed_of(storage).counts(app, user, now)
    return found.unread, found.unseen


async def feed_counts_what_is_unread(kit: Kit) -> None:
    """Every active item that a user can read and has not marked counts, also an item that other users have."""
    async with kit.open() as storage:
        law(await feed_of(storage).counts("default", "alice", T0) == Counts(), "there is nothing in an empty database")
        await storage.register([device("alice", "1", tags=["news"]), device("bob", "2")], T0)
        mine = await enter(storage, posting(external_id="mine"))
        short = await enter(storage, posting(lasts=10.0))
        every = await enter(storage, posting(Target.all()))
        news = await enter(storage, posting(Target.topic("news")))
        await enter(storage, posting(app="other"))
        law(await _counted(storage) == (4, 4), "a user's own items, everybody's and those of her topics count")
        law(await _counted(storage, "bob") == (1, 1), "another's do not, nor those of a topic that he is not in")
        law(await _counted(storage, "carol") == (1, 1), "of somebody unknown only what is of everybody")
        law(await _counted(storage, app="other") == (1, 1), "another app counts its own")
        found = await feed_of(storage).counts("default", "alice", T0)
        law(found.seq == (await feed_of(storage).touched(0)).head, "counts say up to which change they are")
        for item in (mine, every, news):
            await alter(storage, "alice", FeedChange(item=item.id, read=True), T0 + 1)
        law(await _counted(storage) == (1, 4), "a read item is not unread, and is as new as it was")
        law(await _counted(storage, "bob") == (1, 1), "and counts for everybody else")
        await alter(storage, "alice", FeedChange(item=every.id, read=False), T0 + 2)
        law(await _counted(storage) == (2, 4), "read can be taken back")
        await alter(storage, "alice", FeedChange(item=every.id, delete=True), T0 + 3)
        law(await _counted(storage) == (1, 3), "a deleted item does not count")
        law(await _counted(storage, now=T0 + 10) == (0, 2), f"nor what has expired: {short.id}")
        await enter(storage, posting(external_id="mine", content=b'{"n":2}', now=T0 + 11))
        law(await _counted(storage, now=T0 + 11) == (1, 2), "a replaced item is unread again")


async def feed_counts_what_is_new(kit: Kit) -> None:
    """The items that a user has seen are those up to a number, which never moves back; where it moves, her readers are
    told."""
    async with kit.open() as storage:
        look = feed_of(storage).mark_seen
        law(await look("default", "alice", None, T0) == Counts(), "a user without items has seen everything")
        _, second, third = [await enter(storage, posting(external_id=name)) for name in "abc"]
        foreign = await enter(storage, posting(Target.user("bob")))
        law(await look("default", "alice", foreign.id, T0) is None, "another's item is none of hers")
        law(await look("default", "alice", "nothing", T0) is None, "and nor is what is not there")
        law(await _counted(storage) == (3, 3), "which moves nothing")
        before = (await feed_of(storage).touched(0)).head
        found = await look("default", "alice", second.id, T0)
        law(found is not None and (found.unread, found.unseen, found.seen) == (3, 1, second.number), f"up to: {found}")
        law(found == await feed_of(storage).counts("default", "alice", T0), "the answer is what counts say")
        touched = await feed_of(storage).touched(before)
        law(touched.users == {("default", "alice")} and touched.head > before, "that is a change of her feed")
        law(not touched.shared and not touched.erased, "and of nothing else")
        before = touched.head
        back = await look("default", "alice", "a", T0)
        law(back is not None and back.unseen == 1, "it never moves back, by the sender's id either")
        again = await look("default", "alice", second.id, T0)
        law(again == back and again is not None and again.seq == before, "where it does not move nothing has changed")
        law(await _counted(storage, "bob") == (1, 1), "each user has seen for herself")
        whole = await look("default", "alice", None, T0)
        law(whole is not None and (whole.unread, whole.unseen) == (3, 0), "without an item she has seen all")
        await enter(storage, posting(external_id="a", content=b'{"n":2}', now=T0 + 1))
        law(await _counted(storage, now=T0 + 1) == (3, 0), "an item that is replaced keeps its place")
        newer = await enter(storage, posting(Target.all(), now=T0 + 2))
        law(await _counted(storage, now=T0 + 2) == (4, 1), "a later item is new")
        law(newer.number > third.number, "numbers grow")
        await storage.erase_user("default", "alice", T0 + 3)
        law(await _counted(storage, now=T0 + 3) == (1, 1), "an erased user has seen nothing")
    async with kit.open() as storage:
        await enter(storage, posting())
        await feed_of(storage).mark_seen("default", "alice", None, T0)
    async with kit.open_again() as storage:
        law(await _counted(storage) == (1, 0), "it is remembered")
