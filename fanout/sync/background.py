"""The thread in which an asynchronous engine runs for callers without an event loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fanout.errors import EngineClosed, UsageError

if TYPE_CHECKING:
    from fanout import engine as asynchronous

__all__ = ["Background", "refuse_in_loop"]

T = TypeVar("T")


class Background:
    """The base of `Engine`: it opens an asynchronous engine in a thread with a loop of its own, and runs calls
    there."""

    def __init__(self, opening: asynchronous.Engine) -> None:
        self._opening = opening
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._inner: asynchronous.Engine
        self._ready: Future[None] = Future()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fanout.sync", daemon=True)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self.close()
            raise
        _open_engines.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drain within the engine's deadline, close everything and end the thread. Calls that are under way raise
        `EngineClosed`. Closing twice is harmless, and so is closing in a process that was forked. Where the engine has
        ended by an error, that is raised.

        Example:
            ```python
            engine.close()
            ```
        """
        if self._process != os.getpid():
            return
        with self._lock:
            first, self._closed = not self._closed, True
            if first and self._ready.done() and not self._ready.exception() and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        _open_engines.discard(self)
        if first and self._failure is not None:
            raise self._failure

    def _pages(self, source: AsyncIterator[T], size: int) -> Iterator[T]:
        async def page() -> Sequence[T]:
            found: list[T] = []
            async for each in source:
                found.append(each)
                if len(found) == size:
                    break
            return found

        while each := self._call(page()):
            yield from each
            self._use()

    def _use(self) -> asynchronous.Engine:
        """The engine inside, if it can be called from here and now."""
        refuse_in_loop()
        if self._process != os.getpid():
            raise EngineClosed("The engine was opened in another process: open it after the fork, in each worker.")
        if self._closed:
            raise EngineClosed("The engine is closed: open another with fanout.sync.open.")
        return self._inner

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # The lock orders this before a stop: the loop then starts the coroutine before it ends, so that it always
        # resolves.
        with self._lock:
            if self._closed or self._loop.is_closed():
                coroutine.close()
                raise EngineClosed("The engine is closed: open another with fanout.sync.open.")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise EngineClosed("The engine was closed while this call was under way.") from None
        except BaseException:
            future.cancel()
            raise

    def _run(self) -> None:
        try:
            from fanout import bootstrap

            with asyncio.Runner(loop_factory=bootstrap.loop_factory()) as runner:
                runner.run(self._main())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            else:
                self._failure = error
        finally:
            with self._lock:
                self._closed = True

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._opening as self._inner:
            with self._lock:
                closed = self._closed  # the opening thread has given up meanwhile (Ctrl-C)
                if not closed:
                    self._ready.set_result(None)
            if not closed:
                await self._stop.wait()


def refuse_in_loop() -> None:
    """Refuse a call that would stop the event loop that runs here.

    Raises:
        UsageError: An event loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("fanout.sync would block the running event loop: use fanout.open and await it there.")


_open_engines: weakref.WeakSet[Background] = weakref.WeakSet()


def _close_all() -> None:
    for engine in list(_open_engines):
        engine.close()


# Plain atexit runs after the interpreter has waited for storage's threads, which wait for the engine that was not
# closed.
_at_exit: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
_at_exit(_close_all)
