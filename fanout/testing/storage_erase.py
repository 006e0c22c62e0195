"""Checks of erasing: every trace of a user goes, and none comes back. Data of other users stays.

`leave_traces` makes every kind of trace through the contract, with texts by which it is found again in any database,
byte by byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fanout.core.audit import Audit
from fanout.core.endpoint import EndpointState
from fanout.core.model import Target
from fanout.core.records import Chunk, EndpointFilter, EndpointGone, RetryRow, Settlement
from fanout.plugin import Storage
from fanout.testing.storage_feed import posting
from fanout.testing.storage_kit import T0, Kit, device, done, law, lease_all, post, standing, submission
from fanout.testing.storage_subscriptions import subscribe

USER, TEXT, ADDRESS = "erased-user-7f3a9c", "a text for the erased 5c1de8", "address9b2e44"
"""By these a trace of the erased user is found."""


@dataclass
class Traces:
    """The data that `leave_traces` left: endpoints of the user, notifications to the user alone, those to others too,
    and a chunk that is held."""

    endpoints: list[int]
    alone: list[str]
    shared: list[str]
    held: Chunk


async def leave_traces(storage: Storage, user: str = USER) -> Traces:
    """Everything that a user can leave in a storage, at `T0`, beside another user ``bob``. A notification to the user
    alone has `TEXT`."""
    text = b'{"title":"%b"}' % TEXT.encode()
    one, two, _, interned = [each.id for each in await storage.register(
        [
            device(user, f"{ADDRESS}-1", tags=["news"]), device(user, f"{ADDRESS}-2", tags=["news"]), device("bob", "desk", tags=["news"]),
            device(user, f"{ADDRESS}-4"),
        ],
        T0,
    )]  # fmt: skip
    await storage.intern("default", "apns", [device("", f"{ADDRESS}-3").address], T0)
    await storage.register([device(user, f"{ADDRESS}-3")], T0)
    await storage.remove_endpoints("default", [interned], T0)
    await storage.restore_endpoints("default", [interned], T0)
    for name in ("phone", "tablet"):
        await subscribe(storage, user, f"{name}-of-{user}", f"{ADDRESS}-{name}", most=1)
    alone = [
        replace(submission(Target.user(user), idempotency_key=f"key-{user}"), content=text),
        replace(submission(Target.user(user), collapse_key=f"collapse-{user}"), content=text),
        replace(submission(Target.user(user), collapse_key=f"collapse-{user}"), content=text),
        replace(submission(Target.user(user), due_at=T0 + 500), content=text),
        replace(submission(Target.users([user])), content=text),
        replace(submission(Target.endpoints([one])), content=text),
        replace(submission(Target.endpoints([one, two])), content=text),
        replace(posting(Target.user(user), content=text, key=f"post-{user}"), content=text),
    ]
    shared = [
        submission(Target.users([user, "bob"])),
        submission(Target.users([user, "bob"]), collapse_key="both"),
        submission(Target.users([user, "bob"]), due_at=T0 + 500),
        submission(Target.topic("news")),
        submission(Target.all()),
        posting(Target.users([user, "bob"])),
        posting(Target.topic("news")),
    ]
    for sub in (*alone, *shared):
        await post(storage, sub)
    await storage.expand("default", "apns", T0, ahead=1)
    chunks = await lease_all(storage, T0)
    first, second, leased, *_ = [chunk for chunk in chunks if chunk.notification in {sub.id for sub in alone}]
    await storage.settle([done(first, "dead", "attempts")], T0)
    retry = Settlement(second.id, second.epoch, retries=[RetryRow(0, T0 + 9, 2, "backoff", "503", True)], attempts=1)
    await storage.settle([retry], T0)
    (found,) = await storage.list_endpoints(EndpointFilter(user=user, state=EndpointState.ACTIVE), limit=1)
    gone = EndpointGone(found.id, found.generation, T0, "unregistered")
    await storage.settle([Settlement(leased.id, leased.epoch, changes=[gone])], T0)
    mine = await storage.list_endpoints(EndpointFilter(user=user, state=None))
    return Traces([each.id for each in mine], [sub.id for sub in alone], [sub.id for sub in shared], leased)


async def addressed_are_found(kit: Kit) -> None:
    """A notification to a user by name, alone or with others, is found in parts of any size; none of others', and none
    once erased."""
    async with kit.open() as storage:
        left = await leave_traces(storage)
        lists = [left.shared[index] for index in (0, 1, 2, 5)]
        (bob,) = await storage.list_endpoints(EndpointFilter(user="bob"))
        only = submission(Target.endpoints([bob.id]))
        both = submission(Target.endpoints([bob.id, left.endpoints[0]]))
        elsewhere = submission(Target.user(USER), app="other")
        for sub in (only, both, elsewhere):
            await post(storage, sub)
        for limit in (1, 2, 1000):
            law(await _addressed(storage, USER, limit) == [*left.alone, *lists, both.id], "all that names it, in order")
            law(await _addressed(storage, "bob", limit) == [*lists, only.id, both.id], "another has the rest")
            law(await _addressed(storage, USER, limit, "other") == [elsewhere.id], "another app's is another app's")
            law(await _addressed(storage, "nobody", limit) == [], "a stranger has none")
            law(await _addressed(storage, "", limit) == [], "an empty text is no user")
        await storage.erase_user("default", USER, T0 + 1)
        law(await _addressed(storage, USER, 1000) == [], "an erased user has none")
        law(await _addressed(storage, "bob", 1000) == [*lists, only.id, both.id], "and the others theirs")


async def _addressed(storage: Storage, user: str, limit: int, app: str = "default") -> list[str]:
    found: list[str] = []
    position: int | None = 0
    while position is not None:
        ids, after = await storage.addressed(app, user, after=position, limit=limit)
        law(len(ids) <= limit and (after is None or after > position), "no part is larger than was asked for")
        found, position = [*found, *ids], after
    return found


async def erasing_leaves_nothing(kit: Kit) -> None:
    """No answer of a storage has the id, a text or an address of an erased user; notifications for the user alone are
    stopped."""
    async with kit.open() as storage:
        left = await leave_traces(storage)
        audit = Audit(kind="audit.user.erased", by="shell", user=USER)
        count = await storage.erase_user("default", USER, T0 + 1, audit=audit)
        law(count == len(left.endpoints), "it says how many endpoints there were")
        answers: list[object] = [
            await storage.events(limit=10_000),
            await storage.events(audit=True),
            [await storage.get_endpoint("default", id) for id in range(1, 2000)],
        ]
        for id in (*left.alone, *left.shared):
            answers += [await storage.notification(id), await storage.status(id, T0 + 1), await storage.deliveries(id)]
        said = repr(answers)
        for what in (USER, TEXT, ADDRESS):
            law(what not in said, f"something still answers with {what}")
        for id in left.alone:
            status = await standing(storage, id, T0 + 1)
            law(status.state in ("cancelled", "done"), f"notifications for the user alone are stopped: {status}")
        again = replace(submission(Target.user(USER), idempotency_key=f"key-{USER}"), content=b"{}")
        (put,) = await storage.put([again], T0 + 2)
        law(put.id == again.id, "an idempotency key of the user alone is forgotten")
        law(await storage.erase_user("default", USER, T0 + 3) == 0, "erased again, there was nobody")


async def erasing_leaves_others_theirs(kit: Kit) -> None:
    """A notification to others too still reaches them, with its text and its key."""
    async with kit.open() as storage:
        left = await leave_traces(storage)
        await post(storage, keyed := submission(Target.users([USER, "bob"]), idempotency_key="both"))
        await storage.erase_user("default", USER, T0 + 1)
        (bob,) = await storage.list_endpoints(EndpointFilter(user="bob"))
        for id in left.shared:
            stored = await storage.notification(id)
            law(stored is not None and not stored.stopped and stored.content != b"{}", "it is not stopped")
        (replay,) = await storage.put([replace(keyed, id=submission().id)], T0 + 1)
        law(replay.replayed and replay.id == keyed.id, "its idempotency key holds")
        now = T0 + 501
        while await storage.expand("default", "apns", now, ahead=100):
            pass
        await lease_all(storage, now)
        for id in (*left.shared, keyed.id):
            endpoints = [endpoint for endpoint, _, _ in await storage.deliveries(id)]
            law(bob.id in endpoints, f"it reaches the others: {endpoints}")
        scheduled = [endpoint for endpoint, _, _ in await storage.deliveries(left.shared[2])]
        law(scheduled == [bob.id], "and a later lookup reaches only the others")
        law(await storage.backlog("default") is not None, "the backlog is known")


async def erasing_stays_done(kit: Kit) -> None:
    """A delivery that a worker held at that moment ends, and brings nothing of the user back."""
    async with kit.open() as storage:
        left = await leave_traces(storage)
        await storage.erase_user("default", USER, T0 + 1)
        held = left.held
        late = EndpointGone(held.ids[0], 1, T0 + 2, "unregistered")
        await storage.settle([replace(done(held), changes=[late])], T0 + 2)
        law(USER not in repr(await storage.events(limit=10_000)), "an event of later has no id")
        endpoint = await storage.get_endpoint("default", held.ids[0])
        law(endpoint is not None and endpoint.state is EndpointState.REMOVED and not endpoint.user, "it stays removed")
        status = await standing(storage, held.notification, T0 + 2)
        law(status.finished_at is not None, f"leased deliveries have ended: {status}")
        for chunk in await lease_all(storage, T0 + 100):
            await storage.settle([done(chunk)], T0 + 100)
        while await storage.expire(T0 + 10_000, limit=1000):
            pass
        backlog = await storage.backlog("default")
        law((backlog.deliveries, backlog.bytes) == (0, 0), f"nothing is left to do, and counted: {backlog}")
