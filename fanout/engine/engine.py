"""The engine, which `fanout.open` gives. It wires intake, workers and upkeep around one storage, and starts and stops
them."""

from __future__ import annotations

import asyncio
import logging
from asyncio import _get_running_loop
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Self, Unpack

import anyio
from anyio.abc import TaskGroup

from fanout.config import prove
from fanout.core import given
from fanout.core.model import Notification, Target
from fanout.core.policy import BacklogLimits
from fanout.core.records import Put
from fanout.engine.apart import apart, begin_apart
from fanout.engine.binding_state import BindingState
from fanout.engine.context import EngineContext, EngineOptions, Role
from fanout.engine.diagnose import enter
from fanout.engine.directory import Endpoints
from fanout.engine.dispatcher import Dispatcher
from fanout.engine.door import Door
from fanout.engine.gates import Gates
from fanout.engine.intake import Asked, Intake, Request, raise_refused
from fanout.engine.link import FleetLink
from fanout.engine.membership import Membership
from fanout.engine.operating import Operations
from fanout.engine.pressure import Pressure
from fanout.engine.preview import DrainReport, Preview
from fanout.engine.put_notifier import PutNotifier
from fanout.engine.reads import Reads
from fanout.engine.receipt import Receipt
from fanout.engine.renewal import Renewal
from fanout.engine.send_tasks import SendTasks
from fanout.engine.settler import Settler
from fanout.engine.upkeep import Upkeep
from fanout.engine.waiters import Waiters
from fanout.errors import EngineClosed, StorageError
from fanout.plugin import Storage, Transport

__all__ = ["DrainReport", "Engine", "Preview"]

_log = logging.getLogger("fanout.engine")


class Engine(Operations):
    """Push delivery, embedded. An async context manager: it runs in the loop that entered it and leaves nothing behind.

    On exit it stops leasing, waits up to `drain_timeout` seconds for answers that are under way, stores these, and
    gives the rest back to storage, where any worker finds it.

    Made by `fanout.open`; a program that wires its own storage calls `Engine(storage, transports, options)` with
    `EngineOptions`.

    Raises:
        ConfigurationError: On entering: a credential cannot be read or used.
        EngineClosed: On entering: it has been entered before.
        StorageError: On entering: the database cannot be opened.
    """

    def __init__(
        self,
        storage: Storage,
        transports: Mapping[tuple[str, str], Transport],
        options: EngineOptions,
    ) -> None:
        self._context = context = EngineContext.of(storage, options)
        self.storage = storage
        transports = dict(transports)
        self.transports: Mapping[tuple[str, str], Transport] = transports
        self.reads = Reads(storage, transports, self.ensure_open)
        self.policy = options.policy
        self.role: Role = options.role
        self._clock = clock = context.clock
        self._live = context.live
        self._drain_timeout = options.drain_timeout
        self._intake = Intake(
            transports, options.apps, names=options.names, clock=clock, rng=context.rng, policy=self.policy
        )
        self.apps = self._intake.apps
        self._waiters = Waiters()
        self._stack: AsyncExitStack | None = None
        self._tasks: TaskGroup | None = None
        self._open = False
        self._door = Door()
        self.ensure_loop = self._door.check
        self._fault: BaseException | None = None
        self.trouble = context.trouble
        """The refusal of storage at present (`problem` is empty while it refuses nothing)."""
        self._states: list[BindingState] = []
        self._settler = Settler(context, self._states, self._waiters.done)
        self._dispatchers: list[Dispatcher] = []
        self.worker = context.worker
        renewer, link, states = options.renewer, options.link or FleetLink(storage, clock), self._states
        self.watcher = renewer.watcher if renewer is not None else None  # owners of parts register there
        self._renewal = Renewal(context, transports, states, renewer)
        bindings = sorted(f"{app}/{binding}" for app, binding in transports) if self.role != "submit" else None
        self._membership = Membership(context, states, bindings, link)
        renew, tally = self._renewal.look, self._settler.tally
        self._send_tasks = SendTasks(self._spawn)
        self._upkeep = Upkeep(
            context,
            states,
            self._dispatchers,
            self._waiters,
            self._membership,
            self._send_tasks,
            renew=renew,
            tally=tally,
        )
        put_notifier = PutNotifier(context, self._intake, [app for app, _ in transports])
        self._put_notifier = put_notifier.heard_by(self._dispatchers, self._live, self._settler, self._upkeep)
        self._pressure = Pressure(storage, options.backlog or BacklogLimits(), clock)
        self.endpoints = Endpoints(storage, transports, clock, self.ensure_open)

    # -- lifecycle

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise EngineClosed("An engine is opened once; make another with fanout.open.")
        self._door.enter()
        if self.watcher is not None and self.role != "submit":
            prove(self.watcher.settings)  # before the database is opened, and perhaps made
        async with AsyncExitStack() as stack:
            await apart(stack.enter_async_context(self.storage))
            if self.role != "submit":  # an engine that only submits needs no credential
                self._renewal.opens()
                await apart(enter(stack, self.transports))
            stack.push_async_callback(self._renewal.close)
            self._tasks = anyio.create_task_group()
            await self._tasks.__aenter__()
            # Not entered through the stack: a task group wraps an exception of the caller's own block into a group of
            # exceptions.
            stack.push_async_callback(self._tasks.__aexit__, None, None, None)
            stack.push_async_callback(self._stop)
            await self._membership.join(self._upkeep.extend)
            self._start()
            self._stack = stack.pop_all()
        self._open = True
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        assert self._stack is not None
        self.ensure_loop()
        return await self._stack.__aexit__(kind, error, trace)

    def _start(self) -> None:
        for loop in (self._upkeep.watch, self._renewal.watch, self._renewal.close_retired):
            self._spawn(loop())
        if self.role == "submit":
            return
        for loop in (self._upkeep.keep_leases, self._upkeep.tidy, self._upkeep.post_gates):
            self._spawn(loop())
        self._spawn(self._membership.run())
        self._spawn(self._settler.run())
        self._spawn(self._put_notifier.run())
        siblings: dict[str, list[Gates]] = {}
        for (app, binding), transport in self.transports.items():
            context, news = self._context, self._upkeep.news
            spawn, tasks = self._spawn, self._send_tasks
            state = BindingState(
                app, binding, transport, context, settler=self._settler, news=news, spawn=spawn, tasks=tasks
            )
            siblings.setdefault(app, []).append(state.gates)
            state.gates.siblings = siblings[app]
            extend, member = self._upkeep.extend, self._membership
            dispatcher = Dispatcher(state, context, self._settler, extend=extend, member=member)
            self._states.append(state)
            self._dispatchers.append(dispatcher)
            self._spawn(dispatcher.run())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        begin_apart(self._tasks.start_soon, self._guard, coroutine)

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run one of the engine's loops. If it fails, the engine takes nothing more and says why to all callers that
        wait."""
        try:
            await coroutine
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # the engine is being closed; otherwise only the work that this loop waited for was cancelled
            if self._fault is None:
                self._fault = error
                # A result that cannot be remembered must not come about: another worker takes the leases over when they
                # run out.
                self._settler.stuck = True
                self._membership.ended = True
                for dispatcher in self._dispatchers:
                    dispatcher.stopping = True
                    dispatcher.state.hold()
                what = str(error) or type(error).__name__
                _log.critical("The engine has failed and does nothing more: %s", what, exc_info=error)
                self._waiters.fail(StorageError(f"The engine has failed: {what}"))
                self._settler.idle.set()

    async def _stop(self) -> None:
        """Stop leasing, wait for answers, store them, give the rest back; end every task in any case."""
        assert self._tasks is not None
        self._open = False
        try:
            with anyio.move_on_after(self._drain_timeout, shield=True):
                for dispatcher in self._dispatchers:
                    dispatcher.stopping = True
                    dispatcher.state.signal.set()
                if self._fault is None:
                    # A round that is under way may just be leasing: its leases must be given back, not left to run out.
                    for dispatcher in self._dispatchers:
                        await dispatcher.ended.wait()
                for state in self._states:
                    state.surrender()
                while self._fault is None and any(state.under_way for state in self._states):
                    await self._settler.idle.wait(0.05)
                    for state in self._states:
                        state.surrender()
        finally:
            self._tasks.cancel_scope.cancel()
            self._live.close()
            self._waiters.fail(
                EngineClosed("The engine was closed before the notification finished; it goes on elsewhere.")
            )
            with anyio.move_on_after(self._drain_timeout, shield=True):
                for state in self._states:
                    state.end()
                if self._fault is None and self._states:
                    await self._settler.settle()
                    await self._upkeep.tell_gates()
                    await self._membership.leave()

    @property
    def opened(self) -> bool:
        """Whether the engine has been entered."""
        return self._stack is not None

    @property
    def fault(self) -> BaseException | None:
        """The error that has ended the engine; None while it works."""
        return self._fault

    def ensure_open(self) -> None:
        """Raise where a call can do nothing at present; return where it can.

        Raises:
            EngineClosed: The engine is not open; its kind `WrongLoop`: the caller runs in another event loop than the
                engine.
            StorageError: The engine has failed, and `fault` has the error.

        Example:
            ```python
            engine.ensure_open()
            ```
        """
        if self._fault is not None:
            raise StorageError(
                f"The engine has failed and takes nothing more; close it, and open another: {self._fault}"
            ) from self._fault
        if not self._open:
            raise EngineClosed("The engine is not open: use it inside `async with fanout.open(…) as engine`.")
        if _get_running_loop() is not self._door.loop:
            self.ensure_loop()

    # -- submit

    async def send(
        self,
        notification: Notification,
        target: Target | str,
        *,
        app: str = "default",
        at: float | datetime | None = None,
        idempotency_key: str | None = None,
        connection: object | None = None,
    ) -> Receipt:
        """Accept one notification. When this returns it is stored, and kill -9 loses nothing.

        Args:
            notification: The content. It is prepared for each binding of the app now, so a message that is too large is
                refused here.
            target: The devices: `Target.user("alice")`, or its short form "user:alice", "topic:news", "endpoint:7",
                "all".
            app: The app whose devices are meant.
            at: The due time, in UNIX seconds or as a datetime with its time zone; None for now.
            idempotency_key: A text of the caller's. The same key with the same request gives the first receipt again,
                for a day (`[retention] idempotency_keys`).
            connection: A connection of asyncpg, psycopg or SQLAlchemy to the database of a PostgreSQL storage, with an
                open transaction. The notification is accepted if and only if that transaction commits. A fault that
                only the directory shows, such as a message too large for one device, is then the event
                `notification.refused`.

        Returns:
            The receipt: `id`, `total` (None while a topic or broadcast is not expanded yet) and `replayed`.

        Raises:
            UsageError: The notification can never be sent; `MessageTooLarge` and `InvalidMessage` are among its kinds.
            Conflict: The idempotency key was used before, for another request.
            Backlogged: A bound of `[backlog]` is passed, after waiting for room where it says so.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            receipt = await engine.send(Notification(title="Ready"), "user:alice", idempotency_key="table-7")
            status = await receipt.wait(10)
            ```
        """
        self.ensure_open()
        request = self._intake.request(notification, target, app=app, at=at, idempotency_key=idempotency_key)
        if connection is not None:
            await self._admit(app, [request])
            put = await self._put_notifier.enqueue(connection, request)
            return Receipt(put.id, None, put.replayed, self)
        (put,) = await self._accept([request], app)
        return Receipt(put.id, put.total, put.replayed, self)

    async def send_many(
        self,
        messages: Iterable[tuple[Notification, Target | str]],
        *,
        app: str = "default",
        at: float | datetime | None = None,
        idempotency_keys: Sequence[str | None] | None = None,
    ) -> list[Receipt]:
        """Accept many notifications in one commit: all of them, or none and an exception.

        Args:
            messages: Pairs of a notification and its target, as `send` takes them.
            app: The app of all of them.
            at: The due time of all of them, in UNIX seconds or as a datetime with its time zone; None for now.
            idempotency_keys: A key or None for each message, in their order; None for no keys.

        Returns:
            A receipt for each message, in their order.

        Raises:
            UsageError: As in `send`, for one of the messages; or there are more or fewer keys than messages.
            Conflict: An idempotency key was used before, for another request.
            Backlogged: As in `send`.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            await engine.send_many([(Notification(title=f"Hello {name}"), f"user:{name}") for name in ("alice", "bob")])
            ```
        """
        self.ensure_open()
        batch = given.collection("messages", messages)
        keys = (
            [None] * len(batch) if idempotency_keys is None else given.collection("idempotency_keys", idempotency_keys)
        )
        requests = self._intake.requests(batch, keys, app=app, at=at)
        return [Receipt(put.id, put.total, put.replayed, self) for put in await self._accept(requests, app)]

    def request(
        self,
        notification: Notification,
        target: Target | str,
        *,
        app: str = "default",
        **more: Unpack[Asked],
    ) -> Request:
        """Validate and prepare a notification without storing it: for a service that adds to the request before
        `accept`.

        Args:
            notification: The content.
            target: The devices, as in `send`.
            app: The app whose devices are meant.
            **more: `at` and `idempotency_key` as in `send`; with `shorten`, content that is too large for a gateway is
                sent to that gateway with less text.

        Returns:
            The request for `accept`.

        Raises:
            UsageError: As in `send`.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The engine has failed.

        Example:
            ```python
            request = engine.request(Notification(title="Hello"), "user:alice")
            (put,) = await engine.accept([request], app="default")
            ```
        """
        self.ensure_open()
        return self._intake.request(notification, target, app=app, **more)

    async def accept(self, requests: Sequence[Request], *, app: str) -> list[Put]:
        """Store these requests of one app in one commit, or none of them.

        Args:
            requests: Requests that `request` has made.
            app: The app of all of them.

        Returns:
            The result of each request, in their order.

        Raises:
            UsageError: A gateway of the target of a request cannot take its content; the kind is `InvalidMessage`.
            Conflict: An idempotency key was used before, for another request.
            Backlogged: As in `send`.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            requests = [engine.request(Notification(title="Hello"), "user:alice")]
            puts = await engine.accept(requests, app="default")
            ```
        """
        self.ensure_open()
        return await self._accept(requests, app)

    async def _accept(self, requests: Sequence[Request], app: str) -> list[Put]:
        if self._pressure.bounded:
            await self._admit(app, requests)
        now = self._clock.now()
        submissions = [request.submission for request in requests]
        expected = self._put_notifier.expect(app, requests, now)
        puts = await self.storage.put(submissions, now)
        raise_refused(requests, puts)
        if self._states:
            self._waiters.accepted(
                put.id for put in puts if put.total != 0 and put.id and not (put.replayed or put.joined)
            )
        self._put_notifier.announce(app, requests, puts, now, expected)
        return puts

    async def _admit(self, app: str, requests: Sequence[Request]) -> None:
        await self._pressure.admit(app, sum(len(request.submission.content) for request in requests), len(requests))
