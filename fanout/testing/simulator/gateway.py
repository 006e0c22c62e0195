"""A simulator as the gateway that `check_transport` plays with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fanout.testing.simulator.answers import Push, Request, Stall
from fanout.testing.simulator.base import Simulator

__all__ = ["SimulatorGateway"]


class SimulatorGateway:
    """Implements `fanout.testing.transport.Gateway`. `answers` maps reasons that the simulator's `error` knows to
    outcome types."""

    def __init__(self, simulator: Simulator, answers: Mapping[str, type]) -> None:
        self.answers = answers
        self._simulator = simulator
        simulator.pushes = []

    @property
    def connections(self) -> int:
        """Connections made since the start."""
        return self._simulator.counters.connections

    @property
    def requests(self) -> int:
        """Requests that arrived since the start."""
        return self._simulator.counters.requests

    def received(self) -> Sequence[Push]:
        """Every push accepted since the start."""
        return list(self._simulator.pushes or ())

    def answer(self, name: str) -> None:
        """Answer every request so from now on."""
        self._simulator.script = lambda request: self._simulator.error(name, request)

    def hold(self) -> None:
        """Take requests and never answer them."""
        self._simulator.script = _stall

    def silence(self) -> None:
        """Read nothing and answer nothing, as a dead peer does."""
        self._simulator.silent = True

    async def resume(self) -> None:
        """Behave again; connections that were silent are cut."""
        self._simulator.script = None
        if self._simulator.silent:
            self._simulator.silent = False
            await self._simulator.disconnect()

    async def arrived(self, requests: int) -> None:
        """Wait until so many requests have arrived since the start."""
        await self._simulator.requested(requests)


def _stall(request: Request) -> Stall:
    return Stall()
