"""A TCP proxy that counts what a client asks of PostgreSQL: statements by their text, and round trips."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from struct import unpack_from
from types import TracebackType
from typing import Self

__all__ = ["Counting"]

_SSL, _CANCEL = 80877103, 80877102
_TRIP = frozenset(b"QSH")
"""Messages whose answer the client waits for (documentation of PostgreSQL, "Message Formats"): Query, Sync and
Flush."""
_BY_CLOCK = re.compile(
    r"FROM control c JOIN|coalesce\(finished_at, -1\) = -1|AS became, true AS waits FROM inbox|EXISTS \(SELECT 1 FROM expansion|"
    r"pg_snapshot_xmin|last_value \+ is_called|(FROM|INTO|UPDATE) (worker|share|gate)\b|typeinfo_tree|current_setting\('jit'\)"
)
"""What an engine asks by the clock, however much is sent, and the driver of each new connection: how often it falls
between two sends is a matter of the machine's speed, so it is not counted."""
_PART = re.compile(r"\bendpoint_\d+\b")
"""One of the tables into which endpoints are divided: its statements count as one."""


class Counting:
    """Between clients and `127.0.0.1:to`. A statement is an Execute, or what a Query has between its semicolons. What
    is asked by the clock is not counted."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.statements: Counter[str] = Counter()
        self.trips: Counter[str] = Counter()
        """By the statement that was last before it."""
        self.port = 0

    def clear(self) -> None:
        """Count from nought."""
        self.statements.clear()
        self.trips.clear()

    def each(self, sends: int) -> tuple[int, int]:
        """Statements and round trips of each of so many sends, in whole numbers: what is asked for less than half of
        them counts for nothing."""
        return _whole(self.statements, sends), _whole(self.trips, sends)

    def mean(self, sends: int) -> tuple[float, float]:
        """The same as fractions."""
        return self.statements.total() / sends, self.trips.total() / sends

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        answers = asyncio.create_task(_pour(far_reader, writer))
        asked = _Asked(self)
        try:
            while data := await reader.read(65536):
                asked.feed(data)
                far_writer.write(data)
                await far_writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            pass  # the test is over, or the client has dropped its connection
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            far_writer.transport.abort()
            writer.transport.abort()
            self._tasks.discard(task)


def _whole(counts: Counter[str], sends: int) -> int:
    return sum(round(count / sends) for count in counts.values())


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class _Asked:
    """What one connection has asked: first messages without a type, then those with one."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._rest = b""
        self._typed = False
        self._prepared: dict[bytes, str] = {}
        self._bound: dict[bytes, str] = {}
        self._last = ""

    def feed(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= (head := 5 if self._typed else 4):
            size = unpack_from("!I", self._rest, head - 4)[0] + head - 4
            if len(self._rest) < size:
                return
            message, self._rest = self._rest[:size], self._rest[size:]
            if self._typed:
                self._count(message[0], message[5:])
            else:
                self._typed = unpack_from("!I", message, 4)[0] not in (_SSL, _CANCEL)

    def _count(self, kind: int, body: bytes) -> None:
        names = body.split(b"\0", 2)
        if kind == ord("P"):
            self._prepared[names[0]] = " ".join(names[1].decode().split())
        elif kind == ord("B"):
            self._bound[names[0]] = self._prepared[names[1]]
        elif kind == ord("E"):
            self._note(self._bound[names[0]])
        elif kind == ord("Q"):
            for each in names[0].decode().split(";"):
                if text := " ".join(each.split()):
                    self._note(text)
        if kind in _TRIP and not _BY_CLOCK.search(self._last):
            self._counting.trips[self._last] += 1

    def _note(self, text: str) -> None:
        self._last = _PART.sub("endpoint_n", text)
        if not _BY_CLOCK.search(text):
            self._counting.statements[self._last] += 1
