"""The checks of `fanout doctor` in a database: bindings that this configuration has not, and tags from before some
letters were reserved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from fanout.core.given import reserved_in
from fanout.core.records import EndpointFilter
from fanout.plugin import Storage, fleet_of, has_part

__all__ = ["reserved_tags", "strangers"]

_PAGE = 1000
_PATIENCE = 10.0
"""Seconds for which tags are counted: a million endpoints and more."""


async def strangers(storage: Storage, known: Collection[str]) -> list[str]:
    """The bindings, as app/binding, that live workers serve and `known` has not."""
    if not storage.shared or not has_part(storage, "fleet"):
        return []
    served = {name for note in await fleet_of(storage).workers(time.time()) for name in note.bindings}
    return sorted(served.difference(known))


async def reserved_tags(storage: Storage, apps: Collection[str], *, share: float = 1.0) -> str:
    """How many active endpoints of these apps have a tag with a reserved character, as a warning; "" where none has.

    `share` is the part of the time that is spent on it, so that it takes little from others in this process.
    """
    found = seen = 0
    tags: set[str] = set()
    until = time.monotonic() + _PATIENCE
    for app in apps:
        after, which = 0, EndpointFilter(app=app)
        while (began := time.monotonic()) < until:
            page = await storage.list_endpoints(which, after=after, limit=_PAGE)
            for endpoint in page:
                odd = [tag for tag in endpoint.tags if reserved_in(tag)]
                found += bool(odd)
                tags.update(odd)
            seen += len(page)
            if len(page) < _PAGE:
                break
            after = page[-1].id
            await asyncio.sleep((time.monotonic() - began) * (1 / share - 1))
    if not found:
        return ""
    more = "" if time.monotonic() < until else f" among the first {seen:,}"
    return (
        f"{found:,} endpoints{more} have tags ({len(tags):,} different ones) with a blank or one of & | ! ( ) < > =, which new tags may not "
        "hold: register these devices with other tags."
    )
