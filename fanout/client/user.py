"""A user's side of the service: her subscriptions, and the feed that all her devices read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
import orjson

from fanout.client.tokens import BearerSource
from fanout.client.wire import ServiceUnavailable, Wire, answered

__all__ = ["Changed", "Counts", "FeedEvent", "FeedPage", "Item", "Me", "SubscriptionInfo", "UserClient"]

Action = Literal["none", "activated", "dismissed", "snoozed"]


@dataclass(frozen=True, slots=True)
class Me:
    """The app and the user of a token. `key` stands for this user of this app, always, and tells nobody who she is."""

    app: str
    key: str


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """One device of the user's. Renew it in the state `expiring` or `expired`; `unreachable` wants a new address. Times: UNIX seconds."""

    id: int
    unsid: str
    device_id: str
    binding: str | None
    platform: str
    receive: Literal["push", "signal", "none"]
    state: Literal["active", "expiring", "expired", "unreachable"]
    created_at: float
    renewed_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the feed, as the user left it. A deleted one has no content. Times are UNIX seconds, `display_ttl` seconds."""

    id: str
    external_id: str | None
    status: Literal["active", "deleted"]
    read: bool
    action: Action
    group: str | None
    priority: Literal["none", "low", "high"]
    created_at: float
    modified_at: float | None
    expires_at: float
    display_ttl: int | None
    broadcast: bool
    content: Mapping[str, Any] | None
    etag: str


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Some items. Go on from `cursor`: at once where there is `more`, otherwise when something has changed."""

    items: tuple[Item, ...]
    cursor: str
    more: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """An item after a change, and the cursor of that change."""

    item: Item
    cursor: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items are unread, and how many have come since the user last looked."""

    unread: int
    unseen: int


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One message of the stream of changes.

    `change` has an `item`; `counts` has `data` with `unread` and `unseen`; `resync` asks to read the feed anew without a cursor; `subscription` says that this device's is expiring
    or has expired; `unauthorized` comes before the stream ends because its token has. `cursor` is from where to go on.
    """

    kind: str
    cursor: str
    item: Item | None = None
    data: Mapping[str, Any] | None = None


class UserClient(Wire):
    """The service as one of the user's devices sees it, with her token. `unsid` says which device: its changes are told
    to the others.

    Every method raises `ServiceError`, `ServiceUnavailable` and `TokenError`.
    """

    def __init__(self, url: str, bearer: BearerSource | str, *, unsid: str = "", **more: Any) -> None:
        super().__init__(url, bearer, **more)
        self.unsid = unsid

    @property
    def _device(self) -> dict[str, str]:
        return {"x-uns-id": self.unsid} if self.unsid else {}

    async def me(self) -> Me:
        """The user as whom this client calls: the service keeps the user's data by `key`."""
        return answered(Me, await self.call("GET", "/v1/me"))

    # -- subscriptions

    async def subscribe(
        self,
        device_id: str,
        *,
        binding: str | None = None,
        address: str | Mapping[str, Any] | None = None,
        receive: Literal["push", "signal", "none"] = "push",
        platform: str = "",
        expires_in: float | None = None,
        former: str = "",
    ) -> SubscriptionInfo:
        """Subscribe this device, or renew its subscription, with a new address too; from now on this client speaks as
        the device.

        Args:
            device_id: The device's own id: any text that is the same at each start of the app.
            binding: The binding that pushes to it; None for a device that gets no pushes, and reads.
            address: The address as the platform hands it to the app; needed with `binding`.
            receive: "push" for pushes with their content, "signal" for bare signals to fetch, "none".
            platform: The platform in a word ("ios", "android", "web", "windows").
            expires_in: Seconds until the subscription ends unless it is renewed; None for the longest that the service
                allows.
            former: The UNSID that the device had under another user, whose subscription ends. A Web Push device whose
                keys
                have changed needs it, and is refused (409) without. Every other address proves by itself that the
                device has
                moved.

        Returns:
            The subscription with its UNSID.
        """
        body: dict[str, Any] = {"device_id": device_id, "receive": receive, "platform": platform}
        if binding is not None:
            body |= {"binding": binding, "address": address}
        if expires_in is not None:
            body["expires_in"] = expires_in
        headers = {"x-uns-id": former} if former else {}
        path = "/v1/me/subscriptions"
        held = answered(SubscriptionInfo, await self.call("POST", path, json=body, headers=headers, again=True))
        self.unsid = held.unsid
        return held

    async def subscriptions(self) -> list[SubscriptionInfo]:
        """The subscriptions of all of the user's devices."""
        found = await self.call("GET", "/v1/me/subscriptions", again=True)
        return [answered(SubscriptionInfo, each) for each in found["subscriptions"]]

    async def unsubscribe(self, id: int) -> None:
        """End a subscription, on sign-out.

        Args:
            id: The subscription's number.
        """
        await self.call("DELETE", f"/v1/me/subscriptions/{id}", again=True)

    # -- the feed

    async def feed(
        self,
        cursor: str | None = None,
        *,
        order: Literal["changed", "newest"] = "changed",
        unread: bool | None = None,
        action: Action | None = None,
        status: Literal["active", "deleted", "any"] | None = None,
        limit: int = 100,
    ) -> FeedPage:
        """A page of the feed.

        Args:
            cursor: The cursor of an earlier page: the items after it, and in the end the items that have changed since;
                None
                for the first page.
            order: "changed" for the order of change, "newest" for the newest item first.
            unread: Only unread items (True), only read ones (False), or both (None).
            action: Only items with this action; None for all.
            status: Only active or only deleted items, or "any"; None for active ones on the first page, and any after
                it.
            limit: Items of a page at most.
        """
        query = {
            "cursor": cursor,
            "order": order,
            "unread": None if unread is None else str(unread).lower(),
            "action": action,
            "status": status,
            "limit": limit,
        }
        page = await self.call("GET", "/v1/me/feed", query=query, headers=self._device, again=True)
        return FeedPage(tuple(answered(Item, item) for item in page["items"]), page["cursor"], page["more"])

    async def get(self, id: str) -> Item:
        """One item.

        Args:
            id: The item's id, or its sender's own.
        """
        path = f"/v1/me/feed/{quote(id, safe='')}"
        return answered(Item, await self.call("GET", path, headers=self._device, again=True))

    async def mark(
        self, id: str, *, read: bool | None = None, action: Action | None = None, if_match: str | None = None
    ) -> Changed:
        """Change an item's state; the user's other devices are told.

        Args:
            id: The item's id, or its sender's own.
            read: Whether the user has read it; None leaves that as it is.
            action: The user's action; None leaves that as it is.
            if_match: The item's `etag`: the change is refused (412) where the item has changed since.
        """
        change = {name: value for name, value in (("read", read), ("action", action)) if value is not None}
        return await self._change("PATCH", id, change, if_match)

    async def mark_all(
        self,
        *,
        read: bool | None = None,
        action: Action | None = None,
        delete: bool = False,
        items: Sequence[str] | None = None,
        group: str | None = None,
        until: str | None = None,
    ) -> int:
        """Change or delete every item that fits every filter given. The user's other devices get one signal for all of
        it.

        Args:
            read: Whether the user has read them; None leaves that as it is.
            action: The user's action; None leaves that as it is.
            delete: Delete them.
            items: Those with these ids, or ids of their sender; None for all.
            group: Those of one group; None for all.
            until: Those that had not changed after this cursor; None for all.

        Returns:
            The number of items that were changed.
        """
        change = {"read": read, "action": action, "delete": delete or None, "group": group, "until": until}
        body: dict[str, Any] = {name: value for name, value in change.items() if value is not None}
        if items is not None:
            body["items"] = list(items)
        if not body.keys() & {"items", "group", "until"}:
            body["all"] = True
        answer = await self.call("PATCH", "/v1/me/feed", json=body, headers=self._device, again=True)
        return int(answer["changed"])

    async def dismiss(self, id: str) -> Changed:
        """Take an item out of the tray of every device.

        Args:
            id: The item's id, or its sender's own.
        """
        return await self.mark(id, action="dismissed")

    async def delete(self, id: str, *, if_match: str | None = None) -> Changed:
        """Delete an item on every device.

        Args:
            id: The item's id, or its sender's own.
            if_match: As in `mark`.
        """
        return await self._change("DELETE", id, None, if_match)

    async def counts(self) -> Counts:
        """The numbers of unread and of unseen items."""
        return answered(Counts, await self.call("GET", "/v1/me/counts", again=True))

    async def seen(self, item: str | None = None) -> Counts:
        """Say that the user has seen her feed: the items that she has seen count as unseen no more.

        Args:
            item: The id of the newest item that she has seen; None for all that is there.

        Returns:
            The counts afterwards.
        """
        body = {} if item is None else {"item": item}
        return answered(Counts, await self.call("PUT", "/v1/me/seen", json=body, again=True))

    async def events(self, cursor: str | None = None) -> AsyncIterator[FeedEvent]:
        """Changes as they happen, until the service ends the stream: then go on from the last cursor.

        Args:
            cursor: The cursor from which to go on; None for changes from now on.

        Raises:
            ServiceError: The service refused.
            ServiceUnavailable: The connection broke.

        Example:
            ```python
            async for event in client.events(cursor):
                cursor = event.cursor
            ```
        """
        headers = {"accept": "text/event-stream", **self._device}
        if cursor is not None:
            headers["last-event-id"] = cursor
        answer = await self.open("GET", "/v1/me/feed/events", headers=headers, endless=True)
        async with answer:
            event = _Event()
            try:
                async for line in answer.content:
                    if said := event.line(line.decode().rstrip("\r\n")):
                        yield said
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ServiceUnavailable(f"The stream of changes broke off ({type(error).__name__}).") from None

    async def _change(self, method: str, id: str, change: Mapping[str, Any] | None, if_match: str | None) -> Changed:
        headers = self._device | ({"if-match": if_match} if if_match is not None else {})
        path = f"/v1/me/feed/{quote(id, safe='')}"
        # Said twice it is the same change, but with If-Match the second would be refused.
        answer = await self.call(method, path, json=change, headers=headers, again=if_match is None)
        return Changed(answered(Item, answer["item"]), answer["cursor"])


class _Event:
    """Server-sent events out of their lines (HTML standard, section 9.2.6)."""

    def __init__(self) -> None:
        self._cursor = ""
        self._clear()

    def _clear(self) -> None:
        self._kind = "message"
        self._data: list[str] = []

    def line(self, text: str) -> FeedEvent | None:
        """One line; the event, if it was its end."""
        if text:
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._kind = value
            elif name == "data":
                self._data.append(value)
            elif name == "id":
                self._cursor = value
            return None
        if not self._data:
            self._clear()
            return None
        data = orjson.loads("\n".join(self._data))
        item = answered(Item, data) if self._kind == "change" else None
        made = FeedEvent(self._kind, self._cursor, item, data)
        self._clear()
        return made
