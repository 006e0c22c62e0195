"""The engine for callers without an event loop: a script, a Django view. Open it once per process and use it from any thread.

    with fanout.sync.open("fanout.toml") as engine:
        receipt = engine.send(fanout.Notification(title="Hello"), "user:alice")
        print(receipt.wait(timeout=30).counts)

Everything is as in the asynchronous engine without `await`. The work happens in one background thread with a loop of its own.
`enqueue` needs no engine: it makes a notification part of a transaction of the caller's own in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Self, TypeVar

from fanout.core.model import Endpoint, EndpointState, Notification, Target
from fanout.core.records import Status, Step
from fanout.errors import EngineClosed, UsageError

if TYPE_CHECKING:
    from fanout import bootstrap
    from fanout import engine as asynchronous

__all__ = ["Endpoints", "Engine", "Enqueued", "Receipt", "enqueue", "open"]

P = ParamSpec("P")
T = TypeVar("T")

_PAGE = 500
_RECORDS = 50
"""Records of an export that are in memory at a time: one may be as large as a notification."""


def _takes_what(model: Callable[P, object]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function the signature of `model`, for type-checkers."""
    return lambda function: function


def _open(*args: Any, **kwargs: Any) -> Engine:
    """An open engine, from the arguments of `fanout.open`. Close it with `with` or `close`.

    Returns when the database is open. Raises what `fanout.open` raises, and `UsageError` inside a running event loop.
    """
    from fanout import bootstrap

    _refuse_in_loop()
    return Engine(bootstrap.open(*args, **kwargs))


# A program that only enqueues is not to import the engine, and the signature is needed by type-checkers alone.
if TYPE_CHECKING:
    open = _takes_what(bootstrap.open)(_open)
else:
    open = _open
    open.__name__ = open.__qualname__ = "open"


class Enqueued(NamedTuple):
    """The answer of `enqueue`: the notification's id, known to `status` from the commit on; `replayed` as in
    `Receipt`."""

    id: str
    replayed: bool


def enqueue(
    connection: object,
    notification: Notification,
    target: Target | str,
    *,
    app: str = "default",
    at: float | datetime | None = None,
    idempotency_key: str | None = None,
    schema: str = "fanout",
) -> Enqueued:
    """Make a notification part of the transaction that is open in `connection`: it is sent if and only if that commits.

    `connection` is `django.db.connection`, psycopg's or SQLAlchemy's (a `Session` too), to the database of a PostgreSQL storage, whose
    tables stand in `schema`. No engine is needed here: a worker (`fanout work`) that serves `app` takes it, within 100 ms of the commit.
    Nothing else is done in the transaction than one INSERT, which nobody waits for. `target`, `at` and the others are as in `Engine.send`; an
    `idempotency_key` counts for a day.

    Raises `UsageError` for a connection of another kind or outside of a transaction, and for what could never be sent as far as it can
    be told without a transport; a fault that only the worker finds is the event `notification.refused`. Raises
    `Conflict`,  and any error of the driver.
    """
    from fanout.core import given
    from fanout.core.policy import Policy, Retention
    from fanout.core.submission import submission_of
    from fanout.enqueue import Statement
    from fanout.enqueue import enqueue as run

    now = time.time()
    submission = submission_of(
        notification,
        target,
        app=app,
        at=at,
        idempotency_key=idempotency_key,
        now=now,
        random=os.urandom(10),
        zero_ttl_grace=Policy().zero_ttl_grace,
    )
    if at is not None:
        # As it was wished: whether that is past already, the database's clock decides.
        wished = given.instant("at", at)
        submission = replace(submission, due_at=wished, expires_at=submission.expires_at - submission.due_at + wished)
    return Enqueued(*run(connection, Statement(submission, schema, now - Retention().idempotency_keys)))


class Engine:
    """An engine that runs in a thread of its own. Every method blocks its caller until it is done, and any thread may call."""

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
        self.endpoints = Endpoints(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drain within the engine's deadline, close everything and end the thread. Calls that are under way raise `EngineClosed`.

        Closing twice is harmless. Raises what went wrong inside the engine, if that is why it ended.
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

    def send(
        self,
        notification: Notification,
        target: Target | str,
        *,
        app: str = "default",
        at: float | datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Accept a notification durably. Arguments and errors are those of `fanout.Engine.send`.

        Args:
            notification: The content.
            target: The devices: `Target.user("alice")`, or its short form.
            app: The app whose devices are meant.
            at: The due time, in UNIX seconds or as a datetime with its time zone; None for now.
            idempotency_key: A text of the caller's, which makes a repeated call return the first receipt.

        Example:
            ```python
            with fanout.sync.open() as engine:
                engine.send(Notification(title="Your table is ready"), "user:alice").wait(10)
            ```
        """
        inner = self._use()
        receipt = self._call(inner.send(notification, target, app=app, at=at, idempotency_key=idempotency_key))
        return Receipt(self, receipt)

    def send_many(self, batch: Iterable[tuple[Notification, Target | str]], *, app: str = "default") -> list[Receipt]:
        """Accept `batch`, pairs of a notification and its target of `app`, in one commit, all or none; else as `fanout.Engine.send_many`."""
        inner = self._use()
        return [Receipt(self, receipt) for receipt in self._call(inner.send_many(list(batch), app=app))]

    def status(self, id: str) -> Status:
        """The state of the notification `id`. Raises `NotFound`."""
        return self._call(self._use().status(id))

    def wait(self, id: str, timeout: float | None = None) -> Status:
        """Wait until every delivery of a notification has ended.

        Args:
            id: The notification's id.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The final status.

        Raises:
            TimeoutError: Deliveries are left after `timeout` seconds.
            NotFound: There is no such notification.
        """
        return self._call(self._use().wait(id, timeout))

    def cancel(self, id: str) -> Status:
        """Stop the deliveries of the notification `id` that have not been sent; the status afterwards. Raises
        `NotFound`."""
        return self._call(self._use().cancel(id))

    def pause(self, id: str) -> Status:
        """Send nothing more of the notification `id` until `resume`; the status afterwards. Raises `NotFound`."""
        return self._call(self._use().pause(id))

    def resume(self, id: str) -> Status:
        """Let the paused notification `id` go on; the status afterwards. Raises `NotFound`."""
        return self._call(self._use().resume(id))

    def pause_binding(self, binding: str, *, app: str = "default") -> None:
        """Hold all deliveries of one `binding` of `app`, in every process. Raises `UsageError` for an unknown
        binding."""
        self._call(self._use().pause_binding(binding, app=app))

    def resume_binding(self, binding: str, *, app: str = "default") -> None:
        """Lift the pause of one `binding` of `app`, and try a closed gate again at once. Raises `UsageError` for an
        unknown
        binding.
        """
        self._call(self._use().resume_binding(binding, app=app))

    def erase_user(self, user: str, *, app: str = "default") -> int:
        """Forget a `user` of `app` at once, everywhere; the number of endpoints that there were. Raises
        `UsageError`."""
        return self._call(self._use().erase_user(user, app=app))

    def export_user(self, user: str, *, app: str = "default") -> Iterator[dict[str, Any]]:
        """All data held of a `user` of `app`, read while it is consumed: records of plain JSON with a `kind`, the last
        of which is
        `end`. Raises `UsageError`.
        """
        return self._pages(self._use().export_user(user, app=app), _RECORDS)

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

    def explain(self, id: str, endpoint: int) -> Sequence[Step]:
        """The decisions about the delivery of the notification `id` to `endpoint`, oldest first. Raises `NotFound`."""
        return self._call(self._use().explain(id, endpoint))

    def _use(self) -> asynchronous.Engine:
        """The engine inside, if it can be called from here and now."""
        _refuse_in_loop()
        if self._process != os.getpid():
            raise EngineClosed("The engine was opened in another process: open it after the fork, in each worker.")
        if self._closed:
            raise EngineClosed("The engine is closed: open another with fanout.sync.open.")
        return self._inner

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # The lock orders this before a stop: the loop then starts the coroutine before it ends, so that it always resolves.
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


class Endpoints:
    """The directory, blocking. Arguments and errors are those of the asynchronous `engine.endpoints`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(
        self,
        *,
        user: str,
        binding: str,
        address: str | Mapping[str, Any],
        tags: Iterable[str] = (),
        platform: str = "",
        expires_at: float | None = None,
        app: str = "default",
    ) -> Endpoint:
        """Enter a device `address` of `user`, for the `binding` of `app`, with `tags`, `platform` and `expires_at` (UNIX seconds).

        The errors are those of the asynchronous `Endpoints.register`.
        """
        inner = self._engine._use()
        return self._engine._call(
            inner.endpoints.register(
                user=user,
                binding=binding,
                address=address,
                tags=tags,
                platform=platform,
                expires_at=expires_at,
                app=app,
            )
        )

    def list(
        self,
        *,
        user: str | None = None,
        binding: str | None = None,
        tag: str | None = None,
        state: EndpointState | None = EndpointState.ACTIVE,
        app: str = "default",
    ) -> Iterator[Endpoint]:
        """Endpoints of `app` by id, read page by page while they are consumed.

        `user`, `binding`, `tag` and `state` choose, as in the asynchronous `Endpoints.list`; None chooses all.
        """
        inner = self._engine._use()
        source = inner.endpoints.list(user=user, binding=binding, tag=tag, state=state, app=app)
        return self._engine._pages(source, _PAGE)

    def get(self, id: int, *, app: str = "default") -> Endpoint:
        """The endpoint `id` of `app`, in any state. Raises `NotFound`."""
        return self._engine._call(self._engine._use().endpoints.get(id, app=app))

    def remove(self, ids: Iterable[int], *, app: str = "default") -> int:
        """Take the endpoints `ids` of `app` out of the directory; the number that were there."""
        return self._engine._call(self._engine._use().endpoints.remove(ids, app=app))

    def restore(self, ids: Iterable[int], *, app: str = "default") -> int:
        """Put the endpoints `ids` of `app` back that are gone, removed or expired; the number that are active again."""
        return self._engine._call(self._engine._use().endpoints.restore(ids, app=app))


class Receipt:
    """A notification that was accepted durably: `id`, `total` and `replayed` as in the asynchronous `Receipt`."""

    __slots__ = ("_engine", "_receipt")

    def __init__(self, engine: Engine, receipt: asynchronous.Receipt) -> None:
        self._engine = engine
        self._receipt = receipt

    @property
    def id(self) -> str:
        """The notification's id."""
        return self._receipt.id

    @property
    def total(self) -> int | None:
        """The number of deliveries; None while a topic or broadcast is still to expand."""
        return self._receipt.total

    @property
    def replayed(self) -> bool:
        """Whether the idempotency key was known, so that `id` is the earlier notification's."""
        return self._receipt.replayed

    def wait(self, timeout: float | None = None) -> Status:
        """The final status. Raises `TimeoutError` after `timeout` seconds."""
        return self._engine.wait(self.id, timeout)

    def status(self) -> Status:
        """The state at present."""
        return self._engine.status(self.id)

    def cancel(self) -> Status:
        """Stop the deliveries that have not been sent; the status afterwards."""
        return self._engine.cancel(self.id)

    def __repr__(self) -> str:
        return f"Receipt(id={self.id!r}, total={self.total}, replayed={self.replayed})"


def _refuse_in_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("fanout.sync would block the running event loop: use fanout.open and await it there.")


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    for engine in list(_open_engines):
        engine.close()


# Plain atexit runs after the interpreter has waited for storage's threads, which wait for the engine that nobody closed.
_at_exit: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
_at_exit(_close_all)
