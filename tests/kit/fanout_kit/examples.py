"""How many examples a property is tried with."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["LONG", "SHORT", "examples"]

SHORT, LONG = 50, 500
"""Of a property that states none: in `make test`, and in `make soak`."""


def examples(number: int) -> int:
    """For `max_examples`: `number` in `make soak`; in `make test` a quarter of it, and not below `SHORT`."""
    return number if settings().max_examples == LONG else max(number // 4, SHORT)
