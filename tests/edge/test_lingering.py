"""A refusal reaches a client that is still sending its body: directly, over TLS, and through proxies."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from authority import Authority
from edgerig import BEARER, Rig, answers, request, running
from proxies import PROXIES
from test_tls import secured

from fanout.service import lingering, server
from fanout.service.tls import ServerTls

pytestmark = pytest.mark.anyio

KNOWN = f"Authorization: {BEARER}"
JSON = "Content-Type: application/json"
LARGE = b" " * 3_000_000
"""More than the buffers of the kernel hold for a connection, and more than a post may have."""


def blind(address: tuple[str, int], data: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a client hears that sends everything before it reads. Raises `OSError` where the connection is reset."""
    with socket.create_connection(address, 30) as client:
        talks = client if context is None else context.wrap_socket(client, server_hostname="127.0.0.1")
        talks.sendall(data)
        heard = b""
        while (context is None or b"}}}" not in heard) and (part := talks.recv(65_536)):
            heard += part  # TLS of asyncio cannot end one side alone
        talks.close()
        return heard


SAID = {
    "too large": (413, request("POST", "/v1/notifications", KNOWN, JSON, body=LARGE)),
    "no credential": (401, request("POST", "/v1/notifications", JSON, body=LARGE)),
    "of no kind": (415, request("POST", "/v1/notifications", KNOWN, "Content-Type: text/xml", body=LARGE)),
    "nowhere": (404, request("POST", "/nowhere", KNOWN, body=LARGE)),
    "no request": (400, b"GARBAGE\r\n\r\n" + LARGE),
    "no chunks": (400, request("POST", "/v1/notifications", "Transfer-Encoding: chunked") + b"ZZ\r\n" + LARGE),
}


async def test_who_sends_everything_first_reads_the_answer() -> None:
    async with running() as rig:
        for name, (status, said) in SAID.items():
            heard = await asyncio.to_thread(blind, rig.address, said)
            assert [each.status for each in answers(heard)] == [status], name


async def test_over_tls_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("service")
    context = ssl.create_default_context(cafile=str(authority.file))
    async with secured(ServerTls(own.certificate, own.key)) as address:
        status, said = SAID["too large"]
        heard = await asyncio.to_thread(blind, address, said, context)
    assert [each.status for each in answers(heard)] == [status]


@pytest.mark.external
@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxy_tells_its_client_what_the_service_said(name: str, tmp_path: Path) -> None:
    """Before, nginx said 502 and haproxy nothing: a fault of the client, told as one of the service."""
    async with running() as rig:
        body = "location / {{ client_max_body_size 0; proxy_pass http://{host}:{port}; proxy_http_version 1.1; }}"
        proxy = PROXIES[name](tmp_path, rig.address, *((body,) if name == "nginx" else ()))
        async with proxy as address:
            for kind in ("too large", "no credential"):
                status, said = SAID[kind]
                for _ in range(5):
                    assert (await rig.one(said, address=address)).status == status, kind


async def lasting(rig: Rig, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the service has ended its side."""
    reader, writer = await asyncio.open_connection(*rig.address)
    writer.write(said)
    await reader.read()
    return reader, writer


async def test_who_goes_on_sending_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "_MOST", 100_000)
    async with running() as rig, asyncio.timeout(120):
        _, writer = await lasting(rig, request("POST", "/v1/notifications", "Content-Length: 100000000"))
        with pytest.raises(OSError):  # noqa: PT012 - how much the kernels take is their affair
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()


@pytest.mark.parametrize("bound", ["_PATIENCE", "_SILENCE"])
async def test_who_neither_sends_nor_ends_is_ended(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, bound, 0.01)
    monkeypatch.setattr(server, "_SWEEP", 1)
    async with running() as rig, asyncio.timeout(120):
        _, writer = await lasting(rig, request("POST", "/v1/notifications", "Content-Length: 1000000"))
        with pytest.raises(OSError):  # noqa: PT012 - the second write meets the reset
            while True:
                await asyncio.sleep(0.3)
                writer.write(b" ")
                await writer.drain()
        writer.close()
