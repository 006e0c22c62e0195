"""`check_transport` passes what is right, and each of its laws catches the transport that breaks it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fanout.plugin import (
    ACCEPTED,
    Address,
    AddressInvalid,
    Delivery,
    Diagnosis,
    Gone,
    Message,
    MessageTooLarge,
    Notification,
    Outcome,
    Rejected,
    Run,
    Unavailable,
)
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport
from fanout.testing.simulator import Push
from fanout.testing.transport import CHECKS, Subject, check_transport

pytestmark = pytest.mark.anyio


class PretendGateway:
    """A gateway without a network, inside of the transport's script."""

    answers: Mapping[str, type] = {"nope": Rejected}

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.pushes: list[Push] = []
        self.mode = ""
        self.waiting: list[asyncio.Future[Outcome]] = []

    def received(self) -> Sequence[Push]:
        return self.pushes

    def answer(self, name: str) -> None:
        self.mode = name

    def hold(self) -> None:
        self.mode = "hold"

    def silence(self) -> None:
        self.mode = "silent"

    async def resume(self) -> None:
        self.mode = ""

    async def arrived(self, requests: int) -> None:
        while self.requests < requests:
            await asyncio.sleep(0.001)

    def __call__(self, message: ScriptedMessage, delivery: Delivery) -> Any:
        self.requests += 1
        if self.mode == "nope":
            return Rejected("nope")
        if self.mode == "silent":
            return Unavailable("unknown", reason="timeout")
        if self.mode == "hold":
            self.waiting.append(asyncio.get_running_loop().create_future())
            return self.waiting[-1]
        if "dead" in delivery.address:
            return Gone("dead")
        address = Address(delivery.address)
        self.pushes.append(Push(delivery.id, address.digest, message.notification.id))
        return ACCEPTED


class Right(ScriptedTransport):
    """Keeps every law."""

    gateway: PretendGateway

    async def __aexit__(self, *exc: object) -> None:
        for future in self.gateway.waiting:
            if not future.done():
                future.set_result(Unavailable("no", reason="closed"))
        await super().__aexit__(*exc)


def maker(cls: type[Right], deadline: float = 0.1) -> Any:
    @asynccontextmanager
    async def make() -> AsyncIterator[Subject]:
        gateway = PretendGateway()
        transport = cls(gateway)
        transport.gateway = gateway
        yield Subject(
            transport=transport,
            address=lambda n: f"Device-{n}",
            gone=lambda n: f"dead-{n}",
            invalid=["not an address"],
            secrets=["s3cret-key"],
            deadline=deadline,
            gateway=gateway,
        )

    return make


async def test_a_right_transport_passes() -> None:
    await check_transport(maker(Right))


async def test_a_subject_without_a_gateway_passes_what_applies() -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[Subject]:
        yield Subject(transport=ScriptedTransport(), address=lambda n: f"device-{n}", invalid=["a b"])

    await check_transport(make)


class Impure(Right):
    def prepare(self, notification: Notification) -> ScriptedMessage:
        message = super().prepare(notification)
        self.calls += 1
        message.payload += b" " * self.calls
        return message


class Online(Right):
    def prepare(self, notification: Notification) -> ScriptedMessage:
        with socket.socket() as connection:
            connection.connect(("127.0.0.1", 9))
        return super().prepare(notification)


class Boundless(Right):
    def prepare(self, notification: Notification) -> ScriptedMessage:
        return ScriptedMessage(notification, b"payload")


class Chatty(Right):
    def prepare(self, notification: Notification) -> ScriptedMessage:
        try:
            return super().prepare(notification)
        except MessageTooLarge as error:
            raise MessageTooLarge(f"{notification.body}", size=error.size, limit=error.limit) from None


class Promising(Right):
    def fits(self, notification: Notification, size: int) -> bool:
        return True


class Drifting(Right):
    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        return Address(super().parse_address(raw).value + "x")


class Gullible(Right):
    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        return Address(str(raw).lower())


class Telltale(Right):
    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        try:
            return super().parse_address(raw)
        except AddressInvalid:
            raise AddressInvalid(f"{raw} is no address") from None


class Eager(Right):
    async def __aenter__(self) -> Any:
        self.gateway.connections += 1
        return await super().__aenter__()


class Incapable(Right):
    def capacity(self, group: str) -> int:
        return 0


TASKS: set[asyncio.Task[None]] = set()


class Littering(Right):
    async def __aexit__(self, *exc: object) -> None:
        TASKS.add(asyncio.ensure_future(asyncio.sleep(3600)))
        await super().__aexit__(*exc)


class Raising(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        outcome = await super().send(message, delivery)
        if isinstance(outcome, Rejected):
            raise RuntimeError("the gateway said no")
        return outcome


class Mistaken(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        outcome = await super().send(message, delivery)
        return ACCEPTED if isinstance(outcome, Rejected) else outcome


class Stuttering(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        await super().send(message, delivery)
        return await super().send(message, delivery)


class Mixing(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        if len(self.sends) % 7 == 3:
            delivery = Delivery.of(Address("device-1"), id=delivery.id)
        return await super().send(message, delivery)


class Stubborn(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        try:
            return await super().send(message, delivery)
        except asyncio.CancelledError:
            return Unavailable("unknown", reason="cancelled")


class Fragile(Right):
    broken = False

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        if self.broken:
            return Unavailable("no", reason="broken")
        try:
            return await super().send(message, delivery)
        except asyncio.CancelledError:
            self.broken = True
            raise


class Hopeful(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        outcome = await super().send(message, delivery)
        return ACCEPTED if isinstance(outcome, Unavailable) else outcome


class Abandoning(Right):
    async def __aexit__(self, *exc: object) -> None:
        await ScriptedTransport.__aexit__(self, *exc)


class Intrusive(Right):
    async def check(self) -> Diagnosis:
        await self.send(self.prepare(Notification(title="Test!")), Delivery.of(self.parse_address("device-1")))
        return Diagnosis()


class Blind(Right):
    async def check(self) -> Diagnosis:
        return Diagnosis("Everything is wrong.")


class Revealing(Right):
    def __repr__(self) -> str:
        return "Revealing(key='s3cret-key')"


class Logging(Right):
    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        logging.getLogger("pretend").debug("sending to %s", delivery.address)
        return await super().send(message, delivery)


class Running(Right):
    """Right, and starts runs."""

    def start(self, run: Run) -> Sequence[int]:
        if self.opened <= self.closed:
            return range(len(run))
        for index in range(1, len(run)):
            self.begin(run, index, self.send(run.message, run.delivery(index)))
        return [0]

    def begin(self, run: Run, index: int, outcome: Coroutine[Any, Any, Outcome]) -> None:
        async def answer() -> None:
            run.answer(index, await outcome)

        TASKS.add(asyncio.ensure_future(answer()))


class Crossing(Running):
    def begin(self, run: Run, index: int, outcome: Coroutine[Any, Any, Outcome]) -> None:
        super().begin(run, index % (len(run) - 1) + 1 if len(run) > 1 else index, outcome)


class Twofold(Running):
    def start(self, run: Run) -> Sequence[int]:
        return [0, 0]


class Flattering(Running):
    def start(self, run: Run) -> Sequence[int]:
        if self.opened <= self.closed:
            return range(len(run))
        run.accept(range(len(run)))
        return []


class Wrecked(Running):
    broken = False

    def start(self, run: Run) -> Sequence[int]:
        self.broken = True
        return super().start(run)

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        return Unavailable("no") if self.broken else await super().send(message, delivery)


class Forgetful(Running):
    def begin(self, run: Run, index: int, outcome: Coroutine[Any, Any, Outcome]) -> None:
        outcome.close()


class Repeating(Running):
    def start(self, run: Run) -> Sequence[int]:
        left = super().start(run)
        asyncio.get_running_loop().call_soon(run.answer, 0, ACCEPTED)  # which is to go by `send`
        return left


class Straying(Running):
    def begin(self, run: Run, index: int, outcome: Coroutine[Any, Any, Outcome]) -> None:
        super().begin(run, index, outcome)
        run.answer(len(run), ACCEPTED)


async def test_a_right_transport_with_runs_passes() -> None:
    await check_transport(maker(Running))
    for task in TASKS:
        task.cancel()
    TASKS.clear()


BROKEN: list[tuple[str, type[Right]]] = [
    ("prepare_is_pure", Impure),
    ("prepare_is_pure", Online),
    ("prepare_refuses_too_large", Boundless),
    ("prepare_refuses_too_large", Chatty),
    ("prepare_refuses_what_is_no_json", Boundless),
    ("what_fits_is_not_refused", Promising),
    ("addresses_are_canonical", Drifting),
    ("invalid_addresses_are_refused", Gullible),
    ("invalid_addresses_are_refused", Telltale),
    ("opening_connects_nowhere", Eager),
    ("opening_connects_nowhere", Incapable),
    ("closing_is_idempotent", Littering),
    ("every_answer_is_an_outcome", Raising),
    ("every_answer_is_an_outcome", Mistaken),
    ("accepted_is_received_once", Stuttering),
    ("concurrent_sends_do_not_mix", Mixing),
    ("a_cancelled_send_harms_no_other", Stubborn),
    ("a_cancelled_send_harms_no_other", Fragile),
    ("a_silent_gateway_is_bounded", Hopeful),
    ("a_dying_gateway_is_bounded", Hopeful),
    ("closing_resolves_what_is_pending", Abandoning),
    ("check_pushes_to_nobody", Intrusive),
    ("check_pushes_to_nobody", Blind),
    ("nothing_shows_a_secret", Revealing),
    ("nothing_shows_a_secret", Logging),
    ("a_run_is_answered_by_index", Crossing),
    ("a_run_is_answered_by_index", Twofold),
    ("a_run_is_answered_by_index", Repeating),
    ("a_run_is_answered_by_index", Straying),
    ("every_answer_to_a_run_is_an_outcome", Flattering),
    ("what_is_given_up_harms_no_other", Wrecked),
    ("a_silent_gateway_bounds_a_run", Forgetful),
    ("closing_answers_a_run", Forgetful),
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.testing._laws._SLACK", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("law", "cls"), BROKEN, ids=[f"{law}-{cls.__name__}" for law, cls in BROKEN])
async def test_each_law_bites(law: str, cls: type[Right]) -> None:
    check: Callable[[Any], Any] = CHECKS[law]
    await check(maker(Right))
    with pytest.raises(AssertionError, match="Broken law"):
        await check(maker(cls))
    for task in TASKS:
        task.cancel()
    TASKS.clear()


def test_every_law_has_a_transport_that_breaks_it() -> None:
    assert {law for law, _ in BROKEN} == set(CHECKS)
