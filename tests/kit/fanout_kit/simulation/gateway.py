"""A simulated gateway: HTTP/2 to the letter (the simulators' strict connection), answers as the seed says, and a ledger
of both.

Each push that it took responsibility for stands in the ledger at the moment of the request, and that it said so when
the answer was
written: the account by which every other claim is judged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import orjson

from fanout.testing.simulator import Counters, Disconnect, Faults, Reply, Request, Reset, Stall
from fanout.testing.simulator import frames as h2
from fanout.testing.simulator.connection import StrictConnection

if TYPE_CHECKING:
    from fanout.testing.simulator import Answer, Simulator
    from fanout_kit.simulation.network import Host
    from fanout_kit.simulation.world import World

__all__ = ["VERDICTS", "Arrival", "Device", "Gateway", "Manners"]

_REFUSED = Reset(h2.REFUSED_STREAM)
_BROKEN = Reset(2)

VERDICTS: Mapping[str, tuple[int, str]] = {
    "ok": (200, ""),
    "gone": (410, "Unregistered"),
    "bad": (400, "BadDeviceToken"),
    "rejected": (400, "PayloadEmpty"),
    "credential": (403, "InvalidProviderToken"),
    "throttled": (429, "TooManyRequests"),
    "overrun": (429, "TooManyInGroup"),
    "broken": (500, "InternalServerError"),
    "busy": (503, "ServiceUnavailable"),
    "leaving": (503, "Shutdown"),
}
"""Answers with a status, in Apple's words; `overrun` speaks of the whole group, and only the kit's own transport knows
it."""

_OTHERS: Mapping[str, tuple[Answer, bool]] = {
    "refused": (_REFUSED, False),
    "reset": (_BROKEN, False),
    "reset_after": (_BROKEN, True),
    "stall": (Stall(), False),
    "stall_after": (Stall(), True),
    "cut": (Disconnect(), False),
    "cut_after": (Disconnect(), True),
}
"""A fault that may befall a request instead of an answer, and whether the push was taken before."""


@dataclass(slots=True)
class Device:
    """A device as its gateway knows it. `dead_since` (UNIX seconds): no longer registered there; `broken`: never
    was."""

    address: str
    dead_since: float | None = None
    broken: bool = False


@dataclass(slots=True)
class Arrival:
    """One request at a gateway, a line of its ledger. Times are virtual seconds, `wall` UNIX seconds by the workers'
    clock.

    `accepted`: the gateway took the push. `answered`: when its answer was written. `disowned`: a GOAWAY named a lower
    stream afterwards, so the client was told that it was never seen.
    """

    at: float
    wall: float
    host: str
    delivery: str
    notification: str
    address: str
    verdict: str
    accepted: bool
    expiration: float | None = None
    answered: float | None = None
    disowned: bool = False


@dataclass(frozen=True, slots=True)
class _Recorded(Reply):
    arrival: Arrival | None = None


@dataclass(slots=True)
class Manners:
    """How a gateway behaves at present. `rates` are fractions of all requests, by fault; `think` the seconds an
    answer takes at most; `told` whether it names a time when it throttles, and `after` which.
    """

    rates: dict[str, float] = field(default_factory=dict)
    think: float = 0.02
    slow: float = 0.0
    told: float = 0.5
    after: int = 1


class Gateway:
    """The handler of the strict connections of one host: it stands where a `Simulator` stands."""

    def __init__(
        self,
        world: World,
        rng: random.Random,
        devices: dict[str, Device],
        ledger: list[Arrival],
        *,
        dialect: str,
        streams: int = 100,
        faults: Faults | None = None,
        gone: Callable[[str], None] = lambda address: None,
    ) -> None:
        self.world = world
        self.rng = rng
        self.devices = devices
        self.ledger = ledger
        self.dialect = dialect
        self.streams = streams
        self.faults = faults or Faults()
        self.manners = Manners()
        self.host: Host | None = None
        self.counters = Counters()
        self.silent = False
        self._gone = gone
        self._connections: dict[_Served, None] = {}

    # -- the simulator's interface for a strict connection

    def first_streams(self, certificate: bytes | None) -> int:
        """Apple allows one stream until a token has proved itself."""
        return 1 if self.dialect == "apns" else self.streams

    def register(self, connection: _Served) -> None:
        """A connection was made."""
        self._connections[connection] = None

    def forget(self, connection: _Served) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)

    def flush_ledger(self) -> None:
        """The ledger is in memory."""

    def answer(self, request: Request) -> Answer:
        """The end of this request; it stands in the ledger before the answer leaves."""
        verdict, answer, accepted = self._judge(request)
        address = request.path.rpartition("/")[2]
        expiration = request.headers.get("apns-expiration")
        arrival = Arrival(
            at=self.world.time,
            wall=self.world.wall,
            host=self.name,
            delivery=request.headers["apns-id"],
            notification=orjson.loads(request.body)["fanout"]["id"],
            address=address,
            verdict=verdict,
            accepted=accepted,
            expiration=None if expiration is None else float(expiration),
        )
        self.ledger.append(arrival)
        if verdict == "gone":
            self._gone(address)
        if self.dialect == "apns":
            request.peer.streams = self.streams
        if isinstance(answer, Reply):
            answer = _Recorded(answer.status, answer.headers, answer.body, after=answer.after, arrival=arrival)
        self.world.say(self.name, "verdict", f"{verdict}{' taken' if accepted else ''} {arrival.delivery} {address}")
        return answer

    # -- inside

    @property
    def name(self) -> str:
        """The host's."""
        return self.host.name if self.host is not None else "?"

    def _judge(self, request: Request) -> tuple[str, Answer, bool]:
        manners, rng = self.manners, self.rng
        point = rng.random()
        for what, share in manners.rates.items():
            point -= share
            if point < 0:
                if what in _OTHERS:
                    answer, accepted = _OTHERS[what]
                    return what, answer, accepted
                return what, self._reply(what), False
        device = self.devices.get(request.path.rpartition("/")[2])
        if device is None or device.broken:
            return "bad", self._reply("bad"), False
        if device.dead_since is not None:
            return "gone", self._reply("gone", timestamp=int(device.dead_since * 1000)), False
        return "ok", self._reply("ok"), True

    def _reply(self, verdict: str, **content: Any) -> Reply:
        manners, rng = self.manners, self.rng
        status, reason = VERDICTS[verdict]
        late = rng.uniform(0.0, manners.think) + (rng.uniform(0.0, manners.slow) if manners.slow else 0.0)
        if status == 200:
            return Reply(after=late)
        headers = {}
        if status in (429, 503) and rng.random() < manners.told:
            headers["retry-after"] = str(manners.after)
        return Reply(status, headers, orjson.dumps({"reason": reason} | content), after=late)

    # -- faults of all connections

    def connection(self) -> _Served:
        """The protocol of a new connection."""
        return _Served(self)

    def go_away(self, short: int) -> None:
        """GOAWAY on every connection, naming a last stream that is `short` requests too low."""
        for connection in list(self._connections):
            connection.go_away(short=short)

    def announce(self, streams: int) -> None:
        """Another MAX_CONCURRENT_STREAMS, for every connection and those to come."""
        self.streams = streams
        for connection in list(self._connections):
            connection.announce(streams)


class _Served(StrictConnection):
    """A strict connection that tells the ledger the end of each request."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(cast("Simulator", gateway))
        self._gateway = gateway
        self._arrivals: dict[int, Arrival] = {}
        self._asked: tuple[int, int] | None = None

    def _request(self, number: int, stream: Any) -> None:
        self._asked = (number, len(self._gateway.ledger))
        super()._request(number, stream)
        self._note()

    def _note(self) -> None:
        if self._asked is not None:
            number, line = self._asked
            if len(self._gateway.ledger) > line:
                self._arrivals[number] = self._gateway.ledger[line]
            self._asked = None

    def _reply(self, number: int, stream: Any, answer: Reply) -> None:
        super()._reply(number, stream, answer)
        arrival = answer.arrival if isinstance(answer, _Recorded) else None
        if arrival is not None and arrival.answered is None:
            arrival.answered = self._gateway.world.time

    def go_away(self, *, short: int = 0, code: int = h2.NO_ERROR, debug: bytes = b"") -> None:
        self._note()
        before = self._goaway
        super().go_away(short=short, code=code, debug=debug)
        if before is None and self._goaway is not None:
            for number, arrival in self._arrivals.items():
                if number > self._goaway and arrival.answered is None:
                    arrival.disowned = True
