"""The app's side of the directory: devices and users."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, Literal
from urllib.parse import quote

from fanout.client.answers import EndpointInfo
from fanout.client.wire import ServiceUnavailable, Wire, answered, records

__all__ = ["Directory"]


class Directory(Wire):
    """The base of `AppClient`."""

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

        Returns:
            The device, with the endpoint's id.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            device = await client.register(user="alice", binding="pigeon", address="phone", tags=["news"])
            ```
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

        Returns:
            The device.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            print((await client.endpoint(device.id)).state)
            ```
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
            user: Devices of one user; None for all.
            binding: Devices of one binding; None for all.
            tag: Devices with one tag; None for all.
            state: Devices in one state (`gone` is the quarantine), or "any"; None for the active ones.

        Yields:
            The devices.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            async for device in client.endpoints(user="alice"):
                print(device.id, device.binding)
            ```
        """
        async for row in self._pages("/v1/endpoints", "endpoints", user=user, binding=binding, tag=tag, state=state):
            yield _endpoint(row)

    async def remove(self, id: int) -> None:
        """Take a device out of the directory.

        Args:
            id: The endpoint's id.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.remove(device.id)
            ```
        """
        await self.call("DELETE", f"/v1/endpoints/{id}", again=True)

    async def restore(self, ids: Iterable[int]) -> int:
        """Put devices back that are gone, removed or expired.

        Args:
            ids: The ids of their endpoints.

        Returns:
            The number that are active again.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.restore([device.id])
            ```
        """
        answer = await self.call("POST", "/v1/endpoints/restore", json={"ids": [*ids]}, again=True)
        return int(answer["restored"])

    async def import_(self, lines: AsyncIterable[bytes]) -> Mapping[str, Any]:
        r"""Enter devices from NDJSON lines, as a stream; `Endpoints.import_` of the engine describes a line.

        Args:
            lines: The lines, as they come.

        Returns:
            `imported`, `bad`, and `errors` of the first thousand bad lines.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            async def lines():
                yield b'{"user": "alice", "transport": "pigeon", "address": "phone"}\n'

            print((await client.import_(lines()))["imported"])
            ```
        """
        headers = {"content-type": "application/x-ndjson"}
        found: Mapping[str, Any] = await self.call("POST", "/v1/endpoints/import", body=lines, headers=headers)
        return found

    async def erase(self, user: str) -> int:
        """Forget a user: devices, feed, and the deliveries queued for the user alone.

        Args:
            user: The user's id.

        Returns:
            The number of devices that there were.

        Raises:
            ServiceError, ServiceUnavailable, TokenError: As every call; see `ServiceError.reason`.
            UsageError: The client is not open.

        Example:
            ```python
            await client.erase("alice")
            ```
        """
        answer = await self.call("DELETE", f"/v1/users/{quote(user, safe='')}", again=True)
        return int(answer["endpoints"])

    async def export(self, user: str) -> AsyncIterator[dict[str, Any]]:
        """All data held of a user, record by record.

        Args:
            user: The user's id.

        Yields:
            Records with a `kind`, the last of which is `end`.

        Raises:
            ServiceError: The service refused.
            ServiceUnavailable: The service did not answer, or the export broke off before its end: ask for it again.
            TokenError: No token is to be had.
            UsageError: The client is not open.

        Example:
            ```python
            async for record in client.export("alice"):
                print(record["kind"])
            ```
        """
        headers = {"accept": "application/x-ndjson"}
        answer = await self.open("GET", "/v1/export", query={"user": user}, headers=headers, endless=True)
        async for record in records(answer):
            yield record
            if record.get("kind") == "end":
                return
        raise ServiceUnavailable("The export broke off: ask for it again.")

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
