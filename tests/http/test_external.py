"""The client against HTTP/2 servers that are not Python: nghttp2's nghttpd, Node's http2 module, and nginx."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from fanout.http import H2Pool, PoolSettings, RequestFailed, Response, client_tls, literal
from fanout_kit.ports import free_port
from tests.http.gateway import HEAD, Certificates, failure

pytestmark = [pytest.mark.anyio, pytest.mark.external]


def needs(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"install {package}, which has {program}")
    return found


@asynccontextmanager
async def running(*command: str, port: int) -> AsyncIterator[str]:
    """A server of another make, from when it accepts connections to the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            assert process.returncode is None, f"{command[0]} ended at once"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                break
        yield f"https://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def ask_many(pool: H2Pool, count: int, path: bytes, body: bytes) -> list[Response]:
    """Answers to `count` requests, asking again where one was certainly not processed."""

    async def one(number: int) -> Response:
        while True:
            try:
                return await pool.request(HEAD, path, literal("apns-id", str(number)), body)
            except RequestFailed as failed:
                assert failed.sent == "no", failed.reason
                await asyncio.sleep(0.01)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def test_nghttpd(certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    program, port = needs("nghttpd", "nghttp2-server"), free_port()
    (tmp_path / "file").write_bytes(b"f" * 3000)
    command = [program, "-a", "127.0.0.1", "-d", str(tmp_path), "-m", "50", "--padding=20", "--hexdump"]
    async with (
        running(*command[:-1], str(port), certificates.key, certificates.cert, port=port) as url,
        H2Pool(url, ssl_context=trusting) as pool,
    ):
        answers = await ask_many(pool, 500, b"/file", b"b" * 4000)
        assert {(answer.status, answer.body) for answer in answers} == {(200, b"f" * 3000)}
        (missing,) = await ask_many(pool, 1, b"/missing", b"")
        assert missing.status == 404
        assert (missing.header("server") or "").startswith("nghttpd")
        assert pool.in_flight == 0
        assert pool.capacity() <= 100


async def test_nghttpd_with_a_table_of_nothing(
    certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    program, port = needs("nghttpd", "nghttp2-server"), free_port()
    (tmp_path / "file").write_bytes(b"")
    command = [program, "-a", "127.0.0.1", "-d", str(tmp_path), "--header-table-size=0", "--window-bits=1"]
    async with (
        running(*command, str(port), certificates.key, certificates.cert, port=port) as url,
        H2Pool(url, ssl_context=trusting) as pool,
    ):
        answers = await ask_many(pool, 100, b"/file", b"b" * 100)
        assert {answer.status for answer in answers} == {200}


async def test_a_gateway_whose_process_is_stopped_is_found_out_and_used_again_when_it_goes_on(
    certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    program, port = needs("nghttpd", "nghttp2-server"), free_port()
    (tmp_path / "file").write_bytes(b"")
    command = [program, "-a", "127.0.0.1", "-d", str(tmp_path), str(port), certificates.key, certificates.cert]
    quick = PoolSettings(tick=0.02, stall_ping=0.2, ping_timeout=0.2, connect_timeout=60.0, request_timeout=60.0)
    async with (
        running(*command, port=port) as url,
        H2Pool(url, ssl_context=trusting, settings=quick) as pool,
    ):
        await ask_many(pool, 1, b"/file", b"")
        process = next(child for child in psutil.Process().children() if child.name() == "nghttpd")
        process.suspend()
        futures = [pool.request(HEAD, b"/file", b"", b"x") for _ in range(5)]
        for future in futures:
            assert await failure(future) == ("unknown", "ping")
        after = pool.request(HEAD, b"/file", b"", b"")
        process.resume()
        assert (await after).status == 200
        assert pool.in_flight == 0


NODE = """
const http2 = require('http2'), fs = require('fs');
const [port, key, cert] = process.argv.slice(2);
const server = http2.createSecureServer({key: fs.readFileSync(key), cert: fs.readFileSync(cert),
  settings: {maxConcurrentStreams: 40, initialWindowSize: 1000, headerTableSize: 128}});
let seen = 0;
server.on('session', session => {
  session.on('error', () => {});
  let n = 0;
  session.on('stream', stream => { if (++n == 60) session.close(); if (n == 20) session.settings({maxConcurrentStreams: 10}); });
});
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  let size = 0;
  stream.on('data', part => size += part.length);
  stream.on('end', () => {
    const id = headers['apns-id'];
    if (++seen % 5 == 0) { stream.additionalHeaders({':status': 103, link: '</x>'}); }
    stream.respond({':status': seen % 2 ? 200 : 410, 'apns-id': id}, {waitForTrailers: seen % 3 == 0});
    stream.on('wantTrailers', () => stream.sendTrailers({grade: 'a'}));
    stream.end(JSON.stringify({id, size}));
  });
});
server.listen(+port, '127.0.0.1');
"""


async def test_node(certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    program, port = needs("node", "nodejs"), free_port()
    script = tmp_path / "server.js"
    script.write_text(NODE)
    async with (
        running(program, str(script), str(port), certificates.key, certificates.cert, port=port) as url,
        H2Pool(url, ssl_context=trusting, settings=PoolSettings(tick=0.02)) as pool,
    ):
        answers = await ask_many(pool, 300, b"/3/device/abc", b"b" * 5000)
        for number, answer in enumerate(answers):
            assert answer.status in (200, 410)
            assert answer.header("apns-id") == str(number)
            assert answer.body == b'{"id":"%d","size":5000}' % number
        assert {answer.status for answer in answers} == {200, 410}
        assert pool.stats.goaways >= 2
        assert pool.in_flight == 0


STRICT = """
const http2 = require('http2'), fs = require('fs');
const [port, key, cert, ca] = process.argv.slice(2);
const server = http2.createSecureServer({key: fs.readFileSync(key), cert: fs.readFileSync(cert), ca: fs.readFileSync(ca),
  requestCert: true, rejectUnauthorized: true});
server.on('sessionError', () => {});
server.on('stream', stream => { stream.respond({':status': 200}); stream.end(); });
server.listen(+port, '127.0.0.1');
"""


async def test_node_which_wants_a_client_certificate(
    certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    program, port = needs("node", "nodejs"), free_port()
    script = tmp_path / "server.js"
    script.write_text(STRICT)
    files = (certificates.key, certificates.cert, certificates.ca)
    async with running(program, str(script), str(port), *files, port=port) as url:
        async with H2Pool(url, ssl_context=trusting) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "alert certificate_required")
            assert "refused our certificate" in pool.stats.last_trouble
        known = client_tls(ca_file=certificates.ca, cert_file=certificates.cert, key_file=certificates.key)
        async with H2Pool(url, ssl_context=known) as pool:
            assert (await pool.request(HEAD, b"/", b"", b"")).status == 200


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ }}
http {{
  access_log off; keepalive_requests 50; http2_max_concurrent_streams 10;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ add_header apns-id $http_apns_id always; return 200; }}
    location /gone {{ return 410 '{{"reason":"Unregistered"}}'; }}
  }}
}}
"""


async def test_nginx_which_sends_us_away_every_fifty_requests(
    certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    program, port = needs("nginx", "nginx"), free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, cert=certificates.cert, key=certificates.key))
    command = [program, "-p", str(tmp_path), "-c", str(config), "-e", str(tmp_path / "error.log")]
    async with running(*command, port=port) as url, H2Pool(url, ssl_context=trusting) as pool:
        answers = await ask_many(pool, 400, b"/3/device/abc", b"b" * 300)
        assert [answer.header("apns-id") for answer in answers] == [str(number) for number in range(400)]
        (gone,) = await ask_many(pool, 1, b"/gone", b"b")
        assert (gone.status, gone.body) == (410, b'{"reason":"Unregistered"}')
        assert pool.stats.goaways >= 6
        assert pool.in_flight == 0
