"""One user: erased, or all that is held of the user as records, read through the storage's contract in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import orjson

from fanout.core import given
from fanout.core.columns import shown
from fanout.core.endpoint import Endpoint, EndpointState
from fanout.core.feed import FeedItem, FeedQuery
from fanout.core.model import Target
from fanout.core.records import EndpointFilter
from fanout.engine.acting import audit
from fanout.engine.listing import BY_ID, pages
from fanout.plugin import Clock, Storage, feed_of, has_part

__all__ = ["erase", "export"]

_PAGE = 500
_ITEMS = 100
"""Feed items of a page: their content has up to 64 KB each."""
_OF_A_SUBSCRIPTION = (
    "id", "device", "binding", "platform", "receive", "created_at", "renewed_at", "expires_at", "endpoint", "endpoint_state",
)  # fmt: skip


async def erase(storage: Storage, clock: Clock, app: str, user: str) -> int:
    """Forget a user, with a line of the audit log; how many endpoints there were. Raises `UsageError`."""
    line = audit("user.erased", given.text("user", user))
    return await storage.erase_user(given.text("app", app), user, clock.now(), audit=line)


async def export(
    storage: Storage, check: Callable[[], None], clock: Clock, app: str, user: str
) -> AsyncIterator[dict[str, Any]]:
    """Records of a user, plain JSON, each with a `kind`; the last is `end`. The audit log has the line before the first
    record is there."""
    given.text("user", user)
    given.text("app", app)
    check()
    await storage.record(app, audit("user.exported", user), clock.now())
    count = 0
    async for record in _records(storage, check, clock, app, user):
        count += 1
        yield record
    yield {"kind": "end", "records": count}


async def _records(
    storage: Storage, check: Callable[[], None], clock: Clock, app: str, user: str
) -> AsyncIterator[dict[str, Any]]:
    yield {"kind": "user", "app": app, "user": user, "at": clock.now()}
    devices: list[int] = []
    which = EndpointFilter(app=app, user=user, state=None)
    async for endpoint in pages(check, partial(storage.list_endpoints, which, limit=_PAGE), BY_ID):
        devices.append(endpoint.id)
        yield _endpoint(endpoint, await _taken_over(storage, endpoint))
    check()
    for subscription in await feed_of(storage).subscriptions(app, user) if has_part(storage, "feed") else ():
        yield {"kind": "subscription"} | {name: getattr(subscription, name) for name in _OF_A_SUBSCRIPTION}
    check()
    if has_part(storage, "feed"):
        yield {"kind": "seen", "number": (await feed_of(storage).counts(app, user, clock.now())).seen}
        async for item in _items(storage, check, clock, app, user):
            yield {"kind": "item"} | asdict(item) | {"content": _parsed(item.content)}
    position: int | None = 0
    while position is not None:
        check()
        ids, position = await storage.addressed(app, user, after=position, limit=_PAGE)
        for id in ids:
            record = await _notification(storage, check, clock, id, devices)
            if record is not None:
                yield record
    person = await storage.person(app, user)
    for lines in (False, True):
        async for event in pages(check, partial(storage.events, limit=_PAGE, audit=lines), BY_ID):
            if event.app != app:
                continue
            if lines and event.data.get("person") == person:  # its other fields tell of the operator
                yield {"kind": "audit", "id": event.id, "at": event.at, "what": event.kind}
            elif not lines and event.data.get("user") == user:  # `by` is another user's endpoint
                data = {name: value for name, value in event.data.items() if name != "by"}
                yield {"kind": "event", "id": event.id, "at": event.at, "what": event.kind, "data": data}


async def _taken_over(storage: Storage, endpoint: Endpoint) -> bool:
    """Whether the address is another user's by now: a holder of it can push to that device."""
    if endpoint.state is EndpointState.ACTIVE or not endpoint.address.value:
        return False
    if endpoint.state is EndpointState.REPLACED:
        return True
    target = Target("addresses", binding=endpoint.binding, addresses=(endpoint.address,))
    return bool(await storage.count_endpoints(endpoint.app, target))


def _endpoint(endpoint: Endpoint, taken_over: bool) -> dict[str, Any]:
    address = endpoint.address
    return {
        "kind": "endpoint",
        "id": endpoint.id,
        "binding": endpoint.binding,
        "address": None if taken_over else address.value,
        "address_kind": address.kind,
        "group": "" if taken_over else address.group,
        **shown(endpoint),
        "tags": list(endpoint.tags),
        "generation": endpoint.generation,
        "registered_at": endpoint.registered_at,
        "expires_at": endpoint.expires_at,
        "state": endpoint.state.value,
        "state_at": endpoint.state_at,
        "reason": endpoint.reason,
    }


async def _items(
    storage: Storage, check: Callable[[], None], clock: Clock, app: str, user: str
) -> AsyncIterator[FeedItem]:
    """In the order of change, tombstones too. A row that changes meanwhile comes at its new place."""
    after = 0
    while True:
        check()
        page = await feed_of(storage).read(app, user, FeedQuery(after=after, status=None, limit=_ITEMS), clock.now())
        for item in page.items:
            yield item
        if not page.more or page.seq <= after:
            return
        after = page.seq


async def _notification(
    storage: Storage, check: Callable[[], None], clock: Clock, id: str, devices: list[int]
) -> dict[str, Any] | None:
    """One that is addressed to the user. Of a list, counts and results are others' too: the user's own deliveries alone
    are told."""
    status, stored = await storage.status(id, clock.now()), await storage.notification(id)
    if status is None:
        return None  # its retention ended meanwhile
    return {
        "kind": "notification",
        "id": id,
        "state": status.state,
        "accepted_at": status.accepted_at,
        "due_at": status.due_at,
        "expires_at": status.expires_at,
        "finished_at": status.finished_at,
        "content": None if stored is None else _parsed(stored.content),
        "deliveries": await _deliveries(storage, check, id, devices),
    }


async def _deliveries(storage: Storage, check: Callable[[], None], id: str, devices: list[int]) -> list[dict[str, Any]]:
    """Those for these endpoints, which ascend. A record between two of them is passed over."""
    found: list[dict[str, Any]] = []
    wanted, index = set(devices), 0
    while index < len(devices):
        check()
        page = await storage.deliveries(id, after=devices[index] - 1, limit=len(devices))
        if not page:
            break
        found += [{"endpoint": row[0], "state": row[1], "reason": row[2]} for row in page if row[0] in wanted]
        while index < len(devices) and devices[index] <= page[-1][0]:
            index += 1
    return found


def _parsed(content: bytes) -> Any:
    """Content as JSON; other content, as text."""
    try:
        return orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")
