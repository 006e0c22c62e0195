"""Lease: keeps one binding's window full, from due chunks to deliveries that stand in their groups' queues."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from fanout.core.codec import decode
from fanout.core.lanes import Lanes
from fanout.core.model import LANES, Notification
from fanout.core.records import Chunk, EndpointRow, Settlement, Stored
from fanout.core.shorten import fitted
from fanout.core.states import DOUBT, DeliveryState
from fanout.core.text import cleaned
from fanout.core.window import LEAST, next_window, room
from fanout.engine.binding_state import BindingState
from fanout.engine.bringing_forward import bring_forward
from fanout.engine.context import EngineContext
from fanout.engine.intake import Request
from fanout.engine.lease import Lease, Prepared, as_named
from fanout.engine.membership import Membership
from fanout.engine.patience import PASSING, retry_while_unavailable
from fanout.engine.rereading import Rereading
from fanout.engine.settler import Settler
from fanout.engine.stopping import Stops
from fanout.errors import ContentRefused, InvalidMessage

__all__ = ["Dispatcher"]

_log = logging.getLogger("fanout.dispatcher")

URGENT = LANES.index("urgent")
_AHEAD = 4
"""Chunks that expansion may be ahead of leasing: so few that a cancel leaves little behind."""
_FULL = 0.005
"""Seconds between two looks at a full window: one that is emptied in that time grows."""
_ASKED, _ASKED_APART = 64, 4
"""Leases about which storage is asked at a time whether something later supersedes them: where one thread answers all,
and where each question has a connection, of which callers need some too."""
_PREPARED = 8192
"""Prepared notifications kept per binding, at most: twice a window of single sends. Finished ones are not kept."""
_PATIENCE = 1.0
"""Seconds for which leasing pauses after the clock was set."""
_POLL = 30.0
"""Seconds after which an idle dispatcher looks again although nothing told it to. A safety net: nothing may depend on
it."""
_LOOK = 0.05
"""Seconds for which a busy dispatcher may lease without asking storage for other work that has become due: a schedule
is to be expanded on time."""


class Dispatcher:
    """Leases for one binding, as one worker."""

    def __init__(
        self,
        state: BindingState,
        context: EngineContext,
        settler: Settler,
        *,
        extend: Callable[[], Awaitable[None]],
        member: Membership,
    ) -> None:
        self.state = state
        self.stops = Stops(state, context.storage)
        self.rereading = Rereading(state, context.storage)
        self._storage = context.storage
        self._settler = settler
        self._worker = context.worker
        self._extend = extend
        self._pulse = member.pulse
        self._doubt = member.doubt
        self._watch = member.watch
        self._steps = self._watch.steps
        self._patient_until = float("-inf")
        self._lanes = Lanes()
        self._windows = [LEAST] * len(LANES)
        # Monotonic: when each window was last filled; -inf where storage had no more.
        self._filled = [-math.inf] * len(LANES)
        self._waiting = [False] * len(LANES)  # storage's last answer
        self._ask_by = math.inf  # monotonic: when storage must be asked again, however much is in hand
        self._prepared: OrderedDict[str, Prepared | Notification | str] = OrderedDict()
        """A notification stands for one that fits for certain, and that is encoded when some of it is leased."""
        self._replaced = 0
        self._entering: Sequence[Lease] = ()
        """Leases with a collapse key on their way into hand."""
        self.asked = [0] * len(LANES)
        """For each lane, how many leases have been asked for."""
        self.stopping = False
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Until `stopping`: expand, lease by lane, resolve, enqueue; then sleep until there is room or something is
        due."""
        patience = self._settler.trouble.patience()
        try:
            while not self.stopping:
                try:
                    wait = await self._round()
                    patience.well()
                except PASSING as error:
                    wait = patience.failed(error)
                    self._doubt()
                    if patience.first and isinstance(error, ContentRefused):
                        _log.error("Nothing of %s/%s can be leased: %s", self.state.app, self.state.binding, error)
                if wait > 0 and not self.stopping:
                    await self.state.signal.wait(wait)
        finally:
            self.ended.set()

    async def _round(self) -> float:
        """One round; how many seconds there is nothing to do unless the signal comes."""
        state, storage = self.state, self._storage
        now = state.clock.now()
        self._settler.clear_suspect()
        if state.parts:
            await self._next_parts()
        if self._settler.stuck:
            return 0.25
        if state.paused:
            return _POLL
        if self._watch.look() != self._steps:
            # By the new time every lease on this machine may look as if it had run out. Each worker extends its own
            # before any takes over another's.
            self._steps = self._watch.steps
            self._patient_until = state.clock.monotonic() + _PATIENCE
            await self._extend()
        patience = self._patient_until - state.clock.monotonic()
        if patience > 0:
            # Asked again and again, for a signal may end the wait for it.
            return patience
        if not state.gate.ready(now):
            return max(0.001, state.gate.opens_at(now) - now)
        await bring_forward(state, storage, now)
        rooms = [self._room(lane) for lane in range(len(LANES))]
        if state.clock.monotonic() < self._ask_by:
            if not any(rooms):
                self._ask_soon()
                return _FULL
            if await self._lease_at_once(rooms):
                self._ask_soon()
                return 0.0
        self._ask_by = math.inf
        waiting, next_due = await storage.waiting(state.app, state.binding, now)
        self._waiting = waiting
        if any(waiting):
            await storage.expand(state.app, state.binding, now, ahead=_AHEAD)
        for lane in self._lanes.order():
            if waiting[lane] and rooms[lane] and await self._lease(lane, rooms[lane], waiting):
                return 0.0
        full = [lane for lane in range(len(LANES)) if waiting[lane] and not rooms[lane]]
        if full:
            # Little to ask storage until there is room, or another part reports a change.
            self._ask_soon()
            while not (self.stopping or any(self._room(lane) for lane in full)):
                if await state.signal.wait(_FULL) or state.clock.monotonic() >= self._ask_by:
                    break
            return 0.0
        if any(waiting):
            # It could not be leased: another worker was faster, or the lease call finished stopped chunks.
            return 0.005
        return max(0.001, min(_POLL, state.rescheduling.wait(now), _POLL if next_due is None else next_due - now))

    def _ask_soon(self) -> None:
        """Leasing goes on without a question to storage, for a while."""
        self._ask_by = min(self._ask_by, self.state.clock.monotonic() + _LOOK)

    async def _lease_at_once(self, rooms: Sequence[int]) -> bool:
        """Lease from the lane whose turn it is, where work in it is likely, without asking first; whether it was so.

        Each question to storage costs a turn of a busy loop. Likely is work that this process has just put, and,
        where there is other work, that urgent work has come.
        """
        busy = any(self._waiting)
        fresh, self.state.fresh = self.state.fresh, set()
        likely = [busy or lane in fresh if lane == URGENT else lane in fresh for lane in range(len(LANES))]
        candidates = [lane for lane in self._lanes.order() if likely[lane] or self._waiting[lane]]
        first = candidates[0] if candidates else None
        if first is None or not likely[first] or not rooms[first]:
            return False
        self.state.fresh |= fresh - {first}
        return await self._lease(first, rooms[first], [a or b for a, b in zip(likely, self._waiting, strict=True)])

    async def _lease(self, lane: int, most: int, waiting: Sequence[bool]) -> bool:
        """Lease of one lane, and take the leases into hand; whether there was any."""
        state = self.state
        # Both clocks anew, and this one first: a worker that stands still on the way here believes no longer in its
        # lease than storage holds it.
        monotonic = state.clock.monotonic()
        until = monotonic + state.policy.lease
        now = state.clock.now()
        if self._watch.look() != self._steps:
            return False  # the clock was set on the way here: the next round sees to it first
        self.stops.leasing()
        self.asked[lane] += 1
        state.asked += 1
        state.asking = True
        try:
            chunks = await self._storage.lease(
                self._worker, state.app, state.binding, lane, limit=most, now=now, until=now + state.policy.lease
            )
            if not chunks:
                return False
            took = sum(len(chunk.ids) - len(chunk.states) + chunk.states.count(0) for chunk in chunks)
            self._lanes.took(lane, took, waiting)
            self._turn(lane, filled=took >= most)
            await self._enter(chunks, until)
        finally:
            state.asking = False
        return True

    def _room(self, lane: int) -> int:
        """Deliveries that this lane may lease now, beside at most one chunk."""
        window, queued = self._windows[lane], self.state.queued(lane)
        if 2 * queued <= window:
            return window - queued  # and more, at most, where it is known which gateways they wait for
        return room(window, *self.state.waiting(lane))

    def _turn(self, lane: int, *, filled: bool) -> None:
        """A round of this lane has ended, and the next begins."""
        if filled or self._windows[lane] > LEAST:
            monotonic, groups = self.state.clock.monotonic(), self.state.groups
            emptied, lasted = not self.state.queued(lane), monotonic - self._filled[lane]
            self._windows[lane] = next_window(
                self._windows[lane], self.state.limit, len(groups), emptied=emptied, lasted=lasted
            )
            self._filled[lane] = monotonic if filled else -math.inf

    async def _enter(self, chunks: Sequence[Chunk], until: float) -> None:
        """From leased chunks to queued deliveries: prepare, ids -> endpoints in one read, enqueue."""
        state = self.state
        ids = chunks[0].ids[:]
        for chunk in chunks[1:]:
            ids.extend(chunk.ids)
        rows: Sequence[EndpointRow] = [row for chunk in chunks if chunk.rows is not None for row in chunk.rows]
        if any(chunk.rows is None for chunk in chunks):
            # A leased chunk is in hand: were it dropped here, it would stand still until the lease runs out.
            rows = await retry_while_unavailable(
                lambda: self._storage.resolve(ids, state.clock.now()), self._settler.trouble
            )
        found = as_named(rows, ids)
        ready = await retry_while_unavailable(lambda: self._ready(chunks), self._settler.trouble)
        begin = 0
        entered: dict[Lease, Sequence[int]] = {}
        for chunk in chunks:
            prepared = ready[chunk.notification]
            count = len(chunk.ids)
            own = found[begin : begin + count]
            begin += count
            unsettled = chunk.states.count(0)
            positions: Sequence[int] = (
                range(count) if unsettled == count else [p for p, code in enumerate(chunk.states) if code == 0]
            )
            if isinstance(prepared, str):
                await self._refuse(chunk, positions, prepared)
                continue
            lease = Lease(chunk, prepared, own, until, state.hand)
            lease.rows_at = until - state.policy.lease
            lease.cap_deadline(self._pulse.heartbeat_deadline)
            entered[lease] = positions
        await self._mark(entered)
        self._entering = [lease for lease in entered if lease.prepared.notification.collapse_key is not None]
        try:
            if self._entering:
                await retry_while_unavailable(partial(self._look_for_later, self._entering), self._settler.trouble)
            if self.stops.missed:
                await retry_while_unavailable(partial(self.stops.look, [*ready]), self._settler.trouble)
        finally:
            self._entering = ()
        for lease, positions in entered.items():
            chunk, prepared = lease.chunk, lease.prepared
            self.stops.enter(prepared)
            # Not before: the settler lets go of a lease in which nothing is left, and nothing is in this one yet.
            state.leases[chunk.id] = lease
            if chunk.part and not lease.doubtful:
                lease.later = [*positions]
                state.parts.append(lease)
            else:
                state.enqueue(lease, positions)
            if prepared.stopped:
                self.stops.put_down()
            if lease.left == 0 and not lease.dirty and not lease.later:
                del state.leases[chunk.id]

    async def _ready(self, chunks: Sequence[Chunk]) -> dict[str, Prepared | str]:
        """The notifications of these chunks, prepared. Those that storage did not bring, and that are not known, are
        asked for all at once."""
        if self._replaced != self.state.replaced:
            self._replaced = self.state.replaced
            self._prepared.clear()  # encoded by a transport that is no longer used
        while self.state.ended:
            self._prepared.pop(self.state.ended.pop(), None)
        ready: dict[str, Prepared | str] = {}
        missing: dict[str, None] = {}
        for chunk in chunks:
            id = chunk.notification
            if (prepared := self._prepared.get(id)) is not None:
                self._prepared.move_to_end(id)  # a broadcast's is needed for long, while those of single sends pass by
                ready[id] = self._encode(id, prepared) if isinstance(prepared, Notification) else prepared
            elif chunk.stored is not None:
                ready[id] = self._prepare(id, chunk.stored)
            elif id not in ready:
                missing[id] = None
        if missing:
            answers = await asyncio.gather(*[self._storage.notification(id) for id in missing])
            ready.update((id, self._prepare(id, stored)) for id, stored in zip(missing, answers, strict=True))
        return ready

    def _prepare(self, id: str, stored: Stored | None) -> Prepared | str:
        """The notification encoded for this binding, or why that cannot be done."""
        if stored is None:
            return "notification lost"
        notification = decode(
            stored.content, id=stored.id, accepted_at=stored.accepted_at, expires_at=stored.expires_at
        )
        return self._encode(id, notification)

    def _encode(self, id: str, notification: Notification) -> Prepared | str:
        made: Prepared | str
        try:
            # Only a post into the feed is stored though it is too large: `send` has refused it.
            message, _ = fitted(self.state.transport.prepare, notification)
            made = Prepared(notification, message)
        except InvalidMessage as error:
            made = cleaned(error)
        except Exception as error:
            self.state.fault(f"{type(error).__name__} escaped from prepare.", error)
            made = f"plugin fault: {type(error).__name__}"
        self._remember(id, made)
        return made

    def _remember(self, id: str, made: Prepared | Notification | str) -> None:
        while len(self._prepared) >= _PREPARED:
            self._prepared.popitem(last=False)
        self._prepared[id] = made

    async def _mark(self, entered: dict[Lease, Sequence[int]]) -> None:
        """Mark the deliveries of `at_most_once` notifications as doubtful before any is sent, in one commit. A
        lease that is lost is taken out of `entered`, and so are deliveries that ended instead."""
        marks = {lease: lease.mark_doubtful([*positions]) for lease, positions in entered.items() if lease.doubtful}
        stored = await self._settler.store([*marks.values()]) if marks else []
        for (lease, mark), settled in zip(marks.items(), stored, strict=True):
            del entered[lease]
            marked = [p for (state, _), positions in mark.results.items() if state == DOUBT for p in positions]
            if marked and not settled.stale:
                entered[lease] = marked

    async def _next_parts(self) -> None:
        """Of suspected chunks, those whose turn it is.

        Chunks of several deliveries go side by side: a crash only halves the marked part. A chunk of a single
        delivery goes when no other such chunk does in this process: each crash counts against it, and the guilty beside
        it must not condemn it.
        """
        parts, self.state.parts = self.state.parts, []
        for lease in parts:
            if len(lease.chunk.ids) == 1 and self._settler.suspect is not None:
                self.state.parts.append(lease)
            else:
                await self._next_part(lease)

    async def _next_part(self, lease: Lease) -> None:
        """Mark the next part of a suspected chunk, and only then send it: if it kills this worker, the suspects are
        known."""
        if self.state.leases.get(lease.chunk.id) is not lease or not lease.part_over:
            return
        if lease.kept_open:
            lease.give_up_later(lease.release_at, lease.waiting)
            self._settler.wake()
            return
        settlement = lease.next_part()
        alone = len(lease.chunk.ids) == 1
        if alone:
            self._settler.suspect = self.state, lease
        # In hand while it is being marked: the settler lets go of a lease in which nothing is left.
        count = len(settlement.marks)
        lease.claim(count)
        (settled,) = await self._settler.store([settlement])
        lease.give_back(count)
        if settled.stale:
            if alone:
                self._settler.suspect = None
            lease.lose()
            self.state.leases.pop(lease.chunk.id, None)
        else:
            self.state.enqueue(lease, settlement.marks)

    async def _look_for_later(self, leases: Sequence[Lease]) -> None:
        """For which endpoints of these leases has a later notification of the same collapse key been accepted? Storage
        is asked about many at a time: one by one, each question would wait for a turn of a busy storage."""
        at_once = _ASKED if self._storage.in_order else _ASKED_APART
        for begin in range(0, len(leases), at_once):
            asked = leases[begin : begin + at_once]
            answers = await asyncio.gather(
                *[self._storage.superseded(lease.chunk.notification, lease.chunk.ids) for lease in asked]
            )
            for lease, later in zip(asked, answers, strict=True):
                if later:
                    lease.outdate(position for position, id in enumerate(lease.chunk.ids) if id in later)

    async def look_for_later(self) -> None:
        """Something was accepted: does it supersede deliveries that are in hand, or on their way into it?"""
        await self._look_for_later(self._collapsible())

    def _collapsible(self) -> list[Lease]:
        in_hand = self.state.leases.values()
        return [*self._entering, *(each for each in in_hand if each.prepared.notification.collapse_key is not None)]

    async def _refuse(self, chunk: Chunk, positions: Sequence[int], reason: str) -> None:
        """A notification that was accepted under another configuration cannot be encoded now: every delivery of the
        chunk is rejected."""
        results = {(DeliveryState.REJECTED.value, reason): [*positions]}
        await self._settler.store([Settlement(chunk.id, chunk.epoch, results=results)])

    # -- calls by other parts

    def know(self, requests: Sequence[Request]) -> None:
        """These are about to be put: their prepared messages are kept, and a lease reuses them."""
        if len(requests) > _PREPARED:
            return
        for request in requests:
            notification, message = request.notification, request.messages.get(self.state.binding)
            if notification is not None and self.state.binding not in request.refusals:
                self._remember(
                    request.submission.id, notification if message is None else Prepared(notification, message)
                )

    def look(self, lanes: set[int]) -> list[int]:
        """There is something due in these lanes, or will be when storage comes to it: lease from them without asking
        first. Answers how many leases of each lane have been asked for so far."""
        if lanes:
            self.state.fresh |= lanes
            self.state.signal.set()
        return [*self.asked]

    @property
    def collapsible(self) -> bool:
        """Whether anything in hand, or on its way into it, may be superseded for some endpoints."""
        return bool(self._collapsible())
