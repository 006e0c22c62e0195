"""The laws of a transport that has `start`: the results of a run. A transport without it has nothing to prove here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from fanout.core.records import EndpointRow
from fanout.plugin import ACCEPTED, Accepted, Deferred, Gone, Outcome, Run, Unavailable
from fanout.testing._laws import NOTIFICATION, bounded, law, made_id, send
from fanout.testing.subject import Gateway, Maker, Raw, Subject

__all__ = ["RUN_CHECKS", "SILENT_RUNS"]

_MANY = 12
_UNSENT = (Unavailable, Deferred)


class _Begun:
    """A run that was started, and its results by index. The deliveries that `start` returned go by `send`, as the
    engine does it."""

    def __init__(self, subject: Subject, raws: Sequence[Raw]) -> None:
        transport = subject.transport
        addresses = [transport.parse_address(raw) for raw in raws]
        law(len({address.group for address in addresses}) == 1, "the subject's devices are of one group")
        rows = [EndpointRow(n, a.value, a.kind, a.group, 0.0, 1, "active") for n, a in enumerate(addresses)]
        self.sent = {made_id(n): address.digest for n, address in enumerate(addresses)}
        self.outcomes: dict[int, Outcome] = {}
        self.run = Run(transport.prepare(NOTIFICATION), made_id, rows, self._taken)
        self._ended = asyncio.Event()
        start: Callable[[Run], Sequence[int]] = transport.start  # type: ignore[attr-defined]
        left = list(start(self.run))
        law(not self.outcomes, "nothing is answered before start has returned")
        law(len(set(left)) == len(left), "start returns each index once")
        law(len(self.run.give_up(left)) == len(left), "start returns indices of the run, and answers none of these")
        self._subject = subject
        self._tasks = [asyncio.ensure_future(self._send(index)) for index in left]
        self.run.release()

    async def outcome(self, subject: Subject) -> list[Outcome]:
        """By index, once the last has come."""
        if len(self.outcomes) < len(self.run):
            await bounded(self._ended.wait(), subject)
        await asyncio.gather(*self._tasks)
        return [self.outcomes[index] for index in range(len(self.run))]

    async def _send(self, index: int) -> None:
        self._note(index, await self._subject.transport.send(self.run.message, self.run.delivery(index)))

    def _taken(self, run: Run, accepted: list[int], others: list[tuple[int, Outcome | None]]) -> None:
        for index in accepted:
            self._note(index, ACCEPTED)
        for index, outcome in others:
            if outcome is None:
                self._tasks.append(asyncio.ensure_future(self._send(index)))
            else:
                self._note(index, outcome)

    def _note(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        if len(self.outcomes) == len(self.run):
            self._ended.set()


def _devices(subject: Subject, count: int = _MANY) -> list[Raw]:
    """Devices of one group."""
    raws = [subject.address(n) for n in range(4 * count)]
    groups = [subject.transport.parse_address(raw).group for raw in raws]
    return [raw for raw, group in zip(raws, groups, strict=True) if group == groups[0]][:count]


@contextlib.asynccontextmanager
async def _warm(maker: Maker) -> AsyncIterator[tuple[Subject, Gateway] | None]:
    """An open subject that has been answered once, so that a run need not wait for a connection; None where there are
    no runs."""
    async with maker() as subject:
        if subject.gateway is None or getattr(subject.transport, "start", None) is None:
            yield None
            return
        async with subject.transport:
            law(isinstance(await send(subject, 0), Accepted), "the gateway accepts before a run")
            yield subject, subject.gateway


def _of_runs(check: Callable[[Subject, Gateway], Awaitable[None]]) -> Callable[[Maker], Awaitable[None]]:
    @functools.wraps(check)
    async def run(maker: Maker) -> None:
        async with _warm(maker) as warm:
            if warm is not None:
                await check(*warm)

    return run


@_of_runs
async def a_run_is_answered_by_index(subject: Subject, gateway: Gateway) -> None:
    """Each delivery of a run gets its own answer, once, and each push arrives once under its own id."""
    before = len(gateway.received())
    raws = _devices(subject)
    dead = subject.gone
    if dead is not None:
        group = subject.transport.parse_address(raws[0]).group
        raws = [
            gone if n % 3 == 0 and subject.transport.parse_address(gone := dead(n)).group == group else raw
            for n, raw in enumerate(raws)
        ]
    living = {subject.transport.parse_address(raw).digest for raw in _devices(subject)}
    begun = _Begun(subject, raws)
    outcomes = await begun.outcome(subject)
    for raw, outcome in zip(raws, outcomes, strict=True):
        kind = Accepted if subject.transport.parse_address(raw).digest in living else Gone
        law(isinstance(outcome, kind), f"each delivery gets its own answer: {kind.__name__}, not {outcome!r}")
    received = gateway.received()[before:]
    law(len(received) == sum(isinstance(each, Accepted) for each in outcomes), "each push of a run arrives once")
    for push in received:
        if push.delivery:
            law(begun.sent.get(push.delivery) == push.address, "the id that arrives is the one of that address")
    law(begun.run.late == 0, "each index of the run is answered once, and no other index")


@_of_runs
async def every_answer_to_a_run_is_an_outcome(subject: Subject, gateway: Gateway) -> None:
    """The gateway's answers to a run are its answers to single sends."""
    for name, expected in gateway.answers.items():
        gateway.answer(name)
        (outcome,) = await _Begun(subject, _devices(subject, 1)).outcome(subject)
        law(isinstance(outcome, expected), f"{name} leads to {expected.__name__}, not {outcome!r}")


@_of_runs
async def what_is_given_up_harms_no_other(subject: Subject, gateway: Gateway) -> None:
    """A run without a waiting caller is dropped: late answers are ignored, its requests end, and the transport goes
    on."""
    gateway.hold()
    arrived = gateway.requests
    begun = _Begun(subject, _devices(subject, 2))
    await bounded(gateway.arrived(arrived + 1), subject)
    begun.run.give_up(begun.run.pending())
    for task in begun._tasks:
        task.cancel()
    stats: Callable[[], dict[str, int]] | None = getattr(subject.transport, "stats", None)
    for _ in range(1000):
        if stats is None or not stats().get("requests"):  # none said: nothing goes over HTTP/2
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("Broken law: the requests of what was given up end soon")
    await gateway.resume()
    outcome = await send(subject, 2)
    law(isinstance(outcome, Accepted), f"a send after a run that was given up is Accepted, not {outcome!r}")
    law(not begun.outcomes, "an answer to a request that was given up is ignored")


@_of_runs
async def a_silent_gateway_bounds_a_run(subject: Subject, gateway: Gateway) -> None:
    """A run over a connection that falls silent is answered within the deadline."""
    gateway.silence()
    for outcome in await _Begun(subject, _devices(subject, 2)).outcome(subject):
        law(isinstance(outcome, _UNSENT), f"silence is Unavailable or Deferred, not {outcome!r}")


@_of_runs
async def closing_answers_a_run(subject: Subject, gateway: Gateway) -> None:
    """Closing answers the sends that a run has under way, and afterwards a run starts nothing."""
    gateway.hold()
    arrived = gateway.requests
    begun = _Begun(subject, _devices(subject, 2))
    await bounded(gateway.arrived(arrived + 1), subject)
    await bounded(subject.transport.__aexit__(None, None, None), subject)
    for outcome in await begun.outcome(subject):
        law(isinstance(outcome, _UNSENT), f"closing ends a run as Unavailable or Deferred, not {outcome!r}")
    again = Run(begun.run.message, made_id, begun.run.rows, lambda *_: None)
    law(len(subject.transport.start(again)) == len(again), "a closed transport starts nothing")  # type: ignore[attr-defined]


RUN_CHECKS = (
    a_run_is_answered_by_index, every_answer_to_a_run_is_an_outcome, what_is_given_up_harms_no_other,
    a_silent_gateway_bounds_a_run, closing_answers_a_run,
)  # fmt: skip
SILENT_RUNS = frozenset({a_silent_gateway_bounds_a_run.__name__})
