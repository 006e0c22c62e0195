"""The treatment of a settlement that the database refuses for its content: it is halved until the refused delivery is
found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.records import Settlement
from fanout.core.states import DeliveryState

__all__ = ["UNSTORABLE", "condemned", "halves", "joined"]

UNSTORABLE = "cannot be stored"
"""The reason of a delivery whose result the database refuses."""


def halves(settlement: Settlement, ids: Sequence[int]) -> tuple[Settlement, Settlement] | None:
    """Two settlements that, stored one after the other, come to the same; None where it is about one delivery, or about
    none.

    `ids` are the endpoints of its chunk. The end of the lease is in the second half; of one delivery, in a half of its
    own.
    """
    positions = _positions(settlement)
    middle = (len(positions) + 1) // 2
    if len(positions) < 2 and not (positions and settlement.release is not None):
        return None
    first = frozenset(positions[:middle])
    mine = {ids[position] for position in first if position < len(ids)}
    return (
        Settlement(
            settlement.chunk,
            settlement.epoch,
            results=_only(settlement.results, first),
            retries=[row for row in settlement.retries if row.position in first],
            reopen=[position for position in settlement.reopen if position in first],
            marks=[position for position in settlement.marks if position in first],
            changes=[change for change in settlement.changes if change.endpoint in mine],
            attempts=settlement.attempts,
        ),
        Settlement(
            settlement.chunk,
            settlement.epoch,
            results=_only(settlement.results, frozenset(positions[middle:])),
            retries=[row for row in settlement.retries if row.position not in first],
            reopen=[position for position in settlement.reopen if position not in first],
            marks=[position for position in settlement.marks if position not in first],
            changes=[change for change in settlement.changes if change.endpoint not in mine],
            release=settlement.release,
        ),
    )


def condemned(settlement: Settlement) -> Settlement | None:
    """The settlement to store instead of one that is refused and has no halves: its delivery is dead, its lease ends
    without a reason.

    None where there is nothing else to try.
    """
    positions = _positions(settlement)
    dead = {(DeliveryState.DEAD.value, UNSTORABLE): positions} if positions else {}
    release = settlement.release
    if release is not None:
        release = replace(release, reason="")
    instead = Settlement(
        settlement.chunk, settlement.epoch, results=dead, attempts=settlement.attempts, release=release
    )
    return None if instead == settlement or not (positions or release) else instead


def joined(parts: Sequence[Settlement]) -> Settlement:
    """The settlement of one chunk that these come to together, in their order."""
    first = parts[0]
    results: dict[tuple[str, str], list[int]] = {}
    for part in parts:
        for pair, positions in part.results.items():
            results.setdefault(pair, []).extend(positions)
    return Settlement(
        first.chunk,
        first.epoch,
        results=results,
        retries=[row for part in parts for row in part.retries],
        reopen=[position for part in parts for position in part.reopen],
        marks=[position for part in parts for position in part.marks],
        changes=[change for part in parts for change in part.changes],
        attempts=sum(part.attempts for part in parts),
        release=next((part.release for part in parts if part.release is not None), None),
    )


def _positions(settlement: Settlement) -> list[int]:
    """The deliveries that it is about, each once, in their order in the chunk."""
    found = {position for positions in settlement.results.values() for position in positions}
    found.update(row.position for row in settlement.retries)
    found.update(settlement.reopen, settlement.marks)
    return sorted(found)


def _only(results: dict[tuple[str, str], list[int]], wanted: frozenset[int]) -> dict[tuple[str, str], list[int]]:
    kept = {pair: [position for position in positions if position in wanted] for pair, positions in results.items()}
    return {pair: positions for pair, positions in kept.items() if positions}
