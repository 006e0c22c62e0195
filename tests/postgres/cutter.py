"""A TCP proxy that cuts a connection at a moment of its choice: when a text passes through on its way to the server."""

from __future__ import annotations

import asyncio
import contextlib
import re
from types import TracebackType
from typing import Self


class Cutter:
    """Between clients and `127.0.0.1:to`. `cut` says what the next connection is cut at, and on which side of it.

    With ``after=True`` the text reaches the server, which carries it out, and its answer is lost; else it never
    arrives.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._text = re.compile(b"")
        self._after = True
        self._times = 0
        self._dark = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.port = 0

    def cut(self, text: re.Pattern[bytes], *, after: bool, times: int = 1, dark: bool = False) -> None:
        """Cut the next `times` connections in which `text` is seen. `dark`: and let nobody in from then on, until
        `light`."""
        self._text, self._after, self._times, self._dark_after = text, after, times, dark

    def light(self) -> None:
        """Let connections in again."""
        self._dark = False

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
        try:
            if not self._dark:
                await self._join(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        answers = asyncio.create_task(self._answers(far_reader, writer))
        try:
            while data := await reader.read(65536):
                if self._times and self._text.search(data):
                    self._times -= 1
                    self._dark = self._dark_after
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    if self._after:
                        far_writer.write(data)
                        await far_writer.drain()
                        # The server's answer: by then it has done what it was told.
                        await far_reader.read(1)
                    self.cuts += 1
                    return
                far_writer.write(data)
                await far_writer.drain()
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            far_writer.transport.abort()

    async def _answers(self, far_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await far_reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
