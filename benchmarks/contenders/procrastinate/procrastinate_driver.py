"""Jobs that do nothing, by procrastinate on PostgreSQL: deferred one by one, worked off in the same process.
`../driven.py` has the protocol."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("lib")))

import procrastinate


async def main() -> None:
    logging.disable(logging.CRITICAL)
    job = json.loads(sys.stdin.readline())
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=job["url"], max_size=20))
    left, ended = 0, asyncio.Event()

    @app.task(name="push")
    async def push(user: str, title: str, body: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    async def run(count: int) -> tuple[float, float]:
        """Seconds until all were deferred, and until all had ended."""
        nonlocal left
        left, numbers, begun = count, iter(range(count)), time.perf_counter()

        async def caller() -> None:
            for number in numbers:
                await push.defer_async(user=f"u{number}", title="Storm warning", body="Gale")

        await asyncio.gather(*(caller() for _ in range(job["callers"])))
        accepted = time.perf_counter() - begun
        await ended.wait()
        ended.clear()
        return accepted, time.perf_counter() - begun

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=job["atOnce"], install_signal_handlers=False))
        await run(job["warmUp"])
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            cpu = time.process_time()
            accepted, wall = await run(job["requests"])
            cpu = time.process_time() - cpu
            print(json.dumps({"requests": job["requests"], "cpu": cpu, "wall": wall, "accepted": accepted}), flush=True)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


asyncio.run(main())
