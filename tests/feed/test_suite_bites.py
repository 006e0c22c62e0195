"""The storage suite finds a broken feed: each of these breaks one law, and is caught by a check that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.counts import Counts
from fanout.core.feed import (
    Audience,
    FeedChange,
    FeedItem,
    FeedPage,
    FeedPost,
    FeedQuery,
    Subscribed,
    Subscription,
    SubscriptionRequest,
    Touched,
)
from fanout.core.records import Put, Submission
from fanout.plugin import StorageContext
from fanout.testing.storage import CHECKS, run_check
from tests.oracle.feed import ModelFeed
from tests.oracle.store import ModelStorage

pytestmark = pytest.mark.anyio


class Repeats(ModelFeed):
    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        return await super().read(app, user, replace(query, after=max(0, query.after - 1)), now)


class NoTombstones(ModelFeed):
    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        page = await super().read(app, user, query, now)
        return replace(page, items=tuple(item for item in page.items if not item.deleted))


class EverybodysFeed(ModelFeed):
    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        return await super().read(app, "alice", query, now)


class NoFloor(ModelFeed):
    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        return replace(await super().read(app, user, query, now), floor=0)


class CursorAhead(ModelFeed):
    async def read(self, app: str, user: str, query: FeedQuery, now: float) -> FeedPage:
        page = await super().read(app, user, query, now)
        return replace(page, seq=page.head)


class FindsAnybodys(ModelFeed):
    async def item(self, app: str, user: str, id: str, now: float) -> FeedItem | None:
        found = [entry.item for entry in self._t.feed.items.values() if entry.item.id == id]
        return found[0] if found else None


class TellsNobody(ModelFeed):
    async def touched(self, after: int) -> Touched:
        return replace(await super().touched(after), users=frozenset())


class Crowded(ModelFeed):
    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        return await super().subscribe(replace(wanted, most=0), now)


class EndsTheOldest(ModelFeed):
    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        done = await super().subscribe(replace(wanted, most=0), now)
        others = [s.id for s in await self.subscriptions(wanted.app, wanted.user) if s.id != done.subscription.id]
        ended = sorted(others, reverse=True)[wanted.most - 1 :] if wanted.most else []
        for id in ended:
            await self.unsubscribe(wanted.app, wanted.user, id, now)
        return replace(done, ended=(*done.ended, *ended))


class NewUnsidEachTime(ModelFeed):
    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        done = await super().subscribe(wanted, now)
        return replace(done, subscription=replace(done.subscription, unsid=f"{wanted.unsid}-{now}"))


class SharesDevices(ModelFeed):
    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        feed = self._t.feed.subscriptions.values()
        others = [s for s in feed if (s.app, s.device) == (wanted.app, wanted.device) and s.user != wanted.user]
        done = await super().subscribe(wanted, now)
        for other in others:
            await self.unsubscribe(other.app, other.user, other.id, now)
        return done


class TakesAddresses(ModelFeed):
    async def subscribe(self, wanted: SubscriptionRequest, now: float) -> Subscribed:
        done = await super().subscribe(wanted, now)
        if done.refused and wanted.registration is not None:
            new = wanted.registration
            id = self._t.directory.active[wanted.app, new.binding, new.address.digest]
            held = self._t.directory.endpoints[id].address
            done = await super().subscribe(replace(wanted, registration=replace(new, address=held)), now)
        return done


class AnybodyUnsubscribes(ModelFeed):
    async def unsubscribe(self, app: str, user: str, id: int, now: float) -> bool:
        held = self._t.feed.subscriptions.get(id)
        return held is not None and await super().unsubscribe(held.app, held.user, id, now)


class UnsidsOfAllApps(ModelFeed):
    async def subscription(self, app: str, unsid: str) -> Subscription | None:
        return await super().subscription("default", unsid)


class ForgetsWhoFetched(ModelFeed):
    async def fetched(self, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
        return None


class CountsTheDead(ModelFeed):
    async def counts(self, app: str, user: str, now: float) -> Counts:
        return await super().counts(app, user, 0.0)


class LooksBack(ModelFeed):
    async def mark_seen(self, app: str, user: str, item: str | None, now: float) -> Counts | None:
        self._t.feed.looked.pop((app, user), None)
        return await super().mark_seen(app, user, item, now)


class LooksUnheard(ModelFeed):
    async def touched(self, after: int) -> Touched:
        found = await super().touched(after)
        return replace(found, users=found.users - self._t.feed.looked.keys())


class Plain(ModelStorage):
    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        return await super().put([self.changed(sub) for sub in submissions], now)

    def changed(self, sub: Submission) -> Submission:
        return sub


class NeverReplaces(Plain):
    def changed(self, sub: Submission) -> Submission:
        return replace(sub, feed=replace(sub.feed, external_id=None)) if isinstance(sub.feed, FeedPost) else sub


class IgnoresIfMatch(Plain):
    def changed(self, sub: Submission) -> Submission:
        return replace(sub, feed=replace(sub.feed, if_match=None)) if isinstance(sub.feed, FeedChange) else sub


class TellsTheWriter(Plain):
    def changed(self, sub: Submission) -> Submission:
        return replace(sub, feed=replace(sub.feed, writer="")) if isinstance(sub.feed, FeedChange) else sub


class PushesToEverybody(Plain):
    def changed(self, sub: Submission) -> Submission:
        return replace(sub, audience=None) if sub.audience is not None and not sub.optional else sub


class FallsBackAlways(Plain):
    def changed(self, sub: Submission) -> Submission:
        unseen = sub.audience is not None and sub.audience.unseen
        return replace(sub, audience=replace(sub.audience or Audience(), unseen=False)) if unseen else sub


FEEDS = [Repeats, NoTombstones, EverybodysFeed, NoFloor, CursorAhead, FindsAnybodys, TellsNobody]
FEEDS += [NewUnsidEachTime, SharesDevices, TakesAddresses, AnybodyUnsubscribes, UnsidsOfAllApps, ForgetsWhoFetched]
FEEDS += [CountsTheDead, LooksBack, LooksUnheard]
STORAGES = [NeverReplaces, IgnoresIfMatch, TellsTheWriter, PushesToEverybody, FallsBackAlways]
OURS = [name for name in CHECKS if name.startswith(("feed_", "subscriptions_"))]


async def caught(make: Any) -> list[str]:
    """The checks that find something."""
    found = []
    for name in OURS:
        try:
            await run_check(name, make)
        except AssertionError as error:
            assert len(str(error)) > 20
            found.append(name)
    return found


@pytest.mark.parametrize("broken", FEEDS, ids=lambda broken: broken.__name__)
async def test_a_broken_feed_is_caught(broken: type[ModelFeed]) -> None:
    def make(context: StorageContext) -> ModelStorage:
        storage = ModelStorage("", context)
        storage.feed = broken(storage._t)
        return storage

    assert await caught(make)


@pytest.mark.parametrize("broken", STORAGES, ids=lambda broken: broken.__name__)
async def test_a_broken_put_is_caught(broken: type[ModelStorage]) -> None:
    assert await caught(lambda context: broken("", context))
