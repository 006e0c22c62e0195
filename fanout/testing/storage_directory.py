"""The directory's laws: the owner of an address, the endpoints of a target, the effect of a gateway's verdict."""

from __future__ import annotations

from array import array
from dataclasses import replace

from fanout.core.address import Address
from fanout.core.endpoint import EndpointState
from fanout.core.model import Target
from fanout.core.records import AddressMoved, EndpointFilter, EndpointGone, Settlement
from fanout.plugin import Storage
from fanout.testing.storage_kit import T0, Kit, device, known, law, lease_all, post, standing, submission


async def registering_refreshes(kit: Kit) -> None:
    """The same address of the same user keeps its id and takes the next generation."""
    async with kit.open() as storage:
        first = await storage.register(
            [device("alice", "1", tags=["a", "b"], platform="ios", expires_at=T0 + 90.5), device("bob", "2")], T0
        )
        law([each.user for each in first] == ["alice", "bob"], "register answers in the order of its arguments")
        law(first[0].id != first[1].id and first[0].generation == 1, "a new endpoint has its own id, generation 1")
        stored = await storage.get_endpoint("default", first[0].id)
        law(stored == first[0], f"get_endpoint gives back what register returned: {stored} is not {first[0]}")
        (again,) = await storage.register([device("alice", "1", tags=["b", "c"], platform="mac")], T0 + 1.5)
        law(again.id == first[0].id, "an address registered again by its user keeps its endpoint id")
        law(again.generation == 2 and again.registered_at == T0 + 1.5, "each registration is a generation of its own")
        law((again.tags, again.platform, again.expires_at) == (("b", "c"), "mac", None), "a refresh replaces the rest")
        law(await storage.get_endpoint("default", again.id) == again, "a refresh is stored as it was returned")
        topics = [await storage.count_endpoints("default", Target.topic(tag)) for tag in "abc"]
        law(topics == [{}, {"apns": 1}, {"apns": 1}], "topics follow the tags of the last registration")
        await storage.remove_endpoints("default", [again.id], T0 + 2)
        (back,) = await storage.register([device("alice", "1")], T0 + 3)
        law((back.id, back.generation, back.state) == (again.id, 3, EndpointState.ACTIVE), "a removed one comes back")
        twice = await storage.register([device("carol", "3"), device("carol", "3"), device("dave", "3")], T0 + 4)
        law([each.generation for each in twice] == [1, 2, 1], "one call may register an address repeatedly, in order")
        law(twice[0].id == twice[1].id != twice[2].id, "within one call, the last user has the address")
        count = await storage.count_endpoints("default", Target.users(["carol", "dave"]))
        law(count == {"apns": 1}, "an address has one active endpoint")


async def registering_replaces(kit: Kit) -> None:
    """An address registered under another user is another endpoint, and the old one is replaced."""
    async with kit.open() as storage:
        (old,) = await storage.register([device("alice", "1", tags=["t"])], T0)
        (new,) = await storage.register([device("bob", "1")], T0 + 1)
        law(new.id != old.id and new.generation == 1, "another user's registration makes a new endpoint")
        left = await storage.get_endpoint("default", old.id)
        law(left is not None and left.state is EndpointState.REPLACED, "the former holder's endpoint becomes replaced")
        law(left is not None and left.state_at == T0 + 1, "a state says since when it holds")
        law(await storage.count_endpoints("default", Target.topic("t")) == {}, "a replaced endpoint has no topics")
        law(await storage.count_endpoints("default", Target.user("alice")) == {}, "a replaced endpoint is no target")
        events = await storage.events()
        law([(e.kind, e.app, e.at) for e in events] == [("endpoint.replaced", "default", T0 + 1)], "it is in the log")
        law(events[0].data["endpoint"] == old.id, "an event names its endpoint")
        law("token-1" not in repr(events), "no event holds an address")
        (back,) = await storage.register([device("alice", "1", tags=["t"])], T0 + 2)
        law((back.id, back.generation) == (old.id, 2), "the first user's registration refreshes the first endpoint")
        other = await storage.get_endpoint("default", new.id)
        law(other is not None and other.state is EndpointState.REPLACED, "and replaces the second user's")
        law(await storage.count_endpoints("default", Target.topic("t")) == {"apns": 1}, "its topics are back")
        law(await storage.restore_endpoints("default", [new.id], T0 + 3) == 0, "a replaced endpoint is not restored")


async def addresses_are_interned(kit: Kit) -> None:
    """Explicit addresses are endpoints without a user: in no topic, in no broadcast, and not listed."""
    async with kit.open() as storage:
        (entered,) = await storage.register([device("alice", "1")], T0)
        known_address, other = device("", "1").address, device("", "2").address
        ids = await storage.intern("default", "apns", [other, known_address, other], T0)
        law(ids[1] == entered.id, "an address that is registered is its active endpoint")
        law(ids[0] == ids[2] != entered.id, "an unknown address gets one endpoint, however often it is named")
        law(await storage.intern("default", "apns", [other], T0 + 1) == [ids[0]], "interning again finds it")
        interned = await storage.get_endpoint("default", ids[0])
        law(interned is not None and interned.user == "" and interned.address == other, "it belongs to nobody")
        law(await storage.count_endpoints("default", Target.all()) == {"apns": 1}, "it is not part of all")
        law([e.id for e in await storage.list_endpoints(EndpointFilter())] == [entered.id], "it is not listed")
        listed = await storage.list_endpoints(EndpointFilter(user=""))
        law([e.id for e in listed] == [ids[0]], "it is listed for the empty user")
        (registered,) = await storage.register([device("bob", "2")], T0 + 2)
        law(registered.id != ids[0], "registering an interned address makes a new endpoint")
        interned = await storage.get_endpoint("default", ids[0])
        law(interned is not None and interned.state is EndpointState.REPLACED, "and replaces the interned one")


async def listing_filters_and_pages(kit: Kit) -> None:
    """Listing by any mixture of user, binding, tag and state, in pages by id."""
    async with kit.open() as storage:
        entered = await storage.register(
            [
                device("alice", "1", tags=["x"]),
                device("bob", "2", tags=["x", "y"]),
                device("alice", "3", binding="fcm", tags=["y"]),
                device("alice", "4", tags=["y"]),
            ],
            T0,
        )
        a, b, c, d = (each.id for each in entered)
        await storage.remove_endpoints("default", [d], T0)

        async def ids(which: EndpointFilter, **page: int) -> list[int]:
            return [each.id for each in await storage.list_endpoints(which, **page)]

        law(await ids(EndpointFilter()) == [a, b, c], "without a filter: the active ones, by id")
        law(await ids(EndpointFilter(state=None)) == [a, b, c, d], "state None means any")
        law(await ids(EndpointFilter(state=EndpointState.REMOVED)) == [d], "by state")
        law(await ids(EndpointFilter(state=EndpointState.REMOVED, tag="y")) == [d], "by tag, of inactive ones too")
        law(await ids(EndpointFilter(user="alice")) == [a, c], "by user")
        law(await ids(EndpointFilter(binding="apns")) == [a, b], "by binding")
        law(await ids(EndpointFilter(tag="y")) == [b, c], "by tag")
        law(await ids(EndpointFilter(user="alice", binding="apns", tag="x")) == [a], "by all at once")
        law(await ids(EndpointFilter(app="other")) == [], "by app")
        law(await ids(EndpointFilter(), after=a, limit=1) == [b], "in pages")
        listed = await storage.list_endpoints(EndpointFilter(user="bob"))
        law(listed == [entered[1]], "a listed endpoint is the registered one, field by field")


async def removing_and_restoring(kit: Kit) -> None:
    """Removal takes active and gone endpoints out; restoring brings back the endpoints whose address no other endpoint
    holds."""
    async with kit.open() as storage:
        one, two = await storage.register([device("alice", "1", tags=["t"]), device("bob", "2")], T0)
        law(await storage.remove_endpoints("other", [one.id], T0) == 0, "another app's endpoints are out of reach")
        law(await storage.remove_endpoints("default", [one.id, one.id, 10**9], T0 + 1) == 1, "removal counts once each")
        law(await storage.remove_endpoints("default", [one.id], T0 + 1) == 0, "a removed endpoint is not removed again")
        law(await storage.count_endpoints("default", Target.topic("t")) == {}, "a removed endpoint has no topic")
        law(await storage.restore_endpoints("other", [one.id], T0) == 0, "another app's endpoints are out of reach")
        law(await storage.restore_endpoints("default", [one.id, two.id], T0 + 2) == 1, "restoring counts the inactive")
        back = await storage.get_endpoint("default", one.id)
        law(back is not None and back.state is EndpointState.ACTIVE and back.generation == 2, "it is active again")
        law(await storage.count_endpoints("default", Target.topic("t")) == {"apns": 1}, "with its topics")
        kinds = [event.kind for event in await storage.events()]
        law(kinds == ["endpoint.removed", "endpoint.restored"], "both are in the log")
        await storage.remove_endpoints("default", [one.id], T0 + 3)
        await storage.register([device("carol", "1")], T0 + 4)
        law(await storage.restore_endpoints("default", [one.id], T0 + 5) == 0, "an address in use is not restored")


async def erasing_forgets(kit: Kit) -> None:
    """Of an erased user's endpoints, in any state, nothing is left but ids without an owner."""
    async with kit.open() as storage:
        one, two, other, shop = await storage.register(
            [
                device("alice", "1", tags=["t"]),
                device("alice", "2", binding="fcm"),
                device("bob", "3", tags=["t"]),
                device("alice", "1", app="shop"),
            ],
            T0,
        )
        (interned,) = await storage.intern("default", "apns", [device("", "9").address], T0)
        await storage.remove_endpoints("default", [two.id], T0 + 1)
        leased, sub = submission(), submission()
        await post(storage, leased)
        (chunk,) = await lease_all(storage, T0 + 1)
        await post(storage, sub)
        law(await storage.erase_user("default", "nobody", T0 + 2) == 0, "a stranger has no endpoints")
        law(await storage.erase_user("default", "", T0 + 2) == 0, "an empty text is no user")
        law(await storage.erase_user("default", "alice", T0 + 2.5) == 2, "it says how many endpoints there were")
        for former in (one, two):
            left = await storage.get_endpoint("default", former.id)
            bare = replace(
                former, user="", address=Address(""), tags=(), state=EndpointState.REMOVED, state_at=T0 + 2.5,
                reason="erased",
            )  # fmt: skip
            law(left == bare, f"address, user and tags are forgotten, in whatever state it was: {left}")
        events = [event for event in await storage.events() if event.data.get("reason") == "erased"]
        law([event.kind for event in events] == ["endpoint.removed"] * 2, "each has an event")
        law(sorted(event.data["endpoint"] for event in events) == [one.id, two.id], "which names the endpoint")
        law([(event.data["user"], event.data["reason"]) for event in events] == [("", "erased")] * 2, "not the user")
        rows = await storage.resolve(array("q", [one.id]), T0 + 3)
        law([(row.state, row.address) for row in rows] == [("removed", "")], "a worker finds it removed")
        law((await standing(storage, sub.id)).counts["cancelled"] == 1, "a notification to her alone is cancelled")
        law((await standing(storage, leased.id)).counts["pending"] == 1, "leased deliveries are their worker's to end")
        law(await storage.count_endpoints("default", Target.user("alice")) == {}, "the user is no target")
        law(await storage.count_endpoints("default", Target.topic("t")) == {"apns": 1}, "nor in a topic")
        law(await storage.list_endpoints(EndpointFilter(user="alice", state=None)) == [], "nor listed")
        everybody = [each.id for each in await storage.list_endpoints(EndpointFilter(state=None))]
        law(everybody == [other.id], f"others are untouched: {everybody}")
        nobody = [each.id for each in await storage.list_endpoints(EndpointFilter(user="", state=None))]
        law(nobody == [one.id, two.id, interned], f"the rest has no user: {nobody}")
        law(await storage.get_endpoint("shop", shop.id) == shop, "another app's user of that name is another user")
        law(await storage.restore_endpoints("default", [one.id, two.id], T0 + 4) == 0, "there is nothing to restore")
        law(await storage.erase_user("default", "alice", T0 + 4) == 0, "nor to erase again")
        (again,) = await storage.register([device("alice", "1")], T0 + 5)
        law(again.id > interned and again.generation == 1, "the same address, registered again, is a new endpoint")
        late = AddressMoved(one.id, one.generation, T0 + 6, device("", "8").address)
        law(await lease_all(storage, T0 + 6) == [], "nothing more of it is leased")
        await storage.settle([Settlement(chunk.id, chunk.epoch, changes=[late])], T0 + 6)
        left = await storage.get_endpoint("default", one.id)
        law(left is not None and left.address == Address(""), "a gateway's late word brings no address back")


async def targets_are_counted(kit: Kit) -> None:
    """The endpoints that each kind of target names, per binding: active ones, each once."""
    async with kit.open() as storage:
        entered = await storage.register(
            [device("alice", "1", tags=["t"]), device("alice", "2", binding="fcm"), device("bob", "3", tags=["t"])], T0
        )
        ids = [each.id for each in entered]
        for target, expected in (
            (Target.user("alice"), {"apns": 1, "fcm": 1}),
            (Target.users(["alice", "bob", "nobody"]), {"apns": 2, "fcm": 1}),
            (Target.topic("t"), {"apns": 2}),
            (Target.all(), {"apns": 2, "fcm": 1}),
            (Target.endpoints([ids[0], ids[1], 10**9]), {"apns": 1, "fcm": 1}),
            (Target.user("nobody"), {}),
        ):
            law(await storage.count_endpoints("default", target) == expected, f"{target} names {expected}")
            law(await storage.count_endpoints("other", target) == {}, f"{target} names nothing in another app")


async def resolving_leaves_out(kit: Kit) -> None:
    """Ids become rows, in any state; unknown ids are left out."""
    async with kit.sent(2500) as (storage, ids):
        await storage.remove_endpoints("default", ids[:1], T0)
        rows = await storage.resolve(array("q", [*ids, 10**12]), 0.0)
        law(len(rows) == 2500, "resolve leaves out ids that do not exist, and nothing else")
        by_id = {row.id: row for row in rows}
        row = by_id[ids[7]]
        law((row.address, row.kind, row.group) == ("token-7", "device", "g"), "a row has the address and its parts")
        law((row.registered_at, row.generation, row.state) == (T0, 1, "active"), "a row has the rest")
        law(by_id[ids[0]].state == "removed", "a row says its state")
        law(await storage.resolve(array("q"), 0.0) == [], "nothing resolves to nothing")


async def apps_are_apart(kit: Kit) -> None:
    """One address in two apps is two endpoints; nothing of one app shows in the other."""
    async with kit.open() as storage:
        one, two = await storage.register([device("alice", "1"), device("bob", "1", app="shop")], T0)
        law(one.id != two.id and one.state is two.state is EndpointState.ACTIVE, "an address may live in two apps")
        law(await storage.get_endpoint("shop", one.id) is None, "an endpoint is its own app's only")
        law(await storage.events() == [], "registering in one app replaces nothing in another")
        put = await post(storage, submission(Target.endpoints([one.id, two.id]), app="shop"))
        law(put.total == 1, "a target names endpoints of its own app only")


async def _lease_one(storage: Storage, endpoint: int) -> Settlement:
    """A settlement under a fresh lease on a delivery to this endpoint, empty as yet."""
    await post(storage, submission(Target.endpoints([endpoint])))
    (chunk,) = await lease_all(storage)
    return Settlement(chunk.id, chunk.epoch)


async def gone_compares_generations(kit: Kit) -> None:
    """A verdict on an old registration cannot harm a new one."""
    async with kit.open() as storage:
        (old,) = await storage.register([device("alice", "1", tags=["t"])], T0)
        settlement = await _lease_one(storage, old.id)
        await storage.register([device("alice", "1", tags=["t"])], T0 + 1)
        settlement.results = {("gone", "Unregistered"): [0]}
        settlement.changes = [EndpointGone(old.id, old.generation, T0 + 2, "Unregistered")]
        await storage.settle([settlement], T0 + 2)
        kept = await storage.get_endpoint("default", old.id)
        law(kept is not None and kept.state is EndpointState.ACTIVE, "an outdated verdict leaves the endpoint alone")
        settlement = await _lease_one(storage, old.id)
        settlement.results = {("gone", "Unregistered"): [0]}
        settlement.changes = [EndpointGone(old.id, 2, T0 + 2.5, "Unregistered")]
        await storage.settle([settlement], T0 + 3)
        gone = await storage.get_endpoint("default", old.id)
        law(gone is not None and gone.state is EndpointState.GONE, "a verdict on this generation quarantines it")
        law(gone is not None and (gone.state_at, gone.reason) == (T0 + 2.5, "Unregistered"), "with time and reason")
        law(await storage.count_endpoints("default", Target.topic("t")) == {}, "a gone endpoint is no target")
        events = [event for event in await storage.events() if event.kind == "endpoint.gone"]
        law(len(events) == 1 and events[0].data["reason"] == "Unregistered", "one event, for the one that counted")
        law(await storage.restore_endpoints("default", [old.id], T0 + 4) == 1, "a gone endpoint can be restored")


async def moved_changes_the_address(kit: Kit) -> None:
    """A moved endpoint keeps its id under the new address; a known address wins over it."""
    async with kit.open() as storage:
        one, two = await storage.register([device("alice", "1", tags=["t"]), device("bob", "2")], T0)
        settlement = await _lease_one(storage, one.id)
        to = Address("token-9", kind="other", group="h")
        settlement.changes = [AddressMoved(one.id, one.generation, T0 + 1, to)]
        await storage.settle([settlement], T0 + 1)
        moved = await storage.get_endpoint("default", one.id)
        address = known(moved, "an endpoint that moved is known").address
        law((address.value, address.kind, address.group) == ("token-9", "other", "h"), "it has the new address")
        law(moved is not None and moved.generation == 2, "a move is a new generation: old verdicts are late")
        law(await storage.count_endpoints("default", Target.topic("t")) == {"apns": 1}, "its topics stay")
        (fresh,) = await storage.register([device("alice", "1")], T0 + 2)
        law(fresh.id != one.id, "the old address, registered again, is another endpoint")
        settlement.changes = [AddressMoved(one.id, 2, T0 + 3, device("", "2").address)]
        await storage.settle([settlement], T0 + 3)
        lost = await storage.get_endpoint("default", one.id)
        law(lost is not None and lost.state is EndpointState.REPLACED, "moved to an address in use, it is replaced")
        endpoint = await storage.get_endpoint("default", two.id)
        law(endpoint is not None and endpoint.state is EndpointState.ACTIVE, "and the endpoint in use is untouched")
        kinds = [event.kind for event in await storage.events()]
        law(kinds == ["endpoint.moved", "endpoint.replaced"], f"moves are in the log: {kinds}")
