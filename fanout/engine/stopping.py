"""The word that a notification is cancelled, superseded or paused, as one worker knows it of the notifications that it
has in hand or is leasing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fanout.core.states import Waiting
from fanout.engine.binding_state import BindingState
from fanout.engine.lease import Prepared
from fanout.plugin import Storage

__all__ = ["Stops"]


class Stops:
    """Stopped notifications of one binding.

    Storage leases nothing of a stopped notification, so leased deliveries may be sent, except those stopped since the
    lease was asked for.
    """

    def __init__(self, state: BindingState, storage: Storage) -> None:
        self._state = state
        self._storage = storage
        self._storing: dict[str, str] = {}
        """Notifications that an operator of this process is stopping, and storage may not know yet."""
        self._said: dict[str, str] = {}
        """Stops since the latest lease was asked for."""
        self.missed = False
        """Storage was asked for stopped notifications, but not among those on their way into hand."""

    @contextmanager
    def storing(self, id: str, how: str) -> Iterator[None]:
        """It is not sent, even where a part of it is leased before this has been stored."""
        self._storing[id] = how
        self.tell({id: how})
        try:
            yield
        finally:
            self._storing.pop(id, None)

    def tell(self, stopped: Mapping[str, str]) -> None:
        """These notifications were cancelled, superseded or paused."""
        if self._state.asking:
            self._said.update(stopped)
        for lease in self._state.leases.values():
            if (how := stopped.get(lease.chunk.notification)) is not None:
                lease.prepared.stopped = how
        self.put_down()

    def resume(self, id: str) -> None:
        """This notification's pause has been lifted."""
        self._said.pop(id, None)
        for lease in self._state.leases.values():
            if lease.chunk.notification == id and lease.prepared.stopped == Waiting.PAUSED.value:
                lease.prepared.stopped = ""
        self._state.signal.set()

    def put_down(self) -> None:
        """End (or put down) the queued deliveries of a stopped notification now, rather than when a sender comes to
        it."""
        state, now = self._state, self._state.clock.now()
        for group in state.groups.values():
            for queue in group.queues:
                for lease, position in queue.drain_stopped():
                    lease.stop(position, now)
        for lease in state.leases.values():
            if lease.prepared.stopped and lease.later:
                later, lease.later = lease.later, []
                for position in later:
                    lease.claim(1)
                    lease.stop(position, now)
        state.settler.wake()

    # -- leasing

    def leasing(self) -> None:
        """A lease is about to be asked for."""
        self._said = dict(self._storing)
        self.missed = False

    def asked(self) -> set[str]:
        """The notifications of which this worker holds leases: storage is about to be asked which of them are
        stopped."""
        self.missed = self.missed or self._state.asking
        return {lease.chunk.notification for lease in self._state.leases.values()}

    async def look(self, ids: Sequence[str]) -> None:
        """Ask storage about these, which were on their way into hand when it was asked about all others, if it was."""
        while self.missed:
            self.missed = False
            self._said.update(await self._storage.stopped(ids))

    def enter(self, prepared: Prepared) -> None:
        """Some of it comes into hand."""
        prepared.stopped = self._said.get(prepared.notification.id, "")
