"""kill -9 between a post and its push: what was accepted is in the feed, and what is in the feed is pushed."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest
from feedrig import running

from fanout.core.feed import FeedQuery

pytestmark = pytest.mark.anyio


@pytest.mark.long("tests/faults/test_kills.py kills senders and workers")
async def test_a_killed_poster_loses_neither_items_nor_pushes(tmp_path: Path) -> None:
    database = tmp_path / "feed.db"
    rng = random.Random(7)
    accepted: set[str] = set()
    for _ in range(4):
        poster = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("poster.py")), str(database), stdout=asyncio.subprocess.PIPE
        )
        assert poster.stdout is not None
        try:
            for _ in range(rng.randrange(1, 60)):
                accepted.add((await poster.stdout.readline()).decode().strip())
        finally:
            poster.kill()
            rest = (await poster.stdout.read()).decode()
            await poster.wait()
        # The last line may have been cut off in the middle.
        accepted |= set(rest.split("\n")[:-1])
    async with running(f"sqlite:{database}", apps=("default",)) as rig:
        await rig.quiet()
        page = await rig.engine.storage.feed.read("default", "alice", FeedQuery(limit=100_000), rig.clock.now())
        stored = {item.id: item.seq for item in page.items}
        assert accepted
        assert accepted <= set(stored), "what was accepted is in the feed"
        pushed = [data["item"] for data in rig.gateways.data("alice-phone")]
        assert sorted(pushed) == sorted(stored), "what is in the feed is pushed, once"
        # Signals collapse: of those that waited together the last stands for all.
        cursors = {data["cursor"] for data in rig.gateways.data("alice-tablet")}
        assert max(cursors) == max(data["cursor"] for data in rig.gateways.data("alice-phone"))
