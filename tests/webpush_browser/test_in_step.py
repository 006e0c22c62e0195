"""Two browsers of one user stay in step, whatever is done, killed and cut: a machine of random actions against the real
service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import running_chromium
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from webrig import Node, Web, node, web

pytestmark = pytest.mark.external

T = TypeVar("T")
SIDES = (0, 1)
OPS = {
    "read": ("markRead", True, {"read": True}),
    "unread": ("markRead", False, {"read": False}),
    "dismiss": ("dismiss", None, {"action": "dismissed"}),
    "snooze": ("snooze", None, {"action": "snoozed"}),
    "activate": ("activate", None, {"read": True, "action": "activated"}),
    "remove": ("remove", None, {}),
}
BEGINS = {"read": False, "action": "none"}

PREPARE = """
h.sides = [0, 1].map(() => new h.Browser(args.url));
h.removed = [new Set(), new Set()];
h.risen = [];
h.open = async (side) => {
  const browser = h.sides[side];
  browser.tab_?.kill();
  const tab = (browser.tab_ = browser.tab({ token: args.token }));
  tab.client.addEventListener("change", () => {
    for (const id of h.removed[side]) if (tab.client.items.has(id)) h.risen.push(id);
  });
  tab.run((client) => client.start()).catch(() => {});
  // It is known whose page it is: a page that never was online here knows nobody to keep a change for.
  await h.until(() => tab.client.user !== null);
};
for (const side of [0, 1]) await h.open(side);
"""
ACT = """
const { tab_: tab, memory } = h.sides[args.side];
const { client } = tab;
if (!client.items.has(args.id)) return false;
if (args.op === "remove") h.removed[args.side].add(args.id);
let done = false;
tab.run(() => client[args.op](args.id, ...(args.value === null ? [] : [args.value]))).then(() => (done = true), () => (done = true));
// Once it is kept: from then on it must not be lost.
await h.until(async () => done || (await h.store.waiting(memory, client.user)).some((change) => change.item === args.id));
return true;
"""
TRAY = """
const browser = h.sides[args.side];
const { client } = browser.tab_;
if (!client.items.has(args.id)) return false;
browser.tray.push({ tag: args.id, data: { user: client.user, item: args.id }, close: () => {} });
await browser.worker().close(args.id);
browser.tray = [];
return true;
"""
SEES = """
const { tab_: tab } = h.sides[args.side];
return { waiting: tab.client.waiting, status: tab.client.status, risen: h.risen,
         items: [...tab.client.items.values()].map(({ id, read, action, content }) => [id, read, action, content.title]) };
"""


@dataclass
class Item:
    """What is known of an item: how it was when all was quiet, and what each side has asked for since."""

    quiet: dict[str, Any] = field(default_factory=lambda: dict(BEGINS))
    wishes: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))
    removed: bool = False
    doubted: bool = False
    """A tab was killed or an answer lost while something of it was on the way."""

    def allowed(self, name: str) -> set[Any]:
        """The values that the property may have when all is quiet again."""
        wished = {wish[name] for wish in self.wishes if name in wish}
        touched_by_both = all(self.wishes)
        if not wished or (touched_by_both and self.doubted):
            wished.add(self.quiet[name])
        return wished


class Pair:
    """Two browsers in Node."""

    def __init__(self, js: Node, service: Web, user: str) -> None:
        self.js, self.service, self.user = js, service, user

    async def prepare(self) -> None:
        await self.js.run(PREPARE, url=self.service.url, token=self.service.token(self.user))

    async def act(self, side: int, id: str, op: str) -> bool:
        name, value, _ = OPS[op]
        return bool(await self.js.run(ACT, side=side, id=id, op=name, value=value))

    async def tray(self, side: int, id: str) -> bool:
        return bool(await self.js.run(TRAY, side=side, id=id))

    async def kill(self, side: int) -> None:
        await self.js.run("h.sides[args.side].cut(false); await h.open(args.side);", side=side)

    async def cut(self, side: int, offline: bool) -> None:
        await self.js.run("h.sides[args.side].cut(args.offline)", side=side, offline=offline)

    async def lose(self, side: int) -> None:
        await self.js.run("h.sides[args.side].loses = 1", side=side)

    async def sees(self, side: int) -> dict[str, Any]:
        found = await self.js.run(SEES, side=side)
        assert isinstance(found, dict)
        return found

    async def end(self) -> None:
        await self.js.run("for (const { tab_ } of h.sides) tab_.kill();")


PAGE = """
globalThis.risen = [];
globalThis.removed = new Set();
addEventListener("DOMContentLoaded", () => {
  const look = () => {
    for (const id of removed) if (client.items.has(id)) risen.push(id);
  };
  setTimeout(() => client.addEventListener("change", look));
});
"""
CHROMIUM_ACT = """(async ({ id, op, value }) => {
  if (!client.items.has(id)) return false;
  if (op === "remove") removed.add(id);
  let done = false;
  client[op](id, ...(value === null ? [] : [value])).then(() => (done = true), () => (done = true));
  const at = await fanoutStore.place();
  while (!done && !(await fanoutStore.waiting(at, client.user)).some((change) => change.item === id)) await new Promise((go) => setTimeout(go, 5));
  return true;
})"""
CHROMIUM_SEES = """({
  waiting: client.waiting, status: client.status, risen,
  items: [...client.items.values()].map(({ id, read, action, content }) => [id, read, action, content.title]),
})"""


class ChromiumPair:
    """Two real browsers, each with the page of the feed."""

    def __init__(self, browsers: tuple[Any, Any], service: Web, user: str) -> None:
        self.browsers, self.service, self.user = browsers, service, user
        self.pages: list[Any] = [None, None]
        self.removed: tuple[set[str], set[str]] = (set(), set())
        self.loses = [0, 0]
        self.tasks: set[asyncio.Task[Any]] = set()

    async def prepare(self) -> None:
        for side in SIDES:
            await self.kill(side)

    async def kill(self, side: int) -> None:
        browser, page = self.browsers[side], self.pages[side]
        if page is not None:
            await browser.call("Target.closeTarget", targetId=page.target)
        browser.heard = lambda message: self._paused(side, message)
        url = f"{self.service.url}/client/?{secrets.token_hex(4)}#token={self.service.token(self.user)}"
        page = self.pages[side] = await browser.open(url, PAGE)
        await page.run(f"for (const id of {json.dumps(sorted(self.removed[side]))}) removed.add(id)")
        await browser.call("Network.enable", session=page.session)
        await browser.call(
            "Fetch.enable",
            session=page.session,
            patterns=[{"urlPattern": "*/v1/me/feed/*", "requestStage": "Response"}],
        )
        await page.run(
            "(async () => { while (client.user === null) await new Promise((go) => setTimeout(go, 20)); return 1; })()"
        )

    def _paused(self, side: int, message: dict[str, Any]) -> None:
        """An answer has come: hand it on, or lose it."""
        if message.get("method") != "Fetch.requestPaused":
            return
        asked, session = message["params"], message["sessionId"]
        lost = asked["request"]["method"] in ("PATCH", "DELETE") and self.loses[side] > 0
        if lost:
            self.loses[side] -= 1
        what, more = (
            ("Fetch.failRequest", {"errorReason": "ConnectionReset"}) if lost else ("Fetch.continueRequest", {})
        )
        task = asyncio.ensure_future(self._answer(side, what, session, asked["requestId"], more))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, side: int, what: str, session: str, request: str, more: dict[str, Any]) -> None:
        with contextlib.suppress(AssertionError):  # the tab has gone
            await self.browsers[side].call(what, session=session, requestId=request, **more)

    async def act(self, side: int, id: str, op: str) -> bool:
        name, value, _ = OPS[op]
        if op == "remove":
            self.removed[side].add(id)
        wanted = json.dumps({"id": id, "op": name, "value": value})
        done = bool(await self.pages[side].run(f"{CHROMIUM_ACT}({wanted})"))
        if not done:
            self.removed[side].discard(id)
        return done

    async def tray(self, side: int, id: str) -> bool:
        return await self.act(side, id, "dismiss")  # a headless browser has no tray to close it in

    async def cut(self, side: int, offline: bool) -> None:
        await self.browsers[side].call(
            "Network.emulateNetworkConditions",
            session=self.pages[side].session,
            offline=offline,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )
        if not offline:
            await self.pages[side].run("dispatchEvent(new Event('online'))")

    async def lose(self, side: int) -> None:
        self.loses[side] = 1

    async def sees(self, side: int) -> dict[str, Any]:
        found = await self.pages[side].run(CHROMIUM_SEES)
        assert isinstance(found, dict)
        return found

    async def end(self) -> None:
        for browser, page in zip(self.browsers, self.pages, strict=True):
            await browser.call("Target.closeTarget", targetId=page.target)


class InStep(RuleBasedStateMachine):
    """`run` does something on the loop that service and browsers live on; `make` gives two browsers of a new user."""

    run: Callable[[Awaitable[Any]], Any]
    make: Callable[[], Any]
    actions = 0

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, Item] = {}
        self.offline = [False, False]
        self.posted = 0

    @initialize()
    def begin(self) -> None:
        self.pair = type(self).make()
        type(self).run(self.pair.prepare())

    def _do(self, work: Awaitable[T]) -> T:
        type(self).actions += 1
        found: T = type(self).run(work)
        return found

    @rule()
    def post(self) -> None:
        self.posted += 1
        id = self._do(self.pair.service.post(f"user:{self.pair.user}", title=f"Item {self.posted}"))
        self.items[id] = Item()

    @precondition(lambda self: self.items)
    @rule(side=st.sampled_from(SIDES), which=st.integers(0, 20), op=st.sampled_from(sorted(OPS)))
    def act(self, side: int, which: int, op: str) -> None:
        id = list(self.items)[which % len(self.items)]
        if self._do(self.pair.act(side, id, op)):
            self._wished(side, id, OPS[op][2], removed=op == "remove")

    @precondition(lambda self: self.items)
    @rule(side=st.sampled_from(SIDES), which=st.integers(0, 20))
    def dismiss_in_the_tray(self, side: int, which: int) -> None:
        id = list(self.items)[which % len(self.items)]
        if self._do(self.pair.tray(side, id)):
            self._wished(side, id, {"action": "dismissed"})

    def _wished(self, side: int, id: str, wish: dict[str, Any], *, removed: bool = False) -> None:
        item = self.items[id]
        item.removed = item.removed or removed
        item.wishes[side].update(wish)

    @rule(side=st.sampled_from(SIDES))
    def kill_the_tab(self, side: int) -> None:
        self._doubt(side)
        self.offline[side] = False
        self._do(self.pair.kill(side))

    @rule(side=st.sampled_from(SIDES), offline=st.booleans())
    def cut_the_network(self, side: int, offline: bool) -> None:
        if offline:
            self._doubt(side)
        self.offline[side] = offline
        self._do(self.pair.cut(side, offline))

    @rule(side=st.sampled_from(SIDES))
    def lose_an_answer(self, side: int) -> None:
        for item in self.items.values():
            item.doubted = True
        self._do(self.pair.lose(side))

    def _doubt(self, side: int) -> None:
        for item in self.items.values():
            item.doubted = item.doubted or bool(item.wishes[side])

    @rule()
    def settle(self) -> None:
        type(self).run(self._settle())

    async def _settle(self) -> None:
        async with asyncio.timeout(60):
            for side in SIDES:
                self.offline[side] = False
                await self.pair.cut(side, False)
            while True:
                seen = [await self.pair.sees(side) for side in SIDES]
                served = [
                    [each["id"], each["read"], each["action"], each["content"]["title"]]
                    for each in await self.pair.service.items(self.pair.user)
                ]
                quiet = all(not each["waiting"] and each["status"] == "synchronized" for each in seen)
                if quiet and all(sorted(each["items"]) == sorted(served) for each in seen):
                    break
                await asyncio.sleep(0.02)
        assert seen[0]["risen"] == [], "what was removed was shown again"
        there = {id: {"read": read, "action": action} for id, read, action, _ in served}
        assert there.keys() == {id for id, item in self.items.items() if not item.removed}
        for id, state in there.items():
            for name, value in state.items():
                assert value in self.items[id].allowed(name), (name, value, self.items[id])
            self.items[id] = Item(quiet=state)
        self.items = {id: self.items[id] for id in there}

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            try:
                type(self).run(self._settle())
            finally:
                type(self).run(self.pair.end())


Makes = Callable[[str], Any]


@contextlib.asynccontextmanager
async def in_node() -> AsyncIterator[Makes]:
    async with node() as js, web() as service:
        yield lambda user: Pair(js, service, user)


@contextlib.asynccontextmanager
async def in_chromium(folder: Path) -> AsyncIterator[Makes]:
    async with running_chromium(folder / "one") as one, running_chromium(folder / "two") as two, web() as service:
        yield lambda user: ChromiumPair((one, two), service, user)


@contextlib.contextmanager
def machine(browsers: contextlib.AbstractAsyncContextManager[Makes]) -> Iterator[type[InStep]]:
    """The machine over these browsers, with a user of its own for each run."""
    with asyncio.Runner() as runner:
        over = asyncio.Event()

        async def host(ready: asyncio.Future[Makes]) -> None:
            async with browsers as makes:  # entered and left by one task
                ready.set_result(makes)
                await over.wait()

        async def begin() -> tuple[Makes, asyncio.Task[None]]:
            ready: asyncio.Future[Makes] = asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(host(ready))
            await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return ready.result(), task

        async def end(task: asyncio.Task[None]) -> None:
            over.set()
            await task

        makes, task = runner.run(begin())
        users = iter(range(10_000))

        class Machine(InStep):
            run = staticmethod(runner.run)
            make = staticmethod(lambda: makes(f"user{next(users)}"))

        try:
            yield Machine
        finally:
            runner.run(end(task))


def checked(machine: type[InStep], runs: int, steps: int) -> None:
    few = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=False,
        phases=(Phase.generate,),  # networks and tabs are no function of the actions: there is nothing to shrink
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=few)


def test_two_browsers_stay_in_step() -> None:
    with machine(in_node()) as two:
        checked(two, runs=2, steps=10)


@pytest.mark.timeout(1200)
@pytest.mark.long("test_two_browsers_stay_in_step, with a handful of actions")
def test_two_browsers_stay_in_step_through_many_actions() -> None:
    with machine(in_node()) as two:
        checked(two, runs=12, steps=100)
        assert two.actions >= 300


@pytest.mark.timeout(1200)
@pytest.mark.long("test_two_browsers_stay_in_step, in Node")
def test_two_chromiums_stay_in_step_through_300_actions(tmp_path: Path) -> None:
    with machine(in_chromium(tmp_path)) as two:
        checked(two, runs=6, steps=100)
        assert two.actions >= 300
