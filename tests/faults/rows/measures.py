"""What rows of load measure with."""

from __future__ import annotations

import time

import psutil


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def megabytes(pid: int) -> float:
    """What a process holds."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


class SystemClock:
    """The clock of this machine, for a storage that a row opens itself."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
