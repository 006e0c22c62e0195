"""Lines out of blocks of bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["LineSplitter"]


class LineSplitter:
    """Bytes in, whole lines out. Of a line that is longer than `longest` bytes only the beginning is kept."""

    __slots__ = ("_longest", "_rest")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The lines that end in `block`, without their line feed."""
        *lines, rest = block.split(b"\n")
        for line in lines:
            whole = self._rest + line if self._rest else line
            self._rest = b""
            yield whole[: self._longest]
        self._rest = (self._rest + rest)[: self._longest]

    def end(self) -> Iterator[bytes]:
        """The last line, if it did not end with a line feed."""
        if self._rest:
            yield self._rest
            self._rest = b""
