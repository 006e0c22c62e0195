"""APNs over HTTP/2 by other clients, each through as many senders as there are streams, and by ours without an engine.

Those of other languages are driven by a job (`job_of`): see `driven`.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.rig import BODY, DEVICE, TITLE, TOPIC, Process, Sample, cpu_of, make_key, run_async
from fanout.http import H2Pool, Head, PoolSettings, client_tls, literal

__all__ = ["IN_FLIGHT", "PAYLOAD", "Client", "aioapns", "bare", "httpx_h2", "job_of", "ours", "run_client"]

IN_FLIGHT = 500
PAYLOAD = f'{{"aps":{{"alert":{{"title":"{TITLE}","body":"{BODY}"}}}},"n":1}}'.encode()
MESSAGE = {"aps": {"alert": {"title": TITLE, "body": BODY}}, "n": 1}
_EXPIRES = "1900000000"

Gateway: TypeAlias = "subprocess.Popen[bytes] | Process"
Client: TypeAlias = Callable[[Gateway, str, ssl.SSLContext, int], Awaitable[Sample]]


def run_client(
    client: Client, process: Gateway, url: str, ca_file: str, requests: int, *, uvloop: bool = False
) -> Sample:
    """One run, on a loop of its own."""
    context = client_tls(ca_file=ca_file)

    async def main() -> Sample:
        return await client(process, url, context, requests)

    sample: Sample = run_async(main(), uvloop=uvloop)
    return sample


def job_of(url: str, ca_file: Path, requests: int) -> dict[str, Any]:
    """The input of a driver of APNs. A signing driver has a key, the others a field as long as a signed token; each
    device token differs."""
    return {
        "url": url,
        "ca": str(ca_file),
        "key": make_key(),
        "authorization": f"bearer {secrets.token_urlsafe(135)}",
        "topic": TOPIC,
        "title": TITLE,
        "body": BODY,
        "payload": PAYLOAD.decode(),
        "atOnce": IN_FLIGHT,
        "requests": requests,
    }


async def measured(
    process: Gateway, requests: int, send: Callable[[int], Awaitable[None]], *, in_flight: int = IN_FLIGHT
) -> Sample:
    """`requests` answers through `in_flight` long-lived senders, after a warm-up of a tenth."""

    async def sender(numbers: Iterator[int]) -> None:
        for number in numbers:
            await send(number)

    async def run(count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(sender(numbers) for _ in range(in_flight)))

    await send(0)
    await run(max(in_flight, requests // 10))
    gateway_before, cpu, wall = cpu_of(process), time.process_time(), time.perf_counter()
    await run(requests)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Sample(requests, cpu, cpu_of(process) - gateway_before, wall)


def _id(number: int) -> str:
    return f"00000000-0000-5000-8000-{number:012x}"


def _checked(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"the gateway answered {status}")


async def ours(process: Gateway, url: str, context: ssl.SSLContext, requests: int) -> Sample:
    """The push HTTP client by itself."""
    settings = PoolSettings(connections=1, streams=IN_FLIGHT)
    async with H2Pool(url, ssl_context=context, settings=settings) as pool:
        fixed = [("apns-topic", TOPIC), ("apns-push-type", "alert"), ("apns-priority", "10")]
        head = Head("POST", "https", pool.authority, fixed)
        path = f"/3/device/{DEVICE}".encode()
        expiration = literal("apns-expiration", _EXPIRES)

        async def send(number: int) -> None:
            fields = literal("apns-id", _id(number)) + expiration
            _checked((await pool.request(head, path, fields, PAYLOAD)).status)

        return await measured(process, requests, send)


async def bare(process: Gateway, url: str, context: ssl.SSLContext, requests: int) -> Sample:
    """Ours with h2load's requests: no varying header."""
    settings = PoolSettings(connections=1, streams=IN_FLIGHT)
    async with H2Pool(url, ssl_context=context, settings=settings) as pool:
        head = Head("POST", "https", pool.authority, [("user-agent", "fanout")])

        async def send(number: int) -> None:
            _checked((await pool.request(head, b"/index.html", b"", PAYLOAD)).status)

        return await measured(process, requests, send)


async def httpx_h2(process: Gateway, url: str, context: ssl.SSLContext, requests: int) -> Sample:
    """httpx with `http2=True`: one client, which multiplexes over its connection."""
    import httpx

    headers = {"apns-topic": TOPIC, "apns-push-type": "alert", "apns-priority": "10", "apns-expiration": _EXPIRES}
    path = f"/3/device/{DEVICE}"
    async with httpx.AsyncClient(http2=True, verify=context, base_url=url, headers=headers, timeout=60) as client:

        async def send(number: int) -> None:
            _checked((await client.post(path, content=PAYLOAD, headers={"apns-id": _id(number)})).status_code)

        # More at once than a hundred makes it slower.
        return await measured(process, requests, send, in_flight=100)


async def aioapns(process: Gateway, url: str, context: ssl.SSLContext, requests: int) -> Sample:
    """aioapns over one connection. It finds answers by their `apns-id`, so the gateway must echo that."""
    import aioapns as library
    from aioapns.connection import APNsTLSClientProtocol

    class Protocol(APNsTLSClientProtocol):  # type: ignore[misc]
        APNS_SERVER = "127.0.0.1"
        APNS_PORT = int(url.rsplit(":", 1)[1])

    client = library.APNs(
        key=make_key(), key_id="ABCDE12345", team_id="ABCDE12345", topic=TOPIC, max_connections=1, ssl_context=context
    )
    client.pool.protocol_class = Protocol

    async def send(number: int) -> None:
        request = library.NotificationRequest(
            device_token=DEVICE,
            message=MESSAGE,
            notification_id=_id(number),
            time_to_live=3600,
            priority=10,
            push_type=library.PushType.ALERT,
        )
        response: Any = await client.send_notification(request)
        if not response.is_successful:
            raise RuntimeError(f"the gateway answered {response.status}")

    try:
        return await measured(process, requests, send)
    finally:
        client.pool.close()
        await asyncio.sleep(0.05)
