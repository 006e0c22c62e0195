"""What the tests of event streams share."""

from __future__ import annotations

from typing import Any

from feedrig import Events, Rig

from fanout.service.feed import FeedSettings, NewItem

QUICK = FeedSettings(heartbeat=0.02, poll=0.005)


async def put(rig: Rig, user: str = "alice", **content: Any) -> str:
    """Enter an item that is pushed to nobody; its id."""
    return (await rig.feed.post("default", f"user:{user}", NewItem(content=content))).item_id


async def took(stream: Events, count: int) -> list[str]:
    """The ids of the next changes."""
    return [(await stream.next())[2]["id"] for _ in range(count)]
