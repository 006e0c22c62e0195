"""The laws of many changes at once: the items that a bulk change reaches, and the last signal of a burst, which always
arrives."""

from __future__ import annotations

from dataclasses import replace

from fanout.core.cursor import Cursor
from fanout.core.feed import CURSOR_SLOT, FeedBulk, FeedChange, FeedPost, FeedQuery, FeedWritten
from fanout.core.model import Target
from fanout.core.records import Put, Submission
from fanout.plugin import Storage, feed_of
from fanout.testing.storage_feed import enter, ids, posting, read
from fanout.testing.storage_kit import T0, Kit, device, known, law, lease_all, post, submission

ONE = f'{{"data":{{"one":"a longer text","feed":{{"cursor":"{CURSOR_SLOT}"}}}}}}'.encode()
MANY = f'{{"data":{{"feed":{{"cursor":"{CURSOR_SLOT}"}}}}}}'.encode()


async def _bulk(storage: Storage, user: str, bulk: FeedBulk, now: float) -> FeedWritten:
    made = replace(submission(Target.user(user), now=now), feed=bulk, optional=True)
    (put,) = await storage.put([made], now)
    if put.feed is None:
        raise AssertionError(f"put says what a bulk came to: it answered {put}")
    return put.feed


async def feed_bulk_changes_what_fits(kit: Kit) -> None:
    """Every item that a query finds is changed in one commit, each under a number of its own, and no other user's."""
    async with kit.open() as storage:
        await storage.register([device("alice", "1", tags=["news"])], T0)
        one = await enter(storage, posting(external_id="x/1"))
        two = replace(posting(), feed=FeedPost(content=b'{"n":2}', expires_at=T0 + 1000, group="orders"))
        put = await post(storage, two)
        every = await enter(storage, posting(Target.all()))
        news = await enter(storage, posting(Target.topic("news")))
        theirs = await enter(storage, posting(Target.user("bob")))
        done = await _bulk(storage, "alice", FeedBulk(query=FeedQuery(group="orders"), read=True), T0 + 1)
        law((done.count, done.more) == (1, False), f"a group is what was posted with its name: {done}")
        query = FeedQuery(ids=("x/1", theirs.id, "none"))
        before = (await read(storage)).head
        done = await _bulk(storage, "alice", FeedBulk(query=query, action="dismissed"), T0 + 2)
        law(done.count == 1, "an id or a sender's id names what is hers, and unknown ids are passed over")
        law((done.position, done.seq) == (before, before + 1), "it has looked up to what was there before it")
        head = (await read(storage)).head
        late = await enter(storage, posting(now=T0 + 3))
        done = await _bulk(storage, "alice", FeedBulk(query=FeedQuery(until=head), read=True), T0 + 3)
        law(done.count == 3, "until leaves out later items, and an item that is so already is not counted")
        page = await read(storage, now=T0 + 3)
        law(done.seq == page.head, "the last number is that of the last item")
        law(len({item.seq for item in page.items}) == 5, "each has a number of its own")
        states = {item.id: (item.read, item.action, item.content) for item in page.items}
        law(states[late.id][0] is False and states[put.id] == (True, "none", b'{"n":2}'), f"content stays: {states}")
        law(states[one.id] == (True, "dismissed", b'{"n":1}'), "one property leaves the other as it is")
        law(states[every.id][0] and states[news.id][0], "a broadcast item is changed for her")
        law([item.read for item in (await read(storage, "bob")).items] == [False, False], "and for nobody else")
        law(ids(await read(storage, query=FeedQuery(unread=True))) == [late.id], "and is read so")

        part = FeedBulk(query=FeedQuery(limit=2), delete=True)
        done = await _bulk(storage, "alice", part, T0 + 4)
        law((done.count, done.more) == (2, True), "of many there is more than the limit")
        rest = await _bulk(storage, "alice", replace(part, query=FeedQuery(limit=9, after=done.position)), T0 + 4)
        law((rest.count, rest.more) == (3, False), "which goes on from the position")
        page = await read(storage, now=T0 + 5)
        law(all(item.deleted and not item.content for item in page.items), "deleted ones are tombstones")
        again = await _bulk(storage, "alice", FeedBulk(query=FeedQuery(), delete=True), T0 + 5)
        law((again.changed, again.count) == (False, 0), "and there is nothing left to change")
        law((await read(storage, now=T0 + 5)).head == page.head, "for which no number is used")
        strange = await _bulk(storage, "alice", FeedBulk(query=FeedQuery(), read=True, writer="unknown"), T0 + 5)
        law(strange.problem == "device", "a writer must be a device of hers")


def _changed(item: str, now: float, *, read: bool, due: float) -> Submission:
    made = submission(Target.user("alice"), now=now, due_at=due, collapse_key="burst")
    return replace(made, feed=FeedChange(item=item, read=read), optional=True, content=ONE, joins=MANY)


async def _said(storage: Storage, put: Put) -> bytes:
    return known(await storage.notification(put.id), "a put notification can be read").content


async def feed_changes_are_gathered(kit: Kit) -> None:
    """A change that joins a waiting one is told with it, at its time, under the last cursor; a change that comes too
    late for that is told anew."""
    async with kit.sent(1) as (storage, _):
        item = await enter(storage, posting())
        await lease_all(storage)
        identity = await feed_of(storage).identity()

        async def change(now: float, *, read: bool) -> tuple[Put, bytes]:
            (put,) = await storage.put([_changed(item.id, now, read=read, due=now + 5)], now)
            written = known(put.feed, "put answers with the result of a change")
            law(written.changed, "the change is made")
            return put, str(Cursor(identity, written.seq)).encode()

        async def backlog() -> int:
            return (await storage.backlog("default")).bytes

        before = await backlog()
        first, cursor = await change(T0 + 1, read=True)
        law(not first.joined, "the first waits alone")
        law(await _said(storage, first) == ONE.replace(CURSOR_SLOT.encode(), cursor), "and says what it was")
        for n in range(3):
            now = T0 + 2 + n
            put, cursor = await change(now, read=bool(n % 2))
            law(put.joined and put.id == first.id, f"a post before its time joins it: {put}")
            said = MANY.replace(CURSOR_SLOT.encode(), cursor)
            law(await _said(storage, first) == said, "which then speaks of all, under the last cursor")
            law(await backlog() == before + len(said), "the backlog counts what is there")
        law(await storage.expand("default", "apns", T0 + 5.9, ahead=9) == 0, "its time stays")
        law(await storage.expand("default", "apns", T0 + 6, ahead=9) == 1, "which is that of the first")
        late, cursor = await change(T0 + 6, read=True)
        law(not late.joined and late.id != first.id, "one that has begun is joined no more")
        law(late.superseded == (first.id,), "its place is taken where it has not been sent")
        law(
            await _said(storage, late) == MANY.replace(CURSOR_SLOT.encode(), cursor),
            "by one that speaks of all, because nobody has been told of the earlier",
        )
        await storage.expand("default", "apns", T0 + 11, ahead=9)
        law([chunk.notification for chunk in await lease_all(storage, T0 + 11)] == [late.id], "which alone is sent")
        await storage.cancel("default", late.id, T0 + 12)
        new, cursor = await change(T0 + 13, read=False)
        law(not new.joined, "one that was cancelled is joined by nothing")
        await storage.cancel("default", new.id, T0 + 13.5)
        new, cursor = await change(T0 + 14, read=True)
        law(not new.joined, "before its time either")
        new, cursor = await change(T0 + 15, read=False)
        kept = await _said(storage, new)
    async with kit.open_again() as storage:
        law(await _said(storage, new) == kept and cursor in kept, "a crash loses nothing of it")
        put, cursor = (await storage.put([_changed(item.id, T0 + 16, read=True, due=T0 + 21)], T0 + 16))[0], b""
        law(put.joined, "and afterwards it is joined as before")
