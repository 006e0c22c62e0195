"""The needs of every benchmark: two CPUs kept apart, certificates, gateways, engines with devices, and a stopwatch.

The client has one CPU and the server the other. Nothing here knows a contender.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, Self

import fanout
from benchmarks.row import Row
from fanout import bootstrap
from fanout.engine import Engine

__all__ = [
    "BODY",
    "CLIENT_CPU",
    "DEVICE",
    "GATEWAY_CPU",
    "TITLE",
    "TOPIC",
    "Meter",
    "Process",
    "Sample",
    "against",
    "apns_settings",
    "broadcast",
    "child",
    "compared",
    "cores",
    "cpu_of",
    "enter",
    "free_port",
    "gateway",
    "make_certificate",
    "make_key",
    "missing",
    "nghttpd",
    "nginx",
    "on_client_cpu",
    "peak_memory",
    "row",
    "run_async",
    "simulator",
]

_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
CLIENT_CPU, GATEWAY_CPU = _CPUS[0], _CPUS[min(1, len(_CPUS) - 1)]
"""Linux alone can pin; with one CPU both share it, and the rates (not the CPU times) lose their meaning."""
TITLE, BODY = "Storm warning", "Gale-force winds from the west after six."
DEVICE = "0123456789abcdef" * 4
TOPIC = "com.example.app"


def cores(client: str = "client", server: str = "nginx") -> str:
    """The CPUs of the processes, in a row's words."""
    if CLIENT_CPU == GATEWAY_CPU:
        return f"{client} and {server} share CPU {CLIENT_CPU}"
    return f"{client} CPU {CLIENT_CPU}, {server} CPU {GATEWAY_CPU}"


# -- measuring


class Meter:
    """`with Meter() as meter`: afterwards `cpu` (this process, all threads) and `wall`, in seconds."""

    cpu = 0.0
    wall = 0.0

    def __enter__(self) -> Self:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


class Sample(NamedTuple):
    """One run of one contender: seconds of its CPU, of the gateway's CPU and of the clock, for `requests` answers."""

    requests: int
    cpu: float
    gateway_cpu: float
    wall: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.wall

    @property
    def cost(self) -> float:
        """Microseconds of CPU for each."""
        return self.cpu / self.requests * 1e6

    @property
    def gateway_cost(self) -> float:
        """The same of the gateway."""
        return self.gateway_cpu / self.requests * 1e6


def row(name: str, taken: Sequence[Sample], by: str = "rate", **more: Any) -> Row:
    """The medians of one contender's runs: its rate (`by="rate"`) or its CPU for each (`by="cost"`)."""
    value = statistics.median(getattr(sample, by) for sample in taken)
    if by == "cost":
        rate = statistics.median(sample.rate for sample in taken)
        more["note"] = "; ".join(part for part in (f"{rate:,.0f}/s", more.get("note", "")) if part)
    return Row(
        name,
        value,
        "/s" if by == "rate" else "us of CPU",
        client_cpu=statistics.median(sample.cost for sample in taken),
        gateway_cpu=statistics.median(sample.gateway_cost for sample in taken),
        **more,
    )


def compared(
    samples: Mapping[str, Sequence[Sample]], baseline: str, by: str = "rate", *, word: str = "", **more: Any
) -> list[Row]:
    """A row for each contender, compared with `baseline` round by round: so many times its rate, or so many times less
    CPU."""
    rows = []
    for name, taken in samples.items():
        if not taken:
            continue
        found = row(name, taken, by, **more)
        pairs = list(zip(taken, samples.get(baseline, ()), strict=False))
        if name != baseline and pairs:
            ratios = [a.rate / b.rate if by == "rate" else b.cost / a.cost for a, b in pairs]
            against = word or (baseline if by == "rate" else f"less than {baseline}")
            found = found._replace(against=against, ratio=statistics.median(ratios), spread=(min(ratios), max(ratios)))
        rows.append(found)
    return rows


def against(
    name: str, taken: Sequence[Sample], other: str, others: Sequence[Sample], by: str = "rate", **more: Any
) -> Row:
    """A row of `taken` under that name, compared with one contender, as `compared` does with the baseline."""
    return compared({other: others, name: taken}, other, by, **more)[1]


def peak_memory() -> float:
    """The most that this process has had in memory so far, in MB.

    Not `ru_maxrss`, where there is a choice: a child begins with its parent's there, though it shares none of its
    memory.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class Process:
    """A process that another program started, by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def cpu_of(process: subprocess.Popen[bytes] | Process) -> float:
    """Seconds of CPU that the process has used."""
    used = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


# -- processes


@contextmanager
def on_client_cpu(*, dedicated: bool = False) -> Iterator[None]:
    """This process on the client's CPU; `dedicated` sets the interpreter as `fanout work` does."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CPU})
    if dedicated:
        bootstrap.dedicate_process()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_async(main: Any, *, uvloop: bool = False) -> Any:
    """The coroutine's result, on a loop of its own."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if uvloop:
        import uvloop as fast

        factory = fast.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def child(module: str, *words: str, environment: Mapping[str, str] | None = None) -> Any:
    """The output of `python -m module words` as JSON in its last line, run by itself on the client's CPU."""
    command = [sys.executable, "-m", module, *words]
    if shutil.which("taskset") is not None:
        command = ["taskset", "-c", str(CLIENT_CPU), *command]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | dict(environment or {})
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def missing(*programs: str) -> str:
    """Those that are not installed, as a sentence for a row; "" if all are."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"skipped: install {' and '.join(absent)}" if absent else ""


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
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit; worker_rlimit_nofile 20000;
events {{ worker_connections {connections}; }}
http {{
  log_format arrival '$msec $http_apns_id';
  access_log {access_log}; keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_concurrent_streams 1000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ {answer} }}
  }}
}}
"""
APNS_ANSWER = "add_header apns-id $http_apns_id always; return 200;"
CREATED = "return 201;"


def nginx(
    folder: Path, port: int, access_log: str = "off", *, answer: str = APNS_ANSWER, connections: int = 512
) -> list[str]:
    """An nginx that answers everything alike: as Apple, echoing `apns-id`, or with 201."""
    text = _NGINX.format(folder=folder, port=port, access_log=access_log, answer=answer, connections=connections)
    (folder / "nginx.conf").write_text(text)
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def nghttpd(folder: Path, port: int) -> list[str]:
    """nghttp2's server, with one empty page."""
    (folder / "index.html").write_bytes(b"")
    return [
        *("nghttpd", "-a", "127.0.0.1", "-d", str(folder), "--no-content-length", "-m", "1000"),
        *(str(port), str(folder / "key.pem"), str(folder / "cert.pem")),
    ]


def free_port() -> int:
    """A port of loopback that no process listens on."""
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


@contextmanager
def simulator(folder: Path, name: str, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A lean simulator on the gateway's CPU, and the settings of a binding that talks to it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fanout.testing.simulator", name, "--lean", "--ca-dir", str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {GATEWAY_CPU}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())["settings"]
    finally:
        process.stdin.close()
        process.wait()


# -- engines


def make_key() -> str:
    """A .p8 key of its own for this run."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def apns_settings(url: str, folder: Path) -> dict[str, str]:
    """The settings of an APNs binding that talks to `url`."""
    return {
        "team_id": "ABCDE12345",
        "key_id": "ABCDE12345",
        "key": make_key(),
        "topic": TOPIC,
        "gateway": url,
        "ca_file": str(folder / "cert.pem"),
    }


async def enter(engine: Engine, binding: str, addresses: Iterable[Any], **more: Any) -> int:
    """Register a device for each address, of as many users (u0, u1, …), through the directory's own import: how
    many."""
    expected = 0

    def lines() -> Iterator[bytes]:
        nonlocal expected
        for number, address in enumerate(addresses):
            expected += 1
            yield json.dumps({"user": f"u{number}", "transport": binding, "address": address, **more}).encode()

    report = await engine.endpoints.import_(lines())
    if report.imported != expected:
        raise RuntimeError(f"only {report.imported} of {expected} devices were registered")
    return expected


async def broadcast(
    engine: Engine,
    process: subprocess.Popen[bytes] | Process | None,
    notification: fanout.Notification | None = None,
    target: str = "all",
) -> Sample:
    """One notification to all users, until the last settlement is committed."""
    notification = notification or fanout.Notification(title=TITLE, body=BODY)
    before = cpu_of(process) if process else 0.0
    with Meter() as meter:
        status = await (await engine.send(notification, target)).wait(3600)
    total = status.counts["accepted"]
    if not total or total != status.total:
        raise RuntimeError(f"not all were accepted: {dict(status.counts)}")
    return Sample(total, meter.cpu, cpu_of(process) - before if process else 0.0, meter.wall)
