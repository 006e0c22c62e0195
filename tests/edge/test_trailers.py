"""Trailers of a chunked body (RFC 9110, section 6.5.1): no header ever, and bounded."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from edgerig import APP_KEY, BEARER, POST, Rig, answers, request
from proxies import PROXIES

from fanout.config import Limits
from fanout.service import from_config

PRIVATE = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
pytestmark = pytest.mark.anyio

AUTH = f"Authorization: {BEARER}"
ROUTES = [
    ("POST", "/v1/notifications"),
    ("POST", "/beta/me/notifications"),
    ("POST", "/me/notifications/"),
    ("POST", "/v1/endpoints"),
    ("POST", "/v1/endpoints/import"),
    ("PATCH", "/v1/endpoints/1"),
    ("DELETE", "/v1/users/alice"),
    ("POST", "/v1/me/subscriptions"),
    ("PATCH", "/v1/me/feed/x"),
    ("GET", "/v1/me/feed"),
    ("GET", "/v1/me/feed/events"),
    ("GET", "/v1/endpoints"),
]


def chunked(method: str, path: str, *lines: str, trailers: tuple[str, ...], host: str | None = "service") -> bytes:
    body = b"%x\r\n%s\r\n0\r\n" % (len(POST), POST) + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"
    kind = "application/x-ndjson" if path.endswith("import") else "application/json"
    return request(method, path, f"Content-Type: {kind}", "Transfer-Encoding: chunked", *lines, body=body, host=host)


@pytest.mark.parametrize("slowly", [False, True])
async def test_a_credential_in_a_trailer_is_none(rig: Rig, slowly: bool) -> None:
    for method, path in ROUTES:
        said = chunked(method, path, trailers=(AUTH, "X-UNS-ID: x"))
        if slowly:
            found = await in_pieces(rig, said.replace(b"Connection: close\r\n", b""))
        else:
            found = await rig.say(said)
        assert [each.status for each in found] == [401], path


async def in_pieces(rig: Rig, said: bytes) -> list[object]:
    """Head, then body and trailers, each when the loop has turned."""
    head, _, rest = said.partition(b"\r\n\r\n")
    reader, writer = await asyncio.open_connection(*rig.address)
    async with asyncio.timeout(120):
        for piece in (head + b"\r\n\r\n", rest[:20], rest[20:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        heard = await reader.readuntil(b"}}}")  # the end of the refusal
    writer.close()
    return list(answers(heard))


async def test_a_host_in_a_trailer_is_none(rig: Rig) -> None:
    found = await rig.say(chunked("POST", "/v1/notifications", AUTH, trailers=("Host: service",), host=None))
    assert [each.status for each in found] == [400]


async def test_a_trailer_changes_nothing_that_the_head_said(rig: Rig) -> None:
    said = chunked("POST", "/v1/notifications", AUTH, trailers=("Idempotency-Key: a", "Content-Type: text/plain", AUTH))
    first, second = [(await rig.one(said)).json() for _ in range(2)]
    assert first["id"] != second["id"], "the key in the trailer was taken"


@pytest.mark.parametrize("lines", [(), (AUTH,)], ids=["a stranger", "a caller"])
@pytest.mark.parametrize("kind", ["many", "one", "extension"])
async def test_trailers_without_end_end_the_connection(rig: Rig, kind: str, lines: tuple[str, ...]) -> None:
    """40 MB, without a credential and with one, where the body is waited for: the process stays as large as it was."""
    limit = Limits().header_bytes * 2 + 65_536
    head = chunked("POST", "/v1/notifications", *lines, trailers=())[:-2]
    pieces = {
        "many": (head, b"X-Padding: " + b"y" * 1011 + b"\r\n"),
        "one": (head + b"X-Padding: ", b"y" * 1024),
        "extension": (head[: head.index(b"\r\n\r\n") + 4] + b"1;x=", b"y" * 1024),
    }
    begin, piece = pieces[kind]
    begin = begin.replace(b"Connection: close\r\n", b"")  # it goes on after the refusal
    before = resident()
    reader, writer = await asyncio.open_connection(*rig.address)
    sent = 0
    async with asyncio.timeout(60):
        try:
            writer.write(begin)
            while sent < 40_000_000 and not reader.at_eof():
                writer.write(piece * 16)
                sent += 16 * len(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except (ConnectionError, BrokenPipeError):
            pass
    writer.close()
    # What the kernel had taken by then counts as sent.
    assert sent < limit + 20_000_000
    assert resident() - before < 16_000_000


def resident() -> int:
    """Bytes of memory of this process, which is the service's too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.external
@pytest.mark.parametrize("name", PROXIES)
async def test_through_a_proxy_that_deletes_the_header(name: str, tmp_path: Path, rig: Rig) -> None:
    """haproxy deletes the header and passes the trailer on; nginx drops trailers."""
    if name == "haproxy":
        proxy = PROXIES[name](tmp_path, rig.address, " http-request del-header Authorization")
    else:
        proxy = PROXIES[name](
            tmp_path,
            rig.address,
            'location / {{ proxy_set_header Authorization ""; proxy_pass http://{host}:{port}; }}',
        )
    async with proxy as address:
        for method, path in ROUTES:
            if method == "POST":
                said = chunked(method, path, AUTH, trailers=(AUTH,))
                assert (await rig.one(said, address=address)).status == 401, path


async def test_from_config_warns_under_a_server_that_believes_trailers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fanout.toml"
    file.write_text(
        f'storage = "memory:"\n[apps.default.transports.apns]\nteam_id = "ABCDE12345"\nkey_id = "ABC123DEFG"\ntopic = "x.y"\n'
        f'key_file = "key.p8"\n[[service.keys]]\nid = "{APP_KEY.id}"\nhash = "{APP_KEY.hash}"\n'
    )
    (tmp_path / "key.p8").write_bytes(PRIVATE)
    for loaded in (True, False):
        if not loaded:
            monkeypatch.delitem(sys.modules, "uvicorn.protocols.http.httptools_impl")
        caplog.clear()
        from_config(file)
        assert ("--http h11" in caplog.text) == loaded
