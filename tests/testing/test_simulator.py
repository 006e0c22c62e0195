"""The strict server, as hyper-h2 and httpx see it."""

from __future__ import annotations

import asyncio
import ssl
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

from fanout.testing.simulator import Faults, Reply, read_ledger
from fanout.testing.simulator.frames import PREFACE, frame, settings

pytestmark = pytest.mark.anyio

DIGEST = "0123456789abcdef" * 2
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_an_independent_client_is_served(echo: Any) -> None:
    async with echo() as simulator:
        context = ssl.create_default_context(cafile=simulator.ca_file)
        async with httpx.AsyncClient(http2=True, verify=context, trust_env=False) as client:
            answers = await asyncio.gather(
                *[client.post(f"{simulator.url}/echo", content=b"%d" % n) for n in range(100)]
            )
        assert [answer.content for answer in answers] == [b"%d" % n for n in range(100)]
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        assert simulator.counters.requests == 100
        assert not simulator.counters.violations


async def test_counters_follow_what_happens(echo: Any, connect: Any) -> None:
    async with echo() as simulator, connect(simulator) as client:
        accepted = client.request(f"/push/{DIGEST}", b"{}", apns_id=ID)
        refused = client.request("/error/TooBad")
        assert (await client.answer(accepted))[1]["x-long"] == "v" * 300
        assert await client.answer(refused) == (503, {}, b"TooBad")
        counters = simulator.counters.as_dict()
        assert (counters["accepted"], counters["rejected"]) == (1, {"TooBad": 1})
        assert (counters["connections"], counters["open_connections"]) == (1, 1)
    assert simulator.counters.open_connections == 0


async def test_large_bodies_respect_both_windows(echo: Any, connect: Any) -> None:
    body = bytes(range(256)) * 300  # 76,800 bytes: above the initial windows of both sides
    async with echo() as simulator, connect(simulator) as client:
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(
            stream, [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/echo")]
        )
        rest = body
        while rest:
            room = min(client.h2.local_flow_control_window(stream), 16_384, len(rest))
            if room == 0:
                await client.read()
                continue
            client.h2.send_data(stream, rest[:room], end_stream=room == len(rest))
            rest = rest[room:]
            client.flush()
        assert await client.answer(stream) == (200, {"x-method": "POST"}, body)
        assert not simulator.counters.violations


async def test_settings_change_in_mid_flight(echo: Any, connect: Any) -> None:
    async with echo(streams=100) as simulator, connect(simulator) as client:
        simulator.announce(3)
        while client.limits[-1] != 3:
            await client.read()
        assert (await client.answer(client.request("/echo")))[0] == 200
        assert simulator.streams == 3


async def test_streams_above_the_limit_are_refused(echo: Any, connect: Any) -> None:
    async with echo(streams=2) as simulator, connect(simulator) as client:
        simulator.script = lambda request: Reply(200, after=0.05)
        client.h2.remote_settings.update({3: 100})  # a client that does not listen
        client.h2.remote_settings.acknowledge()
        streams = [client.request("/echo") for _ in range(3)]
        answers = [await client.answer(stream) for stream in streams]
        assert [answer if isinstance(answer, int) else answer[0] for answer in answers] == [200, 200, 7]
        assert simulator.counters.refused == 1


async def test_a_graceful_goaway_answers_what_it_covers(echo: Any, connect: Any) -> None:
    async with echo() as simulator, connect(simulator) as client:
        simulator.script = lambda request: Reply(200, after=0.05)
        stream = client.request("/echo")
        await simulator.requested(1)
        simulator.go_away(debug=b'{"reason":"Shutdown"}')
        assert (await client.answer(stream))[0] == 200
        await client.until_closed()
        assert [(event.last_stream_id, event.additional_data) for event in client.goaways] == [
            (stream, b'{"reason":"Shutdown"}')
        ]


async def test_silence_and_disconnect(echo: Any, connect: Any) -> None:
    async with echo() as simulator, connect(simulator) as client:
        simulator.silent = True
        client.request("/echo")
        client.h2.ping(b"12345678")
        client.flush()
        await simulator.disconnect()
        await client.until_closed()
        assert simulator.counters.requests == 0
        assert simulator.counters.pings == 0


async def test_the_ledger_is_written_before_the_answer(echo: Any, connect: Any, tmp_path: Any) -> None:
    path = tmp_path / "ledger"
    async with echo(ledger=path, clock=lambda: 7.5) as simulator, connect(simulator) as client:
        await client.answer(client.request(f"/push/{DIGEST}", b"{}", apns_id=ID))
        [entry] = read_ledger(path)  # while the simulator still runs
        assert entry == (ID, DIGEST, "", 7.5)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1),
        (PREFACE + settings({}) + frame(0, 0, 1, b"early"), 1),
        (PREFACE + settings({}) + frame(6, 0, 0, b"short"), 6),
        (PREFACE + settings({}) + frame(6, 0, 3, b"12345678"), 1),
        (PREFACE + settings({}) + frame(5, 4, 1, b"\0\0\0\2"), 1),
        (PREFACE + settings({}) + frame(8, 0, 0, bytes(4)), 1),
        (PREFACE + settings({}) + frame(8, 0, 5, b"\0\0\0\1"), 1),
        (PREFACE + settings({4: 1 << 31}), 3),
        (PREFACE + settings({5: 100}), 1),
        (PREFACE + frame(4, 0, 0, b"12345"), 6),
        (PREFACE + settings({}) + frame(9, 4, 1, b"\x82"), 1),
        (PREFACE + settings({}) + frame(1, 5, 2, b"\x82\x87\x84"), 1),
        (PREFACE + settings({}) + frame(1, 5, 1, b"\x82\x84"), 1),
        (PREFACE + settings({}) + frame(1, 5, 1, b"\xff\xff\xff"), 9),
        (PREFACE + settings({}) + frame(1, 1, 1, b"\x82") + frame(6, 0, 0, bytes(8)), 1),
        (PREFACE + settings({}) + frame(1, 0xD, 1, b"\x09\x82"), 1),
        (PREFACE + settings({}) + frame(1, 5, 1, b"\x82\x87\x84\x00\x01X\x01y"), 1),
        (PREFACE + settings({}) + frame(1, 5, 1, b"\x82\x87\x84\x00\x0aconnection\x01y"), 1),
        (PREFACE + settings({}) + frame(0, 0, 0), 1),
        (PREFACE + settings({}) + struct.pack("!IBI", 20_000 << 8, 0, 1), 6),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told(echo: Any, connect: Any, raw: bytes, code: int) -> None:
    async with echo() as simulator, connect(simulator, start=False) as client:
        client.h2.initiate_connection()
        client.h2.data_to_send()
        client.writer.write(raw)
        await client.until_closed()
        assert [int(event.error_code) for event in client.goaways] == [code]
        assert len(simulator.counters.violations) == 1


async def test_frames_split_at_any_byte_are_understood(echo: Any, connect: Any) -> None:
    async with echo() as simulator, connect(simulator, start=False) as client:
        client.h2.initiate_connection()
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(
            stream, [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/echo")]
        )
        client.h2.send_data(stream, b"abc", end_stream=True, pad_length=9)
        for byte in client.h2.data_to_send():
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        assert await client.answer(stream) == (200, {"x-method": "POST"}, b"abc")


FAULTS = [
    (Faults(errors={"Whatever": 1.0}), (503, "Whatever"), 0),
    (Faults(refuse=1.0), 7, 0),
    (Faults(reset=1.0, reset_code=11), 11, 0),
    (Faults(reset_after=1.0, reset_code=8), 8, 1),
    (Faults(kill_before=1.0), "closed", 0),
    (Faults(kill_after=1.0), "closed", 1),
]


@pytest.mark.parametrize(("faults", "expected", "accepted"), FAULTS)
async def test_a_fault_happens_before_or_after_acceptance(
    echo: Any, connect: Any, tmp_path: Any, faults: Faults, expected: Any, accepted: int
) -> None:
    path = tmp_path / "ledger"
    async with echo(faults=faults, ledger=path) as simulator, connect(simulator) as client:
        stream = client.request(f"/push/{DIGEST}", b"{}")
        try:
            answer = await client.answer(stream)
        except ConnectionError:
            answer = "closed"
        assert (answer[0], answer[2].decode()) == expected if isinstance(answer, tuple) else answer == expected
        assert simulator.counters.accepted == accepted
        assert len(list(read_ledger(path))) == accepted


@pytest.mark.parametrize(("faults", "accepted"), [(Faults(stall=1.0), 0), (Faults(stall_after=1.0), 1)])
async def test_a_stall_never_answers(echo: Any, connect: Any, faults: Faults, accepted: int) -> None:
    async with echo(faults=faults) as simulator, connect(simulator) as client:
        stalled = client.request(f"/push/{DIGEST}", b"{}")
        await simulator.requested(1)
        simulator.faults = Faults()
        await client.answer(client.request("/echo"))
        assert stalled not in client.done
        assert (simulator.counters.stalls, simulator.counters.accepted) == (1, accepted)


async def test_a_late_decision_is_in_the_ledger_with_its_answer(echo: Any, connect: Any, tmp_path: Path) -> None:
    """Not with the request: a client that believes in an acceptance before the answer is found out by it."""
    ledger = tmp_path / "ledger"
    late = Faults(delay=1.0, delay_seconds=3600, decide_late=True)
    async with echo(faults=late, ledger=ledger) as simulator, connect(simulator) as client:
        client.request(f"/push/{DIGEST}", b"{}")
        await simulator.requested(1)
        simulator.faults = Faults()
        await client.answer(client.request(f"/push/{DIGEST}", b"{}"))
        assert (simulator.counters.accepted, ledger.stat().st_size) == (1, 56)
        simulator.faults = Faults(delay=1.0, delay_seconds=0.01, decide_late=True)
        await client.answer(client.request(f"/push/{DIGEST}", b"{}"))
        assert (simulator.counters.accepted, ledger.stat().st_size) == (2, 112)


async def test_a_delay_holds_up_nobody_else(echo: Any, connect: Any) -> None:
    async with echo(faults=Faults(delay=1.0, delay_seconds=3600)) as simulator, connect(simulator) as client:
        late = client.request(f"/push/{DIGEST}", b"{}")
        await simulator.requested(1)
        simulator.faults = Faults(delay=1.0, delay_seconds=0.01)
        assert (await client.answer(client.request("/echo")))[0] == 200
        assert late not in client.done
        assert simulator.counters.accepted == 1


async def test_goaway_every_n_requests_and_short(echo: Any, connect: Any) -> None:
    faults = Faults(goaway_every=3, goaway_short=2)
    async with echo(faults=faults) as simulator, connect(simulator) as client:
        for _ in range(2):
            await client.answer(client.request(f"/push/{DIGEST}", b"{}"))
        client.request(f"/push/{DIGEST}", b"{}")
        await client.until_closed()
        assert [event.last_stream_id for event in client.goaways] == [1]  # though 3 and 5 were handled
        assert simulator.counters.accepted == 3


async def test_limits_shrink_and_recover(echo: Any, connect: Any) -> None:
    async with echo(faults=Faults(shrink_every=2, shrink_to=5)) as simulator, connect(simulator) as client:
        for _ in range(5):
            await client.answer(client.request("/echo"))
        assert client.limits == [1000, 5, 1000]


async def test_bodies_are_split(echo: Any, connect: Any) -> None:
    async with echo(faults=Faults(body_chunk=2)) as simulator, connect(simulator) as client:
        assert await client.answer(client.request("/error/abcde")) == (503, {}, b"abcde")
        assert [event.data for event in client.frames] == [b"ab", b"cd", b"e"]


async def test_fractions_are_kept_and_repeat(echo: Any, connect: Any) -> None:
    counts = []
    for _ in range(2):
        faults = Faults(seed=5, errors={"A": 0.2, "B": 0.1})
        async with echo(faults=faults) as simulator, connect(simulator) as client:
            for _ in range(200):
                await client.answer(client.request("/echo"))
            counts.append(dict(simulator.counters.rejected))
    assert counts[0] == counts[1]
    assert 20 < counts[0]["A"] < 60
    assert 8 < counts[0]["B"] < 35


def test_fractions_must_fit() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        Faults(stall=0.6, reset=0.6)
    with pytest.raises(ValueError, match="stal"):
        Faults.parse({"stal": 1})


async def test_lean_answers_everything(echo: Any, connect: Any) -> None:
    async with echo(lean=True) as simulator, connect(simulator) as client:
        client.h2.ping(b"12345678")
        streams = [client.request("/anything", b"x" * 100) for _ in range(50)]
        answers = [await client.answer(stream) for stream in streams]
        assert {answer[0] for answer in answers if isinstance(answer, tuple)} == {200}
        assert simulator.counters.accepted == 50
        client.h2.close_connection()


def test_lean_is_lean(echo: Any, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="lean"):
        echo(lean=True, folder=tmp_path, faults=Faults(stall=0.1))
    simulator = echo(lean=True, folder=tmp_path)
    with pytest.raises(ValueError, match="lean"):
        simulator.faults = Faults(delay=0.1)


async def test_closing_leaves_nothing(echo: Any, connect: Any) -> None:
    before = asyncio.all_tasks()
    simulator = echo()
    async with simulator, connect(simulator) as client:
        client.request("/echo")
    await simulator.__aexit__(None, None, None)
    assert {task for task in asyncio.all_tasks() if not task.done()} <= before
    assert not simulator.folder.exists()
