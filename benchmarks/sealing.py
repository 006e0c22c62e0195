"""The cost of sealed addresses: to resolve a chunk of a thousand, to register, and to seal a database that has them in
clear.

python -m benchmarks.sealing [endpoints]
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from array import array
from dataclasses import replace
from pathlib import Path

from benchmarks.row import Row
from fanout.core.address import Address
from fanout.core.endpoint import Registration
from fanout.plugin import Sealer, StorageContext
from fanout.storage.sqlite.sealing import seal
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock

NOW = 1_800_000_000.0
_BATCH = 10_000
_CHUNK = 1000


def _devices(n: int, rng: random.Random) -> list[Registration]:
    return [
        Registration(user=f"user-{i // 2}", binding="apns", address=Address(rng.randbytes(32).hex(), kind="device"))
        for i in range(n)
    ]


async def _measure(
    path: Path, context: StorageContext, devices: list[Registration], rounds: int
) -> tuple[float, float]:
    """Seconds of the processor per registered endpoint and per resolved one, the best of the rounds."""
    async with SqliteStorage(str(path), context, offload=Inline) as storage:
        began = time.process_time()
        for start in range(0, len(devices), _BATCH):
            await storage.register(devices[start : start + _BATCH], NOW)
        registered = time.process_time() - began
        resolved = []
        for _ in range(rounds):
            began = time.process_time()
            for start in range(1, len(devices) - _CHUNK, _CHUNK):
                assert len(await storage.resolve(array("q", range(start, start + _CHUNK)), NOW)) == _CHUNK
            resolved.append((time.process_time() - began) / (len(devices) // _CHUNK * _CHUNK))
    return registered / len(devices), min(resolved)


async def _run(endpoints: int, rounds: int) -> list[Row]:
    devices = _devices(endpoints, random.Random(7))
    context = StorageContext(clock=VirtualClock(NOW))
    keyed = replace(context, sealer=Sealer([os.urandom(32)]))
    with tempfile.TemporaryDirectory() as folder:
        clear, sealed = Path(folder) / "clear.db", Path(folder) / "sealed.db"
        plain = await _measure(clear, context, devices, rounds)
        covered = await _measure(sealed, keyed, devices, rounds)
        sizes = clear.stat().st_size / endpoints, sealed.stat().st_size / endpoints
        began = time.perf_counter()
        assert await seal(str(clear), keyed, lambda done: None) == endpoints
        sealing = (time.perf_counter() - began) / endpoints
    micro = 1e6
    return [
        Row("resolve, in clear", plain[1] * micro, "us per endpoint"),
        Row("resolve, sealed", covered[1] * micro, "us per endpoint", "in clear", covered[1] / plain[1]),
        Row("register, in clear", plain[0] * micro, "us per endpoint"),
        Row("register, sealed", covered[0] * micro, "us per endpoint", "in clear", covered[0] / plain[0]),
        Row("file, in clear", sizes[0], "bytes per endpoint"),
        Row("file, sealed", sizes[1], "bytes per endpoint", "in clear", sizes[1] / sizes[0]),
        Row("sealing what is in clear", sealing * micro, "us per endpoint", note=f"{1e6 * sealing:.0f} s a million"),
    ]


def run(*, endpoints: int = 100_000, rounds: int = 5) -> list[Row]:
    """The rows of the report."""
    return asyncio.run(_run(endpoints, rounds))


if __name__ == "__main__":
    for row in run(endpoints=int(sys.argv[1]) if len(sys.argv) > 1 else 100_000):
        print(row)
