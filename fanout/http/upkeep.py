"""The pool's decisions, without its sockets: when to connect, how long to back off, whether a connection is stale.
Pure."""

from __future__ import annotations

import random
from collections import deque
from enum import Enum

from fanout.core.policy import backoff
from fanout.http.settings import PoolSettings

__all__ = ["AT_ONCE", "GAP", "STALL", "Health", "Heartbeat", "Marks", "Reconnect", "wants_connection"]

STALL = 1.0
"""Seconds by which a tick is late before the loop is taken to have stood still."""

AT_ONCE = 0.001
"""Seconds. Of less uvloop makes no timer: it calls at once, before it reads, and its handle does not know the time."""

GAP = 5.0
"""Seconds between two looks after which the machine is taken to have slept: earlier connections may be gone."""


def wants_connection(
    *,
    ready: int,
    ageing: int,
    limit: int,
    waiting: bool,
    crowded: bool,
    warm: bool,
    on_trial: bool,
    stale: bool = False,
) -> bool:
    """Whether one more connection should be opened now, given that none is being opened.

    `ready` connections take requests, `ageing` of these are to be replaced, `limit` is the most there should be.
    `waiting`: requests wait. `crowded`: the least used connection is more than half used. `warm`: the pool was used a
    short while ago. `on_trial`: a connection has one request alone out, and its answer decides about the credential.
    `stale`: something waits that none of the ready connections may carry, however free it is.
    """
    if ageing or stale:
        return True
    if not ready:
        return waiting or warm
    return ready < limit and (waiting or crowded) and not on_trial


_SOON = 1.0
"""Seconds: so long after one that failed, another connect is tried at the latest."""


_MUTE = 4.0
"""Seconds: so long after a connection that ended without an answer and a word, another is tried at the latest. One
handshake in two seconds, on average, is no load, and such a gateway is often a balancer whose servers start anew."""


class Reconnect:
    """When to connect again. After a connect that failed within a second, however often; to try that burdens no
    gateway.

    After a connection that ended without one answer, exponential back-off with full jitter: up to `_MUTE` seconds, and
    up to the cap where the gateway said why it turns its client away.
    A connection counts as a success when it has answered a request, not when it was opened: a gateway that accepts and
    hangs up would otherwise be called without a pause.
    """

    __slots__ = ("_base", "_cap", "_failures", "_unconnected", "reason", "until")

    def __init__(self, settings: PoolSettings) -> None:
        self._base = settings.backoff_base
        self._cap = settings.backoff_cap
        self._failures = 0
        self._unconnected = False
        self.until = float("-inf")
        self.reason = ""

    def failed(self, now: float, rng: random.Random, reason: str, *, told: bool = False) -> None:
        """A connection ended without one answer. `reason` is the word for requests refused meanwhile; `told`: the
        gateway said that the fault is its client's."""
        self._failures += 1
        self._unconnected = False
        self.reason = reason
        cap = self._cap if told else min(self._cap, max(self._base, _MUTE))
        self.until = now + backoff(self._failures, base=self._base, cap=cap, rng=rng)

    def refused(self, now: float, rng: random.Random, reason: str) -> None:
        """No connection came about."""
        self.reason = reason
        pause = min(2 * self._base, self._cap, _SOON)
        until = now + rng.uniform(pause / 2, pause)
        if until >= self.until:
            self.until, self._unconnected = until, True

    def soon(self, now: float) -> bool:
        """Whether a connect comes so soon that requests wait for it: that it was not tried yet is no failure of the
        gateway's.

        Not after a connection that ended without one answer: then the gateway was there, and has turned all clients
        away.
        """
        return self._unconnected or now >= self.until

    def succeeded(self) -> None:
        """A connection answered a request."""
        self._failures = 0
        self.until = float("-inf")


class Marks:
    """When streams were opened, to the precision of a tick: after each tick, the first id that had not been opened by
    then.

    Ids only grow, so this replaces a timer, or even a number, per request.
    """

    __slots__ = ("_marks", "expired")

    def __init__(self, first_stream: int) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self.expired = first_stream

    def mark(self, now: float, next_stream: int) -> bool:
        """All streams below `next_stream` were opened by `now`. Whether there are any since the last mark."""
        newest = self._marks[-1][1] if self._marks else self.expired
        if next_stream == newest:
            return False
        self._marks.append((now, next_stream))
        return True

    def expire(self, before: float) -> int:
        """The id below which every stream was opened by `before`; forgets the notes that it needed for that."""
        while self._marks and self._marks[0][0] <= before:
            self.expired = self._marks.popleft()[1]
        return self.expired

    def opened_by(self, moment: float) -> int:
        """The id below which every stream was opened by `moment`."""
        below = self.expired
        for at, next_stream in self._marks:
            if at > moment:
                break
            below = next_stream
        return below


class Health(Enum):
    """The next step for a connection."""

    FINE = "fine"
    PING = "ping"
    DEAD = "dead"


class Heartbeat:
    """When to ask whether the peer lives, and when to give it up. Times are of a monotonic clock."""

    __slots__ = ("_heard", "_idle", "_pinged", "_stall", "_timeout")

    def __init__(self, settings: PoolSettings, now: float) -> None:
        self._idle = settings.idle_ping
        self._stall = settings.stall_ping
        self._timeout = settings.ping_timeout
        self._heard = now
        self._pinged = now

    def heard(self, now: float) -> None:
        """Bytes came since the last look."""
        self._heard = now

    def pinged(self, now: float) -> None:
        """A PING was sent."""
        self._pinged = now

    def silence(self, now: float) -> float:
        """Seconds without a byte from the peer."""
        return now - self._heard

    def look(self, now: float, *, waiting_for_pong: bool, in_flight: bool, overdue: bool) -> Health:
        """`overdue`: something was sent `stall_ping` seconds ago and not answered. Any byte counts as a sign of
        life."""
        silence = now - self._heard
        if waiting_for_pong:
            return Health.DEAD if now - max(self._pinged, self._heard) >= self._timeout else Health.FINE
        if (silence >= self._stall and overdue) or (silence >= self._idle and not in_flight):
            self._pinged = now
            return Health.PING
        return Health.FINE

    def stall_before(self, now: float) -> float:
        """Answers to requests sent before this are overdue."""
        return now - self._stall
