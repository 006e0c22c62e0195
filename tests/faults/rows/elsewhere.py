"""Rows that other files prove, or that nothing here can run; and 45 and 52, which belong to no family."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time

from fanout_apns.simulator import ApnsSimulator
from tests.faults.table import Finding, Row, measured
from tests.faults.world import Form, world

__all__ = ["ROWS"]

_NATS = "needs NATS JetStream, for which there is no storage"


@measured(45, "deterministic simulation", "0 violations; the same seed is the same run")
async def simulation(form: Form) -> Finding:
    """Seeds that no test has in its list, drawn from the run's; what the runs are is in
    `tests/kit/fanout_kit/simulation`."""
    count = form.pick(3, 400)
    first = form.rng.randrange(10_000, 1_000_000)
    seeds = f"{first}..{first + count - 1}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fanout_kit.simulation", "--seeds", seeds, "--keep-going",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    text = out.decode(errors="replace")
    said = [line for line in text.splitlines() if line.strip()]
    details = () if process.returncode == 0 else tuple(said[-20:])
    return Finding(said[-1] if said else "nothing", process.returncode == 0, f"seeds {seeds}", details)


@measured(52, "log redaction", "0 addresses, tokens or keys in logs, metrics and exceptions")
async def redaction(form: Form) -> Finding:
    """Trouble of every kind with devices and keys that are known; then everything that was written is searched, and the
    logs of the rows before."""
    seconds = form.pick(2.0, 15.0)
    texts: list[str] = []
    async with world(
        form, devices=50, policy={"attempts": 3, "backoff_cap": 0.2}, settings={"request_timeout": 1.0}
    ) as here:
        for n, behaviour in enumerate(("dead", "bad", "other", "throttled", "slow") * 4):
            await here.engine.endpoints.register(
                user=f"t{n}", binding="apns", address=ApnsSimulator.address(n, behaviour), tags=["trouble"]
            )
        worker = here.work("--metrics", "0", "--log-format", "json")
        faulty = here.work(failpoint="settle.before:40:io")
        await here.gateway.faults(
            errors={"InvalidProviderToken": 0.02, "ServiceUnavailable": 0.1, "BadTopic": 0.02, "InternalServerError": 0.1},
            reset=0.05, kill_after=0.01, stall=0.02, goaway_every=100,
        )  # fmt: skip
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await here.submit(1)
            await here.submit(1, "topic:trouble", lane="urgent")
            await asyncio.sleep(0.05)
        metrics = await _metrics(worker.said)
        tokens = (await here.gateway.tell(get=["tokens"]))["tokens"]
        for child in (worker, faulty):
            child.signal(signal.SIGTERM)
            await child.wait()
        broken = here.folder / "broken.toml"
        broken.write_text(
            here.config.read_text().replace("key_id = ", "key_idd = ").replace("BEGIN PRIVATE", "BEGIN PUBLIC")
        )
        for words in (("work", "--drain"), ("doctor",), ("endpoints", "list")):
            child = here.spawn(*words, config=broken)
            await child.wait()
        child = here.spawn("endpoints", "add", "--user", "x", "--transport", "apns", ApnsSimulator.address(1) + "zz")
        await child.wait()
        shown = here.spawn("doctor")
        await shown.wait()
        key = here.gateway.settings["key"]
    texts = [metrics, *(log.read_text(errors="replace") for log in form.logs if log.exists())]
    secrets = {ApnsSimulator.address(n) for n in range(20_000)}
    secrets |= {ApnsSimulator.address(n, behaviour) for n in range(50) for behaviour in ApnsSimulator.behaviours}
    secrets |= {token.partition(" ")[2] for token in tokens}
    secrets |= {token.partition(" ")[2].rpartition(".")[2] for token in tokens}
    secrets |= {line for line in key.splitlines() if len(line) > 20 and "PRIVATE KEY" not in line}
    everything = "\n".join(texts)
    # Every address of this world is 64 hexadecimal digits, and nothing else that is written is.
    words = set(re.findall(r"[A-Za-z0-9+/=_-]{32,}(?:\.[A-Za-z0-9_-]+)*", everything))
    hits = words & secrets
    hexadecimal = {word for word in words if re.fullmatch(r"[0-9a-f]{64,}", word)}
    found = f"{len(hits | hexadecimal)} hits in {len(everything):,} characters of {len(texts)} logs and the metrics ({len(metrics):,} characters)"
    return Finding(
        found,
        not hits and not hexadecimal and len(everything) > 1000 and bool(metrics),
        f"{len(secrets):,} secrets looked for",
    )


async def _metrics(said: str) -> str:
    """What a worker serves under /metrics, at the address that it said."""
    found = re.search(r"http://[0-9.:]+/metrics", said) or re.search(r"127\.0\.0\.1:\d+", said)
    if found is None:
        return ""
    host, port = re.search(r"([0-9.]+):(\d+)", found.group()).groups()  # type: ignore[union-attr]
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return text


ROWS = [
    Row(number=10, figure="max delivery rate", limit="reported", why="a benchmark, not a fault: `python -m benchmarks broadcast`, `engine`"),
    Row(number=11, figure="fan-out of one notification to 1M", limit="reported", why="a benchmark, not a fault: `python -m benchmarks engine`"),
    Row(number=35, figure="bad inputs at the API", limit="only 4xx, RSS flat, no 500", see=("tests/service/test_fuzz.py",)),
    Row(
        number=44,
        figure="stateful model (its long form: `make soak`)",
        limit="one final state, epochs only rise, no send after it",
        see=("tests/lifecycle", "tests/storage/test_model.py"),
    ),
    simulation,
    Row(number=49, figure="NATS: nodes killed and parted", limit="0 lost", why=_NATS),
    Row(
        number=50,
        figure="SSRF corpus",
        limit="0 connections to anything that is not public",
        see=("tests/guard", "tests/webpush/test_hostile.py"),
    ),
    Row(
        number=51,
        figure="JWT corpus",
        limit="0 accepted; valid tokens keep working",
        see=("tests/auth/test_corpus.py", "tests/auth/test_callers.py"),
    ),
    redaction,
]  # fmt: skip
