"""The pushes of an application, for its own tests: every engine that is made meanwhile delivers into a list instead of
to a gateway.

It imports no test framework; `fanout.testing.pytest_plugin` makes the fixture `pushes` of it.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from time import monotonic
from typing import Any, Self, overload

import fanout.enqueue
from fanout.core.codec import decode
from fanout.core.records import Put, Status, Submission
from fanout.engine import Engine, EngineOptions
from fanout.engine.intake import Request
from fanout.errors import UsageError
from fanout.plugin import (
    ACCEPTED,
    Address,
    Deferred,
    Delivery,
    Diagnosis,
    Message,
    Notification,
    Outcome,
    Storage,
    Target,
    Transport,
)

__all__ = ["Delivered", "Push", "Pushes"]

_STRANGER = Deferred("not sent by this test", after=60.0)


@dataclass(frozen=True, slots=True)
class Delivered:
    """One attempt that would have left for a device.

    `message` is the notification as the binding's transport encoded it; `outcome` is the answer to it.
    """

    binding: str
    address: str
    endpoint: int
    attempt: int
    message: Message = field(repr=False)
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Push:
    """One notification that the application has sent.

    `due_at` is UNIX seconds: when it is to go out. `deliveries` grows while a worker is open; each attempt is one
    entry.
    """

    id: str
    app: str
    notification: Notification
    target: Target
    due_at: float
    deliveries: list[Delivered] = field(default_factory=list)
    _engine: Engine | None = field(default=None, repr=False, compare=False)


class Pushes(Sequence[Push]):
    """The pushes that are sent while the `with` block runs, oldest first; nothing leaves the process.

        with fanout.testing.Pushes() as pushes:
            shop.order("alice")
        assert [push.notification.title for push in pushes] == ["Thank you"]

    Each engine that is made inside, by `fanout.open`, by `fanout.sync.open` or from its parts, keeps its storage and
    its transports' rules for addresses and contents. No transport is opened, no credential is read, and the
    configuration's files are not followed. A delivery of a notification that was not sent inside, left in the database
    by another program, waits there as before, with a warning.

    `answer` gives the answer to each delivery, by default `Accepted`. Raises `UsageError` on entering while an engine
    is open or another `Pushes` is in use.
    """

    _active: Pushes | None = None

    def __init__(self, answer: Callable[[Push, Delivery], Outcome] = lambda push, delivery: ACCEPTED) -> None:
        self.answer = answer
        self._sent: list[Push] = []
        self._known: dict[str, Push] = {}
        self._strangers: set[str] = set()
        self._engines: list[Engine] = []
        self._undo: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        if Pushes._active is not None:
            raise UsageError("Pushes are collected already: use the one that is open, and `clear` it between tests.")
        if _engine_is_open():
            gc.collect()  # an engine that was dropped without being closed does not count
        if _engine_is_open():
            raise UsageError(
                "An engine was opened before its pushes were collected: open it inside, or collect in a fixture as wide as the engine's, "
                "`with fanout.testing.Pushes() as pushes: yield pushes`."
            )
        make, enqueue = Engine.__init__, fanout.enqueue.enqueue

        @wraps(make)
        def made(
            engine: Engine,
            storage: Storage,
            transports: Mapping[tuple[str, str], Transport],
            options: EngineOptions,
        ) -> None:
            collected = {place: _Collecting(self, place[1], each) for place, each in transports.items()}
            make(engine, storage, collected, replace(options, renewer=None))
            self._follow(engine)

        @wraps(enqueue)
        def enqueued(connection: object, statement: Any) -> Any:
            answer = enqueue(connection, statement)
            if not answer[1]:
                self._add(_push(statement.submission, None, None))
            return answer

        def undo() -> None:
            Engine.__init__ = make  # type: ignore[method-assign]
            fanout.enqueue.enqueue = enqueue
            # A second exit finds what others have put in place since, and leaves it.
            Pushes._active, self._undo = None, lambda: None

        Engine.__init__ = made  # type: ignore[method-assign, assignment]
        fanout.enqueue.enqueue = enqueued
        Pushes._active, self._undo = self, undo
        return self

    def __exit__(self, *exc: object) -> None:
        self._undo()
        if self._strangers:
            warnings.warn(
                f"{len(self._strangers)} notifications in the database were not sent by this test, and wait there as before: give each "
                'test a database of its own, such as storage="memory:".',
                stacklevel=2,
            )

    @overload
    def __getitem__(self, index: int) -> Push: ...

    @overload
    def __getitem__(self, index: slice) -> list[Push]: ...

    def __getitem__(self, index: int | slice) -> Push | list[Push]:
        return self._sent[index]

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Push]:
        return iter(list(self._sent))

    def __eq__(self, other: object) -> bool:
        return self._sent == (other._sent if isinstance(other, Pushes) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Pushes({self._sent!r})"

    def to(self, target: Target | str) -> list[Push]:
        """The pushes with exactly one target.

        Args:
            target: The target, or its short form, such as `user:alice` or `topic:news`.

        Returns:
            The pushes, oldest first.

        Raises:
            UsageError: The text is no target.

        Example:
            ```python
            assert len(pushes.to("user:alice")) == 1
            ```
        """
        wanted = Target.parse(target) if isinstance(target, str) else target
        return [push for push in self if push.target == wanted]

    def clear(self) -> None:
        """Forget the pushes that were sent so far. A delivery of them that is still on its way is accepted as before.

        Example:
            ```python
            pushes.clear()
            ```
        """
        self._sent.clear()

    async def wait(self, timeout: float = 10.0) -> list[Status]:
        """Wait until every delivery of the pushes has ended.

        Args:
            timeout: The longest wait, in seconds.

        Returns:
            The final status of each.

        Raises:
            TimeoutError: A notification, which the text names, has not ended.
            UsageError: No engine is open that could tell.

        Example:
            ```python
            [status] = await pushes.wait()
            ```
        """
        ends, found = monotonic() + timeout, []
        for push in self:
            engine = self._teller(push)
            loop = engine._door.loop
            assert loop is not None
            waiting = engine.wait(push.id, max(ends - monotonic(), 0.0))
            try:
                if loop is asyncio.get_running_loop():
                    found.append(await waiting)
                else:
                    found.append(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(waiting, loop)))
            except TimeoutError:
                raise TimeoutError(
                    f"{push.id} ({push.notification.title!r}) has not ended within {timeout:g} s: it is scheduled, waits for another try, "
                    'or no engine is open that delivers (role "submit" does not).'
                ) from None
        return found

    def wait_blocking(self, timeout: float = 10.0) -> list[Status]:
        """As `wait`, for tests without an event loop.

        Args:
            timeout: The longest wait, in seconds.

        Returns:
            The final status of each.

        Raises:
            TimeoutError: A notification, which the text names, has not ended.
            UsageError: No engine is open that could tell, or an event loop runs here.

        Example:
            ```python
            def test_the_buyer_is_told(pushes):
                ship("alice")
                pushes.wait_blocking()
            ```
        """
        if asyncio._get_running_loop() is not None:
            raise UsageError("wait_blocking would stop this event loop: use `await pushes.wait()`.")
        return asyncio.run(self.wait(timeout))

    def _teller(self, push: Push) -> Engine:
        for engine in (push._engine, *reversed(self._engines)):
            if engine is not None and engine._open:
                return engine
        raise UsageError(f"{push.id} ({push.notification.title!r}) cannot be waited for: no engine is open any more.")

    def _follow(self, engine: Engine) -> None:
        """Have the engine tell of each notification that it accepts: before it is stored, for another engine may
        deliver it at once."""
        accept, enqueue = engine._accept, engine._put_notifier.enqueue

        async def accepted(requests: Sequence[Request], app: str) -> list[Put]:
            sent = [_push(each.submission, each.notification, engine) for each in requests]
            self._known.update({push.id: push for push in sent})
            puts = await accept(requests, app)
            for push, put in zip(sent, puts, strict=True):
                if put.id == push.id:
                    self._add(push)
                elif put.joined:  # in an earlier one's place, which then says this instead
                    self._add(Push(put.id, push.app, push.notification, push.target, push.due_at, _engine=engine))
            return puts

        async def enqueued(connection: object, request: Request) -> Put:
            put = await enqueue(connection, request)
            if not put.replayed:
                self._add(_push(request.submission, request.notification, engine))
            return put

        engine._accept = accepted  # type: ignore[method-assign]
        engine._put_notifier.enqueue = enqueued  # type: ignore[method-assign]
        self._engines.append(engine)

    def _add(self, push: Push) -> None:
        self._known[push.id] = push
        self._sent.append(push)

    def _deliver(self, binding: str, message: _Collected, delivery: Delivery) -> Outcome:
        push = self._known.get(message.notification)
        if push is None:
            self._strangers.add(message.notification)
            return _STRANGER
        outcome = self.answer(push, delivery)
        about = (binding, delivery.address, delivery.endpoint, delivery.attempt)
        push.deliveries.append(Delivered(*about, message.inner, outcome))
        return outcome


def _engine_is_open() -> bool:
    return any(_open(each) for each in gc.get_referrers(Engine) if isinstance(each, Engine))


def _open(engine: Engine) -> bool:
    """Whether the engine can still send: an open engine of a closed loop cannot."""
    loop = engine._door.loop
    return engine._open and loop is not None and not loop.is_closed()


class _Collected(Message):
    """A message, and the id of the notification that it is of."""

    __slots__ = ("inner", "notification")

    def __init__(self, inner: Message, notification: str) -> None:
        super().__init__(inner.size, inner.topic)
        self.inner = inner
        self.notification = notification


class _Collecting:
    """A transport that checks as the real transport does, and hands over to `Pushes`. The real transport is never
    opened."""

    def __init__(self, pushes: Pushes, binding: str, inner: Transport) -> None:
        self._pushes = pushes
        self._binding = binding
        self._inner = inner

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        return self._inner.parse_address(raw)

    def prepare(self, notification: Notification) -> Message:
        return _Collected(self._inner.prepare(notification), notification.id)

    def capacity(self, group: str) -> int:
        return 1000

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        assert isinstance(message, _Collected)
        return self._pushes._deliver(self._binding, message, delivery)

    async def check(self) -> Diagnosis:
        return Diagnosis(detail="pushes are collected by a test: no gateway is asked")


def _push(submission: Submission, notification: Notification | None, engine: Engine | None) -> Push:
    if notification is None:
        notification = decode(
            submission.content, id=submission.id, accepted_at=submission.accepted_at, expires_at=submission.expires_at
        )
    return Push(submission.id, submission.app, notification, submission.target, submission.due_at, _engine=engine)
