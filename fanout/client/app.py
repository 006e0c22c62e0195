"""The app's side of the service: the calls of a larger service's own server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal
from urllib.parse import quote

from fanout.client.wire import ServiceUnavailable, Wire, answered, records
from fanout.core.model import Notification, Target
from fanout.core.records import Step
from fanout.errors import UsageError

__all__ = ["AppClient", "DeliveryInfo", "EndpointInfo", "GraphAccepted", "NotificationStatus", "Posted"]

_CONTENT = tuple(
    field.name
    for field in fields(Notification)
    if field.name not in ("id", "accepted_at", "expires_at", "actions", "transports", "data")
)
_DEFAULTS = {field.name: field.default for field in fields(Notification)}


@dataclass(frozen=True, slots=True)
class Posted:
    """A post that the service has stored. `total` is its deliveries, None while they are not known; `item` its place in the feed.

    `parts` are further notifications of the same post, for devices that want it in another form.
    """

    id: str
    total: int | None
    replayed: bool = False
    item: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """How a notification stands, with the words of `fanout status --json`. Times are UNIX seconds."""

    id: str
    state: str
    total: int | None
    counts: Mapping[str, int]
    pending_by_reason: Mapping[str, int]
    attempts: int
    accepted_at: float
    finished_at: float | None
    oldest_pending_at: float | None
    eta_s: float | None
    reasons: Mapping[str, Mapping[str, int]]
    shortened: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeliveryInfo:
    """One delivery: `state` is `pending` or how it ended."""

    endpoint: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One device in the directory. Its address is not told. Times are UNIX seconds."""

    id: int
    user: str
    binding: str
    kind: str
    group: str
    platform: str
    tags: tuple[str, ...]
    state: str
    reason: str
    generation: int
    registered_at: float
    expires_at: float | None
    state_at: float | None


@dataclass(frozen=True, slots=True)
class GraphAccepted:
    """The result of a post in Microsoft Graph's shape: the resource as answered, whether it `replaced` one, and its
    address."""

    resource: Mapping[str, Any]
    location: str
    replaced: bool


class AppClient(Wire):
    """The service as an app sees it: with an API key, `ClientCredentials`, or for Graph's delegated posts `OnBehalfOf`'s `for_user`.

        async with AppClient("https://push.example.com", key) as push:
            posted = await push.send(Notification(title="Shipped"), "user:alice")

    Every method raises `ServiceError`, `ServiceUnavailable` and `TokenError`.
    """

    async def send(
        self,
        notification: Notification,
        target: Target | str,
        *,
        at: float | None = None,
        feed: bool | Mapping[str, Any] = False,
        idempotency_key: str | None = None,
    ) -> Posted:
        """Post a notification. Asked again by itself when no answer came, for which it makes up an idempotency key: it
        is stored
        once.

        Args:
            notification: The content.
            target: The devices: `Target.user("alice")`, or its short form "user:alice", "topic:news", "all".
            at: The due time in UNIX seconds; None for now.
            feed: Whether it enters the feed of its users, or how: a mapping with `id`, `group`, `priority`,
                `expires_in`,
                `display_ttl`.
            idempotency_key: A text of the caller's, instead of the one that is made up.

        Returns:
            The stored notification: `id`, `total`, `replayed`, and the feed's `item`.

        Example:
            ```python
            posted = await client.send(Notification(title="Your table is ready"), "user:alice")
            ```
        """
        body = _body(notification, target, at, feed)
        key = idempotency_key or str(uuid.uuid4())
        answer = await self.call("POST", "/v1/notifications", json=body, headers={"idempotency-key": key}, again=True)
        return answered(Posted, {**answer, "parts": tuple(answer["parts"])})

    async def preview(self, notification: Notification, target: Target | str) -> Mapping[str, Any]:
        """Say what `send` would do, without doing it.

        Args:
            notification: The content.
            target: The devices, as in `send`.

        Returns:
            `endpoints` and `bytes` by binding, `total`, `rate` (deliveries a second) and `eta_s` (seconds).
        """
        body = {**_body(notification, target, None, False), "dry_run": True}
        found: Mapping[str, Any] = await self.call("POST", "/v1/notifications", json=body, again=True)
        return found

    async def status(self, id: str) -> NotificationStatus:
        """The state of a notification.

        Args:
            id: The notification's id, as `send` gives it.
        """
        return answered(NotificationStatus, await self.call("GET", f"/v1/notifications/{id}", again=True))

    async def cancel(self, id: str) -> NotificationStatus:
        """Stop the deliveries that have not been sent. When this returns, only a push in flight can still arrive.

        Args:
            id: The notification's id, as `send` gives it.
        """
        return answered(NotificationStatus, await self.call("POST", f"/v1/notifications/{id}/cancel", again=True))

    async def pause(self, id: str) -> NotificationStatus:
        """Hold a notification, while its time to live runs on.

        Args:
            id: The notification's id, as `send` gives it.
        """
        return answered(NotificationStatus, await self.call("POST", f"/v1/notifications/{id}/pause", again=True))

    async def resume(self, id: str) -> NotificationStatus:
        """Let a paused notification go on.

        Args:
            id: The notification's id, as `send` gives it.
        """
        return answered(NotificationStatus, await self.call("POST", f"/v1/notifications/{id}/resume", again=True))

    async def deliveries(self, id: str, *, state: str | None = None) -> AsyncIterator[DeliveryInfo]:
        """The deliveries of a notification by endpoint, read in pages.

        Args:
            id: The notification's id, as `send` gives it.
            state: One state, "pending" for those that have not ended, or None for all.
        """
        async for row in self._pages(f"/v1/notifications/{id}/deliveries", "deliveries", state=state):
            yield answered(DeliveryInfo, row)

    async def explain(self, id: str, endpoint: int) -> list[Step]:
        """The decisions about one delivery, oldest first.

        Args:
            id: The notification's id, as `send` gives it.
            endpoint: The endpoint's id, as `deliveries` gives it.
        """
        rows = await self.call("GET", f"/v1/notifications/{id}/deliveries/{endpoint}", again=True)
        return [answered(Step, row) for row in rows]

    # -- the directory

    async def register(
        self,
        *,
        user: str,
        binding: str,
        address: str | Mapping[str, Any],
        platform: str = "",
        tags: Iterable[str] = (),
        expires_at: float | None = None,
    ) -> EndpointInfo:
        """Enter a device, or refresh it.

        Args:
            user: The user's id: any text of yours.
            binding: The binding that serves the device, by its name in the service's configuration.
            address: The address as the platform hands it to the client: a token, or the subscription of a browser.
            platform: The platform in a word ("ios", "android", "web", "windows").
            tags: Tags that topics name.
            expires_at: The end of the registration in UNIX seconds; None for no end.
        """
        body: dict[str, Any] = {"user": user, "binding": binding, "address": address, "platform": platform}
        body["tags"] = list(tags)
        if expires_at is not None:
            body["expires_at"] = expires_at
        return _endpoint(await self.call("POST", "/v1/endpoints", json=body, again=True))

    async def endpoint(self, id: int) -> EndpointInfo:
        """One device, in any state.

        Args:
            id: The endpoint's id.
        """
        return _endpoint(await self.call("GET", f"/v1/endpoints/{id}", again=True))

    async def endpoints(
        self,
        *,
        user: str | None = None,
        binding: str | None = None,
        tag: str | None = None,
        state: Literal["active", "gone", "replaced", "removed", "expired", "any"] | None = None,
    ) -> AsyncIterator[EndpointInfo]:
        """Devices by id, read in pages.

        Args:
            user: Those of one user; None for all.
            binding: Those of one binding; None for all.
            tag: Those with one tag; None for all.
            state: Those in one state (`gone` is the quarantine), or "any"; None for the active ones.
        """
        async for row in self._pages("/v1/endpoints", "endpoints", user=user, binding=binding, tag=tag, state=state):
            yield _endpoint(row)

    async def remove(self, id: int) -> None:
        """Take a device out of the directory.

        Args:
            id: The endpoint's id.
        """
        await self.call("DELETE", f"/v1/endpoints/{id}", again=True)

    async def restore(self, ids: Iterable[int]) -> int:
        """Put devices back that are gone, removed or expired.

        Args:
            ids: The ids of their endpoints.

        Returns:
            The number that are active again.
        """
        answer = await self.call("POST", "/v1/endpoints/restore", json={"ids": [*ids]}, again=True)
        return int(answer["restored"])

    async def import_(self, lines: AsyncIterable[bytes]) -> Mapping[str, Any]:
        """Enter devices from NDJSON lines, as a stream; `Endpoints.import_` describes a line.

        Args:
            lines: The lines, as they come.

        Returns:
            `imported`, `bad`, and `errors` of the first thousand bad lines.
        """
        headers = {"content-type": "application/x-ndjson"}
        found: Mapping[str, Any] = await self.call("POST", "/v1/endpoints/import", body=lines, headers=headers)
        return found

    async def withdraw(self, user: str, *, id: str | None = None, external_id: str | None = None) -> str:
        """Take an item back from a user's feed and from the trays of her devices.

        Args:
            user: The user's id.
            id: The item's id; or else
            external_id: the sender's own id of the item.

        Returns:
            The item's id.
        """
        if (id is None) == (external_id is None):
            raise UsageError("withdraw takes the item's id, or external_id, its sender's: one of the two.")
        query = {"user": user, "id": id, "external_id": external_id}
        answer = await self.call("DELETE", "/v1/feed", query=query, again=True)
        return str(answer["item"])

    async def erase(self, user: str) -> int:
        """Forget a user: devices, feed, and the deliveries queued for the user alone.

        Args:
            user: The user's id.

        Returns:
            The number of devices that there were.
        """
        answer = await self.call("DELETE", f"/v1/users/{quote(user, safe='')}", again=True)
        return int(answer["endpoints"])

    async def export(self, user: str) -> AsyncIterator[dict[str, Any]]:
        """All data held of a user, record by record, each with a `kind`; the last is `end`.

        Args:
            user: The user's id.

        Raises:
            ServiceError: The service refused.
            ServiceUnavailable: The service did not answer, or the export broke off before its end: ask for it again.
        """
        headers = {"accept": "application/x-ndjson"}
        answer = await self.open("GET", "/v1/export", query={"user": user}, headers=headers, endless=True)
        async for record in records(answer):
            yield record
            if record.get("kind") == "end":
                return
        raise ServiceUnavailable("The export broke off: ask for it again.")

    # -- Microsoft Graph's shape

    async def post_graph(self, resource: Mapping[str, Any], *, unsid: str | None = None) -> GraphAccepted:
        """`POST /me/notifications`. `unsid` names the user for an app; a delegated token says it itself.

        With its `appNotificationId` the resource may be posted again: it replaces itself.

        Args:
            resource: The body in Graph's shape.
        """
        headers = {"x-uns-id": unsid} if unsid is not None else {}
        async with await self.open("POST", "/me/notifications", json=resource, headers=headers) as answer:
            said = await answer.json(content_type=None)
            return GraphAccepted(said, answer.headers.get("location", ""), answer.status == 200)

    async def _pages(self, path: str, name: str, **query: str | None) -> AsyncIterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = await self.call("GET", path, query={**query, "cursor": cursor}, again=True)
            for row in page[name]:
                yield row
            cursor = page["cursor"]
            if cursor is None:
                return


def _endpoint(row: Mapping[str, Any]) -> EndpointInfo:
    return answered(EndpointInfo, {**row, "tags": tuple(row["tags"])})


def _body(
    notification: Notification, target: Target | str, at: float | None, feed: bool | Mapping[str, Any]
) -> dict[str, Any]:
    body: dict[str, Any] = {"target": _target(target)}
    for name in _CONTENT:
        value = getattr(notification, name)
        if value != _DEFAULTS[name]:
            body[name] = value
    if notification.data:
        body["data"] = dict(notification.data)
    if notification.transports:
        body["transports"] = {name: dict(values) for name, values in notification.transports.items()}
    if notification.actions:
        body["actions"] = [
            {"id": action.id, "title": action.title} | ({"url": action.url} if action.url else {})
            for action in notification.actions
        ]
    if at is not None:
        body["at"] = at
    if feed:
        body["feed"] = feed if isinstance(feed, bool) else dict(feed)
    return body


def _target(target: Target | str) -> Any:
    target = Target.parse(target) if isinstance(target, str) else target
    match target.kind:
        case "user" | "topic":
            return {target.kind: target.names[0]}
        case "users":
            return {"users": list(target.names)}
        case "endpoints":
            return {"endpoints": list(target.ids)}
        case "all":
            return {"all": True}
    raise UsageError("The service takes users, topics, endpoints and all; register explicit addresses first.")
