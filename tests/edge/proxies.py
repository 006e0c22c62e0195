"""nginx and haproxy before a service, each with its default configuration or one of the documentation's."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from fanout_kit.ports import free_port

Address = tuple[str, int]
Proxy = Callable[..., AbstractAsyncContextManager[Address]]


def program(name: str) -> str:
    """The program's path. Skips the test, by name, where it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.communicate()


NGINX = "location / {{ proxy_pass http://{host}:{port}; }}"


@asynccontextmanager
async def nginx(folder: Path, to: Address, server: str = NGINX, block: str = "") -> AsyncIterator[Address]:
    """nginx with these lines of a server: by default the bare `proxy_pass`, which is HTTP/1.0, rewrites Host and adds
    no mark.

    `block` is a whole `server { … }` instead, in which LISTEN stands for the address.
    """
    path, port = program("nginx"), free_port()
    lines = server.format(host=to[0], port=to[1])
    block = block or f"server {{\nlisten LISTEN;\n{lines}\n}}"
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr notice; {user}\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}\n{block.replace('LISTEN', f'127.0.0.1:{port}')}\n}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(path, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(120):
            while b"start worker process " not in said:  # it listens by then
                said += (await process.stderr.readline()) or b"start worker process "
        assert b"emerg" not in said, said.decode()
        reading = asyncio.create_task(process.stderr.read())
        yield "127.0.0.1", port
        process.terminate()
        await reading
    finally:
        await _end(process)


@asynccontextmanager
async def haproxy(folder: Path, to: Address, frontend: str = "", whole: str = "") -> AsyncIterator[Address]:
    """haproxy in HTTP mode, with more lines for its frontend: by default it passes everything on as it is.

    `whole` is a configuration instead, in which LISTEN stands for the address.
    """
    path = program("haproxy")
    with socket.create_server(("127.0.0.1", 0)) as listener:  # handed on, so that nobody has to wait until it listens
        listen = f"fd@{listener.fileno()}"
        (folder / "haproxy.cfg").write_text(
            whole.replace("LISTEN", listen)
            or "defaults\n mode http\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n"
            f"frontend f\n bind {listen}\n{frontend}\n default_backend b\nbackend b\n server s {to[0]}:{to[1]}\n"
        )
        process = await asyncio.create_subprocess_exec(
            *(path, "-db", "-f", str(folder / "haproxy.cfg")),
            pass_fds=(listener.fileno(),),
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield listener.getsockname()[:2]
        finally:
            await _end(process)


@asynccontextmanager
async def caddy(folder: Path, block: str) -> AsyncIterator[Address]:
    """Caddy with this site, in which PORT stands for the port that it listens on."""
    path, port = program("caddy"), free_port()
    (folder / "Caddyfile").write_text(
        # A client that asks by an address names no host in its handshake.
        f"{{\nadmin off\ngrace_period 100ms\nauto_https off\ndefault_sni push.example.com\n}}\n{block.replace('PORT', str(port))}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(path, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"),
        env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(120):
            while b"serving initial configuration" not in said:
                said += (await process.stderr.readline()) or b"serving initial configuration"
        reading = asyncio.create_task(process.stderr.read())
        yield "127.0.0.1", port
        process.terminate()
        await reading
    finally:
        await _end(process)


PROXIES: dict[str, Proxy] = {"nginx": nginx, "haproxy": haproxy}
