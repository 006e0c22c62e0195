"""The storages `faulty-NAME`: those that are installed, with a failpoint before and after their methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from fanout.plugin import Settled, Settlement, Storage, StorageContext, StoragePlugin, Waiting
from fanout.registry import Registry
from fanout_kit.faulty.disk import Disk
from fanout_kit.faulty.failpoints import NAMES, error
from fanout_kit.faulty.statements import settle_down, watch

__all__ = ["FaultyStorage"]

_WATCHED = {name.partition(".")[0] for name in NAMES}


class FaultyStorage:
    """Passes everything on to `inner`. Unknown calls are passed on unwatched, so that it need not keep up with the
    contract."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    @property
    def shared(self) -> bool:
        """See `Storage`."""
        return self.inner.shared

    @property
    def location(self) -> str:
        """See `Storage`."""
        return self.inner.location

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        settle_down()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.inner.__aexit__(*exc)

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """See `Storage`. A settlement that gives leases back as `ready` is the end of a worker that was told to end."""
        releases = [each.release for each in settlements if each.release is not None]
        name = "shutdown" if any(release.waiting == Waiting.READY for release in releases) else ""
        _raise("settle.before")
        if name:
            _raise("shutdown.before")
        answers = await self.inner.settle(settlements, now)
        _raise("settle.after")
        if name:
            _raise("shutdown.after")
        return answers

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return _Call(name, value) if name in _WATCHED else value


class _Call:
    def __init__(self, name: str, method: Callable[..., Awaitable[Any]]) -> None:
        self._name = name
        self._method = method

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        before, after = f"{self._name}.before", f"{self._name}.after"
        _raise(before)
        answer = await self._method(*arguments, **named)
        # An expansion or a lease that found nothing is no boundary of anything.
        if answer or self._name not in ("expand", "lease"):
            _raise(after)
        return answer


def _raise(name: str) -> None:
    raised = error(name)
    if raised is not None:
        raise raised


_disk: list[Disk] = []


def __getattr__(name: str) -> StoragePlugin:
    """The descriptor of the faulty storage of that name."""
    if name.startswith("_"):
        raise AttributeError(name)
    inner = Registry().storage(name)

    def make(location: str, context: StorageContext) -> FaultyStorage:
        if not _disk:
            _disk.append(Disk())
            watch()
        return FaultyStorage(Registry().make_storage(f"{name}:{location}", context))

    # Most of the contract is passed on by `__getattr__`, which no type checker can follow.
    factory: Any = make
    return StoragePlugin(name=f"faulty-{name}", factory=factory, extra=inner.extra, seal=inner.seal)
