"""The rate of Web Push: a durable broadcast beside pywebpush and Node's web-push, and beside the rate of encryption
alone.

    python -m benchmarks.webpush [--rounds N] [--browsers N] [--no-rivals]

1. `engine.send` to settled, with SQLite and `synchronous=FULL`, against pywebpush at its best: `WebPusher.send_async`
   with one reused aiohttp session, a cached VAPID header and 100 workers; against web-push (Node) with a kept-alive
   agent; and against webpush-go with 500 at once. Nothing of theirs is durable. All talk to the same nginx, which
   answers 201: ours and webpush-go over HTTP/2, the others over HTTP/1.1, which is all they can.
2. The same against the rate at which our encryption alone runs in a loop on that core, for the same browsers, and the
   bare primitives of `cryptography` without any framing: a key pair, an exchange, and one AES-GCM seal.

All take turns, and each ratio is the median of the rounds' ratios. Every browser has a key of its own, parsed anew for
each message; one warm-up round is not counted. "By CPU" is the expected ratio to encryption on a machine where nothing
else runs: encryption's share of the CPU that a delivery costs in all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fanout
from benchmarks import rig
from benchmarks.contenders.apns import IN_FLIGHT
from benchmarks.contenders.driven import driven
from benchmarks.contenders.rivals import WEB_PUSH, WEBPUSH_GO, present
from benchmarks.rig import (
    CREATED,
    Meter,
    Process,
    Sample,
    broadcast,
    child,
    cpu_of,
    gateway,
    missing,
    nginx,
    on_client_cpu,
)
from benchmarks.row import Row
from fanout_webpush.address import parse
from fanout_webpush.browsers import Browser
from fanout_webpush.encryption import DELIMITER, encrypt
from fanout_webpush.payload import encode
from fanout_webpush.vapid import VapidKey, make_vapid_keys

__all__ = ["run"]

NOTIFICATION = fanout.Notification(title=rig.TITLE, body=rig.BODY, url="https://weather.example/warnings")
ORIGIN = "https://fcm.googleapis.com"
SUBJECT = "mailto:ops@example.com"
WORKERS = 100
OURS, THEIRS = "Web Push, ours, durable", "Web Push, pywebpush, nothing durable"
GO = f"Web Push, {WEBPUSH_GO.name}, nothing durable"
ALONE, BARE = "Web Push, encryption alone", "Web Push, the primitives of cryptography alone"


def subscriptions(count: int, public: str) -> list[dict[str, Any]]:
    """As many browsers, each with keys of its own."""
    return [Browser(f"{ORIGIN}/fcm/send/{n:064x}", public).subscription() for n in range(count)]


def encryption_alone(browsers: list[dict[str, Any]]) -> Sample:
    """The same messages encrypted, and nothing else."""
    record = (encode(NOTIFICATION, {}).plaintext or b"") + DELIMITER
    keys = [(parsed.p256dh, parsed.auth) for parsed in map(parse, browsers)]
    with Meter() as meter:
        for p256dh, auth in keys:
            encrypt(record, p256dh, auth)
    return Sample(len(keys), meter.cpu, 0.0, meter.wall)


def primitives_alone(browsers: list[dict[str, Any]]) -> Sample:
    """The least work of any implementation on this library, for as many messages."""
    import os

    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    record = (encode(NOTIFICATION, {}).plaintext or b"") + DELIMITER
    curve, exchange = ec.SECP256R1(), ec.ECDH()
    points = [parse(browser).p256dh for browser in browsers]
    with Meter() as meter:
        for point in points:
            own = ec.generate_private_key(curve)
            secret = own.exchange(exchange, ec.EllipticCurvePublicKey.from_encoded_point(curve, point))
            AESGCM(secret[:16]).encrypt(os.urandom(12), record, None)
    return Sample(len(points), meter.cpu, 0.0, meter.wall)


def _local(browsers: list[dict[str, Any]], url: str) -> list[dict[str, Any]]:
    return [{**browser, "endpoint": browser["endpoint"].replace(ORIGIN, url)} for browser in browsers]


async def pywebpush_alone(pid: int, url: str, folder: Path) -> Sample:
    """Pushes to all browsers, as ours in content and headers."""
    import ssl

    import aiohttp
    from pywebpush import WebPusher

    from fanout.plugin import Secret

    browsers = _local(json.loads((folder / "browsers.json").read_text()), url)
    private = Secret((folder / "vapid.pem").read_text())
    authorization = VapidKey.load(private).sign(ORIGIN, SUBJECT, int(time.time()) + 43_200)
    data = encode(NOTIFICATION, {}).plaintext
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    connector = aiohttp.TCPConnector(ssl=context, limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(browser: dict[str, Any]) -> None:
            pusher = WebPusher(browser, aiohttp_session=session)
            response = await pusher.send_async(
                data, {"Authorization": authorization}, ttl=86_400, content_encoding="aes128gcm"
            )
            if response.status != 201:
                raise RuntimeError(f"the gateway answered {response.status}")
            await response.read()

        async def worker(queue: list[dict[str, Any]]) -> None:
            while queue:
                await send(queue.pop())

        async def all_of(queue: list[dict[str, Any]]) -> None:
            await asyncio.gather(*(worker(queue) for _ in range(WORKERS)))

        await all_of(browsers[: len(browsers) // 10])
        before = cpu_of(Process(pid))
        with Meter() as meter:
            await all_of(list(browsers))
        return Sample(len(browsers), meter.cpu, cpu_of(Process(pid)) - before, meter.wall)


def run(*, rounds: int = 5, browsers: int = 10_000, with_rivals: bool = True) -> list[Row]:
    """All comparisons, as rows; a comparison that lacks a program says so in its line."""
    absent = missing("nginx")
    if absent:
        return [Row(absent, 0.0, "")]
    rivals, rows = present(WEB_PUSH, WEBPUSH_GO) if with_rivals else ([], [])
    named = {f"Web Push, {rival.name}, nothing durable": rival for rival in rivals}
    samples: dict[str, list[Sample]] = {name: [] for name in (THEIRS, *named, BARE, ALONE, OURS)}
    if find_spec("pywebpush") is None:
        rows.append(Row("skipped: pip install '.[pywebpush]' to compare with pywebpush", 0.0, ""))
        del samples[THEIRS]
    pair = make_vapid_keys()
    subscribed = subscriptions(browsers, pair.application_server_key)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        rig.make_certificate(folder)
        port = rig.free_port()
        url = f"https://127.0.0.1:{port}"
        (folder / "browsers.json").write_text(json.dumps(subscribed))
        (folder / "vapid.pem").write_text(pair.private_pem.reveal())
        binding = {
            "vapid_private_key": pair.private_pem.reveal(),
            "vapid_subject": SUBJECT,
            "gateway": url,
            "ca_file": str(folder / "cert.pem"),
        }
        process = stack.enter_context(gateway(nginx(folder, port, answer=CREATED), port))
        job = _job(pair, _local(subscribed, url), folder / "cert.pem")
        jobs = {
            WEB_PUSH: job | {"atOnce": WORKERS, "requests": max(browsers // 5, min(browsers, 500))},
            WEBPUSH_GO: job,
        }
        drivers = {name: stack.enter_context(driven(rival, jobs[rival])) for name, rival in named.items()}
        stack.enter_context(on_client_cpu())

        def theirs() -> Sample:
            return Sample(*child("benchmarks.webpush", "--baseline", str(process.pid), url, str(folder)))

        async def main() -> None:
            storage = f"sqlite:{folder}/bench.db"
            async with fanout.open(storage=storage, transports={"webpush": binding}) as engine:
                await rig.enter(engine, "webpush", subscribed)
                await broadcast(engine, process, NOTIFICATION)
                for _ in range(rounds):
                    samples[BARE].append(primitives_alone(subscribed))
                    samples[ALONE].append(encryption_alone(subscribed))
                    samples[OURS].append(await broadcast(engine, process, NOTIFICATION))
                    if THEIRS in samples:
                        samples[THEIRS].append(await asyncio.to_thread(theirs))
                    for name, driver in drivers.items():
                        samples[name].append(await asyncio.to_thread(driver.run, lambda: cpu_of(process)))

        asyncio.run(main())
    return rows + _rows(samples)


def _job(pair: Any, browsers: list[dict[str, Any]], ca_file: Path) -> dict[str, Any]:
    """The input of a driver of Web Push; the VAPID keys are raw and in base64url."""
    import base64

    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private: Any = load_pem_private_key(pair.private_pem.reveal().encode(), None)
    scalar = private.private_numbers().private_value.to_bytes(32, "big")
    return {
        "ca": str(ca_file),
        "subject": SUBJECT,
        "publicKey": pair.application_server_key,
        "privateKey": base64.urlsafe_b64encode(scalar).rstrip(b"=").decode(),
        "payload": (encode(NOTIFICATION, {}).plaintext or b"").decode(),
        "browsers": browsers,
        "atOnce": IN_FLIGHT,
        "requests": len(browsers),
    }


def _rows(samples: dict[str, list[Sample]]) -> list[Row]:
    rows = rig.compared(
        samples,
        THEIRS if THEIRS in samples else ALONE,
        word="pywebpush" if THEIRS in samples else "encryption alone",
        cores=rig.cores(),
        figure="Web Push messages a second",
    )
    rows = [
        row._replace(against="", ratio=0.0, spread=(0.0, 0.0)) if row.name in (ALONE, BARE) else row for row in rows
    ]
    pairs = list(zip(samples[OURS], samples[ALONE], strict=True))
    ratios = [ours.rate / alone.rate for ours, alone in pairs]
    by_cpu = statistics.median(alone.cost / ours.cost for ours, alone in pairs)
    mine = rig.row(OURS, samples[OURS], cores=rig.cores(), note=f"by CPU {by_cpu:.2f} x")
    compared = mine._replace(
        against="encryption alone", ratio=statistics.median(ratios), spread=(min(ratios), max(ratios))
    )
    rows.append(compared)
    if GO in samples:
        word = f"less than {WEBPUSH_GO.name}"
        rows.append(rig.against(OURS, samples[OURS], GO, samples[GO], "cost", word=word, cores=rig.cores()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browsers", type=int, default=10_000)
    parser.add_argument("--no-rivals", action="store_true", help="without those of Node and Go")
    parser.add_argument("--baseline", nargs=3, metavar=("PID", "URL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        pid, url, folder = arguments.baseline
        print(json.dumps(asyncio.run(pywebpush_alone(int(pid), url, Path(folder)))))
        return
    for row in run(rounds=arguments.rounds, browsers=arguments.browsers, with_rivals=not arguments.no_rivals):
        print(row)


if __name__ == "__main__":
    main()
