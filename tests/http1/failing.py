"""What the tests of the HTTP/1.1 client share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fanout.plugin import Http1Client, RequestFailed, Response


async def failure(client: Http1Client, url: str, **options: Any) -> tuple[str, str]:
    with pytest.raises(RequestFailed) as caught:
        await client.request("POST", url, {"X-A": "b"}, b"body", **options)
    error = caught.value
    assert error.__context__ is None
    assert error.__cause__ is None
    assert "localhost" not in f"{error} {error!r}"
    return error.sent, error.reason


class Results:
    """A receiver of the answers to requests that were started together: statuses, or (sent, reason), by index."""

    def __init__(self) -> None:
        self.by_index: dict[int, Any] = {}
        self.calls: list[list[int]] = []
        self.dropped: set[int] = set()

    def answered(self, results: list[tuple[int, Response | RequestFailed]]) -> None:
        self.calls.append([index for index, _ in results])
        for index, result in results:
            assert index not in self.by_index
            failed = isinstance(result, RequestFailed)
            self.by_index[index] = (result.sent, result.reason) if failed else result.status

    def over(self, index: int) -> bool:
        return index in self.dropped or index in self.by_index


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not true():
            await asyncio.sleep(0.001)


async def warm(client: Http1Client, server: Any) -> None:
    """Make a connection that is kept, so that a short deadline is not spent on the handshake."""
    assert (await client.request("POST", f"{server.url}/", {}, timeout=30)).status == 200
