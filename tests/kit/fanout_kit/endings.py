"""Some of everything that can be settled, and all that can be read of it afterwards: one way of settling is held to
another with it."""

from __future__ import annotations

import json
import random
from typing import Any

from fanout.core.model import Target
from fanout.core.records import EndpointGone, RetryRow, Settled, Settlement
from fanout.testing.storage_kit import T0, device, done, lease_all, post, standing, submission

__all__ = ["ended"]


async def ended(storage: Any, rng: random.Random) -> tuple[list[Settled], list[Any]]:
    """Settle some of everything; the answers, and all that can be read of it afterwards."""
    entered = await storage.register([device(f"u{n}", f"{n}-{i}") for n in range(6) for i in range(n + 1)], T0)
    subs = [submission(Target.user(f"u{n % 6}")) for n in range(24)]
    for sub in subs:
        await post(storage, sub)
    chunks = await lease_all(storage)
    await storage.cancel("default", subs[3].id, T0)
    await storage.pause("default", subs[4].id, T0)
    settlements = [done(chunk, *rng.choice([("accepted", ""), ("rejected", "a 'quoted' \\ one")])) for chunk in chunks]
    settlements[7].epoch -= 1
    settlements[9].results = {("accepted", ""): []}
    settlements[9].retries = [RetryRow(p, T0 + 9, 2, "backoff", "slow") for p in range(len(chunks[9].ids))]
    settlements[10].changes = [EndpointGone(entered[0].id, 1, T0, "gone")]
    halves = settlements.pop(12)
    ((key, positions),) = halves.results.items()
    settlements += [
        Settlement(halves.chunk, halves.epoch, results={key: part}, attempts=len(part))
        for part in (positions[:1], positions[1:])
    ]
    pair = [chunk.id for chunk in chunks if chunk.notification == subs[5].id]
    parts = [each for each in settlements if each.chunk in pair]
    assert len(parts) == 2
    answers = await storage.settle(parts[:1], T0 + 1)
    assert (await standing(storage, subs[5].id, T0 + 1)).finished_at is None
    answers += await storage.settle([each for each in settlements if each not in parts], T0 + 1)
    answers += await storage.settle([parts[1], Settlement(10**9, 1, results={("accepted", ""): [0]})], T0 + 1)
    for answer in answers:
        assert answer.status == (await standing(storage, answer.finished, T0 + 1) if answer.finished else None)
    statuses = [await standing(storage, sub.id, T0 + 1) for sub in subs]
    events = sorted(json.dumps([e.kind, e.at, e.app, dict(e.data)], sort_keys=True) for e in await storage.events())
    delivered = [await storage.deliveries(sub.id) for sub in subs]
    steps = [await storage.explain(sub.id, each.id) for sub in subs for each in entered]
    read = [statuses, events, delivered, steps, await storage.outstanding(), await storage.backlog("default")]
    return answers, json.loads(json.dumps(read, default=lambda each: getattr(each, "__dict__", None) or repr(each)))
