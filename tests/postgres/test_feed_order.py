"""Many write into one feed and one event log at once: numbers are committed in their order, so that no reader's cursor
passes anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from fanout.core.feed import Audience, FeedChange, FeedPost, FeedQuery, SubscriptionRequest
from fanout.core.ids import notification_id
from fanout.core.model import Target
from fanout.core.records import Submission
from fanout.plugin import Storage, StorageContext
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device
from tests.postgres.conftest import Databases

pytestmark = [pytest.mark.anyio, pytest.mark.external, pytest.mark.timeout(120)]

WRITERS = 4
EACH = 25


@pytest.fixture
async def storages(databases: Databases, open_storage: Callable[..., Storage]) -> AsyncIterator[list[Storage]]:
    """Several on one database, as so many processes would have."""
    name = await databases.lend()
    context = StorageContext(clock=VirtualClock(T0))
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_storage(name, context)) for _ in range(WRITERS + 1)]
    await databases.give_back(name)


_number = iter(range(1, 1_000_000))


def submission(target: Target, feed: FeedPost | FeedChange) -> Submission:
    return Submission(
        id=notification_id(T0, next(_number).to_bytes(10, "big")),
        app="default",
        target=target,
        content=b"{}",
        lane=1,
        repeat="prefer_delivery",
        accepted_at=T0,
        due_at=T0,
        expires_at=T0 + 500,
        feed=feed,
        audience=Audience(),
        optional=True,
    )


def post(external: str | None = None, *, user: str = "alice") -> Submission:
    return submission(Target.user(user), FeedPost(content=b"{}", expires_at=T0 + 100, external_id=external))


async def test_a_reader_that_follows_its_cursor_misses_nothing(storages: list[Storage]) -> None:
    """Posts, replacements, changes and erasures by four, and a reader by its side all the while."""
    reader, *writers = storages
    written: dict[int, str] = {}

    async def write(number: int, storage: Storage) -> None:
        for step in range(EACH):
            subs = [post(f"e{step % 3}" if number % 2 else None), post()]
            for put in await storage.put(subs, T0):
                assert put.feed is not None
                written[put.feed.seq] = put.feed.id
            change = FeedChange(item=subs[1].id, read=True)
            (put,) = await storage.put([submission(Target.user("alice"), change)], T0)
            assert put.feed is not None
            written[put.feed.seq] = put.feed.id
            if step % 10 == number:
                await storage.erase_user("default", f"nobody{number}", T0)

    seen: dict[int, str] = {}
    heads: list[int] = []
    latest = Counter[str]()
    over = asyncio.Event()

    async def read() -> None:
        after = 0
        while True:
            last = over.is_set()
            page = await reader.feed.read("default", "alice", FeedQuery(after=after, status=None, limit=7), T0)
            for item in page.items:
                assert after < item.seq <= page.seq
                seen[item.seq] = item.id
                latest[item.id] = item.seq
            after = page.seq
            heads.append(page.head)
            if last and not page.more:
                return
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        writing = [group.create_task(write(number, storage)) for number, storage in enumerate(writers)]
        await asyncio.gather(*writing)
        over.set()
        await reading
    assert len(written) == WRITERS * EACH * 3, "no number is given twice"
    assert heads == sorted(heads)
    assert seen.items() <= written.items()
    # What was overtaken by a later change of the same item need not have been seen; its last change was.
    assert dict(latest) == {id: seq for seq, id in sorted(written.items())}
    touched = await reader.feed.touched(0)
    assert touched.head == max(written)


async def test_one_place_has_one_item_whoever_posts_there_at_once(storages: list[Storage]) -> None:
    made = await asyncio.gather(*(storage.put([post("same")], T0) for storage in storages * 4))
    replaced = [put.feed.replaced for (put,) in made if put.feed is not None]
    assert sorted(replaced) == [False] + [True] * (len(made) - 1)
    page = await storages[0].feed.read("default", "alice", FeedQuery(), T0)
    assert len(page.items) == 1
    assert {put.feed.id for (put,) in made if put.feed is not None} == {page.items[0].id}


async def test_one_of_many_that_match_one_state_changes_it(storages: list[Storage]) -> None:
    (first,) = await storages[0].put([post()], T0)
    assert first.feed is not None
    change = FeedChange(item=first.feed.id, read=True, if_match=first.feed.seq)
    made = await asyncio.gather(
        *(storage.put([submission(Target.user("alice"), change)], T0) for storage in storages * 3)
    )
    assert Counter(put.feed.problem for (put,) in made if put.feed is not None) == {"": 1, "stale": len(made) - 1}


async def test_what_is_posted_while_a_user_is_erased_is_gone_or_comes_after(storages: list[Storage]) -> None:
    for _ in range(5):
        await asyncio.gather(
            storages[0].erase_user("default", "alice", T0), *(storage.put([post()], T0) for storage in storages[1:])
        )
        touched = await storages[0].feed.touched(0)
        page = await storages[0].feed.read("default", "alice", FeedQuery(status=None), T0)
        # A reader is told to begin anew by the erasure's number: what is left must be later than that.
        assert not touched.erased or all(item.seq > page.floor for item in page.items)


async def test_a_device_that_subscribes_twice_at_once_has_one_subscription(storages: list[Storage]) -> None:
    def wanted(number: int) -> SubscriptionRequest:
        return SubscriptionRequest(
            app="default",
            user="alice",
            device="phone",
            registration=replace(device("alice", str(number % 2)), tags=("x",)),
            platform="",
            receive="push",
            expires_at=T0 + 100,
            unsid=f"unsid-{number}",
        )

    done = await asyncio.gather(
        *(storage.feed.subscribe(wanted(number), T0) for number, storage in enumerate(storages * 2))
    )
    (held,) = await storages[0].feed.subscriptions("default", "alice")
    assert {each.subscription.unsid for each in done} == {held.unsid}
    assert [each.renewed for each in done].count(False) == 1
    assert held.endpoint_state == "active"


async def test_no_event_is_passed_by_a_cursor(storages: list[Storage]) -> None:
    reader, *writers = storages

    async def write(number: int, storage: Storage) -> None:
        for step in range(EACH):
            (made,) = await storage.register([device("bob", f"{number}-{step}")], T0)
            await storage.remove_endpoints("default", [made.id], T0)

    seen: list[int] = []
    over = asyncio.Event()

    async def read() -> None:
        after = 0
        while True:
            last = over.is_set()
            events = await reader.events(after=after, limit=7)
            assert [event.id for event in events] == sorted(event.id for event in events)
            seen.extend(event.data["endpoint"] for event in events)
            after = events[-1].id if events else after
            if last and not events:
                return

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        other = group.create_task(_number_too(writers[0], over))
        await asyncio.gather(*(group.create_task(write(number, storage)) for number, storage in enumerate(writers)))
        over.set()
        await reading
        await other
    assert len(seen) == len(set(seen)) == WRITERS * EACH


async def _number_too(storage: Storage, over: asyncio.Event) -> None:
    """Another reader, so that two give events their numbers at once."""
    while not over.is_set():
        await storage.events(after=0, limit=1)


async def test_one_key_posts_one_item_whoever_posts_with_it_at_once(storages: list[Storage]) -> None:
    def keyed() -> Submission:
        return replace(post(), idempotency_key="k", digest=b"d", optional=False)

    made = await asyncio.gather(*(storage.put([keyed()], T0) for storage in storages * 4))
    assert [put.replayed for (put,) in made].count(False) == 1
    page = await storages[0].feed.read("default", "alice", FeedQuery(), T0)
    assert {put.feed.id for (put,) in made if put.feed is not None} == {item.id for item in page.items}
    assert len(page.items) == 1
