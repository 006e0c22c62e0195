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
    """Gathers the errors of the parts of a whole, in order. `found` are sentences."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def take(self, make: Callable[[], T], instead: D, before: str = "", without: Collection[str] = ()) -> T | D:
        """The result of a function, whose faults are kept.

        Args:
            make: The function. The sentences of an error of ours that it raises are kept.
            instead: The result where it raises one.
            before: The text in front of each sentence.
            without: Keys that something was said of already: a sentence that speaks of one of them is not kept, as it
                may only follow from that.

        Returns:
            The result.
        """
        try:
            return make()
        except FanoutError as error:
            self.found += [before + fault for fault in error.faults if set(without).isdisjoint(_WORD.findall(fault))]
            return instead

    def settle(self) -> None:
        """Raise one error for everything that was found, if anything was.

        Raises:
            ConfigurationError: There are faults; `faults` has all.
        """
        refuse(self.found, ConfigurationError)
