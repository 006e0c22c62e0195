"""Answers are read into one buffer for each loop: no fresh memory, and so no page fault, for each of them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fanout.http.buffers import Buffered, Forwarding, SmallTls
from fanout_kit.ports import free_port
from tests.http.gateway import Certificates
from tests.http.test_external import needs, running

pytestmark = pytest.mark.anyio

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ }}
http {{
  access_log off; keepalive_requests 1000000; http2_max_concurrent_streams 200;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ return 200; }}
  }}
}}
"""

_CLIENT = """
import asyncio, resource, sys
from fanout.http import H2Pool, Head, Http1Client, Http1Settings, PoolSettings, client_tls

URL, CA, PROTOCOL = sys.argv[1:4]
HEAD = Head("POST", "https", "gateway.test", [])

async def faults(one, count):
    async def turn():
        for _ in range(count // 20):
            await one()
    await asyncio.gather(*(turn() for _ in range(20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    await asyncio.gather(*(turn() for _ in range(20)))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

async def main():
    if PROTOCOL == "h2":
        async with H2Pool(URL, ssl_context=client_tls(ca_file=CA), settings=PoolSettings(connections=1)) as pool:
            print(await faults(lambda: pool.request(HEAD, b"/", b"", b""), 2000))
    else:
        tls = client_tls(ca_file=CA, alpn=("http/1.1",))
        async with Http1Client(ssl_context=tls, settings=Http1Settings(connections=4)) as client:
            print(await faults(lambda: client.request("POST", URL + "/", {}), 1000))

if sys.argv[4] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.external
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_a_fresh_process_has_no_page_fault_for_each_answer(
    certificates: Certificates, tmp_path: Path, loop: str, protocol: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="install uvloop (pip install 'fanout-push[speed]')")
    program, port = needs("nginx", "nginx"), free_port()
    config, client = tmp_path / "nginx.conf", tmp_path / "client.py"
    config.write_text(_NGINX.format(folder=tmp_path, port=port, cert=certificates.cert, key=certificates.key))
    client.write_text(_CLIENT)
    command = [program, "-p", str(tmp_path), "-c", str(config), "-e", str(tmp_path / "error.log")]
    async with running(*command, port=port) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(client), url, certificates.ca, protocol, loop),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
        )
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert float(said) < 0.05


async def test_all_connections_of_a_loop_share_one_buffer() -> None:
    first, second = Buffered(), Buffered()
    assert first.get_buffer(-1) is second.get_buffer(-1)


async def test_what_came_is_a_copy() -> None:
    got: list[bytes] = []

    class Inner(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.append(data)

    protocol = Forwarding(Inner())
    for word in (b"first", b"next!"):
        protocol.get_buffer(-1)[: len(word)] = word
        protocol.buffer_updated(len(word))
    assert got == [b"first", b"next!"]


def test_tls_under_asyncio_keeps_a_record_for_each_connection_and_not_sixteen() -> None:
    assert SmallTls.max_size == 16_384
