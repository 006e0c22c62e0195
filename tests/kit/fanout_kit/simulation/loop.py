"""The event loop of one simulated process: asyncio's rules, without its sockets, threads and clock.

Like asyncio's own it runs the callbacks that were ready when the iteration began, in order; unlike it, several of them
live side by side in one thread, one iteration at a time, each a process that can be stopped or killed apart from the
others.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast

from fanout_kit.simulation.world import World

if TYPE_CHECKING:
    from fanout_kit.simulation.network import End, Network

__all__ = ["NodeLoop"]

_NEVER = float("inf")


class _Future(asyncio.Future[Any]):
    """A future whose hash is a number in order of making: a set of them is walked in the same order in every run."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """A task with such a hash."""

    def __init__(self, number: int, coroutine: Any, *, loop: asyncio.AbstractEventLoop, **more: Any) -> None:
        self._number = number
        super().__init__(coroutine, loop=loop, **more)

    def __hash__(self) -> int:
        return self._number


class NodeLoop:
    """One process. `lag` is how long an iteration takes at most, in virtual seconds. One that takes no part is never
    run.

    It has the methods of a loop that asyncio's tasks, futures, timeouts and streams call, and `fanout.http`; anything
    else, such as a thread or a signal, has no place in a simulation and is an `AttributeError`.

    `fuse`, when set, is how many callbacks more may run before `on_fuse` is called instead: a crash in mid-iteration.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        rng: random.Random,
        *,
        lag: float = 5e-5,
        takes_part: bool = True,
    ) -> None:
        self.world = world
        self.name = name
        self.network = network
        self.due = _NEVER
        """When this process has something to do next, in virtual seconds."""
        self.dead = False
        self.ends: dict[End, None] = {}
        """Open sockets."""
        self.readable: dict[End, None] = {}
        """Those with something to read."""
        self.sockets: dict[Any, None] = {}
        """Sockets that have not become a transport yet."""
        self.tasks: dict[_Task, None] = {}
        """Tasks that are not done."""
        self.fuse: int | None = None
        self.on_fuse: Callable[[], None] | None = None
        self._rng = rng
        self._lag = lag
        self._busy_until = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._frozen = False
        self._running = False
        self._context = contextvars.Context()
        self._self = cast("asyncio.AbstractEventLoop", self)
        if takes_part:
            world.nodes.append(self)
        world.born.append(self)

    def __repr__(self) -> str:
        return f"<NodeLoop {self.name}>"

    # -- for the world

    @property
    def frozen(self) -> bool:
        """Whether it stands still, as after SIGSTOP: timers that are due meanwhile wait."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Work out `due`."""
        if self._frozen or self.dead:
            self.due = _NEVER
            return
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heappop(timers)
        if self._ready or self.readable:
            self.due = max(self._busy_until, self.world.time)
        else:
            self.due = max(timers[0][0], self._busy_until, self.world.time) if timers else _NEVER

    def _stir(self, when: float) -> None:
        """There is something to do at `when`."""
        if not (self._running or self._frozen or self.dead):
            at = max(when, self._busy_until, self.world.time)
            if at < self.due:
                self.due = at

    def iterate(self) -> None:
        """One iteration: readable sockets, due timers, and then all callbacks that are ready by now."""
        ready = self._ready
        for end in self.readable:
            ready.append(asyncio.Handle(end.read, (), self._self, self._context))
        now = self.world.time
        timers = self._timers
        while timers and timers[0][0] <= now:
            timer = heappop(timers)[3]
            if not timer.cancelled():
                ready.append(timer)
        asyncio._set_running_loop(self._self)
        self._running = True
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle.cancelled():
                    continue
                if self.fuse is not None:
                    self.fuse -= 1
                    if self.fuse < 0 and self.on_fuse is not None:
                        self.on_fuse()
                        return
                handle._run()
        finally:
            self._running = False
            asyncio._set_running_loop(None)
        self._busy_until = now + self._rng.random() * self._lag
        self._look_ahead()

    def post(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Make a callback ready from outside: a kernel or another thread has news."""
        if not self.dead:
            self._ready.append(asyncio.Handle(callback, arguments, self._self, self._context))
            self._stir(self.world.time)

    def to_read(self, end: End) -> None:
        """This socket has something to read."""
        self.readable[end] = None
        self._stir(self.world.time)

    def begin(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a task in this process from outside."""
        self.post(lambda: self.create_task(make()))

    def kill(self) -> None:
        """The process is gone, as after kill -9: nothing of it runs again, and its sockets are closed by the kernel."""
        self.dead = True
        self.due = _NEVER
        self.world.nodes.remove(self)
        for end in list(self.ends):
            end.kill()
        for sock in list(self.sockets):
            sock.close()
        self.sockets.clear()
        self._ready.clear()
        self._timers.clear()

    def bury(self) -> None:
        """After the run: let go of the dead process's objects, without a word from tasks that will never be done."""
        self.dead = True
        asyncio._set_running_loop(self._self)
        try:
            for task in list(self.tasks):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        finally:
            asyncio._set_running_loop(None)
        self.tasks.clear()

    def left(self) -> list[str]:
        """The resources that a process that has ended in good order should not have any more: tasks, sockets,
        timers."""
        tasks = [f"task {getattr(task.get_coro(), '__qualname__', task)}" for task in self.tasks]
        sockets = [f"socket to {end.name}" for end in self.ends] + ["socket that never connected"] * len(self.sockets)
        timers = [f"timer {timer[3]._callback!r}" for timer in self._timers if not timer[3].cancelled()]  # type: ignore[attr-defined]
        return tasks + sockets + timers

    # -- asyncio's interface of a loop

    def time(self) -> float:
        return self.world.time

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._self, context)
        if not self.dead:
            self._ready.append(handle)
            if not self._running:
                self._stir(self.world.time)
        return handle

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.world.time + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._self, context)
        if not self.dead:
            self._count += 1
            # asyncio says nothing of the order of two timers for one moment: so the seed does.
            heappush(self._timers, (when, self._rng.random(), self._count, handle))
            if not self._running:
                self._stir(when)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asked for by `TimerHandle.cancel`; a cancelled timer is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        self._count += 1
        return _Future(self._count, self._self)

    def create_task(self, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        self._count += 1
        task = _Task(self._count, coro, loop=self._self, **more)
        self.tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: Any) -> None:
        self.tasks.pop(task, None)

    def get_task_factory(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.dead:
            return
        error = context.get("exception")
        detail = f": {type(error).__name__}: {error}" if error is not None else ""
        self.world.errors.append(f"{self.name}: {context.get('message')}{detail}")

    async def getaddrinfo(self, host: Any, port: Any, **more: Any) -> list[Any]:
        return await self.network.look_up(self, str(host), int(port))

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.network.connect(self, sock, address)

    async def create_connection(self, protocol_factory: Any, *args: Any, **more: Any) -> Any:
        return await self.network.open(self, protocol_factory, **more)


def _close(coroutine: Any) -> None:
    """End a coroutine where it stands. A coroutine that never began ends the coroutines too that it was to await."""
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        for value in coroutine.cr_frame.f_locals.values():
            inner = getattr(value, "_coro", value)  # anyio's handle of a task
            if inspect.iscoroutine(inner):
                _close(inner)
    # Innermost first, or one that waits again on its way out would be left behind by those that wait for it. It is told
    # to go each time, for the awaited result will never come.
    for _ in range(1000):
        inner = coroutine
        while inspect.iscoroutine(inner.cr_await) and inspect.getcoroutinestate(inner.cr_await) != inspect.CORO_CLOSED:
            inner = inner.cr_await
        with suppress(BaseException):
            inner.close()
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
            return
