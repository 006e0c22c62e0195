"""Sharing the event loop: encryption is done in slices, so that answers, timers and other work never wait long for it.

Encryption is the one thing here that takes real time (some 90 us each), and hundreds of senders become ready at once
when their answers come in one read. Waiting messages are encrypted back to back, not each in its sender's turn:
measured, that saves 5 to 10 % of the whole, since the elliptic-curve code and the rest of the path push each other out
of the processor's caches. Threads were measured to gain nothing (the library holds the GIL), and processes cost more
than they save below about 10,000 a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from fanout.plugin import Turns

if TYPE_CHECKING:
    from fanout.plugin import H2Pool, Head, Response
    from fanout_webpush.runs import HostRun

__all__ = ["Encrypt", "Slices"]

_MOST = 64
"""Messages in a slice at most, by any clock: a virtual one stands still."""

Encrypt = Callable[[bytes, bytes, bytes], bytes]
_Job: TypeAlias = (
    "tuple[asyncio.Future[Any], bytes, bytes, bytes, tuple[H2Pool, Head, bytes, bytes, bool] | Encrypt | None]"
)


class Slices:
    """Encrypts in the order of asking, for at most `slice` seconds (by `clock`, monotonic) in each of its turns of the
    event loop (`Turns`).

    A slice ends with the message that oversteps it. A sender that stops waiting costs nothing more.
    """

    def __init__(self, encrypt: Encrypt, *, clock: Callable[[], float], slice: float = 0.001) -> None:
        loop = asyncio.get_running_loop()
        self._encrypt = encrypt
        self._clock = clock
        self._slice = slice
        self._loop = loop
        self._new_future = loop.create_future
        self._jobs: deque[_Job | HostRun] = deque()
        self._scheduled = False

    def encrypt(self, record: bytes, p256dh: bytes, auth: bytes, other: Encrypt | None = None) -> asyncio.Future[bytes]:
        """The body for one browser, soon; by `other` in place of the usual encryption. The future raises `ValueError`
        for keys that are none."""
        future: asyncio.Future[bytes] = self._new_future()
        self._enter((future, record, p256dh, auth, other))
        return future

    def request(
        self,
        pool: H2Pool,
        head: Head,
        path: bytes,
        fields: bytes,
        record: bytes,
        p256dh: bytes,
        auth: bytes,
        fresh: bool = False,
    ) -> asyncio.Future[Response]:
        """Encrypt, and send the body at once: `pool.request` without waking the sender in between, which costs more
        than it looks.

        The future raises `ValueError` for keys that are none, and `RequestFailed`.
        """
        future: asyncio.Future[Response] = self._new_future()
        self._enter((future, record, p256dh, auth, (pool, head, path, fields, fresh)))
        return future

    def begin(self, run: HostRun) -> None:
        """Encrypt the deliveries of a run, and send each slice together."""
        self._enter(run)

    def close(self) -> None:
        """Runs without encryption are left to `send`."""
        waiting, self._jobs = self._jobs, deque()
        for job in waiting:
            if isinstance(job, tuple):
                self._jobs.append(job)
            else:
                job.give_up()

    def _enter(self, job: _Job | HostRun) -> None:
        self._jobs.append(job)
        if not self._scheduled:
            self._scheduled = True
            Turns.on(self._loop).add(self._loop, self._next)

    def _next(self) -> bool:
        """One slice; whether there are more."""
        jobs, encrypt, clock = self._jobs, self._encrypt, self._clock
        until = clock() + self._slice
        left = _MOST
        while jobs and left:
            job = jobs[0]
            if not isinstance(job, tuple):
                left -= self._go_on(job, until, left)
                if job.over:
                    jobs.popleft()
                if clock() >= until:
                    break
                continue
            future, record, p256dh, auth, to = job
            jobs.popleft()
            if future.done():  # its sender was cancelled
                continue
            try:
                if not isinstance(to, tuple):
                    future.set_result((to or encrypt)(record, p256dh, auth))
                else:
                    body = encrypt(record, p256dh, auth)
                    pool, head, path, fields, fresh = to
                    if fresh:
                        pool.request(head, path, fields, body, None, future, fresh)
                    else:
                        pool.request(head, path, fields, body, None, future)
            except Exception as error:  # of this one; the others must not wait for ever
                if not future.done():
                    future.set_exception(error)
            left -= 1
            if clock() >= until:
                break
        self._scheduled = bool(jobs)
        return self._scheduled

    def _go_on(self, run: HostRun, until: float, most: int) -> int:
        try:
            return run.go_on(self._encrypt, self._clock, until, most)
        except Exception as error:  # other runs go on
            run.give_up()
            self._loop.call_exception_handler({"message": "A run could not be begun", "exception": error})
            return 1
