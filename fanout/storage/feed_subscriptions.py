"""A subscription from the row that a database has of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.feed import Subscription

__all__ = ["subscription"]

_FIELDS = (
    "id",
    "unsid",
    "app",
    "user",
    "device",
    "binding",
    "platform",
    "receive",
    "created_at",
    "renewed_at",
    "expires_at",
    "endpoint",
    "endpoint_state",
)
"""In the order in which both databases are asked for them."""


def subscription(row: Sequence[Any]) -> Subscription:
    """The subscription of that row."""
    return Subscription(**dict(zip(_FIELDS, row, strict=True)))
