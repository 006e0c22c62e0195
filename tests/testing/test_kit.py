"""The virtual clock, the scripted transport, the ledger and the certificates."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from pathlib import Path

import pytest

from fanout.plugin import (
    ACCEPTED,
    Accepted,
    AddressInvalid,
    Context,
    Delivery,
    Gone,
    MessageTooLarge,
    Notification,
    Outcome,
    Rejected,
)
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedMessage, ScriptedSettings, ScriptedTransport, plugin
from fanout.testing.simulator import Authority, Ledger, read_ledger

pytestmark = pytest.mark.anyio

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
DIGEST = "00ff" * 8


def test_time_passes_when_told() -> None:
    clock = VirtualClock(100.0)
    clock.advance(5)
    clock.step(-50)
    assert (clock.now(), clock.monotonic()) == (55.0, 5.0)
    with pytest.raises(ValueError, match="step"):
        clock.advance(-1)


async def test_the_script_answers_and_is_remembered() -> None:
    held: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def script(message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
        match delivery.address:
            case "dead":
                return Gone("scripted")
            case "slow":
                return held
            case "broken":
                raise RuntimeError("scripted")
        return ACCEPTED

    async with ScriptedTransport(script) as transport:
        message = transport.prepare(Notification(title="t", id=ID))
        by_name = {name: Delivery.of(transport.parse_address(name)) for name in ("dead", "slow", "broken", "good")}
        slow = asyncio.ensure_future(transport.send(message, by_name["slow"]))
        await asyncio.sleep(0)
        assert transport.in_flight == 1
        assert await transport.send(message, by_name["good"]) is ACCEPTED
        assert isinstance(await transport.send(message, by_name["dead"]), Gone)
        with pytest.raises(RuntimeError, match="scripted"):
            await transport.send(message, by_name["broken"])
        held.set_result(Rejected("late"))
        assert await slow == Rejected("late")
    assert [sent.address for sent in transport.sends] == ["slow", "good", "dead", "broken"]
    assert transport.sends[0].notification == ID
    assert (transport.calls, transport.in_flight, transport.most_in_flight) == (4, 0, 2)


async def test_a_scripted_transport_has_the_manners_of_a_real_one() -> None:
    transport = ScriptedTransport(limit=100)
    delivery = Delivery.of(transport.parse_address(" Host.A/Phone "))
    assert (delivery.address, delivery.group) == ("host.a/phone", "host.a")
    with pytest.raises(RuntimeError, match="not open"):
        await transport.send(transport.prepare(Notification(title="t")), delivery)
    with pytest.raises(MessageTooLarge):
        transport.prepare(Notification(body="x" * 100))
    with pytest.raises(AddressInvalid):
        transport.parse_address("with blanks")


async def test_the_descriptor_makes_them() -> None:
    descriptor = plugin("pretend")
    assert callable(descriptor.factory)
    context = Context(app="default", binding="pretend", clock=VirtualClock(), rng=random.Random(1))
    transport = descriptor.factory(ScriptedSettings(capacity=3), context)
    assert transport.capacity("") == 3
    async with transport:
        delivery = Delivery.of(transport.parse_address("a"))
        assert await transport.send(transport.prepare(Notification()), delivery) == Accepted()


def test_a_ledger_is_read_back_without_its_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    ledger.add(ID, DIGEST, "", 1.5)
    assert list(read_ledger(path)) == []
    ledger.flush()
    second = Ledger(path)
    second.add("", DIGEST, ID, 2.5)
    second.close()
    second.close()
    ledger.close()
    with path.open("ab") as file:
        file.write(b"torn")
    assert list(read_ledger(path)) == [(ID, DIGEST, "", 1.5), ("", DIGEST, ID, 2.5)]


@pytest.mark.parametrize(("delivery", "address"), [("abc", DIGEST), (ID, "00ff"), (ID, "zz" * 16)])
def test_a_ledger_refuses_what_is_no_id(tmp_path: Path, delivery: str, address: str) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with pytest.raises(ValueError):
        ledger.add(delivery, address, "", 0.0)
    ledger.close()


def test_an_authority_outlives_its_simulator(tmp_path: Path) -> None:
    first = Authority(tmp_path)
    certificate, key = first.server()
    again = Authority(tmp_path)
    assert again.ca_file.read_bytes() == first.ca_file.read_bytes()
    assert again.server()[0].read_bytes() == certificate.read_bytes()
    assert os.stat(key).st_mode & 0o077 == 0
    assert os.stat(tmp_path / "ca.key").st_mode & 0o077 == 0
    context = ssl.create_default_context(cafile=str(first.ca_file))
    context.load_cert_chain(*first.client("com.example.app"))


def test_a_damaged_authority_is_replaced_as_a_whole(tmp_path: Path) -> None:
    first = Authority(tmp_path)
    old = first.server()[0].read_bytes()
    (tmp_path / "ca.key").unlink()
    assert Authority(tmp_path).server()[0].read_bytes() != old


def test_the_facade_finds_everything_that_it_names() -> None:
    import fanout.testing

    for name in fanout.testing.__all__:
        assert getattr(fanout.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = fanout.testing.nothing
