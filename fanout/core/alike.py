"""Endpoints that are alike, column by column: a thousand rows of one broadcast, without an object for each."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import overload

from fanout.core.records import EndpointRow

__all__ = ["ALIKE_FROM", "AlikeRows", "ids_of", "joined", "paired", "written"]

ALIKE_FROM = 64
"""Endpoints from which it is worth a look whether all are alike."""


class AlikeRows(Sequence[EndpointRow]):
    """Active endpoints of one `kind` and one `group`, none in back-off. A row is made where it is asked for.

    `more` answers the time of registration and the generation of the endpoint at a place, of which the first here is
    `begin`: only an answer that is no acceptance needs them.
    """

    __slots__ = ("_begin", "_more", "addresses", "group", "ids", "kind")

    def __init__(
        self,
        ids: array[int],
        addresses: list[str],
        kind: str,
        group: str,
        more: Callable[[int], tuple[float, int]],
        begin: int = 0,
    ) -> None:
        self.ids = ids
        self.addresses = addresses
        self.kind = kind
        self.group = group
        self._more = more
        self._begin = begin

    def __len__(self) -> int:
        return len(self.addresses)

    @overload
    def __getitem__(self, at: int) -> EndpointRow: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[EndpointRow]: ...

    def __getitem__(self, at: int | slice) -> EndpointRow | Sequence[EndpointRow]:
        if isinstance(at, slice):
            begin = at.start or 0
            if begin < 0 or at.step is not None:
                return [self[place] for place in range(*at.indices(len(self)))]
            return AlikeRows(self.ids[at], self.addresses[at], self.kind, self.group, self._more, self._begin + begin)
        address = self.addresses[at]
        place = at if at >= 0 else at + len(self)
        return EndpointRow(self.ids[place], address, self.kind, self.group, *self._more(self._begin + place), "active")


class _Parts(Sequence[EndpointRow]):
    """Parts of one length, but for a shorter last one, of which some are alike: a slice of one part is one of its
    own."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Sequence[EndpointRow]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, at: int) -> EndpointRow: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[EndpointRow]: ...

    def __getitem__(self, at: int | slice) -> EndpointRow | Sequence[EndpointRow]:
        places, size = range(len(self))[at], len(self._parts[0])
        if isinstance(places, int):
            return self._parts[places // size][places % size]
        if places and places.step == 1 and (part := places[0] // size) == places[-1] // size:
            return self._parts[part][places[0] - part * size : places[-1] + 1 - part * size]
        return [self._parts[place // size][place % size] for place in places]


def ids_of(rows: Sequence[EndpointRow]) -> array[int]:
    """The endpoints' ids."""
    if isinstance(rows, AlikeRows):
        return rows.ids
    if isinstance(rows, _Parts):
        return array("q", [id for part in rows._parts for id in ids_of(part)])
    return array("q", [row[0] for row in rows])


def joined(parts: Sequence[Sequence[EndpointRow]]) -> Sequence[EndpointRow]:
    """The rows of parts of one length, but for a shorter last one."""
    alike = [part for part in parts if isinstance(part, AlikeRows)]
    if len(alike) < len(parts) or len({(part.kind, part.group) for part in alike}) > 1:
        return _Parts(parts)
    ids, addresses, size = array("q"), [], len(alike[0])
    for part in alike:
        ids += part.ids
        addresses += part.addresses
    # Not of the parts themselves: a slice would keep the addresses of all.
    sources = [(part._more, part._begin) for part in alike]

    def more(place: int) -> tuple[float, int]:
        source, begin = sources[place // size]
        return source(begin + place % size)

    return AlikeRows(ids, addresses, alike[0].kind, alike[0].group, more)


def paired(times: Sequence[float], generations: Sequence[int]) -> Callable[[int], tuple[float, int]]:
    """The numbers of these sequences by place."""
    return lambda place: (times[place], generations[place])


def written(times: str, generations: str) -> Callable[[int], tuple[float, int]]:
    """The numbers of these texts by place, read when one is asked for first: milliseconds, and generations, with commas
    between."""
    read: list[list[str]] = []

    def more(place: int) -> tuple[float, int]:
        if not read:
            read.extend((times.split(","), generations.split(",")))
        return int(read[0][place]) / 1000, int(read[1][place])

    return more
