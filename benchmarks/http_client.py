"""What one request costs the HTTP client, beside aioapns and beside nghttp2's own load generator in C.

    python -m benchmarks.http_client [--rounds N] [--requests N]

The client has CPU 0 and the gateway CPU 1 to itself. Two comparisons:

1. CPU per request over TLS, aioapns against ours, with the same nginx, which echoes `apns-id` (aioapns cannot match an answer
   without it). The two take turns, and the ratio is the median of the rounds' ratios.
2. Requests a second over one connection with 500 streams, `h2load -c1 -m500` against ours, with the same nghttpd.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from fanout.http import H2Pool, Head, PoolSettings, client_tls, literal

_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
CLIENT_CPU, GATEWAY_CPU = _CPUS[0], _CPUS[min(1, len(_CPUS) - 1)]
"""Linux alone can pin; with one CPU both share it, and the rates (not the CPU times) lose their meaning."""
IN_FLIGHT = 500
BODY = b'{"aps":{"alert":{"title":"Storm warning","body":"Gale-force winds from the west after six."}},"n":1}'
DEVICE = "0123456789abcdef" * 4
TOPIC = "com.example.app"


class Row(NamedTuple):
    """One line of the report. `ratio` compares with the line named in `against`."""

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        ratio = f"  {self.ratio:.2f} x {self.against}" if self.against else ""
        note = f"  ({self.note})" if self.note else ""
        return f"{self.name:<42} {self.value:>12,.1f} {self.unit}{ratio}{note}"


class Sample(NamedTuple):
    """One run of one client: seconds of its CPU, of the gateway's CPU and of the clock, for `requests` answers."""

    requests: int
    cpu: float
    gateway_cpu: float
    wall: float


# -- gateways


def make_certificate(folder: Path) -> None:
    """A self-signed certificate for 127.0.0.1 in `cert.pem`, its key in `key.pem`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  log_format arrival '$msec $http_apns_id';
  access_log {access_log}; keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_concurrent_streams 1000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ add_header apns-id $http_apns_id always; return 200; }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def gateway(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on the gateway's CPU until the block ends."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {GATEWAY_CPU}),
    )
    try:
        for _ in range(200):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        else:
            raise RuntimeError(f"{command[0]} did not start; run it by hand to see why.")
        yield process
    finally:
        process.terminate()
        process.wait()


def nginx(folder: Path, port: int, access_log: str = "off") -> list[str]:
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, access_log=access_log))
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def nghttpd(folder: Path, port: int) -> list[str]:
    (folder / "index.html").write_bytes(b"")
    return [
        *("nghttpd", "-a", "127.0.0.1", "-d", str(folder), "--no-content-length", "-m", "1000"),
        *(str(port), str(folder / "key.pem"), str(folder / "cert.pem")),
    ]


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU that the process has used."""
    used = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


# -- clients


async def measured(
    process: subprocess.Popen[bytes], requests: int, send: Callable[[int], Awaitable[None]], *, in_flight: int
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


async def ours(process: subprocess.Popen[bytes], url: str, context: ssl.SSLContext, requests: int) -> Sample:
    settings = PoolSettings(connections=1, streams=IN_FLIGHT)
    async with H2Pool(url, ssl_context=context, settings=settings) as pool:
        head = Head(
            "POST",
            "https",
            pool.authority,
            [("apns-topic", TOPIC), ("apns-push-type", "alert"), ("apns-priority", "10")],
        )
        path = f"/3/device/{DEVICE}".encode()
        expiration = literal("apns-expiration", "1900000000")

        async def send(number: int) -> None:
            fields = literal("apns-id", f"00000000-0000-5000-8000-{number:012x}") + expiration
            response = await pool.request(head, path, fields, BODY)
            if response.status != 200:
                raise RuntimeError(f"the gateway answered {response.status}")

        return await measured(process, requests, send, in_flight=IN_FLIGHT)


async def bare(process: subprocess.Popen[bytes], url: str, context: ssl.SSLContext, requests: int) -> Sample:
    """Ours with what h2load sends: no varying header."""
    settings = PoolSettings(connections=1, streams=IN_FLIGHT)
    async with H2Pool(url, ssl_context=context, settings=settings) as pool:
        head = Head("POST", "https", pool.authority, [("user-agent", "fanout")])

        async def send(number: int) -> None:
            response = await pool.request(head, b"/index.html", b"", BODY)
            if response.status != 200:
                raise RuntimeError(f"the gateway answered {response.status}")

        return await measured(process, requests, send, in_flight=IN_FLIGHT)


async def aioapns(process: subprocess.Popen[bytes], url: str, context: ssl.SSLContext, requests: int) -> Sample:
    import aioapns as library
    from aioapns.connection import APNsTLSClientProtocol
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    class Protocol(APNsTLSClientProtocol):  # type: ignore[misc]
        APNS_SERVER = "127.0.0.1"
        APNS_PORT = int(url.rsplit(":", 1)[1])

    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    client = library.APNs(
        key=key.decode(), key_id="ABCDE12345", team_id="ABCDE12345", topic=TOPIC, max_connections=1, ssl_context=context
    )
    client.pool.protocol_class = Protocol
    message = {
        "aps": {"alert": {"title": "Storm warning", "body": "Gale-force winds from the west after six."}},
        "n": 1,
    }

    async def send(number: int) -> None:
        request = library.NotificationRequest(
            device_token=DEVICE,
            message=message,
            notification_id=f"00000000-0000-5000-8000-{number:012x}",
            time_to_live=3600,
            priority=10,
            push_type=library.PushType.ALERT,
        )
        response = await client.send_notification(request)
        if not response.is_successful:
            raise RuntimeError(f"the gateway answered {response.status}")

    try:
        return await measured(process, requests, send, in_flight=IN_FLIGHT)
    finally:
        client.pool.close()
        await asyncio.sleep(0.05)


Client = Callable[[subprocess.Popen[bytes], str, ssl.SSLContext, int], Awaitable[Sample]]


def run_client(
    client: Client, process: subprocess.Popen[bytes], url: str, folder: Path, requests: int, *, uvloop: bool = False
) -> Sample:
    """One run on the client's CPU, on a loop of its own."""
    context = client_tls(ca_file=str(folder / "cert.pem"))
    factory = None
    if uvloop:
        import uvloop as fast

        factory = fast.new_event_loop

    async def main() -> Sample:
        return await client(process, url, context, requests)

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CPU})
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())
    finally:
        os.sched_setaffinity(0, before)


def h2load(url: str, folder: Path, requests: int) -> float:
    """Requests a second of nghttp2's load generator, on the client's CPU."""
    (folder / "body").write_bytes(BODY)
    command = ["taskset", "-c", str(CLIENT_CPU), "h2load", "-n", str(requests), "-c", "1", "-m", str(IN_FLIGHT)]
    out = subprocess.run(
        [*command, "-d", str(folder / "body"), f"{url}/index.html"], capture_output=True, text=True, check=True
    ).stdout
    if f"{requests} succeeded" not in out:
        raise RuntimeError(f"h2load did not succeed:\n{out}")
    line = next(line for line in out.splitlines() if line.startswith("finished in"))
    return float(line.split(",")[1].split()[0])


# -- comparisons


def compare_cpu(folder: Path, rounds: int, requests: int) -> list[Row]:
    """CPU per request: aioapns and ours in turns on one nginx."""
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    names: dict[str, tuple[Client, int, bool]] = {
        "aioapns": (aioapns, max(requests // 10, 1000), False),
        "ours": (ours, requests, False),
        "ours, uvloop": (ours, requests, True),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with gateway(nginx(folder, port), port) as process:
        for _ in range(rounds):
            for name, (client, count, uvloop) in names.items():
                samples[name].append(run_client(client, process, url, folder, count, uvloop=uvloop))

    def cost(sample: Sample) -> float:
        return sample.cpu / sample.requests * 1e6

    rows = []
    for name, taken in samples.items():
        pairs = zip(taken, samples["aioapns"], strict=True)
        ratio = statistics.median(cost(theirs) / cost(own) for own, theirs in pairs)
        gateway_cpu = statistics.median(s.gateway_cpu / s.requests * 1e6 for s in taken)
        rate = statistics.median(s.requests / s.wall for s in taken)
        rows.append(
            Row(
                f"client CPU per request, {name}",
                statistics.median(map(cost, taken)),
                "us",
                "less than aioapns" if name != "aioapns" else "",
                ratio,
                f"{rate:,.0f}/s; nginx {gateway_cpu:.1f} us",
            )
        )
    return rows


def compare_rate(folder: Path, rounds: int, requests: int) -> list[Row]:
    """Requests a second: h2load and ours in turns on one nghttpd."""
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    loads: list[float] = []
    samples: dict[str, list[Sample]] = {"ours": [], "ours, uvloop": []}
    with gateway(nghttpd(folder, port), port) as process:
        for _ in range(rounds):
            loads.append(h2load(url, folder, requests))
            for name, taken in samples.items():
                taken.append(run_client(bare, process, url, folder, requests, uvloop="uvloop" in name))
    rows = [Row("requests a second, h2load -c1 -m500", statistics.median(loads), "/s")]
    for name, taken in samples.items():
        ratio = statistics.median(s.requests / s.wall / load for s, load in zip(taken, loads, strict=True))
        cpu = statistics.median(s.cpu / s.requests * 1e6 for s in taken)
        gateway_cpu = statistics.median(s.gateway_cpu / s.requests * 1e6 for s in taken)
        note = f"client CPU {cpu:.1f} us; nghttpd {gateway_cpu:.1f} us"
        rate = statistics.median(s.requests / s.wall for s in taken)
        rows.append(Row(f"requests a second, {name}", rate, "/s", "h2load", ratio, note))
    return rows


def run(*, rounds: int = 5, requests: int = 50_000) -> list[Row]:
    """Both comparisons; what needs a program that is absent says so in its line."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(folder)
        for compare, programs in ((compare_cpu, ["nginx"]), (compare_rate, ["nghttpd", "h2load"])):
            missing = [program for program in programs if shutil.which(program) is None]
            if missing:
                rows.append(Row(f"skipped: install {' and '.join(missing)}", 0.0, ""))
            else:
                rows += compare(folder, rounds, requests)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=50_000)
    arguments = parser.parse_args()
    for row in run(rounds=arguments.rounds, requests=arguments.requests):
        print(row)


if __name__ == "__main__":
    main()
