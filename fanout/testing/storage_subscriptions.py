"""The laws of subscriptions, and of whom a submission with an audience reaches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fanout.core.endpoint import EndpointState
from fanout.core.feed import Audience, FeedChange, FeedPost, Receive, Subscribed, SubscriptionRequest
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import EndpointFilter, Put, Submission
from fanout.plugin import Storage, feed_of
from fanout.testing.storage_kit import ALICE, T0, Kit, device, known, law, lease_all, submission

_ANY: frozenset[Receive] = frozenset(("push", "signal"))


async def subscribe(
    storage: Storage, user: str = "alice", name: str = "phone", token: str | None = "1", *, now: float = T0,
    app: str = "default", binding: str = "apns", receive: Receive = "push", platform: str = "ios",
    lasts: float = 1000.0, most: int = 0, former: str = "", keys: str = "",
) -> Subscribed:  # fmt: skip
    """Subscribe the device `name`, at the address `token` unless it only polls; with other `keys` it is the same
    address, unproved."""
    registration = None if token is None else device(user, token, binding=binding, app=app)
    if registration is not None and keys:
        value = f"{registration.address.value} {keys}"
        registration = replace(registration, address=replace(registration.address, value=value))
    wanted = SubscriptionRequest(
        app=app, user=user, device=name, registration=registration, platform=platform, receive=receive, expires_at=now + lasts,
        unsid=f"unsid-{app}-{user}-{name}", most=most, former=former,
    )  # fmt: skip
    return await feed_of(storage).subscribe(wanted, now)


async def reached(storage: Storage, id: str) -> list[int]:
    """The endpoints that have a delivery of this notification."""
    return [endpoint for endpoint, _, _ in await storage.deliveries(id)]


async def send(
    storage: Storage, audience: Audience, target: Target = ALICE, *, now: float = T0, optional: bool = False
) -> Put:
    """Put a submission for an audience."""
    (put,) = await storage.put([replace(submission(target, now=now), audience=audience, optional=optional)], now)
    law(put.dropped or bool(put.id), f"put stores a submission with an audience, or says that it is for nobody: {put}")
    return put


async def active(storage: Storage, user: str) -> list[int]:
    return [each.id for each in await storage.list_endpoints(EndpointFilter(user=user))]


async def subscriptions_are_renewed(kit: Kit) -> None:
    """The same user, app and device keep UNSID and endpoint; a new address takes the old one's place."""
    async with kit.open() as storage:
        first = await subscribe(storage)
        one = first.subscription
        law(not first.renewed and not first.ended, "the first time it is new")
        law((one.app, one.user, one.device, one.binding) == ("default", "alice", "phone", "apns"), "as was asked for")
        law((one.platform, one.receive, one.endpoint_state) == ("ios", "push", "active"), "with an active endpoint")
        law((one.created_at, one.renewed_at, one.expires_at) == (T0, T0, T0 + 1000), "and its times")
        law(one.live(T0) and not one.live(T0 + 1000), "it lives until it expires")
        await storage.register([device("alice", "1", tags=["news"])], T0 + 1)
        renewed = await subscribe(storage, now=T0 + 10)
        two = renewed.subscription
        law(renewed.renewed and (two.id, two.unsid) == (one.id, one.unsid), "the second time it keeps id and UNSID")
        law((two.created_at, two.renewed_at, two.expires_at) == (T0, T0 + 10, T0 + 1010), "and lasts anew")
        law(two.endpoint == one.endpoint, "the endpoint is the same")
        (endpoint,) = await storage.list_endpoints(EndpointFilter(user="alice"))
        law(endpoint.tags == ("news",) and endpoint.expires_at == T0 + 1010, "with its topics, for as long")

        put = await send(storage, Audience(), now=T0 + 11)
        moved = (await subscribe(storage, token="2", now=T0 + 12)).subscription
        law((moved.unsid, moved.endpoint) == (one.unsid, one.endpoint), "a new address keeps UNSID and endpoint")
        (endpoint,) = await storage.list_endpoints(EndpointFilter(user="alice"))
        law(endpoint.address.value == "token-2" and endpoint.tags == ("news",), "with the new address, and topics")
        law(await reached(storage, put.id) == [one.endpoint], "queued deliveries go there too")
        other = (await subscribe(storage, token="2", binding="fcm", now=T0 + 13)).subscription
        law(other.unsid == one.unsid and other.binding == "fcm", "it may change the binding")
        law(await active(storage, "alice") == [other.endpoint], "and the old endpoint ends")

        late = (await subscribe(storage, now=T0 + 5000, binding="fcm", token="2")).subscription
        law(late.unsid == one.unsid, "it keeps the UNSID after expiry too")
        polls = (await subscribe(storage, name="tv", token=None, now=T0 + 5000)).subscription
        law((polls.binding, polls.endpoint, polls.endpoint_state) == ("", 0, ""), "one that polls has no endpoint")
        law(polls.unsid != one.unsid and polls.live(T0 + 5001), "and an UNSID of its own")
        law([s.id for s in await feed_of(storage).subscriptions("default", "alice")] == [one.id, polls.id], "both")
        law(await feed_of(storage).subscription("default", polls.unsid) == polls, "an UNSID names its subscription")
        law(await feed_of(storage).subscription("other", polls.unsid) is None, "in its own app only")
        quiet = (await subscribe(storage, token=None, now=T0 + 5001)).subscription
        law(quiet.endpoint == 0 and not await active(storage, "alice"), "one that polls from now on ends its endpoint")


async def subscriptions_are_of_their_user(kit: Kit) -> None:
    """A device's name is its user's own; an address moves to another user by proof, and a subscription by its UNSID."""
    async with kit.open() as storage:
        hers = (await subscribe(storage)).subscription
        his = await subscribe(storage, "bob", token="2", now=T0 + 1)
        law(not his.ended and not his.renewed, "another user's device of the same name is another device")
        law(await feed_of(storage).subscription("default", hers.unsid) == hers, "and the first one's goes on")
        law(await active(storage, "alice") == [hers.endpoint], "with its endpoint")
        again = await subscribe(storage, now=T0 + 2)
        law(again.renewed and again.subscription.id == hers.id and not again.ended, "each renews his own")
        put = await send(storage, Audience(), now=T0 + 2)
        law(await reached(storage, put.id) == [hers.endpoint], "a push reaches whose it is")

        stolen = await subscribe(storage, "mallory", "laptop", keys="other keys", now=T0 + 3)
        law(stolen.refused and stolen.subscription.id == 0, "an address without its keys is no proof")
        law(not await feed_of(storage).subscriptions("default", "mallory"), "nothing is entered")
        law(await active(storage, "alice") == [hers.endpoint] and not await active(storage, "mallory"), "nor moved")
        renamed = await subscribe(storage, "mallory", keys="other keys", former=his.subscription.unsid, now=T0 + 3)
        law(renamed.refused, "nor is the UNSID of another device")
        law(await feed_of(storage).subscription("default", his.subscription.unsid) is not None, "which stays")
        foreign = await subscribe(storage, "mallory", keys="x", former=hers.unsid, app="other", now=T0 + 3)
        law(not foreign.refused and not foreign.ended, "another app's addresses and UNSIDs are others")

        moved = await subscribe(storage, "carol", keys="new keys", former=hers.unsid, now=T0 + 4)
        law(not moved.refused and moved.ended == (hers.id,), "with the device's UNSID it moves")
        law(await active(storage, "carol") == [moved.subscription.endpoint], "address and all")
        law(not await active(storage, "alice"), "and nothing more goes to the former user")
        law(await feed_of(storage).subscription("default", hers.unsid) is None, "the former UNSID means nothing now")

        tv = (await subscribe(storage, "dave", "tv", None, now=T0 + 5)).subscription
        law((await subscribe(storage, "dave", "tv", None, former=tv.unsid, now=T0 + 6)).ended == (), "it ends none")
        polls = await subscribe(storage, "erin", "tv", None, former=tv.unsid, now=T0 + 7)
        law(polls.ended == (tv.id,), "a device that only polls moves by its UNSID")
        proved = await subscribe(storage, "frank", "tablet", "2", now=T0 + 8)
        law(not proved.refused and proved.ended == (his.subscription.id,), "a whole address proves its device")
        await storage.register([device("grace", "7")], T0 + 9)
        law((await subscribe(storage, "mallory", "x", "7", keys="y", now=T0 + 9)).refused, "also one of the host's")


async def subscriptions_end(kit: Kit) -> None:
    """By deletion, by another user of the device or of the address, by the directory, and by time."""
    async with kit.open(retention=Retention(quarantine=100.0)) as storage:
        one = (await subscribe(storage)).subscription
        two = (await subscribe(storage, name="tablet", token="2")).subscription
        put = await send(storage, Audience())
        law(await reached(storage, put.id) == [one.endpoint, two.endpoint], "a user's devices are all reached")
        law(not await feed_of(storage).unsubscribe("default", "bob", one.id, T0), "no user ends another's")
        law(not await feed_of(storage).unsubscribe("other", "alice", one.id, T0), "nor another app's")
        law(await feed_of(storage).unsubscribe("default", "alice", one.id, T0 + 1), "she ends her own")
        law(await feed_of(storage).subscription("default", one.unsid) is None, "its UNSID means nothing then")
        law(not await feed_of(storage).unsubscribe("default", "alice", one.id, T0 + 1), "once")
        law(await active(storage, "alice") == [two.endpoint], "and its endpoint is removed")

        taken = await subscribe(storage, "bob", "tablet", "2", now=T0 + 2)
        law(taken.ended == (two.id,) and not taken.renewed, "another user of the device ends the former one's")
        law(taken.subscription.unsid != two.unsid, "and gets an UNSID of his own")
        law(not await active(storage, "alice"), "nothing more goes to her from there")
        law(not await feed_of(storage).subscriptions("default", "alice"), "she has none left")
        moved = await subscribe(storage, "bob", "reinstalled", "2", now=T0 + 3)
        law(moved.ended == (taken.subscription.id,), "an address has one subscription: the latest")
        law(await active(storage, "bob") == [moved.subscription.endpoint], "and one endpoint")
        carol = await subscribe(storage, "carol", "another", "2", now=T0 + 4)
        law(carol.ended == (moved.subscription.id,), "also where another user comes with the address")
        law(not await active(storage, "bob"), "and then reaches that user alone")
        apart = await subscribe(storage, "alice", "another", "2", app="other", now=T0 + 4)
        law(not apart.ended, "another app's devices are others")

        await storage.register([device("dave", "2")], T0 + 5)
        lost = await feed_of(storage).subscription("default", carol.subscription.unsid)
        law(lost is not None and lost.endpoint_state == "replaced", "the directory may give an address to another user")
        law(lost is not None and not lost.live(T0 + 5), "and then the UNSID addresses nobody")
        law(lost is not None and lost.state(T0 + 5, 10) == "unreachable", "and says so")

        short = (await subscribe(storage, "erin", "e", "9", now=T0 + 10, lasts=20.0)).subscription
        long = (await subscribe(storage, "erin", "f", "8", now=T0 + 10, lasts=25.0)).subscription
        soon = await feed_of(storage).expiring("default", after=T0 + 10, until=T0 + 35)
        law([each.id for each in soon] == [short.id, long.id], "subscriptions that end soon are listed, soonest first")
        law(
            [s.id for s in await feed_of(storage).expiring("default", after=T0 + 30, until=T0 + 35)] == [long.id],
            "between",
        )
        states = [short.state(T0 + at, 5.0) for at in (20, 25.5, 30)]
        law(states == ["active", "expiring", "expired"], f"it is expiring before it has expired: {states}")
        put = await send(storage, Audience(), Target.user("erin"), now=T0 + 32)
        law(await reached(storage, put.id) == [long.endpoint], "an expired one is not reached, swept or not")
        await storage.expire(T0 + 32, limit=100)
        still = await feed_of(storage).subscription("default", short.unsid)
        law(still is not None and still.endpoint_state == EndpointState.EXPIRED, "it is kept, for it may be renewed")
        while await storage.prune(T0 + 131, limit=1):
            pass
        law(await feed_of(storage).subscription("default", short.unsid) is None, "until retention is over")
        law(await feed_of(storage).subscription("default", long.unsid) is not None, "and not before")


async def subscriptions_choose_what_they_receive(kit: Kit) -> None:
    """An audience is chosen by an endpoint's `receive`, by its platform, and by the endpoints left out."""
    async with kit.open() as storage:
        full = (await subscribe(storage, token="1")).subscription.endpoint
        second = await subscribe(storage, name="b", token="2", receive="signal", platform="Android", binding="fcm")
        third = await subscribe(storage, name="c", token="3", receive="none", platform="windows", binding="wns")
        bare, none = second.subscription.endpoint, third.subscription.endpoint
        (plain,) = [e.id for e in await storage.register([device("alice", "4", binding="fcm", tags=["news"])], T0)]

        async def meant(target: Target, audience: Audience) -> set[int]:
            put = await send(storage, audience, target, optional=target is ALICE)
            if put.dropped:
                return set()
            for binding in ("apns", "fcm", "wns"):
                await storage.expand("default", binding, T0, ahead=10)
            found = set(await reached(storage, put.id))
            for binding in ("apns", "fcm", "wns"):
                chunks = await lease_all(storage, binding=binding)
                leased = {id for chunk in chunks if chunk.notification == put.id for id in chunk.ids}
                law(leased <= found, f"leased deliveries were chosen: {leased}")
            return found

        ios = frozenset(("ios", "apns"))
        droid = frozenset(("android",))
        cases: list[tuple[Audience, set[int]]] = [
            (Audience(), {full, plain}),
            (Audience(receive=frozenset(("signal",))), {bare}),
            (Audience(receive=_ANY), {full, bare, plain}),
            (Audience(receive=frozenset(("none",))), {none}),
            (Audience(receive=_ANY, exclude=full), {bare, plain}),
            (Audience(receive=_ANY, platforms=ios, bindings=frozenset(("apns",))), {full}),
            (Audience(receive=_ANY, platforms=droid, bindings=frozenset(("fcm",))), {bare, plain}),
            (Audience(receive=_ANY, platforms=droid), {bare}),
            (Audience(receive=_ANY, platforms=droid, inverse=True), {full, plain}),
            (Audience(receive=_ANY, platforms=droid, bindings=frozenset(("fcm",)), inverse=True), {full}),
            (Audience(platforms=frozenset()), set()),
        ]
        for target in (ALICE, Target.all(), Target.endpoints([full, bare, none, plain])):
            for audience, expected in cases:
                found = await meant(target, audience)
                law(found == expected, f"{audience} of {target} is {expected}, not {found}")
        law(await meant(Target.topic("news"), Audience()) == {plain}, "of a topic too")
        law(not await meant(Target.topic("news"), Audience(receive=frozenset(("signal",)))), "or nobody of it")
        signals = Audience(receive=frozenset(("signal",)))
        (put,) = await storage.put([replace(submission(due_at=T0 + 5), audience=signals)], T0)
        for binding in ("apns", "fcm", "wns"):
            await storage.expand("default", binding, T0 + 5, ahead=10)
        law(await reached(storage, put.id) == [bare], "and of what is due later")
        everything = await storage.put([submission()], T0)
        law(len(await reached(storage, everything[0].id)) == 4, "without an audience it is all of them")


async def subscriptions_are_bounded(kit: Kit) -> None:
    """Of too many subscriptions the one renewed longest ago ends, with an event and with its endpoint; other users' do
    not."""
    async with kit.open() as storage:
        other = (await subscribe(storage, "bob", "bobs", "bob")).subscription
        one = (await subscribe(storage, name="one", token="1", most=3)).subscription
        two = (await subscribe(storage, name="two", token=None, now=T0 + 1, most=3)).subscription
        three = (await subscribe(storage, name="three", token="3", now=T0 + 2, most=3)).subscription
        await subscribe(storage, name="one", token="1", now=T0 + 3, most=3)
        done = await subscribe(storage, name="four", token="4", now=T0 + 4, most=3)
        law(done.ended == (two.id,), f"the one renewed longest ago ends, and not the oldest: {done.ended}")
        law(await feed_of(storage).subscription("default", two.unsid) is None, "its UNSID means nothing any more")
        done = await subscribe(storage, name="five", token="5", now=T0 + 5, most=3)
        law(done.ended == (three.id,), "then the next")
        law(three.endpoint not in await active(storage, "alice"), "with its endpoint")
        left = [each.id for each in await feed_of(storage).subscriptions("default", "alice")]
        law(len(left) == 3 and one.id in left and done.subscription.id in left, "the others stay, the wanted one too")
        done = await subscribe(storage, name="six", token="6", now=T0 + 6, most=1)
        law(len(done.ended) == 3, "a lower limit ends all that are too many")
        put = await send(storage, Audience(), now=T0 + 7)
        law(await reached(storage, put.id) == [done.subscription.endpoint], "a push reaches those that stay alone")
        law([s.id for s in await feed_of(storage).subscriptions("default", "bob")] == [other.id], "another user's stay")
        events = [event for event in await storage.events() if event.kind == "subscription.ended"]
        law(len(events) == 5, "each that was ended so is in the log")
        law({event.data["device"] for event in events} == {"two", "three", "one", "four", "five"}, "by its device")


async def subscriptions_hear_of_changes_by_others(kit: Kit) -> None:
    """A change is told to the user's devices, but not to the one that wrote it."""
    async with kit.open() as storage:
        one = (await subscribe(storage)).subscription
        two = (await subscribe(storage, name="b", token="2")).subscription
        bob = (await subscribe(storage, "bob", "c", "3")).subscription
        (put,) = await storage.put([_posting()], T0)
        item = known(put.feed, "a post comes to an item").id

        async def change(made: FeedChange, now: float) -> list[Put]:
            parts = [
                replace(submission(now=now), feed=made, audience=Audience(), optional=True),
                replace(
                    submission(now=now), follows=True, audience=Audience(receive=frozenset(("signal",))), optional=True
                ),
            ]
            return await storage.put(parts, now)

        puts = await change(FeedChange(item=item, read=True, writer=one.unsid), T0 + 1)
        law(await reached(storage, puts[0].id) == [two.endpoint], "the writer is left out")
        law(puts[1].dropped, "a part for nobody is dropped")
        law(puts[0].feed is not None and puts[0].feed.item is not None and puts[0].feed.item.writer == one.id, "by it")
        puts = await change(FeedChange(item=item, read=False), T0 + 2)
        law(await reached(storage, puts[0].id) == [one.endpoint, two.endpoint], "unless nobody knows who it is")
        puts = await change(FeedChange(item=item, read=False, writer=one.unsid), T0 + 3)
        law(all(put.dropped and not put.id for put in puts), "a change without effect is told to no device")
        puts = await change(FeedChange(item=item, read=True, writer=bob.unsid), T0 + 4)
        law(puts[0].feed is not None and puts[0].feed.problem == "device", "a writer is one of the user's own devices")
        law(not any(put.id for put in puts), "and nothing is stored otherwise")
        await feed_of(storage).unsubscribe("default", "alice", two.id, T0 + 5)
        puts = await change(FeedChange(item=item, delete=True, writer=one.unsid), T0 + 6)
        law(puts[0].dropped and puts[0].feed is not None and puts[0].feed.changed, "a change unheard of is a change")


async def subscriptions_that_fetched_get_no_fallback(kit: Kit) -> None:
    """The push for devices that have not fetched an item is decided when it is due."""
    async with kit.open() as storage:
        one = (await subscribe(storage, lasts=9000.0)).subscription
        two = (await subscribe(storage, name="b", token="2", lasts=9000.0)).subscription
        await subscribe(storage, name="c", token="3", platform="android", binding="fcm", lasts=9000.0)
        ios = Audience(receive=_ANY, platforms=frozenset(("ios",)), unseen=True)

        async def posted(now: float, external_id: str | None = None) -> tuple[str, str]:
            later = replace(submission(now=now, due_at=now + 60), audience=ios, follows=True, optional=True)
            puts = await storage.put([_posting(now, external_id), later], now)
            law(bool(puts[1].id), f"the fallback is scheduled with the post: {puts}")
            return known(puts[0].feed, "put answers with the result of a post").id, puts[1].id

        async def due(id: str, now: float) -> list[int]:
            await storage.expand("default", "apns", now, ahead=10)
            return await reached(storage, id)

        item, fallback = await posted(T0)
        await feed_of(storage).fetched("default", "alice", one.unsid, [item], T0 + 1)
        await feed_of(storage).fetched("default", "bob", two.unsid, [item], T0 + 1)
        law(await due(fallback, T0 + 59) == [], "not before its time")
        law(await due(fallback, T0 + 60) == [two.endpoint], "then to the iOS devices that have not fetched it")
        item, fallback = await posted(T0 + 100)
        law(await due(fallback, T0 + 160) == [one.endpoint, two.endpoint], "each item for itself")
        changes: Iterable[FeedChange] = (
            FeedChange(item="x", action="dismissed"),
            FeedChange(item="x", delete=True),
            FeedChange(item="x", read=True),
        )
        for number, change in enumerate(changes):
            start = T0 + 1000 * (number + 1)
            item, fallback = await posted(start)
            changed = replace(submission(now=start), feed=replace(change, item=item), optional=True)
            await storage.put([changed], start + 1)
            law(await due(fallback, start + 60) == [], f"nothing after {change}")
        start = T0 + 5000
        _, first = await posted(start, "same")
        _, second = await posted(start + 10, "same")
        law(await due(first, start + 60) == [], "nothing of what was replaced")
        law(await due(second, start + 70) == [one.endpoint, two.endpoint], "but of what replaced it")
        start = T0 + 6000
        later = replace(submission(now=start, due_at=start + 60), audience=ios, follows=True)
        puts = await storage.put([_posting(start, lasts=30.0), later], start)
        law(await due(puts[1].id, start + 60) == [], "nothing of what has expired")


def _posting(now: float = T0, external_id: str | None = None, lasts: float = 900.0) -> Submission:
    post = FeedPost(content=b'{"at":%d}' % now, expires_at=now + lasts, external_id=external_id, fallback_at=now + 60)
    return replace(submission(now=now), feed=post, audience=Audience())
