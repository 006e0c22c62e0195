"""A cheap bound, by which a notification is certain to fit. Pure."""

from __future__ import annotations

from collections.abc import Callable

from fanout.core.model import Notification

__all__ = ["fitting"]

_MARGIN = 512
"""Bytes for a payload's names and punctuation, and for the notification's id."""


def fitting(limit: int, *reserved: str, times: int = 1) -> Callable[[Notification, int], bool]:
    """A transport's `fits`: yes for content of so few bytes that its payload is below `limit` where each byte takes up to `times` of it.

    No where there are overrides, or where a key of the data begins with one of `reserved`: those have to be looked at.

    Example:
        ```python
        class MyTransport:
            fits = staticmethod(fitting(4096, "aps"))
        ```
    """
    most = (limit - _MARGIN) // times

    def fits(notification: Notification, size: int) -> bool:
        data = notification.data
        return size <= most and not notification.transports and not (data and any(k.startswith(reserved) for k in data))

    return fits
