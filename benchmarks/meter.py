"""A stopwatch for CPU and clock."""

from __future__ import annotations

import time
from typing import Self

__all__ = ["Meter"]


class Meter:
    """`with Meter() as meter`: afterwards `cpu` (this process, all threads) and `wall`, in seconds."""

    cpu = 0.0
    wall = 0.0

    def __enter__(self) -> Self:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
