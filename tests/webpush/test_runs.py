"""Runs: encrypted slice by slice, begun together, and answered by index; everything out of the usual goes by `send`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from fanout.core.records import EndpointRow
from fanout.http.answers import hand_over
from fanout.plugin import (
    ACCEPTED,
    Accepted,
    Context,
    Deferred,
    Delivery,
    Misconfigured,
    Notification,
    RequestFailed,
    Response,
    Run,
    Scope,
    Secret,
)
from fanout.testing.clock import VirtualClock
from fanout_webpush.browsers import Browser
from fanout_webpush.hosts import Host
from fanout_webpush.payload import WebPushMessage, encode
from fanout_webpush.runs import HostRun
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.slices import Slices
from fanout_webpush.transport import WebPushTransport

pytestmark = pytest.mark.anyio

HOST = "push.example.com"
NOTE = Notification(id="0197f0c0-0000-7000-8000-000000000000", title="Hi")


class Worker:
    """Pretends to encrypt, at a cost, by a clock that moves only then."""

    def __init__(self, cost: float = 0.0) -> None:
        self.cost = cost
        self.now = 0.0
        self.done = 0

    def encrypt(self, record: bytes, p256dh: bytes, auth: bytes) -> bytes:
        self.now += self.cost
        self.done += 1
        return b"sealed"


class Pool:
    """Takes so many requests of each call."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.calls: list[list[bytes]] = []
        self.begun: list[tuple[Any, int]] = []

    def start(self, answers: Any, requests: Any, fresh: bool) -> Sequence[int]:
        taken = min(self.most, len(requests.paths))
        self.calls.append([*requests.paths[:taken]])
        self.begun += [(answers, index) for index in range(taken)]
        return range(taken, len(requests.paths))


class Tokens:
    def header(self, origin: str, now: float) -> str:
        return "vapid t=x, k=y"


def address(number: int, host: str = HOST) -> str:
    from fanout_webpush.address import canonical, parse

    return canonical(parse(Browser.seeded(f"https://{host}/{number}", "", "good", f"runs {number}").subscription()))


class Case:
    """A run of these addresses, its host and what was answered."""

    def __init__(self, addresses: Sequence[str], *, pool: Pool | None = None, cost: float = 0.0) -> None:
        self.pool = pool or Pool()
        self.host = Host(HOST, self.pool)  # type: ignore[arg-type]
        self.worker = Worker(cost)
        self.slices = Slices(self.worker.encrypt, clock=lambda: self.worker.now)
        self.told: list[list[int]] = []
        self.outcomes: dict[int, Any] = {}
        self.left = 0
        rows = [EndpointRow(n, each, "", HOST, 0.0, 1, "active") for n, each in enumerate(addresses)]
        message: WebPushMessage = encode(NOTE, {})
        self.run = Run(message, lambda id: str(id), rows, self._taken)
        self.run.release()

    def _taken(self, run: Run, accepted: list[int], others: list[tuple[int, Any]]) -> None:
        if accepted:
            self.told.append(sorted(accepted))
        self.outcomes.update(dict.fromkeys(accepted, ACCEPTED))
        self.outcomes.update(others)

    def begin(self) -> None:
        def judge(*_: Any) -> None:
            return None

        def fail(host: Host, failed: RequestFailed) -> Deferred:
            return Deferred(failed.reason)

        tokens: Any = Tokens()
        indices = range(len(self.run))
        self.slices.begin(
            HostRun(self.run, indices, self.host, tokens, now=lambda: 0.0, judge=judge, fail=fail, left=self._went)
        )

    def _went(self) -> None:
        self.left += 1

    async def turns(self, count: int = 1) -> None:
        for _ in range(count):
            await asyncio.sleep(0)


async def test_a_run_is_encrypted_for_a_millisecond_a_turn_and_begins_together() -> None:
    case = Case([address(n) for n in range(10)], cost=0.0003)
    case.begin()
    assert case.worker.done == 0, "nothing is encrypted in the call of start"
    await case.turns()
    assert case.worker.done == 4
    assert case.pool.calls == []
    await case.turns(1)
    assert case.worker.done == 8
    await case.turns(2)
    assert case.pool.calls == [[b"/%d" % n for n in range(10)]]


async def test_closing_leaves_what_is_encrypted_and_not_sent_to_send() -> None:
    case = Case([address(n) for n in range(10)], cost=0.0003)
    case.begin()
    await case.turns()
    case.slices.close()
    await case.turns(3)
    assert (case.worker.done, case.pool.calls) == (4, [])
    assert case.outcomes == dict.fromkeys(range(10))
    assert case.host.idle


async def test_a_delivery_that_was_given_up_between_encryption_and_the_end_of_its_run_is_not_sent() -> None:
    case = Case([address(n) for n in range(6)], cost=0.0003)
    case.begin()
    await case.turns()
    case.run.give_up([1])
    await case.turns(2)
    assert case.pool.calls == [[b"/0", b"/2", b"/3", b"/4", b"/5"]]


async def test_runs_and_single_sends_take_turns_in_the_order_of_asking() -> None:
    case = Case([address(n) for n in range(3)])
    before, between = case.slices.encrypt(b"x", b"", b""), None
    case.begin()
    between = case.slices.encrypt(b"x", b"", b"")
    assert await asyncio.gather(before, between) == [b"sealed", b"sealed"]
    assert [len(call) for call in case.pool.calls] == [3]


async def test_what_cannot_go_in_a_run_is_left_to_send_and_the_rest_goes() -> None:
    older = '{"contentEncoding":"aesgcm",' + address(1)[1:]
    case = Case([address(0), "rubbish", address(2, "other.example.com"), older, address(4)])
    case.begin()
    await case.turns()
    assert case.outcomes == {1: None, 2: None, 3: None}
    assert case.pool.calls == [[b"/0", b"/4"]]


async def test_a_delivery_that_was_given_up_is_not_encrypted() -> None:
    case = Case([address(n) for n in range(4)])
    case.begin()
    case.run.give_up([1, 2])
    await case.turns()
    assert case.worker.done == 2
    assert case.pool.calls == [[b"/0", b"/3"]]


async def test_where_connections_have_no_room_the_rest_is_left_to_send() -> None:
    case = Case([address(n) for n in range(5)], pool=Pool(most=3))
    case.begin()
    await case.turns()
    assert case.outcomes == {3: None, 4: None}


async def test_a_host_that_turned_out_to_lack_http2_has_its_run_sent_one_by_one() -> None:
    case = Case([address(n) for n in range(3)])
    case.begin()
    case.host.pool = None
    await case.turns()
    assert case.outcomes == {0: None, 1: None, 2: None}


async def test_a_host_is_busy_until_the_last_of_its_run_is_answered_or_given_up() -> None:
    for end in ("answered", "failed", "given up"):
        case = Case([address(n) for n in range(3)])
        case.begin()
        assert not case.host.idle
        await case.turns()
        answers, _ = case.pool.begun[0]
        answers.accepted([0, 2])
        assert not case.host.idle
        assert case.left == 0
        if end == "answered":
            answers.accepted([1])
        elif end == "failed":
            answers.failed(1, RequestFailed("no", "closed"))
            assert isinstance(case.outcomes[1], Deferred)
        else:
            case.run.give_up([1])
        assert case.host.idle, end
        assert case.left == (end != "given up")
        assert case.run.late == 0
        assert case.host.accepted == (3 if end == "answered" else 2)


async def test_closing_leaves_runs_that_wait_to_send() -> None:
    case = Case([address(n) for n in range(3)])
    case.begin()
    case.slices.close()
    await case.turns(2)
    assert case.outcomes == {0: None, 1: None, 2: None}
    assert case.worker.done == 0


async def test_a_pool_that_raises_costs_its_own_run_alone() -> None:
    class Broken(Pool):
        def start(self, answers: Any, requests: Any, fresh: bool) -> Sequence[int]:
            raise RuntimeError("broken")

    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context["exception"]))
    case = Case([address(n) for n in range(3)], pool=Broken())
    case.begin()
    after = case.slices.encrypt(b"x", b"", b"")
    assert await after == b"sealed"
    assert {(type(each), each.sent) for each in case.outcomes.values()} == {(Deferred, "unknown")}
    assert len(case.outcomes) == 3
    assert case.host.idle
    assert [str(error) for error in said] == ["broken"]


@pytest.mark.parametrize("created", [True, False])
async def test_answers_of_status_201_come_as_one_list_where_they_are_acceptances(created: bool) -> None:
    class Heard:
        def __init__(self) -> None:
            self.created = created
            self.calls: list[Any] = []

        def accepted(self, indices: list[int]) -> None:
            self.calls.append(indices)

        def answered(self, index: int, response: Response) -> None:
            self.calls.append((index, response.status))

    heard: Any = Heard()
    answered: list[Any] = [((heard, n), Response(201, b"", b"")) for n in range(3)]
    answered.append(((heard, 3), Response(429, b"", b"")))
    hand_over(asyncio.get_running_loop(), [], answered)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert heard.calls == ([[0, 1, 2], (3, 429)] if created else [(0, 201), (1, 201), (2, 201), (3, 429)])


async def test_a_run_of_the_transport_takes_each_key_and_leaves_unknown_ones_to_send(rig: Any) -> None:
    async with rig() as it:
        addresses = [it.subscribe() for _ in range(4)]
        group = addresses[0].group
        message = it.transport.prepare(NOTE)
        assert isinstance(await it.send(addresses[0]), Accepted)
        known = addresses[0].kind
        rows = [
            EndpointRow(n, each.value, kind, group, 0.0, 1, "active")
            for n, (each, kind) in enumerate(zip(addresses, [known, "", "lost", known], strict=True))
        ]
        ended = asyncio.Event()
        outcomes: dict[int, Any] = {}

        def taken(run: Run, accepted: list[int], others: list[tuple[int, Any]]) -> None:
            outcomes.update(dict.fromkeys(accepted, ACCEPTED))
            outcomes.update(others)
            if len(outcomes) == 3:
                ended.set()

        run = Run(message, lambda id: str(id), rows, taken)
        assert [*it.transport.start(run)] == [2]
        run.release()
        await asyncio.wait_for(ended.wait(), 30)
        assert outcomes == {0: ACCEPTED, 1: ACCEPTED, 3: ACCEPTED}
        assert len(it.transport.start(Run(message, str, [rows[0]._replace(group="new.example.com")], taken))) == 1


async def test_a_run_that_a_token_was_refused_for_goes_again_by_send_with_a_newer_one() -> None:
    clock = VirtualClock(1_800_000_000.0 // 21600 * 21600)
    async with WebPushSimulator(clock=clock.now) as server, transport_of(server, clock) as transport:
        first, second = (transport.parse_address(server.subscribe("me", vendor="apple")) for _ in range(2))
        message = transport.prepare(NOTE)
        assert isinstance(await transport.send(message, Delivery.of(first)), Accepted)
        bad = {server.headers["authorization"]}
        server.script = lambda request: (
            server.error("BadJwtToken", request) if request.headers["authorization"] in bad else None
        )
        rows = [
            EndpointRow(n, each.value, each.kind, each.group, 0.0, 1, "active")
            for n, each in enumerate((first, second))
        ]
        for later, expected in ((0.0, Misconfigured("BadJwtToken", Scope.GROUP)), (3601.0, None)):
            clock.advance(later)
            ended = asyncio.Event()
            outcomes: dict[int, Any] = {}

            def taken(
                run: Run,
                accepted: list[int],
                others: list[tuple[int, Any]],
                outcomes: Any = outcomes,
                ended: Any = ended,
            ) -> None:
                outcomes.update(others)
                if len(outcomes) == 2:
                    ended.set()

            run = Run(message, str, rows, taken)
            assert not transport.start(run)
            run.release()
            await asyncio.wait_for(ended.wait(), 30)
            assert outcomes == {0: expected, 1: expected}
        assert isinstance(await transport.send(message, Delivery.of(first)), Accepted)


def transport_of(server: WebPushSimulator, clock: VirtualClock) -> WebPushTransport:
    values = server.settings() | {"ca_file": server.authority.ca_file}
    values["vapid_private_key"] = Secret(values["vapid_private_key"])
    context = Context(app="default", binding="webpush", clock=clock, rng=random.Random(1))
    return WebPushTransport(WebPushSettings(**values), context)
