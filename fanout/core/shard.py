"""Which part of the directory a user's endpoints stand in, where the directory is divided."""

from __future__ import annotations

from zlib import crc32

__all__ = ["SHARDS", "shard_of"]

SHARDS = 16
"""Parts of a divided directory. An endpoint's id is a number times this, plus its part: never to be changed."""


def shard_of(user: str, digest: bytes) -> int:
    """0 to 15: the part of a user's endpoints. An endpoint without a user stands where the `digest` of its address
    says."""
    return (crc32(user.encode()) if user else digest[0]) & (SHARDS - 1)
