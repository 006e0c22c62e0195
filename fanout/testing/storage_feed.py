"""The laws of the feed: the result of a post, its readers, the effect of a change, and the promise of a cursor."""

from __future__ import annotations

from dataclasses import replace

from fanout.core.cursor import Cursor
from fanout.core.feed import CURSOR_SLOT, ITEM_SLOT, FeedChange, FeedItem, FeedPage, FeedPost, FeedQuery, FeedWritten
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import EndpointFilter, Submission
from fanout.plugin import Storage, feed_of
from fanout.testing.storage_kit import ALICE, T0, Kit, device, known, law, post, submission

_SLOTS = f'{{"data":{{"feed":{{"cursor":"{CURSOR_SLOT}","item":"{ITEM_SLOT}"}}}}}}'.encode()


def posting(
    target: Target = ALICE, *, now: float = T0, app: str = "default", external_id: str | None = None,
    content: bytes = b'{"n":1}', lasts: float = 1000.0, key: str | None = None, refused: tuple[str, ...] = (),
) -> Submission:  # fmt: skip
    """A submission that enters an item."""
    item = FeedPost(content=content, expires_at=now + lasts, external_id=external_id)
    made = submission(target, now=now, app=app, idempotency_key=key, refused=refused)
    return replace(made, feed=item, content=_SLOTS)


async def enter(storage: Storage, sub: Submission) -> FeedItem:
    """Put it, and be sure that an item came of it."""
    put = await post(storage, sub)
    written = known(put.feed, f"put answers with the result of a post: it answered {put}")
    return known(written.item, f"put answers with the item of a post: it answered {put}")


async def alter(storage: Storage, user: str, change: FeedChange, now: float, *, app: str = "default") -> FeedWritten:
    """Put a change; its result."""
    sub = replace(submission(Target.user(user), now=now, app=app), feed=change, optional=True, content=_SLOTS)
    (put,) = await storage.put([sub], now)
    written = known(put.feed, f"put answers with the result of a change: it answered {put}")
    law(not (written.problem and put.id), f"where a change has a problem, nothing is stored: {put}")
    return written


async def read(
    storage: Storage, user: str = "alice", now: float = T0, *, app: str = "default", query: FeedQuery | None = None
) -> FeedPage:
    """A page of a feed, everything by default."""
    return await feed_of(storage).read(app, user, query or FeedQuery(status=None), now)


def ids(page: FeedPage) -> list[str]:
    return [item.id for item in page.items]


async def feed_writes_are_one_with_the_put(kit: Kit) -> None:
    """Item and pushes are one commit; a push names the item and its cursor; a replay posts nothing again."""
    async with kit.open() as storage:
        await storage.register([device("alice", "1"), device("alice", "2", binding="fcm")], T0)
        first = posting(key="k")
        part = replace(submission(), content=_SLOTS, follows=True)
        lost = replace(submission(Target.user("nobody")), follows=True, optional=True)
        puts = await storage.put([first, part, lost], T0)
        law([bool(put.id) for put in puts] == [True, True, False], f"parts are stored with their post: {puts}")
        law(puts[2].dropped, "an optional part for nobody is dropped")
        written = known(puts[0].feed, "put answers with the result of a post")
        law(written.id == first.id, "an item has the id of the notification that posted it")
        item = known(written.item, "put answers with the item of a post")
        law((item.read, item.action, item.deleted, item.modified_at) == (False, "none", False, None), "it is new")
        law(item.created_at == T0 and item.content == first.feed.content, "with what was posted")  # type: ignore[union-attr]
        cursor = Cursor(await feed_of(storage).identity(), written.seq)
        for id in (puts[0].id, puts[1].id):
            stored = await storage.notification(id)
            filled = _SLOTS.decode().replace(CURSOR_SLOT, str(cursor)).replace(ITEM_SLOT, item.id).encode()
            law(stored is not None and stored.content == filled, "every part names the item and the cursor of the post")
        law(list((await read(storage)).items) == [item], "and the item is in the feed")

        again = replace(posting(key="k"), digest=first.digest)
        replayed = await storage.put([again, replace(submission(), follows=True)], T0 + 1)
        law(replayed[0].replayed and replayed[0].id == first.id, "a known key replays the post")
        law(replayed[1].dropped, "without its parts")
        law(replayed[0].feed is not None and replayed[0].feed.id == item.id, "and names its item")
        law(ids(await read(storage, now=T0 + 1)) == [item.id], "which is not posted again")
        refused = await storage.put([posting(refused=("fcm",)), posting()], T0 + 2)
        law(refused[0].refused == "fcm" and not refused[1].id, "a refused put stores nothing")
        conflict = await storage.put([replace(posting(key="k"), digest=b"other")], T0 + 2)
        law(conflict[0].conflict == first.id, "nor does one whose key is another request's")
        law(ids(await read(storage, now=T0 + 2)) == [item.id], "in the feed either")
        many = await storage.put([posting(Target.users(["alice", "bob"]))], T0 + 3)
        law(many[0].feed is not None and many[0].feed.item is None, "of many users each has an item of her own")
        for user in ("alice", "bob"):
            law(many[0].id in ids(await read(storage, user, T0 + 3)), "under one id")


async def feed_is_read_by_whom_it_concerns(kit: Kit) -> None:
    """A user reads her own items, and those for all users and for her topics; no user reads another's, or another
    app's."""
    async with kit.open() as storage:
        await storage.register([device("alice", "1", tags=["news"]), device("bob", "2")], T0)
        mine = await enter(storage, posting())
        everybody = await enter(storage, posting(Target.all()))
        news = await enter(storage, posting(Target.topic("news")))
        foreign = await enter(storage, posting(app="other"))
        law(everybody.broadcast and news.broadcast and not mine.broadcast, "a broadcast item says so")
        law(ids(await read(storage)) == [mine.id, everybody.id, news.id], "alice reads all three, oldest change first")
        law((await read(storage)).topics == ("news",), "and is told her topics")
        law(ids(await read(storage, "bob")) == [everybody.id], "bob has no such topic")
        law(ids(await read(storage, "carol")) == [everybody.id], "and a new user reads broadcast items")
        law(ids(await read(storage, app="other")) == [foreign.id], "another app's feed is another feed")
        law(await feed_of(storage).item("default", "bob", mine.id, T0) is None, "no user finds another's item")
        law(await feed_of(storage).item("other", "alice", mine.id, T0) is None, "nor one of another app")
        law(await feed_of(storage).item("default", "alice", news.id, T0) == news, "one is found by its id")
        law((await alter(storage, "bob", FeedChange(item=mine.id, read=True), T0)).problem == "missing", "nor changed")

        changed = await alter(storage, "alice", FeedChange(item=everybody.id, read=True), T0 + 1)
        law(changed.item is not None and changed.item.read, "alice has read it")
        law([i.read for i in (await read(storage, "bob")).items] == [False], "bob has not")
        law(ids(await read(storage)) == [mine.id, news.id, everybody.id], "it comes last now, in alice's feed")
        (endpoint,) = [e.id for e in await storage.list_endpoints(_of("alice"))]
        await storage.remove_endpoints("default", [endpoint], T0 + 2)
        law(news.id not in ids(await read(storage)), "a removed device takes its topics with it")
        touched = await feed_of(storage).touched(news.seq)
        law(("default", "alice") in touched.users and touched.head >= changed.seq, "touched tells whose feed changed")
        law(("default", "bob") not in touched.users, "and no other user's")
        shared = await feed_of(storage).touched(mine.seq)
        law(("default", "") in shared.users, "the broadcast feed has no user's name")
        both = (("default", None, everybody), ("default", "news", news))
        law(shared.shared == both, f"with the items, as they are without anybody's state: {shared.shared}")
        law(not (await feed_of(storage).touched(touched.head)).users, "and no feed after the last change")


async def feed_changes_go_by_property(kit: Kit) -> None:
    """The last writer wins, property by property; `if_match` makes it the first; a change without effect is none."""
    async with kit.open() as storage:
        item = await enter(storage, posting(external_id="order-42"))
        one = await alter(storage, "alice", FeedChange(item="order-42", read=True), T0 + 1)
        two = await alter(storage, "alice", FeedChange(item=item.id, action="dismissed"), T0 + 2)
        marked, moved = known(one.item, "a change names its item"), known(two.item, "a change names its item")
        law(marked.modified_at == T0 + 1 and item.modified_at is None, "a change says when it was")
        law((moved.read, moved.action) == (True, "dismissed"), "one property leaves the other as it is")
        law(item.seq < one.seq < two.seq == moved.seq, "each change has a number above the one before")
        law(await feed_of(storage).item("default", "alice", item.id, T0) == two.item, "and is what is read")
        same = await alter(storage, "alice", FeedChange(item=item.id, read=True), T0 + 3)
        law(not same.changed and same.item == two.item, "setting what is set is no change")
        stale = await alter(storage, "alice", FeedChange(item=item.id, read=False, if_match=one.seq), T0 + 4)
        law(stale.problem == "stale", "if_match of an older version changes nothing")
        good = await alter(storage, "alice", FeedChange(item=item.id, read=False, if_match=two.seq), T0 + 4)
        law(good.item is not None and not good.item.read, "of the present one it does, and read can be taken back")
        strange = await alter(storage, "alice", FeedChange(item=item.id, read=True, writer="unknown"), T0 + 5)
        law(strange.problem == "device", "a writer must be a device of hers")
        law((await alter(storage, "alice", FeedChange(item="none", read=True), T0)).problem == "missing", "not there")

        gone = await alter(storage, "alice", FeedChange(item="order-42", delete=True), T0 + 6)
        law(gone.item is not None and gone.item.deleted and not gone.item.content, "a tombstone holds no content")
        law((await read(storage)).items == (gone.item,), "and stays to be read")
        law(not (await read(storage, query=FeedQuery())).items, "by those who ask for it")
        again = await alter(storage, "alice", FeedChange(item=item.id, delete=True), T0 + 7)
        law(not again.problem and not again.changed, "deleting it again changes nothing")
        law((await alter(storage, "alice", FeedChange(item=item.id, read=True), T0)).problem == "missing", "no state")
        law(await feed_of(storage).item("default", "alice", "order-42", T0) is None, "nor found by its sender's id")
        again = await alter(storage, "alice", FeedChange(item="order-42", delete=True), T0 + 8)
        law(not again.problem and not again.changed, "but deleted again by it: that changes nothing")
        law(again.item == gone.item, "and answers the tombstone")
        other = await alter(storage, "bob", FeedChange(item="order-42", delete=True), T0 + 8)
        law(other.problem == "missing", "another user has no such tombstone")
        fresh = await enter(storage, posting(external_id="order-42", content=b'{"n":2}', now=T0 + 9))
        done = await alter(storage, "alice", FeedChange(item="order-42", delete=True), T0 + 10)
        law(done.id == fresh.id and done.changed, "where one is active it is that one")


async def feed_posts_replace(kit: Kit) -> None:
    """The same external id replaces the item that is active, for the same target only."""
    async with kit.open() as storage:
        item = await enter(storage, posting(external_id="a"))
        await alter(storage, "alice", FeedChange(item=item.id, read=True, action="dismissed"), T0 + 1)
        put = await post(storage, posting(external_id="a", content=b'{"n":2}', now=T0 + 2))
        law(put.feed is not None and put.feed.replaced and put.feed.id == item.id, "it keeps its id")
        (found,) = (await read(storage, now=T0 + 2)).items
        law((found.content, found.created_at, found.modified_at) == (b'{"n":2}', T0, T0 + 2), "with the new content")
        law((found.read, found.action) == (False, "none"), "and is new to the user")
        stored = await storage.notification(put.id)
        law(stored is not None and item.id.encode() in stored.content, "a push names the item by its id")
        await post(storage, posting(Target.user("bob"), external_id="a", now=T0 + 3))
        await post(storage, posting(external_id="b", now=T0 + 3))
        law(len((await read(storage, now=T0 + 3)).items) == 2, "another user's, or another id, is another item")
        await alter(storage, "alice", FeedChange(item=item.id, delete=True), T0 + 4)
        fresh = await enter(storage, posting(external_id="a", now=T0 + 5))
        law(fresh.id != item.id, "a deleted one is not brought back")
        late = await enter(storage, posting(external_id="a", now=T0 + 2000))
        law(late.id != fresh.id and late.number > fresh.number, "nor is one that has expired")
        states = {each.id: each.deleted for each in (await read(storage, now=T0 + 2000)).items}
        law(states.get(fresh.id) and not states.get(late.id, True), "which leaves a tombstone")

        every = await enter(storage, posting(Target.all(), external_id="x", now=T0 + 2001))
        await alter(storage, "alice", FeedChange(item=every.id, read=True), T0 + 2002)
        await post(storage, posting(Target.all(), external_id="x", content=b'{"n":2}', now=T0 + 2003))
        again = await feed_of(storage).item("default", "alice", every.id, T0 + 2003)
        law(again is not None and not again.read, "one of everybody is new to everybody")
        both = Target.users(["alice", "bob"])
        one = await post(storage, posting(both, external_id="m", now=T0 + 2004))
        two = await post(storage, posting(both, external_id="m", content=b'{"n":2}', now=T0 + 2005))
        old = await feed_of(storage).item("default", "bob", one.id, T0 + 2005)
        law(old is not None and old.deleted, "of many users each one's earlier item is deleted")
        law((await read(storage, "bob", T0 + 2005)).items[-1].id == two.id, "and the new one comes")
        twice = await storage.put([posting(external_id="t", now=T0 + 2006) for _ in range(2)], T0 + 2006)
        first, second = (known(each.feed, "put answers with the result of each of two posts") for each in twice)
        law(second.id == first.id and second.replaced, "replace each other too")


async def feed_cursors_miss_nothing(kit: Kit) -> None:
    """Pages follow each other without a gap, and later changes come after."""
    async with kit.open() as storage:
        made = [await enter(storage, posting(now=T0 + n)) for n in range(5)]
        everybody = await enter(storage, posting(Target.all(), now=T0 + 5))
        first = await read(storage, now=T0 + 6, query=FeedQuery(limit=2))
        law(ids(first) == [made[0].id, made[1].id] and first.more, "a page holds what was asked for")
        law(first.seq == made[1].seq and first.head == everybody.seq, "and says how far it goes")
        await alter(storage, "alice", FeedChange(item=made[0].id, read=True), T0 + 7)
        await alter(storage, "alice", FeedChange(item=everybody.id, action="snoozed"), T0 + 7)
        await alter(storage, "alice", FeedChange(item=made[3].id, delete=True), T0 + 8)
        seen: list[str] = []
        after = first.seq
        while True:
            page = await read(storage, now=T0 + 9, query=FeedQuery(after=after, status=None, limit=2))
            seen += ids(page)
            law(page.seq > after or not page.more, "each page goes on")
            after = page.seq
            if not page.more:
                break
        rest = [made[2].id, made[4].id, made[0].id, everybody.id, made[3].id]
        law(seen == rest, f"unread items, then changed ones, each once: {seen}")
        law(after == (await feed_of(storage).touched(0)).head, "and then the reader knows everything")
        law(not (await read(storage, now=T0 + 9, query=FeedQuery(after=after, status=None))).items, "nothing is twice")
        began = (await read(storage, now=T0 + 9, query=FeedQuery(until=everybody.seq))).items
        law([item.id for item in began] == [made[1].id, made[2].id, made[4].id], "until leaves out what changed later")


async def feed_lists_what_fits(kit: Kit) -> None:
    """Filters by read, action and status, in the order of change or the newest first."""
    async with kit.open() as storage:
        made = [await enter(storage, posting(now=T0 + n)) for n in range(4)]
        broadcast = await enter(storage, posting(Target.all(), now=T0 + 4))
        for item, change in (
            (made[0], FeedChange(item=made[0].id, read=True, action="activated")),
            (made[1], FeedChange(item=made[1].id, action="dismissed")),
            (made[2], FeedChange(item=made[2].id, delete=True)),
            (broadcast, FeedChange(item=broadcast.id, read=True)),
        ):
            law((await alter(storage, "alice", change, T0 + 5)).id == item.id, "a change names its item")
        letters = {item.id: letter for item, letter in zip([*made, broadcast], "abcde", strict=True)}

        async def found(query: FeedQuery) -> str:
            page = await read(storage, now=T0 + 6, query=query)
            return "".join(letters[item.id] for item in page.items)

        for query, expected in (
            (FeedQuery(), "dabe"),
            (FeedQuery(status=None), "dabce"),
            (FeedQuery(status="deleted"), "c"),
            (FeedQuery(unread=True), "db"),
            (FeedQuery(unread=False), "ae"),
            (FeedQuery(action="dismissed"), "b"),
            (FeedQuery(action="none"), "de"),
            (FeedQuery(action="none", unread=False, status=None), "ce"),
            (FeedQuery(newest_before=2**62), "edba"),
            (FeedQuery(newest_before=broadcast.number, limit=2), "db"),
            (FeedQuery(newest_before=made[1].number), "a"),
        ):
            law(await found(query) == expected, f"{query} finds {expected}, not {await found(query)}")


async def feed_expires_and_is_pruned(kit: Kit) -> None:
    """An item past its time is not read, then a tombstone, then nothing; and older cursors are told."""
    async with kit.open(retention=Retention(tombstones=50.0)) as storage:
        short = await enter(storage, posting(lasts=10.0))
        every = await enter(storage, posting(Target.all(), lasts=10.0))
        long = await enter(storage, posting(lasts=1000.0))
        await alter(storage, "alice", FeedChange(item=every.id, read=True), T0 + 1)
        law(len((await read(storage, now=T0 + 9.9)).items) == 3, "all are there before their time")
        law(ids(await read(storage, now=T0 + 10)) == [long.id], "at its time an item is read no more")
        law(await feed_of(storage).item("default", "alice", short.id, T0 + 10) is None, "nor found")
        law(await storage.expire(T0 + 10, limit=1) == 1, "expire ends as many as it may")
        law(await storage.expire(T0 + 10, limit=9) == 1, "and then the rest")
        law(await storage.expire(T0 + 10, limit=9) == 0, "and then has nothing to do")
        page = await read(storage, now=T0 + 10)
        law([item.deleted for item in page.items] == [False, True, True], "tombstones are left")
        law(len({item.seq for item in page.items}) == 3 and page.items[-1].seq == page.head, "each is its own change")
        law(all(not item.content for item in page.items if item.deleted), "without content")
        law(page.floor == 0, "no cursor is too old yet")
        await storage.prune(T0 + 59, limit=100)
        law(len((await read(storage, now=T0 + 59)).items) == 3, "they stay as long as retention says")
        while await storage.prune(T0 + 61, limit=1):
            pass
        page = await read(storage, now=T0 + 61)
        law(ids(page) == [long.id], "and no longer")
        law(page.floor == page.head, "a cursor from before the deleted tombstones is too old")


async def feed_erases_a_user(kit: Kit) -> None:
    """Of an erased user nothing is left to read, and her old cursors are told."""
    async with kit.open() as storage:
        await storage.register([device("alice", "1"), device("bob", "2")], T0)
        mine = await enter(storage, posting())
        theirs = await enter(storage, posting(Target.user("bob")))
        every = await enter(storage, posting(Target.all()))
        await alter(storage, "alice", FeedChange(item=every.id, delete=True), T0 + 1)
        before = (await read(storage)).head
        await storage.erase_user("default", "alice", T0 + 2)
        page = await read(storage, now=T0 + 2)
        law(ids(page) == [every.id] and not page.items[0].deleted, "broadcast items are as new, the rest is gone")
        law(await feed_of(storage).item("default", "alice", mine.id, T0 + 2) is None, "nothing of hers is found")
        law(page.floor > before, "a cursor of before is too old")
        law(bool((await feed_of(storage).touched(before)).erased), "and touched says that somebody was erased")
        other = await read(storage, "bob", T0 + 2)
        law(ids(other) == [theirs.id, every.id] and other.floor <= before, "others notice nothing")


async def feed_survives_reopening(kit: Kit) -> None:
    """Items, states, numbers and the database's identity are the same after it was closed and opened."""
    async with kit.open() as storage:
        item = await enter(storage, posting())
        await alter(storage, "alice", FeedChange(item=item.id, read=True), T0 + 1)
        identity, page = await feed_of(storage).identity(), await read(storage)
        law(0 <= identity < 2**32, "a database's identity has 32 bits")
    async with kit.open_again() as storage:
        law(await feed_of(storage).identity() == identity, "a database keeps its identity")
        law(await read(storage) == page, "and its feed")
        next_one = await enter(storage, posting())
        law(next_one.seq > page.head and next_one.number > item.number, "numbers go on where they were")


def _of(user: str) -> EndpointFilter:
    return EndpointFilter(user=user)
