"""One HTTP/2 connection under asyncio: the codec's bytes to the transport and back, its results to the callers'
futures.

Writes are gathered and leave once per loop iteration. `tick`, which the pool calls a few times a second, checks
deadlines, cancelled callers and PINGs: no request has a timer of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from fanout.http.answers import Answers, failed, hand_over, over
from fanout.http.codec import Codec, Requests
from fanout.http.dial import DialFailed
from fanout.http.frames import LAST_STREAM, ErrorCode
from fanout.http.reading import SlicedReading
from fanout.http.settings import PoolSettings, PoolStats
from fanout.http.tls import alert_of
from fanout.http.upkeep import Health, Heartbeat, Marks

if TYPE_CHECKING:
    import random

__all__ = ["FULL", "Connection", "Owner"]

_GATHERED = 8192
"""Bytes that are worth a write of their own while more answers, and so more requests, come in the next turn."""
FULL = 512
"""Pieces gathered for writing that are written before the iteration of the loop ends: about 16 KB, a full TLS record,
so that the gateway has something to do while the rest is made."""
_TURNS = 4
"""Turns of the loop for which requests are gathered while other work is in line: milliseconds. A write, a read of its
answers and a run of the next deliveries cost as much for twelve deliveries (a slice of encryption) as for fifty."""
_PATIENCE = 1.0
"""Seconds that a request must have been out before its timeout tells anything about its connection."""
_FRESH = 1.0
"""Seconds for which an answer, or the opening, makes a connection fresh (`Delivery.fresh`)."""
_FEW_IDS = LAST_STREAM - 2**21
"""A connection past this stream id is replaced: a million requests before the ids run out."""


class Owner(Protocol):
    """The events that a connection reports to its pool."""

    @property
    def waiting(self) -> bool:
        """Whether requests wait for a free stream."""
        ...

    def connection_moved(self, connection: Connection) -> None:
        """Streams became free, a limit moved, or the connection takes no more requests."""
        ...

    def connection_proved(self, connection: Connection) -> None:
        """The first answer came."""
        ...

    def connection_ended(self, connection: Connection) -> None:
        """The socket is closed, and every request resolved."""
        ...


class Connection(SlicedReading):
    """One connection of a pool.

    `limit` is the number of requests that may be in flight now: 0 while writing is paused, and for good once draining.
    `nominal` is the same number without such pauses. `opened` resolves to "" at the gateway's first SETTINGS, otherwise
    to the reason for which they never came.
    """

    def __init__(
        self,
        owner: Owner,
        settings: PoolSettings,
        stats: PoolStats,
        rng: random.Random,
        clock: Callable[[], float],
        *,
        first_stream: int = 1,
        name: str = "the connection",
    ) -> None:
        super().__init__()
        self._owner = owner
        self._settings = settings
        self._stats = stats
        self._rng = rng
        self._clock = clock
        self._marks = Marks(first_stream)
        self._waited = 0
        self._heartbeat = Heartbeat(settings, clock())
        self._answerable = first_stream
        self._answered = 0  # the next stream's id at the last answer since the last tick; 0 without one
        self._served = first_stream  # every stream below was opened before an answer came
        self._served_at = clock()  # an answer came at this moment or later
        self._ticked_at = self._served_at
        self._paused = False
        self.alone = settings.first_alone
        self.codec = Codec(max_body=settings.max_body, first_stream=first_stream, name=name)
        self.deadlines: dict[int, float] = {}
        self.flushing = False
        self.limit = 0
        self.nominal = 1
        self.half = 0
        self.proved = False
        self.draining = False
        self.mute = False
        self.suspect = False
        self.asked_at = float("inf")
        self.shut_at: float | None = None
        self.retire_at = float("inf")
        self.address = ""
        self.missed_dns = 0
        self.closing_at: float | None = None
        self.lost_by: Exception | None = None
        self.speaks_h2 = True
        self.opened: asyncio.Future[str] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    # -- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.speaks_h2 = False
            return  # `dial` gives it up; to a server of HTTP/1.1 the preface would be a malformed request
        self.codec.start()
        self.flush()

    def _receive(self, data: bytes) -> None:
        codec = self.codec
        codec.receive(data)
        if codec.taken or codec.answered:
            self._answered = codec.next_stream
            self._hand_over()
        if codec.failed:
            self._fail()
        if codec.out:
            self.flush_soon()
        if codec.changed or codec.closed or self.draining or codec.next_stream > _FEW_IDS:
            self._move()
        elif self._owner.waiting:
            self._owner.connection_moved(self)

    def eof_received(self) -> None:
        """The peer is done sending: no answer can come any more, so the transport closes itself."""

    def pause_writing(self) -> None:
        self._paused = True
        self.settle()

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()
        self.settle()
        self._owner.connection_moved(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._unread:
            # An answer that has arrived counts, although the connection has gone meanwhile.
            rest, self._unread = bytes(self._unread), bytearray()
            self._receive(rest)
        self.lost_by = exc
        if exc is not None and not self.codec.closed:
            self._stats.last_trouble = f"connection lost: {type(exc).__name__}"
        # With TLS 1.3 a client's certificate is judged after the client has finished its handshake.
        reason = alert_of(exc) or "closed"
        self.codec.close(reason)
        self._fail()
        self.settle()
        if not self.opened.done():
            self.opened.set_result(reason)
        if not self.ended.done():
            self.ended.set_result(None)
        self._owner.connection_ended(self)

    async def ready(self, where: str) -> None:
        """Return when the gateway's first SETTINGS are here. Raises `DialFailed`, and the error of TLS."""
        if not self.speaks_h2:
            raise DialFailed("alpn", f"{where} does not offer HTTP/2 (ALPN h2)")
        trouble = await self.opened
        if isinstance(self.lost_by, ssl.SSLError):
            raise self.lost_by  # with TLS 1.3 a client certificate is refused after the handshake
        if trouble:
            raise DialFailed("settings", f"{where} ended the connection before its SETTINGS ({trouble})")

    # -- calls of the pool

    def flush(self) -> None:
        """Write the bytes that the codec has gathered, unless the transport has asked to wait; while there is more to
        read, not in crumbs."""
        if self._unread and len(self.codec.out) < _GATHERED:
            self._loop.call_soon(self.flush)
            return
        self.flushing = False
        self.write()

    def flush_in_turn(self) -> None:
        """`flush`, after a few turns of the loop where other work is in line: it is likely to end in more requests."""
        if not self.flushing:
            return  # flushed meanwhile
        if self._waited < _TURNS and self._turns.busy and len(self.codec.out) <= FULL:
            self._waited += 1
            self._loop.call_soon(self.flush_in_turn)
            return
        self._waited = 0
        self.flush()

    def start_run(self, tokens: Sequence[tuple[Answers, int]], requests: Requests) -> None:
        """Send requests of a run, for which there is room. Over an idle connection they leave at once, otherwise when
        enough is gathered."""
        idle = not self.codec.streams
        self.codec.start_run(tokens, requests)
        if idle or len(self.codec.out) > FULL:
            self.write()
        else:
            self.flush_soon()

    def flush_soon(self) -> None:
        """`flush_in_turn`, from the next turn of the loop on."""
        if not self.flushing:
            self.flushing = True
            self._loop.call_soon(self.flush_in_turn)

    def write(self) -> None:
        """The same before the end of the loop's iteration."""
        if self._transport is not None and self.codec.out and not self._paused:
            self._transport.write(self.codec.take())

    def settle(self) -> None:
        """Work out `limit` anew."""
        codec = self.codec
        self.nominal = min(1 if self.alone else self._settings.streams, codec.peer_streams)
        self.half = self.nominal // 2
        self.shut_at = None if self.nominal else self.shut_at or self._clock()
        if not codec.usable or self.draining or self.suspect or self._paused:
            self.limit = 0
        elif codec.next_stream > _FEW_IDS:
            ids = (LAST_STREAM - codec.next_stream) // 2 + 1
            self.limit = min(self.nominal, len(codec.streams) + ids)
        else:
            self.limit = self.nominal

    @property
    def ids_run_low(self) -> bool:
        """Whether a replacement should be opened because stream ids run out (RFC 9113, section 5.1.1)."""
        return self.codec.next_stream > _FEW_IDS

    def tick(self, now: float) -> bool:
        """Check deadlines, cancelled callers and the peer's silence; whether requests were sent since the last
        tick."""
        if self.codec.closed:
            if self.closing_at is not None and now - self.closing_at >= 2.0 and self._transport is not None:
                self._transport.abort()  # the peer does not finish the TLS shutdown
            return False
        if self._heard:
            self._heard = False
            self._heartbeat.heard(now)
            self._answerable = self.codec.next_stream
        if self._answered:
            self._served = self._answered
            self._served_at = self._ticked_at
            self._answered = 0
        self._ticked_at = now
        self.codec.calm()
        if self.codec.streams:
            self._drop_cancelled()
        if self.codec.streams or self.deadlines:
            self._drop_expired(now)
        used = self._marks.mark(now, self.codec.next_stream)
        self._listen(now)
        if self.codec.out and not self.flushing:
            self.flush()
        self._move()
        return used

    def silence(self, now: float) -> float:
        """Seconds without a byte from the gateway."""
        return 0.0 if self._heard else self._heartbeat.silence(now)

    def fresh(self, now: float) -> bool:
        """Whether it was opened, or answered a request, within the last second: a PONG is no answer."""
        return now - self.served_at <= _FRESH

    @property
    def served_at(self) -> float:
        """When it was opened or last answered a request, to the precision of a tick and never too late."""
        return self._ticked_at if self._answered else self._served_at

    def doubt(self) -> None:
        """The machine slept while nothing was under way here: no request goes out until `prove` has had its answer."""
        if not self.codec.streams and not self.codec.closed:
            self.suspect = True
            self.settle()

    def prove(self, now: float) -> None:
        """A request is about to use it: ask whether the gateway lives, where that is in doubt."""
        if self.suspect and self.codec.pinged is None:
            self._ping(now)
            self.flush()

    def drain(self) -> None:
        """Take no more requests, and close when the last answer is in."""
        self.draining = True
        self.settle()
        self._close_if_drained()

    def close(self, reason: str = "closed") -> None:
        """Say GOAWAY and close; requests in flight fail as `reason`."""
        self.codec.close(reason, code=ErrorCode.NO_ERROR, own=True)
        self._fail()
        self.settle()
        self._hang_up()

    def abort(self, reason: str = "closed") -> None:
        """Close at once, without a word; requests in flight fail as `reason`."""
        self.codec.close(reason)
        self._fail()
        self.settle()
        if self._transport is not None:
            self._transport.abort()

    # -- steps

    def _move(self) -> None:
        codec = self.codec
        codec.changed = False
        if self.suspect and codec.pinged is None and self.asked_at < float("inf"):
            self.suspect = False
            self.asked_at = float("inf")
        if codec.closed:
            if codec.fault:
                self._stats.last_trouble = f"the gateway broke HTTP/2: {codec.fault}"
            self._hang_up()
        self.settle()
        if codec.refusals:
            # Refused at once, it would look the least used and draw everything: it waits for the next tick.
            codec.refusals = 0
            self.limit = min(self.limit, len(codec.streams))
        if codec.ready and not self.opened.done():
            self._served_at = self._ticked_at = self._clock()
            self.opened.set_result("")
        self._owner.connection_moved(self)
        if self.draining:
            self._close_if_drained()

    def _close_if_drained(self) -> None:
        if not self.codec.streams and not self.codec.closed:
            self.close()

    def _hang_up(self) -> None:
        if self.closing_at is None:
            self.closing_at = self._clock()
            if self._transport is not None:
                if self.codec.out and not self._paused:
                    self._transport.write(self.codec.take())
                self._transport.close()

    def _hand_over(self) -> None:
        codec = self.codec
        taken, codec.taken = codec.taken, []
        answered, codec.answered = codec.answered, []
        hand_over(self._loop, taken, answered)
        if not self.proved or self.alone:
            self._prove(bool(taken) or any(response.status not in (401, 403) for _, response in answered))

    def _prove(self, known: bool) -> None:
        """It answers. `known`: the credential is one that the gateway knows."""
        if self.alone and known:
            self.alone = False
            self.settle()
        if not self.proved:
            self.proved = True
            self._owner.connection_proved(self)

    def _fail(self) -> None:
        """Give back the requests whose answers will not come, or not end."""
        if self.codec.answered:
            self._hand_over()
        failures, self.codec.failed = self.codec.failed, []
        if failures:
            failed(self._loop, failures, self._stats)

    def _drop_cancelled(self) -> None:
        for stream in [stream for stream, token in self.codec.streams.items() if over(token)]:
            self.codec.cancel(stream)
            self._stats.cancelled += 1

    def _drop_expired(self, now: float) -> None:
        below = self._marks.expire(now - self._settings.request_timeout)
        own = self.deadlines
        expired = [stream for stream, deadline in own.items() if deadline <= now]
        for stream in self.codec.streams:
            if stream >= below:
                break
            if stream not in own:
                expired.append(stream)
        bound = max(below, self._marks.opened_by(now - _PATIENCE))
        # Answers to requests sent later than an expired one show that the connection serves; without any it is mute.
        self.mute = self.mute or any(self._served <= stream < bound for stream in expired)
        for stream in expired:
            own.pop(stream, None)
            self.codec.expire(stream)
        self._fail()
        if len(own) > 2 * len(self.codec.streams) + 64:
            self.deadlines = {stream: deadline for stream, deadline in own.items() if stream in self.codec.streams}

    def _listen(self, now: float) -> None:
        codec = self.codec
        oldest = next(iter(codec.streams), None)
        # Requests that are no longer pending count too: a dead peer must be found out though every request times out
        # early.
        stalled = self._marks.opened_by(self._heartbeat.stall_before(now))
        overdue = stalled > self._answerable or (oldest is not None and oldest < stalled)
        health = self._heartbeat.look(
            now, waiting_for_pong=codec.pinged is not None, in_flight=oldest is not None, overdue=overdue
        )
        if health is Health.PING:
            self._ping(now)
        elif health is Health.DEAD:
            self._stats.last_trouble = "the gateway did not answer a PING"
            self.abort("ping")

    def _ping(self, now: float) -> None:
        """Ask whether the gateway lives, unless the question is out already."""
        if self.codec.pinged is None:
            self.codec.ping(self._rng.getrandbits(64).to_bytes(8, "big"))
            self._heartbeat.pinged(now)
            if self.suspect:
                self.asked_at = now
            self._stats.pings += 1
