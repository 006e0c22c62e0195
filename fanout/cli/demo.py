"""`fanout demo`."""

from __future__ import annotations


def demo() -> None:
    """A broadcast to 20,000 devices on a simulated gateway, from nothing."""
