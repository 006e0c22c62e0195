"""The laws of a transport, as checks that run one by one. They need no test framework.

    from fanout.testing.transport import Subject, check_transport

    @asynccontextmanager
    async def maker():
        async with MySimulator() as simulator:
            yield Subject(transport=MyTransport(...), address=..., invalid=["", "?"],
            gateway=SimulatorGateway(simulator, ...))

    asyncio.run(check_transport(maker))

`CHECKS` holds the single checks by name, for a test framework that wants to run them one by one. Those in `SILENT` last
as long as the subject's deadline: a short one there and a long one elsewhere makes a suite that is quick, and that a
slow machine does not break.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fanout.core.codec import encode
from fanout.plugin import (
    Accepted,
    Address,
    AddressInvalid,
    Deferred,
    Delivery,
    Diagnosis,
    Gone,
    InvalidMessage,
    Message,
    MessageTooLarge,
    Misconfigured,
    Moved,
    Notification,
    Rejected,
    Throttled,
    Unavailable,
)
from fanout.testing._laws import (
    NOTIFICATION,
    bounded,
    contents,
    delivery,
    law,
    logged,
    made_id,
    no_network,
    parsed,
    plain,
    played,
    send,
    texts,
)
from fanout.testing.subject import Gateway, Maker, Received, Subject
from fanout.testing.transport_runs import RUN_CHECKS, SILENT_RUNS

__all__ = ["CHECKS", "SILENT", "Gateway", "Maker", "Received", "Subject", "check_transport"]

_OUTCOMES = (Accepted, Rejected, Gone, Moved, Throttled, Unavailable, Misconfigured, Deferred)
_UNSENT = (Unavailable, Deferred)
_MANY = 60


async def check_transport(maker: Maker) -> None:
    """Run every check for a transport, on a fresh subject each.

    Args:
        maker: Called for each check; answers with an async context manager of a fresh `Subject`.

    Raises:
        AssertionError: The text names the law that is broken.

    Example:
        ```python
        @asynccontextmanager
        async def subject():
            yield Subject(transport=ScriptedTransport(), address=lambda n: f"phone-{n}", invalid=["No Name"])

        await check_transport(subject)
        ```
    """
    for check in CHECKS.values():
        await check(maker)


# -- without a gateway


async def prepare_is_pure(maker: Maker) -> None:
    """The same notification makes the same message, before opening, without a connection."""
    async with maker() as subject:
        with no_network():
            first, second = subject.transport.prepare(NOTIFICATION), subject.transport.prepare(NOTIFICATION)
        law(isinstance(first, Message) and first is not second, "prepare returns a new Message each time")
        law(first.size > 0, "a message has the size of its payload")
        law(plain(first) == plain(second), "prepare makes the same bytes of the same notification")


async def prepare_refuses_too_large(maker: Maker) -> None:
    """Content that the gateway would refuse for its size is refused by `prepare`, with size and limit."""
    async with maker() as subject:
        text = "fat" * 100_000
        try:
            subject.transport.prepare(Notification(title="t", body=text))
        except MessageTooLarge as error:
            law(error.size > error.limit > 0, "MessageTooLarge tells the size and the limit it is above")
            law(text not in str(error), "MessageTooLarge does not repeat the payload")
            law(subject.transport.prepare(NOTIFICATION).size <= error.limit, "a small message is within the limit")
        else:
            raise AssertionError("Broken law: prepare raises MessageTooLarge for 300,000 bytes of text")


async def prepare_refuses_what_is_no_json(maker: Maker) -> None:
    """Data that cannot be encoded is `InvalidMessage`, not the encoder's own exception."""
    async with maker() as subject:
        data: dict[str, object] = {}
        notification = Notification(title="t", data=data)
        data["k"] = object()  # only now: a notification that is made with it is refused by itself
        try:
            subject.transport.prepare(notification)
        except InvalidMessage:
            return
        raise AssertionError("Broken law: prepare raises InvalidMessage for data that is no JSON")


async def what_fits_is_not_refused(maker: Maker) -> None:
    """Content that `fits` says yes to, where a transport has it, `prepare` takes: of every field, however it is
    escaped, around each size."""
    async with maker() as subject:
        fits = getattr(subject.transport, "fits", None)
        if fits is None:
            return
        for notification in contents():
            if fits(notification, len(encode(notification))):
                try:
                    subject.transport.prepare(notification)
                except InvalidMessage as error:
                    raise AssertionError(f"Broken law: prepare refuses nothing that fits: {error}") from None
        fat = Notification(title="t", body="fat" * 100_000)
        law(not fits(fat, len(encode(fat))), "300,000 bytes of text do not fit")


async def addresses_are_canonical(maker: Maker) -> None:
    """`parse_address` is a projection: its own result comes back unchanged; different devices differ."""
    async with maker() as subject:
        parse = subject.transport.parse_address
        addresses = [parse(subject.address(n)) for n in range(3)]
        for n, address in enumerate(addresses):
            law(isinstance(address, Address) and bool(address.value), "parse_address returns an Address with a value")
            law(parse(subject.address(n)) == address, "the same raw address has one canonical form")
            again = parse(address.value)
            law(again == address and again.identity == address.identity, "a canonical address stays as it is")
        law(len({address.digest for address in addresses}) == len(addresses), "different devices have other digests")


async def invalid_addresses_are_refused(maker: Maker) -> None:
    """Nonsense raises `AddressInvalid` at registration, and the text does not repeat it."""
    async with maker() as subject:
        law(bool(subject.invalid), "the subject gives at least one invalid address")
        for raw in subject.invalid:
            try:
                subject.transport.parse_address(raw)
            except AddressInvalid as error:
                shown = [text for text in texts(raw) if len(text) > 5 and text in f"{error} {error!r}"]
                law(not shown, "AddressInvalid does not show the address")
            else:
                raise AssertionError("Broken law: parse_address raises AddressInvalid for each invalid address")


async def opening_connects_nowhere(maker: Maker) -> None:
    """A process that only submits opens its transports too; capacity is at least 1 from the beginning."""
    async with maker() as subject:
        group = subject.transport.parse_address(subject.address(0)).group
        law(subject.transport.capacity(group) >= 1, "capacity is at least 1 before opening")
        async with subject.transport as transport:
            law(transport is subject.transport, "opening returns the transport")
            law(transport.capacity(group) >= 1, "capacity is at least 1 before the first connection")
            await asyncio.sleep(0)
            if subject.gateway is not None:
                law(subject.gateway.connections == 0, "opening makes no connection")


async def closing_is_idempotent(maker: Maker) -> None:
    """Closing twice is harmless, and no task is left; a send afterwards does not hang."""
    before = asyncio.all_tasks()
    async with maker() as subject:
        async with subject.transport as transport:
            if subject.gateway is not None:
                await send(subject, 0)
        await transport.__aexit__(None, None, None)
        try:
            outcome = await bounded(transport.send(transport.prepare(NOTIFICATION), delivery(subject, 0)), subject)
            law(isinstance(outcome, _UNSENT), "a send after closing is Unavailable or Deferred, or raises")
        except RuntimeError:
            pass
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    law(not left, f"closing leaves no task; there are {len(left)}")


# -- with a gateway


@played
async def every_answer_is_an_outcome(subject: Subject, gateway: Gateway) -> None:
    """For each answer of the gateway, `send` returns the outcome that it means."""
    for name, expected in gateway.answers.items():
        gateway.answer(name)
        outcome = await send(subject, 0)
        said = f"{name} leads to {expected.__name__}, not {outcome!r}"
        law(isinstance(outcome, _OUTCOMES) and isinstance(outcome, expected), said)
        law(not gateway.received(), f"nothing was accepted after {name}")


@played
async def accepted_is_received_once(subject: Subject, gateway: Gateway) -> None:
    """An accepted push is with the gateway once, under the delivery id and the address that it was sent with."""
    outcome = await send(subject, 0)
    law(isinstance(outcome, Accepted), f"a good push to a good device is Accepted, not {outcome!r}")
    received = gateway.received()
    law(len(received) == 1, f"one send is one push; the gateway received {len(received)}")
    law(received[0].address == parsed(subject, 0).digest, "the push goes to the address of the delivery")
    law(received[0].delivery in ("", delivery(subject, 0).id), "the gateway is told the delivery id")


@played
async def concurrent_sends_do_not_mix(subject: Subject, gateway: Gateway) -> None:
    """Many sends at once each get their own answer, and each push arrives once."""
    transport, dead = subject.transport, subject.gone
    message = transport.prepare(NOTIFICATION)
    deliveries, expected = [], []
    for n in range(_MANY):
        is_dead = dead is not None and n % 3 == 0
        raw = dead(n) if dead is not None and is_dead else subject.address(n)
        deliveries.append(Delivery.of(transport.parse_address(raw), id=made_id(n)))
        expected.append(Gone if is_dead else Accepted)
    outcomes = await bounded(asyncio.gather(*[transport.send(message, one) for one in deliveries]), subject)
    for kind, outcome in zip(expected, outcomes, strict=True):
        law(isinstance(outcome, kind), f"each send gets its own answer: {kind.__name__}, not {outcome!r}")
    sent = {one.id: transport.parse_address(one.address).digest for one in deliveries}
    alive = [sent[one.id] for one, kind in zip(deliveries, expected, strict=True) if kind is Accepted]
    received = gateway.received()
    law(sorted(push.address for push in received) == sorted(alive), "each push arrives once, where it belongs")
    for push in received:
        if push.delivery:
            law(sent.get(push.delivery) == push.address, "the delivery id that arrives is the one of that address")


@played
async def a_cancelled_send_harms_no_other(subject: Subject, gateway: Gateway) -> None:
    """Cancelling ends the caller's wait at once, and the transport goes on."""
    transport = subject.transport
    message = transport.prepare(NOTIFICATION)
    law(isinstance(await send(subject, 0), Accepted), "the gateway accepts before anything is cancelled")
    gateway.hold()
    arrived = gateway.requests
    task = asyncio.ensure_future(transport.send(message, delivery(subject, 1)))
    await bounded(gateway.arrived(arrived + 1), subject)
    task.cancel()
    await bounded(asyncio.wait({task}), subject)
    law(task.cancelled(), "a cancelled send ends as cancelled")
    await gateway.resume()
    outcome = await send(subject, 2)
    law(isinstance(outcome, Accepted), f"a send after a cancelled one is Accepted, not {outcome!r}")


@played
async def a_silent_gateway_is_bounded(subject: Subject, gateway: Gateway) -> None:
    """A gateway that takes the connection and never says a word is `Unavailable` within the deadline, or `Deferred` for
    want of a token."""
    gateway.silence()
    outcome = await send(subject, 0)
    law(isinstance(outcome, _UNSENT), f"silence is Unavailable or Deferred, not {outcome!r}")


@played
async def a_dying_gateway_is_bounded(subject: Subject, gateway: Gateway) -> None:
    """A gateway that falls silent on a connection in use makes `Unavailable` within the deadline; when it is back, so
    are we."""
    law(isinstance(await send(subject, 0), Accepted), "the gateway accepts before it falls silent")
    gateway.silence()
    outcome = await send(subject, 1)
    law(isinstance(outcome, Unavailable), f"silence is Unavailable, not {outcome!r}")
    await gateway.resume()
    for _ in range(100):  # the transport may hold back for a moment after the failure
        outcome = await send(subject, 2)
        if isinstance(outcome, Accepted):
            return
        law(isinstance(outcome, _UNSENT), f"trouble with the connection is Unavailable or Deferred, not {outcome!r}")
        await asyncio.sleep(0.05)
    raise AssertionError("Broken law: a transport recovers when its gateway is back")


async def closing_resolves_what_is_pending(maker: Maker) -> None:
    """Sends under way when the transport closes resolve; a promise that never resolves is the worst fault."""
    async with maker() as subject:
        if (gateway := subject.gateway) is None:
            return
        await subject.transport.__aenter__()
        message = subject.transport.prepare(NOTIFICATION)
        gateway.hold()
        tasks = [asyncio.ensure_future(subject.transport.send(message, delivery(subject, n))) for n in range(3)]
        await bounded(gateway.arrived(1), subject)
        await bounded(subject.transport.__aexit__(None, None, None), subject)
        for outcome in await bounded(asyncio.gather(*tasks), subject):
            law(isinstance(outcome, _UNSENT), f"closing resolves a send as Unavailable or Deferred, not {outcome!r}")


@played
async def check_pushes_to_nobody(subject: Subject, gateway: Gateway) -> None:
    """With right credentials `check` finds no problem, and no device hears of it."""
    diagnosis = await bounded(subject.transport.check(), subject)
    law(isinstance(diagnosis, Diagnosis) and diagnosis.ok, f"check finds right credentials right: {diagnosis!r}")
    law(not gateway.received(), "check pushes nothing")


async def nothing_shows_a_secret(maker: Maker) -> None:
    """No address and no credential in a `repr`, an outcome, a diagnosis or the log."""
    async with maker() as subject:
        hidden = [*subject.secrets]
        for n in range(2):
            hidden += [text for text in (*texts(subject.address(n)), parsed(subject, n).value) if len(text) > 5]
        with logged() as lines:
            shown: list[object] = [subject.transport]
            async with subject.transport as transport:
                shown += [transport.prepare(NOTIFICATION), delivery(subject, 0), parsed(subject, 0)]
                if (gateway := subject.gateway) is not None:
                    shown += [await send(subject, 0), await bounded(transport.check(), subject)]
                    for name in gateway.answers:
                        gateway.answer(name)
                        shown.append(await send(subject, 1))
            shown.append(subject.transport)
        for text in [*(f"{one!r} {one}" for one in shown), *lines]:
            law(not any(secret in text for secret in hidden), "nothing shows an address or a credential")


_CHECKS: tuple[Callable[[Maker], Awaitable[None]], ...] = (
    prepare_is_pure, prepare_refuses_too_large, prepare_refuses_what_is_no_json, what_fits_is_not_refused, addresses_are_canonical, invalid_addresses_are_refused,
    opening_connects_nowhere, closing_is_idempotent, every_answer_is_an_outcome, accepted_is_received_once, concurrent_sends_do_not_mix,
    a_cancelled_send_harms_no_other, a_silent_gateway_is_bounded, a_dying_gateway_is_bounded, closing_resolves_what_is_pending,
    check_pushes_to_nobody, nothing_shows_a_secret, *RUN_CHECKS,
)  # fmt: skip
CHECKS: dict[str, Callable[[Maker], Awaitable[None]]] = {check.__name__: check for check in _CHECKS}

SILENT = frozenset({a_silent_gateway_is_bounded.__name__, a_dying_gateway_is_bounded.__name__, *SILENT_RUNS})
"""The checks whose gateway falls silent, so that they wait for the deadline."""
