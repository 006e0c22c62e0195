"""The app's side of the service: the calls of a larger service's own server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import fields
from typing import Any

from fanout.client.answers import DeliveryInfo, GraphAccepted, NotificationStatus, Posted
from fanout.client.directory import Directory
from fanout.client.wire import answered
from fanout.core.model import Notification, Target
from fanout.core.records import Step
from fanout.errors import UsageError

__all__ = ["AppClient"]

_CONTENT = tuple(
    field.name
    for field in fields(Notification)
    if field.name not in ("id", "accepted_at", "expires_at", "actions", "transports", "data")
)
_DEFAULTS = {field.name: field.default for field in fields(Notification)}


class AppClient(Directory):
    """The service as an app sees it. An async context manager. Every call raises `ServiceError`, `ServiceUnavailable`
    and `TokenError`.

    It is made of `url` (the service's), `bearer` (an API key, `ClientCredentials`, or for Graph's delegated posts the
    source that `OnBehalfOf.for_user` returns), and by name `timeout` (seconds, for a request as a whole), `ca_file`
    (certificates in PEM that are trusted besides the system's) and `proxy` (`http://[USER:PASSWORD@]HOST:PORT`, or
    "environment").

    Raises:
        UsageError: `url` is none.

    Example:
        ```python
        async with AppClient("https://push.example.com", key) as client:
            posted = await client.send(Notification(title="Shipped"), "user:alice")
        ```
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
        is stored once.

        Args:
            notification: The content.
            target: The devices: `Target.user("alice")`, or its short form "user:alice", "topic:news", "all".
            at: The due time in UNIX seconds; None for now.
            feed: Whether it enters the feed of its users, or how: a mapping with `id`, `group`, `priority`,
                `expires_in`, `display_ttl`.
            idempotency_key: A text of the caller's, instead of the one that is made up.

        Returns:
            The stored notification: `id`, `total`, `replayed`, and the feed's `item`.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

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

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print((await client.preview(Notification(title="Sale"), "all"))["total"])
            ```
        """
        body = {**_body(notification, target, None, False), "dry_run": True}
        found: Mapping[str, Any] = await self.call("POST", "/v1/notifications", json=body, again=True)
        return found

    async def status(self, id: str) -> NotificationStatus:
        """The state of a notification.

        Args:
            id: The notification's id, as `send` gives it.

        Returns:
            The state at present.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print((await client.status(posted.id)).counts)
            ```
        """
        return answered(NotificationStatus, await self.call("GET", f"/v1/notifications/{id}", again=True))

    async def cancel(self, id: str) -> NotificationStatus:
        """Stop the deliveries that have not been sent.

        Args:
            id: The notification's id, as `send` gives it.

        Returns:
            The status: from now on only a push in flight can still arrive.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.cancel(posted.id)
            ```
        """
        return answered(NotificationStatus, await self.call("POST", f"/v1/notifications/{id}/cancel", again=True))

    async def pause(self, id: str) -> NotificationStatus:
        """Hold a notification: nothing more of it is sent until `resume`, while its time to live runs on.

        Args:
            id: The notification's id, as `send` gives it.

        Returns:
            The status: from now on only a push in flight can still arrive.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.pause(posted.id)
            ```
        """
        return answered(NotificationStatus, await self.call("POST", f"/v1/notifications/{id}/pause", again=True))

    async def resume(self, id: str) -> NotificationStatus:
        """Let a paused notification go on.

        Args:
            id: The notification's id, as `send` gives it.

        Returns:
            The status afterwards.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.resume(posted.id)
            ```
        """
        return answered(NotificationStatus, await self.call("POST", f"/v1/notifications/{id}/resume", again=True))

    async def deliveries(self, id: str, *, state: str | None = None) -> AsyncIterator[DeliveryInfo]:
        """The deliveries of a notification by endpoint, read in pages.

        Args:
            id: The notification's id, as `send` gives it.
            state: One state, "pending" for those that have not ended, or None for all.

        Yields:
            The deliveries.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            async for delivery in client.deliveries(posted.id, state="dead"):
                print(delivery.endpoint, delivery.reason)
            ```
        """
        async for row in self._pages(f"/v1/notifications/{id}/deliveries", "deliveries", state=state):
            yield answered(DeliveryInfo, row)

    async def explain(self, id: str, endpoint: int) -> list[Step]:
        """The decisions about one delivery, oldest first.

        Args:
            id: The notification's id, as `send` gives it.
            endpoint: The endpoint's id, as `deliveries` gives it.

        Returns:
            The decisions, each with its time in UNIX seconds.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            for step in await client.explain(posted.id, device.id):
                print(step.at, step.what, step.reason)
            ```
        """
        rows = await self.call("GET", f"/v1/notifications/{id}/deliveries/{endpoint}", again=True)
        return [answered(Step, row) for row in rows]

    async def withdraw(self, user: str, *, id: str | None = None, external_id: str | None = None) -> str:
        """Take an item back from a user's feed and from the trays of the user's devices.

        Args:
            user: The user's id.
            id: The item's id; None where `external_id` is given.
            external_id: The sender's own id of the item; None where `id` is given.

        Returns:
            The item's id.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: Both ids are given, or none; or the client is not open.

        Example:
            ```python
            await client.withdraw("alice", external_id="order-1001")
            ```
        """
        if (id is None) == (external_id is None):
            raise UsageError("withdraw takes the item's id, or external_id, its sender's: one of the two.")
        query = {"user": user, "id": id, "external_id": external_id}
        answer = await self.call("DELETE", "/v1/feed", query=query, again=True)
        return str(answer["item"])

    # -- Microsoft Graph's shape

    async def post_graph(self, resource: Mapping[str, Any], *, unsid: str | None = None) -> GraphAccepted:
        """Post in Microsoft Graph's shape: `POST /me/notifications`.

        With its `appNotificationId` the resource may be posted again: it replaces itself.

        Args:
            resource: The body in Graph's shape.
            unsid: The UNSID that names the user for an app; None for a delegated token, which names the user itself.

        Returns:
            The resource as answered, and its address.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            resource = {"targetHostName": "app.example.com", "payload": {"rawContent": "Your table is ready"}}
            accepted = await client.post_graph(resource, unsid=subscription.unsid)
            ```
        """
        headers = {"x-uns-id": unsid} if unsid is not None else {}
        async with await self.open("POST", "/me/notifications", json=resource, headers=headers) as answer:
            said = await answer.json(content_type=None)
            return GraphAccepted(said, answer.headers.get("location", ""), answer.status == 200)


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
