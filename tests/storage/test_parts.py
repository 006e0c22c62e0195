"""A storage may have the parts that are needed and no other: it delivers, and what needs another part is refused in one
sentence."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import fanout
from fanout import Notification, Target
from fanout.bootstrap import SystemClock
from fanout.core.alike import AlikeRows
from fanout.core.records import Chunk, EndpointRow
from fanout.errors import ConfigurationError, PartAbsent, PluginError, UsageError
from fanout.plugin import API, Grant, StorageContext, StoragePlugin, TransportPlugin, new_address_key
from fanout.registry import Registry
from fanout.service.auth.granting import enter
from fanout.service.errors import problem_of
from fanout.service.feed.plan import NewItem
from fanout.service.feed.service import FeedService
from fanout.storage.sqlite.in_memory import MemoryStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.storage import CHECKS, check_storage, checks, run_check
from fanout.testing.storage_kit import T0
from tests.storage.parts import Bare

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))
ALL = ("feed", "fleet", "access")
HI = Notification(title="Hi")


def opened(storage: Any = None, **named: Any) -> Any:
    made = Bare("x", StorageContext(clock=SystemClock())) if storage is None else storage
    return fanout.open(storage=made, transports={"door": ScriptedTransport()}, **named)


async def deliver(engine: Any) -> dict[str, int]:
    await engine.endpoints.register(user="alice", binding="door", address="phone")
    receipt = await engine.send(HI, "user:alice")
    status = await receipt.wait(30)
    assert (await engine.status(receipt.id)).counts == status.counts
    return dict(status.counts)


async def test_it_sends_waits_and_tells() -> None:
    async with opened() as engine:
        counts = await deliver(engine)
        assert (counts["accepted"], counts["pending"]) == (1, 0)
        records = [record async for record in engine.export_user("alice")]
        assert {record["kind"] for record in records} == {"user", "endpoint", "notification", "audit", "end"}
        assert await engine.erase_user("alice") == 1


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert text.startswith("storage: bare:x has no part ")
    assert text.endswith(".")
    assert ". " not in text
    return text


async def refused(call: Callable[[Any], Awaitable[Any]], part: str) -> None:
    async with opened() as engine:
        with pytest.raises(PartAbsent) as caught:
            await call(engine)
        assert repr(part) in one_sentence(caught.value)
        assert problem_of(caught.value).status == 501, "what a client of the service is told"
        assert (await deliver(engine))["accepted"] == 1, "and nothing else suffers"


async def test_without_a_fleet_nobody_lists_workers() -> None:
    await refused(lambda engine: engine.workers(), "fleet")


@pytest.mark.parametrize(
    "call",
    [
        lambda feed: feed.post("default", Target.user("alice"), NewItem(content={}), HI),
        lambda feed: feed.list("default", "alice"),
        lambda feed: feed.counts("default", "alice"),
        lambda feed: feed.subscriptions("default", "alice"),
        lambda feed: feed.withdraw("default", "alice", "x"),
    ],
    ids=["post", "list", "counts", "subscriptions", "withdraw"],
)
async def test_without_a_feed_there_are_no_items(call: Any) -> None:
    async def used(engine: Any) -> None:
        async with FeedService(engine) as feed:
            await call(feed)

    await refused(used, "feed")


async def test_without_a_feed_there_are_no_streams() -> None:
    async def used(engine: Any) -> None:
        async with FeedService(engine) as feed:
            feed.hub.check_room("default", "alice")

    await refused(used, "feed")


async def test_without_access_no_key_is_made() -> None:
    grant = Grant(id="k", app="default", kind="host")
    await refused(
        lambda engine: enter(engine.reads.access, grant, VirtualClock(T0), by="shell", apps={"default"}, hosts={}),
        "access",
    )


async def test_without_sealing_no_address_key_is_taken() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^addresses\.key is set, and the storage \w+ cannot seal addresses: "
    ):
        opened(addresses={"key": new_address_key().reveal()})


async def test_what_processes_share_has_a_fleet() -> None:
    """Rates and tokens are shared through it: a worker without one would use each alone."""
    shared = Bare("x", StorageContext(clock=SystemClock()), shared=True)
    with pytest.raises(PartAbsent) as caught:
        async with opened(shared):
            raise AssertionError("a worker began")
    assert "'fleet'" in one_sentence(caught.value)


class Without:
    """A storage that lacks one of the needed methods."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._inner = Bare("x", CONTEXT)

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(name)
        return getattr(self._inner, name)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


class Former(Bare):
    """As level 1 of the contract had it."""

    async def extend(self, leases: Sequence[tuple[int, int]], until: float) -> list[int]:
        return []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Without("extend", "person"), "is a Without without extend, person: see fanout.plugin"),
        (
            lambda: Former("x", CONTEXT),
            f"is a Former of level 1 of the plugin contract, and this fanout has level {API}",
        ),
    ],
    ids=["lacking", "former"],
)
async def test_what_is_needed_is_asked_for_by_name(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^storage {said}"):
        opened(make())
    plugin = StoragePlugin(name="mine", factory=lambda location, context: make())
    with pytest.raises(PluginError, match=f"^The storage mine makes a {said[5:]}"):
        opened((plugin, ""))


@dataclass(frozen=True)
class Nothing:
    """Settings of a transport that wants none."""


@pytest.mark.parametrize(
    ("level", "storage", "transport"), [(1, False, True), (API, True, True), (API + 1, False, False), (0, False, False)]
)
def test_levels(level: int, storage: bool, transport: bool) -> None:
    """What transports have had to have is the same since level 1; storages of another level are refused in one
    sentence."""
    stored = StoragePlugin(name="mine", factory=MemoryStorage, api=level)
    sent = TransportPlugin(name="door", settings=Nothing, factory=ScriptedTransport, api=level)
    for place, plugin, taken in (("storage", stored, storage), ("apps.default.transports.door", sent, transport)):
        if taken:
            Registry(()).holding({place: plugin})
            continue
        with pytest.raises(PluginError, match=f"written for level {level} .* has level {API}; install a release of it"):
            Registry(()).holding({place: plugin})


class Columns(MemoryStorage):
    """A lease brings its endpoints by column."""

    async def lease(self, *arguments: Any, **named: Any) -> list[Chunk]:
        chunks = await super().lease(*arguments, **named)
        for chunk in chunks:
            rows = {row.id: row for row in await super().resolve(chunk.ids, named["now"])}
            kind, group = rows[chunk.ids[0]].kind, rows[chunk.ids[0]].group
            chunk.rows = AlikeRows(chunk.ids, [rows[id].address for id in chunk.ids], kind, group, lambda _: (0.0, 1))
        return chunks

    async def resolve(self, ids: array[int], now: float) -> list[EndpointRow]:
        raise AssertionError("the lease has brought them")


async def test_a_lease_by_columns_is_sent() -> None:
    storage = Columns("", StorageContext(clock=SystemClock()))
    async with opened(storage) as engine:
        assert (await deliver(engine))["accepted"] == 1


# -- the suite


async def test_the_suite_wants_parts_declared() -> None:
    with pytest.raises(AssertionError, match="parts: feed is absent"):
        await check_storage(lambda context: Bare("", context))
    with pytest.raises(AssertionError, match="parts: fleet is there"):
        await check_storage(lambda context: MemoryStorage("", context), without={"fleet"})
    with pytest.raises(AssertionError, match="several processes share has a fleet"):
        await check_storage(lambda context: Bare("", context, shared=True), without=ALL)


def test_laws_by_part() -> None:
    assert checks() == list(CHECKS)
    left = checks(without=ALL)
    assert {"put_is_all_or_nothing", "leases_are_fenced", "cancelling", "auditing"} <= set(left)
    assert not [name for name in left if "feed" in name or "subscription" in name or "grant" in name]
    assert set(checks(without={"access"})) == set(CHECKS) - {name for name in CHECKS if "grants" in name}


@pytest.mark.parametrize("name", ["targets_are_counted", "crashes_are_counted", "notifications_pause", "pruning"])
async def test_a_law_of_the_needed_parts(name: str) -> None:
    assert name in checks(without=ALL)
    await run_check(name, lambda context: Bare("", context))


@pytest.mark.long("test_a_law_of_the_needed_parts runs four of them")
async def test_the_laws_of_the_needed_parts_use_no_other() -> None:
    await check_storage(lambda context: Bare("", context), without=ALL)
