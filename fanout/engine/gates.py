"""The gates of one binding: the causes that close them, the deliveries that wait behind them, and the reports."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator

from fanout.core.gate import Gate, GateState
from fanout.core.outcome import Scope
from fanout.core.records import GateNote
from fanout.core.settlement import Park
from fanout.core.span import ends_at, outlived
from fanout.core.standing import LATELY
from fanout.core.states import Waiting
from fanout.core.witness import FAULT, Witness
from fanout.engine.group import Group
from fanout.engine.lease import Lease, Prepared
from fanout.engine.live import Live
from fanout.engine.ports import Binding
from fanout.engine.signal import Signal

__all__ = ["Gates"]

_log = logging.getLogger("fanout.gates")
_NARROW = 5.0
"""Seconds for which it is on record that a limiter holds work back."""
_WIDE = frozenset((Scope.QUOTA, Scope.BINDING, Scope.APP))
"""Account-wide scopes, shared with other workers."""
_UNCERTAIN = "uncertain endpoints"
"""The scope of the gate for endpoints that were never accepted."""
_NOTIFICATION = "notification"
"""The scope of a gate that only one notification waits behind."""
_NAMED = 4
"""Witnesses that a report names, by the short hashes of their addresses."""
_ALONE = 20
"""Endpoints that others are told of: more make no reader wiser."""
_APART = 60.0
"""Seconds between two lines in the log about one gate and one reason."""
_LOOKED_AT = 86_400.0
"""Seconds for which a stop of removals is on record, unless an operator lifts it."""


class Gates:
    """A gate for each group (in `Group`), for each topic that an answer spoke of, and one for the binding (quota,
    credential, app)."""

    def __init__(self, state: Binding, rng: random.Random, live: Live, news: Signal) -> None:
        self._state = state
        self._rng = rng
        self._live = live
        self._news = news
        self.binding = Gate(state.policy)
        self.topics: dict[str, Gate] = {}
        self.notifications: dict[tuple[str, str], Gate] = {}
        """By (group, notification): a notification that fails there while others do not."""
        self.notes: dict[tuple[str, str], GateNote] = {}
        """The changes that other processes have not been told yet, by scope and name."""
        self._narrow: dict[str, float] = {}
        self.uncertain = Gate(state.policy)
        """The gate before endpoints that were never accepted, while next to nothing but uncertain deaths comes back."""
        self.alone: dict[str, str] = {}
        """Endpoints (by short hash) that wait by themselves because of an accusation that no other has made; and that
        accusation."""
        self._follows = False  # the binding's gate is closed because another worker's is
        self._own_answer = 0.0, 0.0
        """From when to when an answer that this worker got itself has closed the binding's gate (UNIX seconds)."""
        self.siblings: list[Gates] = [self]
        """The gates of all bindings of the app, these among them."""

    def shut(self, park: Park, group: Group, topic: str, now: float, *, unconnected: bool = False) -> None:
        """Close the gate of the park's scope and no wider one. `unconnected` says that no connection came about."""
        match park.scope:
            case Scope.GROUP | Scope.ENDPOINT:
                knocks = len(self._state.groups) if unconnected else 0
                self._close(group.gate, Scope.GROUP, group.name, park, now, knocks)
                self.park_behind(group)
            case Scope.TOPIC:
                self._close(self.of_scope(park.scope, group, topic), park.scope, topic, park, now)
            case _:
                for each in self.siblings if park.scope is Scope.APP else [self]:
                    each._close(each.binding, park.scope, "", park, now)
                    each.park_behind()

    def of_scope(self, scope: Scope, group: Group, topic: str) -> Gate:
        """The gate of the scope that an answer speaks of."""
        if scope in (Scope.GROUP, Scope.ENDPOINT):
            return group.gate
        if scope is Scope.TOPIC:
            self._state.wary = True
            return self.topics.setdefault(topic, Gate(self._state.policy))
        return self.binding

    def failed(self, group: Group, prepared: Prepared, witness: Witness, now: float, reason: str, others: bool) -> None:
        """An endpoint-sized failure. One too many in a row closes the group's gate, or that of a notification that
        fails alone."""
        if group.gate.failed(now, self._rng, reason, witness, others=others):
            self._say_closed(group.gate, Scope.GROUP, group.name, now, alarm=False)
            self.park_behind(group)
        elif others or witness.cause == FAULT:
            self._blame(group, prepared, witness, now, reason)

    def _blame(self, group: Group, prepared: Prepared, witness: Witness, now: float, reason: str) -> None:
        """Its notification failed, and nothing says that the gateway did."""
        id = prepared.notification.id
        gate = self.notifications.setdefault((group.name, id), Gate(self._state.policy))
        self._state.wary = True
        if self._state.senders.evidence.standing.since(group.name, id) >= gate.heard_at:
            gate.streak = 0
        gate.heard_at = now
        if gate.blamed(now, self._rng, reason, witness):
            self._say_closed(gate, _NOTIFICATION, id, now, alarm=False)

    @property
    def narrow(self) -> bool:
        """Whether anything narrower than a group may hold a delivery back."""
        return bool(self.topics or self.notifications) or not self.uncertain.is_open

    def around(self, group: Group, prepared: Prepared) -> Iterator[Gate]:
        """The gates of the notification itself and of its topic, where there are such."""
        if (gate := self.topics.get(prepared.message.topic)) is not None:
            yield gate
        if (gate := self.notifications.get((group.name, prepared.notification.id))) is not None:
            yield gate

    def relents(self, group: Group, lease: Lease, now: float) -> bool:
        """Whether a group's gate lets this lease try at once: one other notification alone has closed it."""
        sole = group.gate.witnesses.sole
        if not sole or sole == lease.prepared.notification.id:
            return False
        # The blamed one waits on, until the time that it was told.
        gate = self.notifications.setdefault((group.name, sole), Gate(self._state.policy))
        gate.close(
            now, self._rng, reason=group.gate.reason, after=group.gate.opens_at(now) - now, waiting=group.gate.waiting
        )
        gate.heard_at = now
        self._state.wary = True
        group.gate.relent(now)
        return True

    def heard(self, endpoint: int) -> bool:
        """Whether this endpoint is among those whose word has closed a gate."""
        return any(gate.witnesses.heard(endpoint) for gate in self._all())

    def blamed(self) -> set[str]:
        """The notifications that alone have closed a gate."""
        return {gate.witnesses.sole for gate in self._all() if not gate.is_open}

    def _all(self) -> Iterator[Gate]:
        yield self.binding
        yield from self.topics.values()
        for group in self._state.groups.values():
            yield group.gate

    def tidy(self, now: float) -> None:
        """Forget notifications that have not failed for a while."""
        if self.notifications:
            self.notifications = {
                key: gate for key, gate in self.notifications.items() if max(gate.heard_at, gate.until) + LATELY > now
            }

    def succeeded(self, group: Group, prepared: Prepared, now: float) -> None:
        """The gateway answered: probes that were out have done their work."""
        opened: list[tuple[str, str]] = []
        topic, id = prepared.message.topic, prepared.notification.id
        sole = group.gate.witnesses.sole
        if not group.gate.is_open and sole and sole != id:
            group.gate.refuted()
            opened.append((Scope.GROUP, group.name))
        narrow = self.notifications.pop((group.name, id), None)
        if narrow is not None and not narrow.is_open:
            opened.append((_NOTIFICATION, id))
        if group.gate.succeeded(now):
            opened.append((Scope.GROUP, group.name))
        if self.binding.succeeded(now):
            opened.append((Scope.BINDING, ""))
        gate = self.topics.get(topic)
        if gate is not None and (gate.succeeded(now) or gate.is_open):
            del self.topics[topic]
            opened.append((Scope.TOPIC, topic))
        for scope, name in opened:
            self._say_opened(scope, name, now)
        if opened or GateState.PROBING in (group.gate.state, self.binding.state):
            self._state.rescheduling.opened(now)  # after one probe too: all others may stand in storage
        if opened:
            for each in list(self._state.groups.values()):
                self._state.adjust(each)
            self._state.signal.set()
        elif not self.binding.is_open:
            self.probe_free()

    def probe_free(self) -> None:
        """The binding's gate may take a probe: it may be another group's, or one that is still to be leased."""
        self._state.signal.set()
        for group in self._state.groups.values():
            self._state.wake(group)

    def share(self, group: Group, now: float) -> float:
        """The part of the capacity that a group may use while it comes back from an outage."""
        return min(group.gate.share(now), self.binding.share(now))

    def retry_now(self, now: float) -> None:
        """An operator says that the cause is mended: the next delivery behind each closed gate is a probe."""
        self._own_answer = 0.0, 0.0
        for gate in self._all():
            gate.reset(now)
        self.notifications.clear()
        if self.uncertain.reset(now):
            self._tell(_UNCERTAIN, "", "", now)
        wide = [(scope, "") for scope in (Scope.BINDING, Scope.QUOTA, Scope.APP, Scope.RATE)]
        for scope, name in [*wide, *((Scope.TOPIC, topic) for topic in self.topics)]:
            self._tell(scope, name, "", now)
        self._state.signal.set()

    def follow(self, notes: Iterable[GateNote], now: float, grace: float) -> None:
        """Other workers' notes of this binding's gates: one that covers all of it holds here too, until its time.

        And `grace` seconds longer, so that the worker that closed it probes alone: when that has opened it, the next
        delivery is a probe here. One that is dead, or has nothing to probe with, delays no other for longer than that.
        """
        note = max((note for note in notes if note.scope in _WIDE), key=lambda note: note.until, default=None)
        gate = self.binding
        if note is None:
            if self._follows and not outlived(*self._own_answer, now):
                gate.since, gate.until = self._own_answer
            elif self._follows and gate.reset(now):
                self._state.signal.set()
            self._follows = False
        elif now < (until := note.until + grace) and not (gate.shut(now) and gate.opens_at(now) >= until):
            self._follows = True
            waiting = Waiting(note.waiting)
            if gate.close(now, self._rng, reason=note.reason, after=until - now, waiting=waiting):
                self._log_closed(gate, Scope(note.scope), "", now, note.until, alarm=False)
                self.park_behind()

    def narrowed(self, group: Group, so: bool, now: float) -> None:
        """Whether work waits because the group's limiter takes less than half of its capacity: said again while it
        lasts."""
        until = self._narrow.get(group.name)
        if so and (until is None or until - now < _NARROW / 2):
            self._narrow[group.name] = now + _NARROW
            reason = f"{int(group.limiter.limit)} at a time: the gateway has become slow"
            whole = len(self._state.groups) == 1
            self._tell("limiter", group.name, Waiting.LIMITER, now, reason, now + _NARROW, whole=whole)
        elif not so and until is not None:
            del self._narrow[group.name]
            self._tell("limiter", group.name, "", now)

    def shut_uncertain(self, now: float, reason: str) -> None:
        """Endpoints of unknown standing wait: a probe a time tries whether they are still called dead."""
        policy = self._state.policy
        self._state.wary = True
        if self.uncertain.close(now, self._rng, reason=reason, after=policy.probe, waiting=Waiting.BREAKER):
            self._log_closed(self.uncertain, _UNCERTAIN, "", now, self.uncertain.until, alarm=True)
            self._alarm(_UNCERTAIN, "", reason, self.uncertain.until, now)

    def accepted(self, now: float) -> None:
        """Something was accepted while endpoints of unknown standing wait."""
        if self.uncertain.succeeded(now):
            self._say_opened(_UNCERTAIN, "", now)
            self._state.signal.set()

    def removals_stopped(self, reason: str, now: float) -> None:
        """A wave of deaths: endpoints stay in the directory until an operator has looked."""
        self._alarm("removals", "", reason, now + _LOOKED_AT, now)

    def removals_resumed(self, now: float) -> None:
        """Deaths are believed again."""
        self._tell("removals", "", "", now)

    def parked_alone(self, name: str, park: Park, now: float, until: float) -> None:
        """One endpoint (of this short hash) alone says that a credential or the like is wrong: it waits by itself."""
        if name in self.alone or len(self.alone) < _ALONE:
            self.alone[name] = park.reason
            self._tell(Scope.ENDPOINT, name, park.waiting, now, park.reason, until)

    def loners_asked(self, now: float) -> None:
        """Endpoints that waited by themselves are asked again, or no longer alone with their answer."""
        for name in self.alone:
            self._tell(Scope.ENDPOINT, name, "", now)
        self.alone.clear()

    def park_behind(self, group: Group | None = None, *, arriving: bool = False) -> None:
        """A delivery behind a gate that has closed goes back to storage with its reason, until it opens.

        `arriving`: the delivery was leased while the gate was closed, and may be the only one for the next probe.
        """
        for each in [group] if group is not None else list(self._state.groups.values()):
            gate = each.gate if group is not None else self.binding
            now = self._state.clock.now()
            until = gate.opens_at(now) if arriving else gate.resumes_at(now)
            for lease, position in each.drain():
                lease.keep_open(position, until, gate.waiting, gate.reason)
        self._state.settler.wake()

    def _close(self, gate: Gate, scope: Scope, name: str, park: Park, now: float, knocks: int = 0) -> None:
        after = park.after
        closes = gate.close(now, self._rng, reason=park.reason, after=after, waiting=park.waiting, knocks=knocks)
        if gate is self.binding and (closes or after is not None):
            until = gate.until if after is None else now + after
            if until >= ends_at(*self._own_answer, now):
                self._own_answer = now, until
        if closes:
            if gate is self.binding:
                self._follows = False
            self._say_closed(gate, scope, name, now, alarm=park.alarm)

    # -- reports

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much: an end that others are yet to be told lies as far from now as it did."""
        self.notes = {key: note.set_back(seconds) for key, note in self.notes.items()}

    def _say_closed(self, gate: Gate, scope: str, name: str, now: float, *, alarm: bool) -> None:
        state = self._state
        self._log_closed(gate, scope, name, now, gate.until, alarm=alarm)
        whole = scope not in (Scope.GROUP, Scope.TOPIC, _NOTIFICATION, _UNCERTAIN) or (
            scope is Scope.GROUP and len(state.groups) == 1
        )
        names = gate.witnesses.names[:_NAMED]
        reason = f"{gate.reason} (said by {', '.join(names)})" if names else gate.reason
        if alarm:
            self._alarm(str(scope), name, reason, gate.until, now, waiting=gate.waiting, whole=whole)
        else:
            self._tell(str(scope), name, gate.waiting, now, reason, gate.until, whole=whole)

    def _log_closed(self, gate: Gate, scope: str, name: str, now: float, until: float, *, alarm: bool) -> None:
        state = self._state
        # A gateway that is away closes its gate again with each probe, once a second.
        again = gate.said[0] == gate.reason and abs(now - gate.said[1]) < _APART
        if not again:
            gate.said = gate.reason, now
        _log.log(
            logging.DEBUG if again else logging.ERROR if alarm else logging.WARNING,
            "%s/%s: gate of %s %s closed for %.1f s: %s",
            state.app,
            state.binding,
            scope,
            name or state.binding,  # a binding with one gateway has one group, without a name
            until - now,
            gate.reason,
        )
        data = {"app": state.app, "binding": state.binding, "group": name, "scope": str(scope), "until": until}
        data |= {"witnesses": gate.witnesses.names, "sole": gate.witnesses.sole}
        self._live.emit("gate.closed", now, reason=gate.reason, **data)

    def _say_opened(self, scope: str, name: str, now: float) -> None:
        state = self._state
        _log.info("%s/%s: gate of %s %s opened", state.app, state.binding, scope, name or state.binding)
        self._live.emit("gate.opened", now, app=state.app, binding=state.binding, group=name, scope=str(scope))
        if scope is Scope.BINDING:
            for wide in (Scope.QUOTA, Scope.APP, Scope.RATE):
                self._tell(wide, name, "", now)
        self._tell(scope, name, "", now)

    def _alarm(
        self,
        scope: str,
        name: str,
        reason: str,
        until: float,
        now: float,
        *,
        waiting: str = Waiting.BREAKER,
        whole: bool = False,
    ) -> None:
        state = self._state
        data = {"app": state.app, "binding": state.binding, "group": name, "scope": scope, "until": until}
        self._live.emit("alarm", now, reason=reason, **data)
        self._tell(scope, name, waiting, now, reason, until, alarm=True, whole=whole)

    def _tell(
        self,
        scope: str,
        name: str,
        waiting: str,
        now: float,
        reason: str = "",
        until: float = 0.0,
        *,
        alarm: bool = False,
        whole: bool = False,
    ) -> None:
        self.notes[str(scope), name] = GateNote(
            self._state.app, self._state.binding, str(scope), name, str(waiting), reason, until, alarm, whole
        )
        self._news.set()
