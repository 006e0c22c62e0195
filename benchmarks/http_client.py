"""The cost of one request of the HTTP client, beside other clients and beside nghttp2's own load generator in C.

    python -m benchmarks.http_client [--rounds N] [--requests N] [--no-rivals]

Two comparisons, each with its contenders in turns, and the ratio the median of the rounds' ratios:

1. CPU per APNs request over TLS, against aioapns, httpx with HTTP/2, hyper (Rust) and `@parse/node-apn`, with the same
   nginx, which echoes `apns-id` (aioapns cannot match an answer without it).
2. Requests a second over one connection with 500 streams, `h2load -c1 -m500` against ours, with the same nghttpd.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from benchmarks import rig
from benchmarks.contenders import apns
from benchmarks.contenders.apns import IN_FLIGHT, PAYLOAD, job_of, run_client
from benchmarks.contenders.driven import driven
from benchmarks.contenders.rivals import HYPER, NODE_APN, present
from benchmarks.rig import Sample, cores, cpu_of, gateway, missing, nghttpd, nginx, on_client_cpu
from benchmarks.row import Row

__all__ = ["Row", "run"]

AIOAPNS, HTTPX = "aioapns", "httpx, HTTP/2"


def h2load(url: str, folder: Path, requests: int) -> float:
    """Requests a second of nghttp2's load generator, on the client's CPU."""
    (folder / "body").write_bytes(PAYLOAD)
    command = ["taskset", "-c", str(rig.CLIENT_CPU), "h2load", "-n", str(requests), "-c", "1", "-m", str(IN_FLIGHT)]
    out = subprocess.run(
        [*command, "-d", str(folder / "body"), f"{url}/index.html"], capture_output=True, text=True, check=True
    ).stdout
    if f"{requests} succeeded" not in out:
        raise RuntimeError(f"h2load did not succeed:\n{out}")
    line = next(line for line in out.splitlines() if line.startswith("finished in"))
    return float(line.split(",")[1].split()[0])


def compare_cpu(folder: Path, rounds: int, requests: int, with_rivals: bool) -> list[Row]:
    """CPU per request, on one nginx."""
    port = rig.free_port()
    url = f"https://127.0.0.1:{port}"
    ca_file = str(folder / "cert.pem")
    few = max(requests // 10, 200)  # a contender that takes fifty times as long
    samples: dict[str, list[Sample]] = {AIOAPNS: []}
    rows: list[Row] = []
    if find_spec("h2") is None or find_spec("httpx") is None:
        rows.append(Row("skipped: pip install '.[bench]' to compare with httpx over HTTP/2", 0.0, ""))
    else:
        samples[HTTPX] = []
    rivals, skipped = present(NODE_APN, HYPER) if with_rivals else ([], [])
    rows += skipped
    samples |= {name: [] for name in (*(rival.name for rival in rivals), "ours", "ours, uvloop")}
    job = job_of(url, folder / "cert.pem", requests)
    with ExitStack() as stack:
        process = stack.enter_context(gateway(nginx(folder, port), port))
        drivers = {rival.name: stack.enter_context(driven(rival, job)) for rival in rivals}
        stack.enter_context(on_client_cpu())
        for _ in range(rounds):
            for name, taken in samples.items():
                if name in drivers:
                    taken.append(drivers[name].run(lambda: cpu_of(process)))
                elif name == AIOAPNS:
                    taken.append(run_client(apns.aioapns, process, url, ca_file, few))
                elif name == HTTPX:
                    taken.append(run_client(apns.httpx_h2, process, url, ca_file, few))
                else:
                    taken.append(run_client(apns.ours, process, url, ca_file, requests, uvloop="uvloop" in name))
    found = rig.compared(samples, AIOAPNS, "cost", cores=cores(), figure="client CPU per APNs request")
    if HYPER.name in samples:
        ours, theirs = samples["ours, uvloop"], samples[HYPER.name]
        word = f"less than {HYPER.name}"
        found.append(rig.against("ours, uvloop", ours, HYPER.name, theirs, "cost", word=word, cores=cores()))
    return rows + [row._replace(name=f"client CPU per request, {row.name}") for row in found]


def compare_rate(folder: Path, rounds: int, requests: int) -> list[Row]:
    """Requests a second: h2load and ours in turns on one nghttpd."""
    port = rig.free_port()
    url = f"https://127.0.0.1:{port}"
    ca_file = str(folder / "cert.pem")
    loads: list[float] = []
    samples: dict[str, list[Sample]] = {"ours": [], "ours, uvloop": []}
    with gateway(nghttpd(folder, port), port) as process, on_client_cpu():
        for _ in range(rounds):
            loads.append(h2load(url, folder, requests))
            for name, taken in samples.items():
                taken.append(run_client(apns.bare, process, url, ca_file, requests, uvloop="uvloop" in name))
    figure, where = "requests a second over one connection", cores(server="nghttpd")
    rows = [Row("requests a second, h2load -c1 -m500", statistics.median(loads), "/s", cores=where, figure=figure)]
    for name, taken in samples.items():
        ratios = [sample.rate / load for sample, load in zip(taken, loads, strict=True)]
        row = rig.row(f"requests a second, {name}", taken, cores=where, figure=figure)
        rows.append(row._replace(against="h2load", ratio=statistics.median(ratios), spread=(min(ratios), max(ratios))))
    return rows


def run(*, rounds: int = 5, requests: int = 50_000, with_rivals: bool = True) -> list[Row]:
    """Both comparisons; a comparison without its program says so in its line."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rig.make_certificate(folder)
        absent = missing("nginx")
        rows += [Row(absent, 0.0, "")] if absent else compare_cpu(folder, rounds, requests, with_rivals)
        absent = missing("nghttpd", "h2load", "taskset")
        rows += [Row(absent, 0.0, "")] if absent else compare_rate(folder, rounds, requests)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--no-rivals", action="store_true", help="without those of Node and Rust")
    arguments = parser.parse_args()
    for row in run(rounds=arguments.rounds, requests=arguments.requests, with_rivals=not arguments.no_rivals):
        print(row)


if __name__ == "__main__":
    main()
