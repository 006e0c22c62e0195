"""A planted fault, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Plant"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plant:
    """In `file`, `old` becomes `new`; then pytest with the arguments `tests` must fail. `name` says what is wrong
    then."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def applied(self, text: str) -> str:
        """The file with the fault. Raises `ValueError` where `old` does not stand in it exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(
                f"{self.name}: the text stands {count} times in {self.file}, and must once: mend the plant.\n{self.old}"
            )
        return text.replace(self.old, self.new)
