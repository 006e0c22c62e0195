"""Bytes in memory of their own size: the result of a JSON encoder keeps the buffer that it was written into."""

from __future__ import annotations

__all__ = ["compact"]


def compact(encoded: bytes) -> bytes:
    """A copy in memory of its own size. A result of orjson with 590 bytes holds 8,184, and one of ten holds 4,119
    (CPython 3.12 and newer).

    Args:
        encoded: The bytes that orjson returned.

    Returns:
        The same bytes.
    """
    return bytes(memoryview(encoded))
