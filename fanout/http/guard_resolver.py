"""Name lookups under the host guard: only addresses that come back are connected to."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.http.dial import Resolver, resolve
from fanout.http.guard import HostGuard, HostRefused

__all__ = ["GuardedResolver", "NotPublic"]


class NotPublic(OSError):
    """The guard refuses the host or one of its addresses. A kind of `OSError`, as a resolver's failures are."""

    def __init__(self, text: str) -> None:
        super().__init__(text)


class GuardedResolver:
    """A resolver for `H2Pool` and `Http1Client`: looks a host up once, and returns its addresses if the guard admits
    all of them.

    The client connects to the very addresses that were judged, and still checks the certificate against the host's
    name; so a name that answers differently the second time gains nothing.

    Args:
        guard: The judge of hosts and of their addresses.
        resolve: The look-up; by default the operating system's.
    """

    def __init__(self, guard: HostGuard, resolve: Resolver = resolve) -> None:
        self._guard = guard
        self._resolve = resolve

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The IP addresses of `host`. Raises `NotPublic` where the guard refuses, `OSError` where the lookup fails."""
        try:
            name = _written(host.lower())
            self._guard.check_host(name, port)
            return self._guard.addresses(await self._resolve(host, port), name, port)
        except HostRefused as refused:
            raise NotPublic(str(refused)) from None


def _written(host: str) -> str:
    """As in a URL: an IPv6 address reaches resolvers without its brackets."""
    return f"[{host}]" if ":" in host else host
