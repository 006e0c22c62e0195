"""Jobs that do nothing, by arq on Redis: enqueued one by one, worked off in the same process. `../driven.py` has the
protocol."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).with_name("lib")))

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func


async def main() -> None:
    logging.disable(logging.CRITICAL)
    job = json.loads(sys.stdin.readline())
    left, ended = 0, asyncio.Event()

    async def push(context: dict[Any, Any], user: str, title: str, body: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    settings = RedisSettings(port=job["port"])
    redis = await create_pool(settings)
    worker = Worker(
        [func(push, name="push")],
        redis_settings=settings,
        max_jobs=job["atOnce"],
        poll_delay=0.01,
        keep_result=0,
        handle_signals=False,
    )
    working = asyncio.create_task(worker.async_run())

    async def run(count: int) -> tuple[float, float]:
        """Seconds until all were enqueued, and until all had ended."""
        nonlocal left
        left, numbers, begun = count, iter(range(count)), time.perf_counter()

        async def caller() -> None:
            for number in numbers:
                await redis.enqueue_job("push", f"u{number}", "Storm warning", "Gale")

        await asyncio.gather(*(caller() for _ in range(job["callers"])))
        accepted = time.perf_counter() - begun
        await ended.wait()
        ended.clear()
        return accepted, time.perf_counter() - begun

    await run(job["warmUp"])
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        cpu = time.process_time()
        accepted, wall = await run(job["requests"])
        cpu = time.process_time() - cpu
        print(json.dumps({"requests": job["requests"], "cpu": cpu, "wall": wall, "accepted": accepted}), flush=True)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await worker.close()
    await redis.aclose()


asyncio.run(main())
