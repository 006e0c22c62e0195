"""The pushes that a simulator accepted, written down before it says so: the other side's account, by which nothing lost
is proved.

One record of 56 bytes per push, appended with one `write` to a file opened O_APPEND: delivery id (16 bytes), address
digest (16), notification id (16), and the time as a big-endian double. A missing id is 16 zero bytes. A kill at any
moment leaves whole records.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

__all__ = ["Entry", "Ledger", "read_ledger"]

_RECORD = struct.Struct("!16s16s16sd")
_NONE = bytes(16)


class Entry(NamedTuple):
    """One accepted push. The ids are UUID texts (empty if there was none), `address` is an `Address.digest`, `at` UNIX
    seconds."""

    delivery: str
    address: str
    notification: str
    at: float


class Ledger:
    """Appends records. `add` gathers, `flush` writes: call it before the answer leaves."""

    __slots__ = ("_fd", "_pending", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._pending: list[bytes] = []

    def add(self, delivery: str, address: str, notification: str, at: float) -> None:
        """One push; raises `ValueError` for ids that are not UUIDs or a digest of another length."""
        digest = bytes.fromhex(address)
        if len(digest) != 16:
            raise ValueError("An address digest has 32 hexadecimal digits.")
        self._pending.append(_RECORD.pack(_bytes(delivery), digest, _bytes(notification), at))

    def flush(self) -> None:
        """Write the added lines."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Write the added lines, and close the file. Idempotent."""
        if self._fd >= 0:
            self.flush()
            os.close(self._fd)
            self._fd = -1


def read_ledger(path: Path) -> Iterator[Entry]:
    """Every whole record of the file, in order; a half-written last one is left out."""
    with path.open("rb") as file:
        while len(raw := file.read(_RECORD.size)) == _RECORD.size:
            delivery, address, notification, at = _RECORD.unpack(raw)
            yield Entry(_text(delivery), address.hex(), _text(notification), at)


def _bytes(text: str) -> bytes:
    if not text:
        return _NONE
    raw = bytes.fromhex(text.replace("-", ""))
    if len(raw) != 16:
        raise ValueError("An id in the ledger is a UUID.")
    return raw


def _text(raw: bytes) -> str:
    return "" if raw == _NONE else str(UUID(bytes=raw))
