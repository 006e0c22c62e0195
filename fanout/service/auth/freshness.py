"""When an issuer's keys are fetched again. Pure; all times are monotonic seconds.

A key set is fetched anew every four minutes by the request that needs it then, in the background; the first caller
after five minutes of silence waits for it. So a key that its issuer has removed is believed for five minutes and the
length of a fetch at the most, as long as the issuer answers. While it does not, the last good set stays in use, for a
day: tokens live for an hour or so, and an issuer that has been silent for a day has given out no new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Freshness"]

RENEW_AFTER = 240.0
"""Seconds until a set is fetched again in the background."""
WAIT_AFTER = 300.0
"""Seconds until a set is not used without asking the issuer first."""
KEEP = 86_400.0
"""Seconds for which a set serves while the issuer cannot be asked."""
UNKNOWN_GAP = 10.0
"""Seconds between two fetches because of unknown key ids, however many are presented."""
_BACKOFF_CAP = 30.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """The state of the last fetches. Begin with `Freshness()`; `began` makes the next one after a fetch."""

    fetched_at: float | None = None
    """When the fetch began that gave the set in use."""
    tried_at: float | None = None
    """When the last fetch ended, well or not."""
    failures: int = 0
    """Since the last one that went well."""

    def succeeded(self, *, began: float, now: float) -> Freshness:
        """After a fetch that gave a usable set. It counts from when it began: later changes may not be in it."""
        return Freshness(began, now)

    def failed(self, now: float) -> Freshness:
        """After a fetch that did not."""
        return replace(self, tried_at=now, failures=self.failures + 1)

    def usable(self, now: float) -> bool:
        """Whether there is a set that may still be used."""
        return self.fetched_at is not None and now - self.fetched_at < KEEP

    def need(self, now: float) -> Literal["none", "background", "wait"]:
        """The step that a caller which needs the set has to take first."""
        if self.fetched_at is None or not self.usable(now):
            return "wait"
        age = now - self.fetched_at
        if age < RENEW_AFTER:
            return "none"
        return "wait" if age >= WAIT_AFTER and not self.failures else "background"

    def retry_in(self, now: float) -> float:
        """Seconds until the issuer may be asked again; 0 or less where it may be now. After failures it is left in
        peace for a while."""
        if self.tried_at is None or not self.failures:
            return 0.0
        return self.tried_at + min(_BACKOFF_CAP, 2.0 ** min(self.failures - 1, 10)) - now

    def may_look_for_unknown(self, now: float) -> bool:
        """Whether an unknown key id may make the issuer be asked."""
        return self.unknown_in(now) <= 0

    def unknown_in(self, now: float) -> float:
        """Seconds until an unknown key id may make the issuer be asked; 0 or less where it may now."""
        if self.tried_at is None:
            return 0.0
        return max(self.tried_at + UNKNOWN_GAP - now, self.retry_in(now))
