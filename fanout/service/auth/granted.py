"""The keys and host names in the database, as this process knows them: read every two seconds, and whenever a key is
presented that it does not know.

A revoked credential is refused within five seconds, in every process. While the database cannot be read, credentials
that it has confirmed within the last minute serve, and about all others nothing can be said: a key in use confirms
nothing, for the holder of a revoked one would go on using it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import Context
from dataclasses import replace

from fanout.core.access import Grant
from fanout.core.roles import ROLES
from fanout.errors import FanoutError
from fanout.plugin import Access, Clock
from fanout.service.auth.errors import unavailable

__all__ = ["CONFIRMED", "Granted"]

_log = logging.getLogger("fanout.service")

_EVERY = 2.0
"""Seconds between two readings."""
_FRESH = 4.0
"""Seconds since the last one began, after which a key is not believed before the next."""
CONFIRMED = 60.0
"""Seconds for which the last answer of the database serves while it gives none."""
_PATIENCE = 5.0
"""Seconds that a reading may take: a process that is starved for a moment has not lost its database."""
_SPACING = 0.25
"""Seconds between two readings that unknown keys ask for, from any callers and any number."""
_WRITE_USES = 60.0
"""Seconds between two writings of when keys were used."""


class Granted:
    """Reads the grants of `access` that are of one of `apps`, which the file makes. `ended` is told the apps of which a
    signer stands no more, so that open streams are looked at. Use it on one event loop; `start` it and `stop` it.

    `pause` waits for so many seconds: tests hand in their own.
    """

    def __init__(
        self,
        access: Access | None,
        clock: Clock,
        apps: Callable[[], Collection[str]],
        ended: Callable[[Collection[str]], None] = lambda apps: None,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._access = access
        self._clock = clock
        self._apps = apps
        self._ended = ended
        self._pause = pause
        self._grants: Mapping[str, Grant] = {}
        self.hosts: Mapping[str, str] = {}
        """Host names to apps."""
        self.named_apps: frozenset[str] = frozenset()
        """Apps that have a host name."""
        self._asked = float("-inf")  # when the last reading that was answered began
        self._tried = float("-inf")  # when the last one ended
        self._away = False
        self._begun = 0
        self._turn = asyncio.Lock()
        self._uses: dict[str, float] = {}
        self._written = float("-inf")
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read, and go on reading. A database that cannot be read is asked again."""
        await self.read()
        # Not in the context of the code that starts it: that may be a request.
        self._loop = asyncio.create_task(self._keep(), context=Context())

    async def stop(self) -> None:
        """End it, and write the last uses of keys. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop
            await self._write_uses()

    async def find(self, id: str) -> Grant | None:
        """The grant of that id that stands, or None. Raises `AuthError` 503 where nothing can be said about it.

        Of one that is known nothing is awaited, unless the last reading is too long ago.
        """
        now = self._clock.monotonic()
        found = self._grants.get(id)
        if found is not None and now - self._asked < (CONFIRMED if self._away else _FRESH):
            return found
        if not self._away and await self._reads():
            return self._grants.get(id)
        if found is not None and self._clock.monotonic() - self._asked < CONFIRMED:
            return found
        raise unavailable("away", "The database that holds the keys cannot be read now.", _EVERY)

    def use(self, grant: Grant, now: float) -> None:
        """It was used at `now` (UNIX seconds): written later, at most once a minute."""
        self._uses[grant.id] = now

    async def read(self) -> bool:
        """Read them all; whether that was possible."""
        async with self._turn:
            return await self._read()

    async def _read(self) -> bool:
        self._begun += 1
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                grants = [] if self._access is None else await self._access.grants()
        except (FanoutError, OSError, TimeoutError) as error:
            if not self._away:
                _log.error(
                    "Keys in the database cannot be read; those known serve for a minute: %s",
                    str(error) or "no answer in time",
                )
            self._away, self._tried = True, self._clock.monotonic()
            return False
        self._away, self._asked, self._tried = False, began, self._clock.monotonic()
        apps = self._apps()
        standing = {grant.id: replace(grant, used_at=None) for grant in grants if grant.app in apps and _known(grant)}
        if standing != self._grants:
            ended = {was.app for id, was in self._grants.items() if was.kind == "signer" and standing.get(id) != was}
            self._grants = standing
            self.hosts = {id: grant.app for id, grant in standing.items() if grant.kind == "host"}
            self.named_apps = frozenset(self.hosts.values())
            if ended:
                self._ended(ended)
        return True

    async def _reads(self) -> bool:
        """Whether a reading that begins after this moment is answered. All that ask meanwhile wait for the same one."""
        mine = self._begun + 1
        async with self._turn:
            if self._begun >= mine or self._away:
                return not self._away
            rest = self._tried + _SPACING - self._clock.monotonic()
            if rest > 0:
                await self._pause(rest)
            return await self._read()

    async def _keep(self) -> None:
        while True:
            await self._pause(_SPACING * 2 if self._away else _EVERY)
            if await self.read() and self._clock.monotonic() - self._written >= _WRITE_USES:
                await self._write_uses()

    async def _write_uses(self) -> None:
        if not self._uses:
            return
        uses, self._uses = self._uses, {}
        self._written = self._clock.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._access is not None:
                    await self._access.used(uses)
        except (FanoutError, OSError, TimeoutError):
            self._uses = uses | self._uses


def _known(grant: Grant) -> bool:
    """Whether this version knows the rights of the grant: one of a later version may be of a kind or role that it does
    not."""
    return grant.kind in ("caller", "signer", "host") and grant.role in ROLES
