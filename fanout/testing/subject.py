"""The subject of `check_transport`: a fresh transport, addresses that mean something, and the gateway to play with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from fanout.plugin import Transport

__all__ = ["Gateway", "Maker", "Raw", "Received", "Subject"]

Raw = str | Mapping[str, Any]


class Received(Protocol):
    """The gateway's record of an accepted push; a part that its protocol does not carry is empty."""

    @property
    def delivery(self) -> str:
        """The delivery id."""
        ...

    @property
    def address(self) -> str:
        """`Address.digest`."""
        ...


class Gateway(Protocol):
    """The checks' control of the transport's gateway. `fanout.testing.simulator.gateway.SimulatorGateway` is one.

    `answers` names the answers that `answer` can bring about, each with the outcome type that it must lead to.
    """

    answers: Mapping[str, type]

    @property
    def connections(self) -> int:
        """Connections made since the start."""
        ...

    @property
    def requests(self) -> int:
        """Requests that arrived since the start."""
        ...

    def received(self) -> Sequence[Received]:
        """The pushes that were accepted since the start."""
        ...

    def answer(self, name: str) -> None:
        """Answer every request so from now on.

        Args:
            name: The name of the answer, one of the subject's `answers`.
        """
        ...

    def hold(self) -> None:
        """Take requests and never answer them."""
        ...

    def silence(self) -> None:
        """Read nothing and answer nothing, as a dead peer does."""
        ...

    async def resume(self) -> None:
        """Behave again."""
        ...

    async def arrived(self, requests: int) -> None:
        """Wait until so many requests have arrived since the start.

        Args:
            requests: The number of requests since the start.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A fresh transport that is not open yet, and the facts that the checks need.

    `address(n)` and `gone(n)` give the raw address of device n that the gateway accepts, or calls dead (None: it
    cannot). `invalid` are raw addresses that must be refused. `deadline` is the transport's own, in seconds; a second
    or two suits a test. `secrets` are texts that nothing may show. `gateway` None leaves out the checks that need one.
    """

    transport: Transport
    address: Callable[[int], Raw]
    invalid: Sequence[Raw]
    gone: Callable[[int], Raw] | None = None
    secrets: Sequence[str] = field(default=(), repr=False)
    deadline: float = 15.0
    gateway: Gateway | None = None


Maker = Callable[[], AbstractAsyncContextManager[Subject]]
