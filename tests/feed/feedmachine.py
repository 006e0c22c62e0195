"""The model and another storage side by side under arbitrary histories of a feed; and a client that follows its cursor
misses and repeats nothing. Imported by the tests of each storage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fanout.core.feed import (
    CURSOR_SLOT,
    ITEM_SLOT,
    Audience,
    FeedBulk,
    FeedChange,
    FeedPage,
    FeedPost,
    FeedQuery,
    Receive,
    SubscriptionRequest,
)
from fanout.core.ids import notification_id
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import EndpointFilter, Submission
from fanout.plugin import Storage, StorageContext
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device
from tests.feed.feedclient import Client
from tests.oracle.store import ModelStorage

T = TypeVar("T")

CONTENT = f'{{"cursor":"{CURSOR_SLOT}","item":"{ITEM_SLOT}"}}'.encode()
USERS = st.sampled_from(["alice", "bob"])
DEVICES = st.sampled_from(["phone", "tablet", "tv"])
TARGETS = st.sampled_from(
    [Target.user("alice"), Target.user("bob"), Target.users(["alice", "bob"]), Target.topic("x"), Target.all()]
)
EXTERNAL = st.sampled_from([None, None, "e", "f"])
KEYS = st.sampled_from([None, None, None, "k"])
RECEIVES: st.SearchStrategy[Receive] = st.sampled_from(["push", "signal", "none"])
PLATFORMS = st.sampled_from([None, frozenset(("ios",)), frozenset(("android", "fcm"))])


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """For a storage that answers without waiting: the coroutine ends at its first step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
    raise AssertionError("an inline storage waits for nothing")


class Feeds(RuleBasedStateMachine):
    """What a storage is needs `opened`; `run` and `alike` where it waits, or counts otherwise than the model."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(T0)
        keep = Retention(notifications=200, idempotency_keys=100, quarantine=150, events=1e9, tombstones=80)
        self.context = StorageContext(clock=self.clock, chunk=3, retention=keep)
        self.other: Storage = self.run(self.opened().__aenter__())
        model = ModelStorage("", self.context)
        model._t.feed.identity = self.run(self.other.feed.identity())
        self.model: Storage = model
        self.number = 0
        self.subs: list[str] = []
        self.items: list[str] = []
        self.clients = {user: Client() for user in ("alice", "bob")}
        self.last_seq = 0

    @abstractmethod
    def opened(self) -> Storage:
        """The storage, which is always the same one; not entered."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the other storage answers."""
        return run(coroutine)

    def alike(self, answer: Any, *, other: bool) -> Any:
        """An answer, of the model or of the other storage, without what each counts for itself."""
        return answer

    def teardown(self) -> None:
        self.run(self.other.__aexit__())

    def both(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Ask both; they must answer alike."""
        expected = run(getattr(self.model, method)(*arguments, **named))
        answer = self.run(getattr(self.other, method)(*arguments, **named))
        assert self.alike(answer, other=True) == self.alike(expected, other=False), (method, arguments, named)
        return expected

    def feed(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Ask both feeds; they must answer alike."""
        expected = run(getattr(self.model.feed, method)(*arguments, **named))
        answer = self.run(getattr(self.other.feed, method)(*arguments, **named))
        assert self.alike(answer, other=True) == self.alike(expected, other=False), (method, arguments, named)
        return expected

    @property
    def now(self) -> float:
        return self.clock.now()

    def submission(self, target: Target, *, due_at: float = 0.0, **more: Any) -> Submission:
        self.number += 1
        due = max(self.now, due_at)
        return Submission(
            id=notification_id(self.now, self.number.to_bytes(10, "big")),
            app="default",
            target=target,
            content=CONTENT,
            lane=1,
            repeat="prefer_delivery",
            accepted_at=self.now,
            due_at=due,
            expires_at=due + 500,
            **more,
        )

    @initialize()
    def begin(self) -> None:
        for target in (Target.all(), Target.topic("x"), Target.user("alice")):
            post = FeedPost(content=b"{}", expires_at=self.now + 100)
            self.both("put", [self.submission(target, feed=post)], self.now)
        self.both("register", [replace(device("alice", "1"), tags=("x",)), device("bob", "2")], self.now)

    # -- devices

    @rule(
        user=USERS,
        name=DEVICES,
        token=st.sampled_from([None, "1", "2", "3"]),
        binding=st.sampled_from(["apns", "fcm"]),
        receive=RECEIVES,
        tags=st.sampled_from([(), ("x",)]),
        lasts=st.sampled_from([20.0, 1000.0]),
        former=st.integers(1, 6),
        keys=st.sampled_from(["", "", "other"]),
    )
    def subscribe(
        self,
        user: str,
        name: str,
        token: str | None,
        binding: str,
        receive: Receive,
        tags: tuple[str, ...],
        lasts: float,
        former: int,
        keys: str,
    ) -> None:
        self.number += 1
        registration = None if token is None else replace(device(user, token, binding=binding), tags=tags)
        if registration is not None and keys:
            address = replace(registration.address, value=f"{registration.address.value} {keys}")
            registration = replace(registration, address=address)
        wanted = SubscriptionRequest(
            app="default",
            user=user,
            device=name,
            registration=registration,
            platform="ios" if binding == "apns" else "",
            receive=receive,
            expires_at=self.now + lasts,
            unsid=f"unsid-{self.number}",
            former=self.subs[-former] if former <= len(self.subs) else "",
        )
        done = self.feed("subscribe", wanted, self.now)
        if not done.refused:
            self.subs.append(done.subscription.unsid)

    @rule(user=USERS, id=st.integers(1, 6))
    def unsubscribe(self, user: str, id: int) -> None:
        self.feed("unsubscribe", "default", user, id, self.now)

    @rule(user=USERS, token=st.sampled_from("123"), tags=st.sampled_from([(), ("x",)]))
    def register(self, user: str, token: str, tags: tuple[str, ...]) -> None:
        self.both("register", [replace(device(user, token), tags=tags)], self.now)

    @rule(user=USERS, sure=st.integers(0, 3))
    def erase(self, user: str, sure: int) -> None:
        if sure == 0:
            self.both("erase_user", "default", user, self.now)
            self.clients[user] = Client()

    # -- the feed

    @rule(
        where=TARGETS,
        external=EXTERNAL,
        key=KEYS,
        lasts=st.sampled_from([15.0, 1000.0]),
        platforms=PLATFORMS,
        refused=st.sampled_from([(), (), (), ("fcm",)]),
        twice=st.booleans(),
        fallback=st.booleans(),
        content=st.sampled_from([b'{"a":1}', b'{"a":1}', b'{"a":2}']),
    )
    def post(
        self,
        where: Target,
        external: str | None,
        key: str | None,
        lasts: float,
        platforms: frozenset[str] | None,
        refused: tuple[str, ...],
        twice: bool,
        fallback: bool,
        content: bytes,
    ) -> None:
        target = where
        later = self.now + 10 if fallback else None
        group = "g" if external == "e" else None
        item = FeedPost(
            content=content, expires_at=self.now + lasts, external_id=external, fallback_at=later, group=group
        )
        audience = Audience(platforms=platforms, bindings=frozenset(("fcm",)))
        digest = f"{target}{external}".encode()
        batch = []
        for n in range(1 + twice):
            mine = key if n == 0 else None
            batch += [
                self.submission(
                    target,
                    feed=item,
                    audience=audience,
                    idempotency_key=mine,
                    digest=digest,
                    refused=frozenset(refused),
                ),
                self.submission(target, follows=True, optional=True, audience=Audience(receive=frozenset(("signal",)))),
            ]
        if fallback and target.kind == "user":
            unseen = Audience(receive=frozenset(("push", "signal")), unseen=True)
            batch.append(self.submission(target, due_at=self.now + 10, follows=True, optional=True, audience=unseen))
        for sub, put in zip(batch, self.both("put", batch, self.now), strict=True):
            if put.feed is not None:
                self.items.append(put.feed.id)
            if put.id:
                self.both("deliveries", put.id)
                if not put.replayed:
                    self.same_content(sub.id)

    def same_content(self, id: str) -> None:
        stored = self.both("notification", id)
        assert CURSOR_SLOT.encode() not in stored.content

    @rule(
        user=USERS,
        which=st.integers(0, 11),
        read=st.sampled_from([None, True, False]),
        action=st.sampled_from([None, "none", "dismissed"]),
        delete=st.sampled_from([False, False, False, True]),
        match=st.sampled_from([None, None, None, "right", "wrong"]),
        writer=st.integers(0, 5),
    )
    def change(
        self, user: str, which: int, read: bool | None, action: Any, delete: bool, match: str | None, writer: int
    ) -> None:
        page: FeedPage = self.feed("read", "default", user, FeedQuery(status=None, limit=10), self.now)
        there = [item.id for item in page.items]
        others = [*self.items[-1:], "e", "none"]
        id = there[which] if which < len(there) else others[which % len(others)]
        mine = [each.unsid for each in self.feed("subscriptions", "default", user)]
        known = self.feed("item", "default", user, id, self.now)
        change = FeedChange(
            item=id,
            read=read,
            action=action,
            delete=delete,
            if_match=None if match is None or known is None else known.seq + (match == "wrong"),
            withdraw=delete and writer == 0,
            writer=mine[writer] if writer < len(mine) else ("unknown" if writer == 5 else ""),
        )
        target = Target.user(user)
        batch = [
            self.submission(target, feed=change, audience=Audience(), optional=True),
            self.submission(target, follows=True, audience=Audience(receive=frozenset(("signal",))), optional=True),
        ]
        for put in self.both("put", batch, self.now):
            if put.id:
                self.both("deliveries", put.id)

    @rule(
        user=USERS,
        read=st.booleans(),
        delete=st.sampled_from([False, False, False, True]),
        group=st.sampled_from([None, "g"]),
        some=st.booleans(),
        old=st.booleans(),
        limit=st.sampled_from([1, 100]),
    )
    def change_many(
        self, user: str, read: bool, delete: bool, group: str | None, some: bool, old: bool, limit: int
    ) -> None:
        query = FeedQuery(
            group=group,
            ids=("e", *self.items[-3:]) if some else None,
            until=self.last_seq - 3 if old else 2**62,
            content=False,
            limit=limit,
        )
        bulk = FeedBulk(query=query, read=None if delete else read, delete=delete)
        self.both("put", [self.submission(Target.user(user), feed=bulk, optional=True)], self.now)

    @rule(user=USERS, read=st.booleans(), which=st.integers(0, 3))
    def change_and_gather(self, user: str, read: bool, which: int) -> None:
        """A push that is due later, and joins one that waits already."""
        page: FeedPage = self.feed("read", "default", user, FeedQuery(limit=4), self.now)
        if which < len(page.items):
            sub = self.submission(
                Target.user(user),
                due_at=self.now + 5,
                feed=FeedChange(item=page.items[which].id, read=read),
                optional=True,
                collapse_key="burst",
                joins=CONTENT[:-1] + b',"all":1}',
            )
            (put,) = self.both("put", [sub], self.now)
            if put.id:
                self.same_content(put.id)
            self.both("backlog", "default")

    @rule(user=USERS)
    def read_what_is_of_everybody(self, user: str) -> None:
        """A user's own state of a shared item, often: most of what is subtle about reading is there."""
        page: FeedPage = self.feed("read", "default", user, FeedQuery(limit=100), self.now)
        for item in [item for item in page.items if item.broadcast][-2:]:
            change = FeedChange(item=item.id, read=not item.read)
            self.both("put", [self.submission(Target.user(user), feed=change, optional=True)], self.now)

    @rule(user=USERS, data=st.data())
    def fetched(self, user: str, data: st.DataObject) -> None:
        if self.subs and self.items:
            unsid = data.draw(st.sampled_from(self.subs[-4:]))
            self.feed("fetched", "default", user, unsid, self.items[-3:], self.now)

    @rule(user=USERS, which=st.integers(-1, 3))
    def look(self, user: str, which: int) -> None:
        self.feed(
            "mark_seen",
            "default",
            user,
            ([*self.items[-3:], "e", None])[which % min(4, len(self.items[-3:]) + 2)],
            self.now,
        )

    # -- a client that follows

    def step(self, user: str, limit: int) -> FeedPage:
        client = self.clients[user]
        page: FeedPage = self.feed("read", "default", user, replace(client.query, limit=limit), self.now)
        if client.stale(page):
            client = self.clients[user] = Client()
            page = self.feed("read", "default", user, replace(client.query, limit=limit), self.now)
        client.take(page)
        return page

    @rule(user=USERS, limit=st.sampled_from([1, 3]))
    def read_a_page(self, user: str, limit: int) -> None:
        self.step(user, limit)

    @rule(user=USERS, limit=st.sampled_from([1, 3, 100]))
    def follow(self, user: str, limit: int) -> None:
        """Read pages until nothing more comes, and compare the copy with the feed."""
        while self.step(user, limit).more or self.clients[user].position is not None:
            pass
        while self.step(user, limit).more:
            pass
        whole: FeedPage = self.feed("read", "default", user, FeedQuery(limit=1000), self.now)
        copy = self.clients[user].items
        mine = {id: item for id, item in copy.items() if not item.deleted and item.expires_at > self.now}
        assert mine == {item.id: item for item in whole.items}, "the copy is the feed"

    # -- time

    @rule(seconds=st.sampled_from([1.0, 1.0, 11.0, 30.0, 90.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.sampled_from([1, 1000]))
    def expire(self, limit: int) -> None:
        self.both("expire", self.now, limit=limit)

    @rule(limit=st.sampled_from([2, 1000]))
    def prune(self, limit: int) -> None:
        self.both("prune", self.now, limit=limit)

    @rule(binding=st.sampled_from(["apns", "fcm"]))
    def expand(self, binding: str) -> None:
        self.both("expand", "default", binding, self.now, ahead=3)

    @rule()
    def crash(self) -> None:
        self.run(self.other.__aexit__())
        self.other = self.run(self.opened().__aenter__())

    # -- the laws

    @invariant()
    def both_say_the_same(self) -> None:
        for user in ("alice", "bob"):
            self.feed("subscriptions", "default", user)
            self.feed("counts", "default", user, self.now)
            self.feed("pushes", "default", user, (self.items or ["e"])[-1], self.now)
            self.feed("read", "default", user, FeedQuery(limit=3, newest_before=2**62), self.now)
            self.feed("read", "default", user, FeedQuery(unread=True, status=None), self.now)
            self.feed("read", "default", user, FeedQuery(action="dismissed", until=self.last_seq), self.now)
        self.feed("expiring", "default", after=self.now, until=self.now + 30)
        self.both("list_endpoints", EndpointFilter(state=None))
        touched = self.feed("touched", self.last_seq)
        assert touched.head >= self.last_seq, "numbers only grow"
        self.last_seq = touched.head
