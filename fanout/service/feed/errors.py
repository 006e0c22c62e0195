"""The errors of a client of the feed."""

from __future__ import annotations

from typing import Literal

from fanout.errors import FanoutError

__all__ = ["FeedError"]


class FeedError(FanoutError):
    """A request about a subscription or the feed cannot be carried out. The text is a sentence for the caller.

    `status`: 400, 403 (the device is not the caller's), 404 (no such item or subscription), 409, 410 (the cursor is too
    old: read anew), 412 (`If-Match` names another version), 413 (the content is too large) or 429 (too many open
    streams). `reason` is one stable word.
    """

    def __init__(self, status: Literal[400, 403, 404, 409, 410, 412, 413, 429], reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
