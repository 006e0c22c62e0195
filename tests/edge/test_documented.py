"""The configurations of `docs/behind-a-proxy.md`, each with its program where that is installed."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from authority import Authority
from edgerig import BEARER, POST, Answer, answers, engine_of, request, running, say, settings_of
from proxies import Address, caddy, haproxy, nginx

from fanout.service import create_app
from fanout.service.request import Request

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "behind-a-proxy.md"
LIES = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http", "Forwarded: for=7.7.7.7;host=evil.example;proto=http")  # fmt: skip


def block(language: str) -> str:
    """The page's first block in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, language
    return found.group(1)


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    """The text with each first of a pair replaced. All of them must stand in it."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def documented(name: str, folder: Path, authority: Authority, to: Address) -> AsyncIterator[Address]:
    made = authority.issue("push.example.com")
    upstream = ("127.0.0.1:8080", f"{to[0]}:{to[1]}")
    if name == "nginx":
        files = (f"/etc/ssl/push.example.com.{each}" for each in ("crt", "key"))
        pairs = zip(files, (str(made.certificate), str(made.key)), strict=True)
        text = swapped(block(name), ("listen 443 ssl", "listen LISTEN ssl"), upstream, *pairs)
        proxy: Any = nginx(folder, to, block=text)
    elif name == "haproxy":
        joined = folder / "joined.pem"
        joined.write_bytes(made.certificate.read_bytes() + made.key.read_bytes())
        text = swapped(
            block(name), ("bind :443", "bind LISTEN"), upstream, ("/etc/ssl/push.example.com.pem", str(joined))
        )
        proxy = haproxy(folder, to, whole=text)
    else:
        site = f"https://push.example.com:PORT {{\n    bind 127.0.0.1\n    tls {made.certificate} {made.key}"
        proxy = caddy(folder, swapped(block(name), ("https://push.example.com {", site), upstream))
    async with proxy as address:
        yield address


async def ask(authority: Authority, address: Address, data: bytes, until: bytes = b"") -> list[Answer]:
    """The answers over TLS, or where `until` is given, what was heard up to it."""
    context = ssl.create_default_context(cafile=str(authority.file))
    async with asyncio.timeout(120):
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        writer.write(data)
        heard = await (reader.readuntil(until) if until else reader.read())
        writer.close()
    return answers(heard) if not until else [Answer(200, {}, heard)]


@pytest.mark.external
@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy"])
async def test_a_documented_proxy(name: str, tmp_path: Path) -> None:
    authority, seen = Authority(tmp_path), list[Request]()
    async with running(trusted_proxies=("127.0.0.1", "::1")) as rig:
        authenticate = rig.app.state.service.authenticator.authenticate

        async def noting(asked: Request) -> Any:
            seen.append(asked)
            return await authenticate(asked)

        rig.app.state.service.authenticator.authenticate = noting
        async with documented(name, tmp_path, authority, rig.address) as address:
            lines = (f"Authorization: {BEARER}", "Content-Type: application/json", *LIES)
            said = request("POST", "/v1/notifications", *lines, body=POST, host="push.example.com")
            (posted,) = await ask(authority, address, said)
            assert posted.status == 202, posted
            assert posted.headers["location"].startswith("https://push.example.com/v1/notifications/")
            assert [each.peer for each in seen] == ["127.0.0.1"], "the client is this machine, whatever it says"
            (metrics,) = await ask(authority, address, request("GET", "/metrics", host="push.example.com"))
            assert metrics.status == 404
            user = f"Authorization: {rig.user()}"
            said = request("GET", "/v1/me/feed/events", user, "Connection: keep-alive", host="push.example.com")
            await ask(authority, address, said, until=b"event: cursor\n")  # and not when a buffer is full


def test_the_services_part_of_the_page_is_a_configuration() -> None:
    import tomllib

    found = tomllib.loads(block("toml"))["service"]
    settings = settings_of(trusted_proxies=tuple(found["trusted_proxies"]), public_url=found["public_url"])
    assert settings.service.public_url == "https://push.example.com"


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_trailers_under_another_server(http: Any) -> None:
    """The page's table: h11 drops them. With httptools what comes after the service is called is nobody's."""
    app = create_app(engine_of(), settings_of())
    config = uvicorn.Config(app, port=0, http=http, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    async with app.state.service:
        running_server = asyncio.create_task(server._serve())
        try:
            async with asyncio.timeout(120):
                while not server.started:
                    await asyncio.sleep(0.001)
            address = server.servers[0].sockets[0].getsockname()[:2]
            body = b"%x\r\n%s\r\n0\r\n" % (len(POST), POST)
            head = request("POST", "/v1/notifications", "Content-Type: application/json", "Transfer-Encoding: chunked")
            trailer = f"Authorization: {BEARER}\r\n\r\n".encode()
            if http == "h11":
                found = await say(address, head + body + trailer)
                assert [each.status for each in found] == [401]
            else:
                reader, writer = await asyncio.open_connection(*address)
                async with asyncio.timeout(120):
                    writer.write(head)
                    heard = await reader.readuntil(b"}}}")  # answered before the trailer came
                    writer.write(body + trailer)
                writer.close()
                assert [each.status for each in answers(heard)] == [401]
        finally:
            server.should_exit = True
            await running_server
