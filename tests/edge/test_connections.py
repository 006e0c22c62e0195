"""How many connections there may be, in all and of one peer, and which of them end: over real sockets, and as a rule
over all histories."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from edgerig import Rig, request, running
from hypothesis import given
from hypothesis import strategies as st

from fanout.config import Limits
from fanout.service import server
from fanout.service.connections import Connections, room

anyio = pytest.mark.anyio
STEPS = st.lists(st.tuples(st.sampled_from(["open", "work", "wait", "close"]), st.integers(0, 30), st.integers(0, 4)))


@given(STEPS, st.integers(1, 12), st.integers(1, 6))
def test_no_history_leads_beyond_a_limit(steps: list[tuple[str, int, int]], most: int, per_peer: int) -> None:
    kept: Connections[int] = Connections(most, per_peer)
    open_, working = {}, set()
    for what, number, peer in steps:
        if what == "open" and number not in open_:
            stays, victim = kept.admit(number, f"peer {peer}" if peer else "")
            if victim is not None:
                assert stays
                assert victim in open_, "only what is open is ended"
                assert victim not in working, "what is being answered is never ended for a new one"
                del open_[victim]
            if stays:
                open_[number] = peer
            else:
                mine = [each for each in open_ if open_[each] == peer] if peer else []
                full = len(open_) >= most or len(mine) >= min(per_peer, max(1, most // 4))
                assert full, "there was room"
        elif what == "work" and number in open_:
            kept.works(number)
            working.add(number)
        elif what == "wait" and number in open_:
            kept.waits(number)
            working.discard(number)
        elif what == "close":
            kept.closed(number)
            open_.pop(number, None)
            working.discard(number)
        working &= open_.keys()
        assert len(kept) == len(open_) <= most
        peers = Counter(peer for peer in open_.values() if peer)
        assert all(count <= min(per_peer, max(1, most // 4)) for count in peers.values())


def test_descriptors_are_kept_back() -> None:
    assert room(20_000, 1024) == 1024 - 128
    assert room(20_000, 200) == 100
    assert room(20_000, 1) == 1
    assert room(50, 1024) == 50
    assert room(10**9) >= 1


@contextmanager
def connected(rig: Rig, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """So many connections from that address on which nothing is said."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            made = stack.enter_context(socket.create_connection(rig.address, 20, source_address=(source, 0)))
            made.setblocking(False)
            found.append(made)
        yield found


async def ended(connection: socket.socket) -> bool:
    """Whether the server ends it, within half a minute."""
    async with asyncio.timeout(120):
        try:
            while await asyncio.get_running_loop().sock_recv(connection, 65_536):
                pass
        except OSError:
            return True
    return True


async def served(rig: Rig, source: str) -> int:
    """The status of a request from that address."""
    reader, writer = await asyncio.open_connection(*rig.address, local_addr=(source, 0))
    async with asyncio.timeout(120):
        writer.write(request("GET", "/health"))
        line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@anyio
async def test_who_only_holds_connections_holds_nobody_off() -> None:
    async with running(limits=Limits(connections=40, connections_per_peer=1000)) as rig:
        with ExitStack() as stack:
            held = [stack.enter_context(connected(rig, 10, f"127.0.0.{number}"))[0] for number in range(10, 20)]
            assert await served(rig, "127.0.0.1") == 200
            assert await ended(held[0])


@anyio
async def test_one_peer_has_a_quarter_at_most_and_the_others_the_rest() -> None:
    async with running(limits=Limits(connections=40, connections_per_peer=4)) as rig:
        with connected(rig, 6, "127.0.0.9") as held:
            # For each beyond the fourth the oldest ends.
            assert [await ended(each) for each in held[:2]] == [True, True]
            assert await served(rig, "127.0.0.9") == 200
            assert await served(rig, "127.0.0.1") == 200


@anyio
async def test_a_trusted_proxy_has_no_limit_of_its_own() -> None:
    limits = Limits(connections=100, connections_per_peer=2)
    async with running(limits=limits, trusted_proxies=("127.0.0.9/32",)) as rig:
        with connected(rig, 30, "127.0.0.9") as held:
            assert await served(rig, "127.0.0.9") == 200
            for each in held:
                with pytest.raises(BlockingIOError):
                    each.recv(1)


@anyio
@pytest.mark.parametrize("path", ["/v1/endpoints", "/me/notifications", "/v1/endpoints/import", "/health", "/nowhere"])
@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_not_read_ends_its_connection(path: str, framing: str) -> None:
    """The answer comes at once, and what would come of the body is not waited for."""
    async with running() as rig:
        data = request("POST", path, framing, "Connection: keep-alive") + b"5\r\nhello"
        (answer,) = await rig.say(data)
        assert answer.status in (401, 404, 405)
        assert answer.headers["connection"] == "close"


@anyio
async def test_a_client_that_reads_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_UNREAD", 0.05)
    monkeypatch.setattr(server, "_SWEEP", 1)
    async with running() as rig:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, rig.address)
            asked = b"GET /openapi.json HTTP/1.1\r\nHost: service\r\n\r\n"
            with pytest.raises(OSError):  # noqa: PT012 - how much is taken before the server gives up is its system's affair
                async with asyncio.timeout(60):
                    while True:
                        await loop.sock_sendall(client, asked)
                        await asyncio.sleep(0)
        assert await served(rig, "127.0.0.1") == 200


@anyio
@pytest.mark.parametrize("path", ["/v1/endpoints", "/me/notifications"])
async def test_a_refused_body_that_has_arrived_leaves_the_connection_open(path: str) -> None:
    async with running() as rig:
        refused = request("POST", path, "Content-Length: 5", "Connection: keep-alive") + b"hello"
        first, second = await rig.say(refused + request("GET", "/health"))
        assert (first.status, second.status) == (401, 200)
        assert "connection" not in first.headers
