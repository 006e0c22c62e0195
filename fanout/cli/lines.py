"""Lines of a file or a pipe, in bounded memory and without holding up the loop."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable

from fanout.core.lines import LineSplitter
from fanout.errors import UsageError

__all__ = ["file_size", "read_lines"]

_BLOCK = 256 * 1024
_LONGEST = 65_537
"""One byte more than an import line may have: enough for the engine to see that it is too long."""


def file_size(source: str) -> int | None:
    """Bytes that will be read; None where that cannot be known."""
    try:
        status = os.fstat(sys.stdin.fileno()) if source == "-" else os.stat(source)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


async def read_lines(source: str, on_bytes: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The lines of a file, or of standard input for "-". `on_bytes` hears of each block. Raises `UsageError`."""
    splitter = LineSplitter(_LONGEST)
    async for block in _blocks(source):
        on_bytes(len(block))
        for line in splitter.feed(block):
            yield line
    for line in splitter.end():
        yield line


async def _blocks(source: str) -> AsyncIterator[bytes]:
    if source == "-" and file_size(source) is None:
        async for block in _piped():
            yield block
        return
    try:
        # A local file is read between two commits: it keeps the loop for a fraction of a millisecond at a time.
        with open(sys.stdin.fileno() if source == "-" else source, "rb", closefd=source != "-") as file:  # noqa: ASYNC230
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise UsageError(
            f"{source} cannot be read ({error.strerror}): name an NDJSON file, or - for standard input."
        ) from None


async def _piped() -> AsyncIterator[bytes]:
    """Standard input when it is a pipe or a terminal: waited for by the loop, so that a signal still gets through."""
    reader = asyncio.StreamReader(limit=_BLOCK)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    )
    try:
        while block := await reader.read(_BLOCK):
            yield block
    finally:
        pipe.close()
