"""The faults of a configuration, all of them: one fault hides no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TypeVar

from fanout.errors import ConfigurationError, FanoutError, refuse

__all__ = ["Faults"]

T = TypeVar("T")
D = TypeVar("D")
_WORD = re.compile(r"[A-Za-z0-9_]+")


class Faults:
    """Gathers what the parts of a whole raise, in order. `found` are sentences."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def take(self, make: Callable[[], T], instead: D, before: str = "", without: Collection[str] = ()) -> T | D:
        """The result of `make`; `instead` where it raises an error of ours, whose sentences are kept with `before` in
        front.

        `without` are keys that something was said of already: a sentence that speaks of one of them is not kept, as it may only follow from that.
        """
        try:
            return make()
        except FanoutError as error:
            self.found += [before + fault for fault in error.faults if set(without).isdisjoint(_WORD.findall(fault))]
            return instead

    def settle(self) -> None:
        """Raise one `ConfigurationError` for everything that was found, if anything was."""
        refuse(self.found, ConfigurationError)
