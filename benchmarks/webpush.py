"""What Web Push reaches: a durable broadcast beside pywebpush, and beside what encryption alone would allow.

    python -m benchmarks.webpush [--rounds N] [--browsers N]

1. `engine.send` to settled, with SQLite and `synchronous=FULL`, against pywebpush at its best: `WebPusher.send_async` with one
   reused aiohttp session, a cached VAPID header and 100 workers, nothing durable. Both talk to the same nginx, which answers 201:
   ours over HTTP/2, pywebpush over HTTP/1.1, which is all it can.
2. The same against the rate at which our encryption alone runs in a loop on that core, for the same browsers.

The client has CPU 0 and nginx CPU 1. The three take turns, and each ratio is the median of the rounds' ratios. Every browser has
a key of its own, parsed anew for each message; one warm-up round is not counted. "By CPU" is what the second ratio would be on a
machine where nothing else runs: encryption's share of the CPU that a delivery costs in all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fanout
from benchmarks.http_client import CLIENT_CPU, Row, Sample, cpu_of, free_port, gateway, make_certificate
from benchmarks.meter import Meter
from fanout.engine import Engine
from fanout_webpush.address import parse
from fanout_webpush.browsers import Browser
from fanout_webpush.encryption import DELIMITER, encrypt
from fanout_webpush.payload import encode
from fanout_webpush.vapid import VapidKey, make_vapid_keys

NOTIFICATION = fanout.Notification(
    title="Storm warning", body="Gale-force winds from the west after six.", url="https://weather.example/warnings"
)
ORIGIN = "https://fcm.googleapis.com"
SUBJECT = "mailto:ops@example.com"
WORKERS = 100
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_concurrent_streams 1000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ return 201; }}
  }}
}}
"""


def nginx(folder: Path, port: int) -> list[str]:
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def subscriptions(count: int, public: str) -> list[dict[str, Any]]:
    """As many browsers, each with keys of its own."""
    return [Browser(f"{ORIGIN}/fcm/send/{n:064x}", public).subscription() for n in range(count)]


@asynccontextmanager
async def an_engine(url: str, folder: Path, private: str, browsers: list[dict[str, Any]]) -> AsyncIterator[Engine]:
    """An engine on SQLite with every browser registered."""
    binding = {
        "vapid_private_key": private,
        "vapid_subject": SUBJECT,
        "gateway": url,
        "ca_file": str(folder / "cert.pem"),
    }
    async with fanout.open(storage=f"sqlite:{folder}/bench.db", transports={"webpush": binding}) as engine:
        lines = (
            json.dumps({"user": f"u{n}", "transport": "webpush", "address": browser}).encode()
            for n, browser in enumerate(browsers)
        )
        report = await engine.endpoints.import_(lines)
        if report.imported != len(browsers):
            raise RuntimeError(f"only {report.imported} browsers were registered")
        yield engine


async def broadcast(engine: Engine, process: subprocess.Popen[bytes]) -> Sample:
    """One notification to everyone, until the last settlement is committed."""
    before = cpu_of(process)
    with Meter() as meter:
        status = await (await engine.send(NOTIFICATION, "all")).wait(600)
    accepted = status.counts["accepted"]
    if accepted != status.total:
        raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
    return Sample(accepted, meter.cpu, cpu_of(process) - before, meter.wall)


def encryption_alone(browsers: list[dict[str, Any]]) -> Sample:
    """The same messages encrypted, and nothing else."""
    record = (encode(NOTIFICATION, {}).plaintext or b"") + DELIMITER
    keys = [(parsed.p256dh, parsed.auth) for parsed in map(parse, browsers)]
    with Meter() as meter:
        for p256dh, auth in keys:
            encrypt(record, p256dh, auth)
    return Sample(len(keys), meter.cpu, 0.0, meter.wall)


async def pywebpush_alone(url: str, folder: Path, private: str, browsers: list[dict[str, Any]]) -> float:
    """Seconds for all browsers; the pushes are as ours in content and headers."""
    import ssl

    import aiohttp
    from pywebpush import WebPusher

    from fanout.plugin import Secret

    authorization = VapidKey.load(Secret(private)).sign(ORIGIN, SUBJECT, int(time.time()) + 43_200)
    data = encode(NOTIFICATION, {}).plaintext
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    connector = aiohttp.TCPConnector(ssl=context, limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(browser: dict[str, Any]) -> None:
            local = {**browser, "endpoint": browser["endpoint"].replace(ORIGIN, url)}
            pusher = WebPusher(local, aiohttp_session=session)
            response = await pusher.send_async(
                data, {"Authorization": authorization}, ttl=86_400, content_encoding="aes128gcm"
            )
            if response.status != 201:
                raise RuntimeError(f"the gateway answered {response.status}")
            await response.read()

        async def worker(queue: list[dict[str, Any]]) -> None:
            while queue:
                await send(queue.pop())

        for part in (browsers[: len(browsers) // 10], browsers):
            queue = list(part)
            begun = time.perf_counter()
            await asyncio.gather(*(worker(queue) for _ in range(WORKERS)))
        return time.perf_counter() - begun


def run(*, rounds: int = 5, browsers: int = 10_000) -> list[Row]:
    """Both comparisons, as rows."""
    if shutil.which("nginx") is None:
        return [Row("skipped: install nginx", 0.0, "")]
    if find_spec("pywebpush") is None:
        return [Row("skipped: pip install '.[webpush]'", 0.0, "")]
    ours: list[Sample] = []
    alone: list[Sample] = []
    theirs: list[float] = []
    pair = make_vapid_keys()
    subscribed = subscriptions(browsers, pair.application_server_key)
    affinity = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(folder)
        port = free_port()
        url = f"https://127.0.0.1:{port}"
        (folder / "browsers.json").write_text(json.dumps(subscribed))
        (folder / "vapid.pem").write_text(pair.private_pem.reveal())
        with gateway(nginx(folder, port), port) as process:

            async def main() -> None:
                async with an_engine(url, folder, pair.private_pem.reveal(), subscribed) as engine:
                    await broadcast(engine, process)
                    for _ in range(rounds):
                        alone.append(encryption_alone(subscribed))
                        ours.append(await broadcast(engine, process))
                        theirs.append(await asyncio.to_thread(_baseline, url, folder))

            os.sched_setaffinity(0, {CLIENT_CPU})
            try:
                asyncio.run(main())
            finally:
                os.sched_setaffinity(0, affinity)
    return _rows(ours, alone, [browsers / seconds for seconds in theirs])


def _baseline(url: str, folder: Path) -> float:
    """pywebpush in a process of its own, so that neither disturbs the other's figures."""
    command = [sys.executable, "-m", "benchmarks.webpush", "--baseline", url, str(folder)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def _rows(ours: list[Sample], alone: list[Sample], theirs: list[float]) -> list[Row]:
    def rate(sample: Sample) -> float:
        return sample.requests / sample.wall

    against_theirs = statistics.median(rate(a) / b for a, b in zip(ours, theirs, strict=True))
    against_alone = statistics.median(rate(a) / rate(b) for a, b in zip(ours, alone, strict=True))
    cpu = statistics.median(sample.cpu / sample.requests * 1e6 for sample in ours)
    encrypting = statistics.median(sample.cpu / sample.requests * 1e6 for sample in alone)
    nginx_cpu = statistics.median(sample.gateway_cpu / sample.requests * 1e6 for sample in ours)
    by_cpu = statistics.median(b.cpu / b.requests / (a.cpu / a.requests) for a, b in zip(ours, alone, strict=True))
    mine = statistics.median(map(rate, ours))
    note = f"{cpu:.0f} us CPU each, of which encryption {encrypting:.0f}; nginx {nginx_cpu:.0f}"
    return [
        Row("Web Push, pywebpush, nothing durable", statistics.median(theirs), "/s"),
        Row("Web Push, ours, durable", mine, "/s", "pywebpush", against_theirs, note),
        Row("Web Push, encryption alone", statistics.median(map(rate, alone)), "/s"),
        Row("Web Push, ours, durable", mine, "/s", "encryption alone", against_alone, f"by CPU {by_cpu:.2f} x"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browsers", type=int, default=10_000)
    parser.add_argument("--baseline", nargs=2, metavar=("URL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        url, folder = arguments.baseline[0], Path(arguments.baseline[1])
        browsers = json.loads((folder / "browsers.json").read_text())
        private = (folder / "vapid.pem").read_text()
        print(asyncio.run(pywebpush_alone(url, folder, private, browsers)))
        return
    for row in run(rounds=arguments.rounds, browsers=arguments.browsers):
        print(row)


if __name__ == "__main__":
    main()
