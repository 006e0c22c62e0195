"""A chunk's state map: one byte per delivery, and the effect of a settlement on it. Storage backends share this and
nothing else.

Byte 0 is an open delivery. 1 to 247 are codes of the notification's own list of (state, reason), in order of first use.
254 is an `at_most_once` delivery marked before it is sent, 255 one that left for a retry row (or a chunk) of its own.
253 is a delivery of a suspected chunk, marked before it is sent and otherwise open (`core.poison`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fanout.core.records import RetryRow, Settlement
from fanout.core.states import DOUBT, FINAL_STATES, DeliveryState
from fanout.errors import UsageError

__all__ = [
    "DOUBTFUL",
    "MARKED",
    "OPEN",
    "RETRIED",
    "UNKNOWN",
    "UNSETTLED",
    "Applied",
    "Codes",
    "apply",
    "close",
    "count_open",
]

OPEN = 0
MARKED = 253
DOUBTFUL = 254
RETRIED = 255

UNKNOWN = (DeliveryState.DEAD.value, "unknown")
"""How a delivery ends that was marked as about to be sent, and whose worker then lost its lease."""

_DISTINCT = 240
_OPEN = bytes((OPEN,))
_DOUBTFUL = bytes((DOUBTFUL,))
_MARKED = bytes((MARKED,))
UNSETTLED = frozenset((OPEN, MARKED, DOUBTFUL))
"""Bytes of deliveries that have not ended."""


class Codes:
    """One notification's list of (state, reason); the code of a pair is its index plus one.

    It only grows. After 240 pairs, further reasons of a state fall together as "other": a gateway that answers a
    different text each time must not make the list endless.
    """

    __slots__ = ("_codes", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = list(pairs)
        self._codes = {pair: code for code, pair in enumerate(self.pairs, 1)}

    def code(self, state: str, reason: str) -> int:
        """The code of this pair, entered if it is new."""
        code = self._codes.get((state, reason))
        if code is not None:
            return code
        if len(self.pairs) >= _DISTINCT and reason != "other":
            return self.code(state, "other")
        self.pairs.append((state, reason))
        code = self._codes[state, reason] = len(self.pairs)
        return code

    def pair(self, code: int) -> tuple[str, str]:
        """(state, reason) of a code."""
        return self.pairs[code - 1]


@dataclass(slots=True)
class Applied:
    """The result of a settlement or an ending: the new map, how many ended by code, and which positions ask for a retry
    row."""

    states: bytes
    ended: dict[int, int] = field(default_factory=dict)
    retries: Sequence[RetryRow] = ()

    @property
    def settled(self) -> int:
        """How many deliveries ended."""
        return sum(self.ended.values())

    @property
    def open(self) -> int:
        """How many deliveries the chunk still has: 0 means that it is done."""
        return count_open(self.states)


def count_open(states: bytes) -> int:
    """Deliveries that are open, marked or in doubt."""
    return states.count(OPEN) + states.count(DOUBTFUL) + states.count(MARKED)


def apply(states: bytes, settlement: Settlement, codes: Codes, stopped: str = "") -> Applied:
    """The map that `settlement` makes of `states`. Pure, but for new pairs in `codes`.

    Marks come first, then reopened deliveries, then ends, retries, and the release, which takes marks (not those of
    doubt) off. A retry of a stopped notification ends in `stopped`, and so does an open delivery when its lease is
    given back. Raises `UsageError` for an index out of range, a state that does not exist, and a delivery that has
    ended or left already: nothing overwrites an end.
    """
    size = len(states)
    after = bytearray(states)
    ended: dict[int, int] = {}
    for (state, _), positions in settlement.results.items():
        if state == DOUBT:
            for position in _checked(positions, size):
                if after[position] != OPEN and after[position] != DOUBTFUL:
                    raise _twice(settlement, position)
                after[position] = DOUBTFUL
    for position in _checked(settlement.marks, size):
        if after[position] != OPEN and after[position] != MARKED:
            raise _twice(settlement, position)
        after[position] = MARKED
    for position in _checked(settlement.reopen, size):
        if after[position] != DOUBTFUL:
            raise _twice(settlement, position)
        after[position] = OPEN
    for (state, reason), positions in settlement.results.items():
        if state == DOUBT or not positions:
            continue
        if state not in FINAL_STATES:
            raise UsageError(f"{state!r} is no state in which a delivery ends: use one of {', '.join(FINAL_STATES)}.")
        code = codes.code(state, reason)
        for position in _checked(positions, size):
            if after[position] not in UNSETTLED:
                raise _twice(settlement, position)
            after[position] = code
        ended[code] = ended.get(code, 0) + len(positions)
    retry_code = codes.code(stopped, "") if stopped and settlement.retries else RETRIED
    for row in settlement.retries:
        (position,) = _checked((row.position,), size)
        if after[position] not in UNSETTLED:
            raise _twice(settlement, position)
        after[position] = retry_code
    states = bytes(after)
    if settlement.release is not None:
        states = states.replace(_MARKED, _OPEN)
    applied = Applied(states, ended, () if stopped else settlement.retries)
    if stopped and settlement.retries:
        ended[retry_code] = ended.get(retry_code, 0) + len(settlement.retries)
    if stopped and settlement.release is not None:
        rest = close(applied.states, codes, stopped, "")
        applied.states = rest.states
        for code, n in rest.ended.items():
            ended[code] = ended.get(code, 0) + n
    return applied


def close(states: bytes, codes: Codes, state: str = "", reason: str = "") -> Applied:
    """End the deliveries that will not be sent any more: the doubtful ones as (dead, unknown), and with a `state` given
    the open ones so."""
    ended: dict[int, int] = {}
    doubtful = states.count(DOUBTFUL)
    if doubtful:
        code = codes.code(*UNKNOWN)
        states = states.replace(_DOUBTFUL, bytes((code,)))
        ended[code] = doubtful
    left = states.count(OPEN) + states.count(MARKED)
    if left and state:
        code = codes.code(state, reason)
        states = states.replace(_MARKED, _OPEN).replace(_OPEN, bytes((code,)))
        ended[code] = ended.get(code, 0) + left
    return Applied(states, ended)


def _checked(positions: Sequence[int], size: int) -> Sequence[int]:
    if positions and not (min(positions) >= 0 and max(positions) < size):
        raise UsageError(
            f"A settlement names index {min(positions)} to {max(positions)} of a chunk of {size} deliveries: name those of the lease."
        )
    return positions


def _twice(settlement: Settlement, position: int) -> UsageError:
    return UsageError(
        f"The settlement of chunk {settlement.chunk} overwrites delivery {position}, which has ended or left already: "
        "a delivery is settled once."
    )
