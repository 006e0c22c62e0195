"""A user's side of the service: the user's subscriptions, and the feed that all of the user's devices read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import aiohttp

from fanout.client.answers import Action, Changed, Counts, FeedEvent, FeedPage, Item, Lines, Me, SubscriptionInfo
from fanout.client.tokens import BearerSource
from fanout.client.wire import ServiceUnavailable, Wire, answered

__all__ = ["UserClient"]


class UserClient(Wire):
    """The service as one of a user's devices sees it. An async context manager. Every call raises `ServiceError`,
    `ServiceUnavailable` and `TokenError`.

    Args:
        **more: `timeout` (seconds, for a request as a whole), `ca_file` and `proxy`, as `AppClient` takes them.
        url: The service's URL, such as `https://push.example.com`.
        bearer: The user's token, or a source of the user's tokens.
        unsid: The UNSID of this device, whose changes are told to the others; `subscribe` sets it.

    Raises:
        UsageError: `url` is none.

    Example:
        ```python
        async with UserClient("https://push.example.com", token) as client:
            print((await client.counts()).unread)
        ```
    """

    def __init__(self, url: str, bearer: BearerSource | str, *, unsid: str = "", **more: Any) -> None:
        super().__init__(url, bearer, **more)
        self.unsid = unsid

    @property
    def _device(self) -> dict[str, str]:
        return {"x-uns-id": self.unsid} if self.unsid else {}

    async def me(self) -> Me:
        """The user for which this client calls: the service keeps the user's data by `key`.

        Returns:
            The app and the key.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print((await client.me()).key)
            ```
        """
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
                keys have changed needs it, and is refused (409) without. Every other address proves by itself that the
                device has moved.

        Returns:
            The subscription with its UNSID.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            subscription = await client.subscribe("this phone", binding="pigeon", address="phone")
            ```
        """
        body: dict[str, Any] = {"device_id": device_id, "receive": receive, "platform": platform}
        if binding is not None:
            body |= {"binding": binding, "address": address}
        if expires_in is not None:
            body["expires_in"] = expires_in
        headers = {"x-uns-id": former} if former else {}
        path = "/v1/me/subscriptions"
        subscription = answered(SubscriptionInfo, await self.call("POST", path, json=body, headers=headers, again=True))
        self.unsid = subscription.unsid
        return subscription

    async def subscriptions(self) -> list[SubscriptionInfo]:
        """The subscriptions of all of the user's devices.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print([each.device_id for each in await client.subscriptions()])
            ```
        """
        found = await self.call("GET", "/v1/me/subscriptions", again=True)
        return [answered(SubscriptionInfo, each) for each in found["subscriptions"]]

    async def unsubscribe(self, id: int) -> None:
        """End a subscription, on sign-out.

        Args:
            id: The subscription's number.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.unsubscribe(subscription.id)
            ```
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
                None for the first page.
            order: "changed" for the order of change, "newest" for the newest item first.
            unread: Only unread items (True), only read ones (False), or both (None).
            action: Only items with this action; None for all.
            status: Only active or only deleted items, or "any"; None for active ones on the first page, and any after
                it.
            limit: Items of a page at most.

        Returns:
            The items, and the cursor from which to go on.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            page = await client.feed()
            print([item.id for item in page.items])
            ```
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

        Returns:
            The item.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print((await client.get(item.id)).content)
            ```
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

        Returns:
            The item after the change, and the cursor of the change.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.mark(item.id, read=True)
            ```
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
            delete: Whether to delete them.
            items: Items with these ids, or ids of their sender; None for all.
            group: Items of one group; None for all.
            until: Items that had not changed after this cursor; None for all.

        Returns:
            The number of items that were changed.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.mark_all(read=True)
            ```
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

        Returns:
            The item after the change, and the cursor of the change.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.dismiss(item.id)
            ```
        """
        return await self.mark(id, action="dismissed")

    async def delete(self, id: str, *, if_match: str | None = None) -> Changed:
        """Delete an item on every device.

        Args:
            id: The item's id, or its sender's own.
            if_match: As in `mark`.

        Returns:
            The item after the change, and the cursor of the change.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.delete(item.id)
            ```
        """
        return await self._change("DELETE", id, None, if_match)

    async def counts(self) -> Counts:
        """The numbers of unread and of unseen items.

        Returns:
            The numbers.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print((await client.counts()).unread)
            ```
        """
        return answered(Counts, await self.call("GET", "/v1/me/counts", again=True))

    async def seen(self, item: str | None = None) -> Counts:
        """Say that the user has seen the feed: the items that were seen count as unseen no more.

        Args:
            item: The id of the newest item that was seen; None for all that is there.

        Returns:
            The counts afterwards.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.seen()
            ```
        """
        body = {} if item is None else {"item": item}
        return answered(Counts, await self.call("PUT", "/v1/me/seen", json=body, again=True))

    async def events(self, cursor: str | None = None) -> AsyncIterator[FeedEvent]:
        """Changes as they happen, until the service ends the stream: then go on from the last cursor.

        Args:
            cursor: The cursor from which to go on; None for changes from now on.

        Yields:
            The changes, each with its cursor.

        Raises:
            ServiceError: The service refused.
            ServiceUnavailable: The connection broke.
            TokenError: No token is to be had.
            UsageError: The client is not open.

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
            lines = Lines()
            try:
                async for line in answer.content:
                    if said := lines.line(line.decode().rstrip("\r\n")):
                        yield said
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ServiceUnavailable(f"The stream of changes broke off ({type(error).__name__}).") from None

    async def _change(self, method: str, id: str, change: Mapping[str, Any] | None, if_match: str | None) -> Changed:
        headers = self._device | ({"if-match": if_match} if if_match is not None else {})
        path = f"/v1/me/feed/{quote(id, safe='')}"
        # Said twice it is the same change, but with If-Match the second would be refused.
        answer = await self.call(method, path, json=change, headers=headers, again=if_match is None)
        return Changed(answered(Item, answer["item"]), answer["cursor"])
