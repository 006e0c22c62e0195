"""How processes of a trial ended: exit codes and last words, for a finding that needs them."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from tests.faults.nursery import Child

__all__ = ["Ending", "told_to_end"]


@dataclass(frozen=True, slots=True)
class Ending:
    """One process that has ended."""

    name: str
    code: int
    said: str

    @property
    def clean(self) -> bool:
        """0, or SIGTERM before the handler stood: the process held nothing yet, and had said nothing."""
        return self.code == 0 or (self.code == -signal.SIGTERM and not self.said.strip())

    def __str__(self) -> str:
        last = " / ".join(line.strip() for line in self.said.splitlines()[-6:] if line.strip())
        return f"{self.name} ended with {self.code}; its last words: {last or 'none'}"


async def told_to_end(children: Iterable[Child], timeout: float = 60.0) -> list[Ending]:
    """Send SIGTERM to all of them, and wait for each; how each of them ended."""
    told = list(children)
    for child in told:
        child.signal(signal.SIGTERM)
    return [Ending(child.log.stem, await child.wait(timeout), child.said) for child in told]
