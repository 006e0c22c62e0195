"""A cheap bound, by which a notification is certain to fit. Pure."""

from __future__ import annotations

from collections.abc import Callable

from fanout.core.model import Notification

__all__ = ["fitting"]

_MARGIN = 512
"""Bytes for a payload's names and punctuation, and for the notification's id."""


def fitting(limit: int, *reserved: str, times: int = 1) -> Callable[[Notification, int], bool]:
    """A transport's `fits`: yes for content of so few bytes that its payload is certain to be below a limit.

    No where there are overrides, or where a key of the data begins with one of `reserved`: those have to be looked at.

    Args:
        *reserved: Beginnings of keys of the data that the gateway does not take as they are.
        limit: The gateway's limit of a payload, in bytes.
        times: The number of bytes that one byte of the content takes in the payload at most.

    Returns:
        A function of the notification and the length of its content as JSON, in bytes.

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
