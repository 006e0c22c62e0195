"""Security events: refused callers as log lines and counters, so that an attack is seen, and so that it cannot fill a
disk.

A line names the reason, the status, the peer, the app and client where the credential said them, the route and the
request's id. It never holds a credential, a user, a device or a query: a path is told by its route, in which `*` stands
for a value that a caller chose.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from fanout.service.auth import Caller
from fanout.service.rates import Rates

__all__ = ["LINES_OF_PEER", "LINES_PER_MINUTE", "SecurityEvents", "is_security"]

_log = logging.getLogger("fanout.security")

LINES_OF_PEER = 10
"""Lines per minute of one peer and reason."""
LINES_PER_MINUTE = 300
"""Lines per minute in all."""
_ALWAYS = frozenset({401, 403, 406, 429, 431, 501, 505})


def is_security(status: int, *, ambiguous: bool) -> bool:
    """Whether a refusal with this status is a security event. `ambiguous`: the request itself could be read in two
    ways."""
    return status in _ALWAYS or (ambiguous and 400 <= status < 500)


class SecurityEvents:
    """Counts each event, and logs as many as the limits allow; how many were left out stands in the next line of that
    peer and reason.

    `paths` are the routes' patterns, of which only the fixed words are ever told.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By app ("" before a credential was good) and reason."""
        self._words = frozenset(word for path in paths for word in path.split("/") if word and "{" not in word)
        self._rates = Rates()
        self._left_out: Counter[tuple[str, str]] = Counter()

    def refused(
        self,
        *,
        reason: str,
        status: int,
        peer: str,
        method: str,
        path: str,
        request_id: str,
        caller: Caller | None,
        now: float,
    ) -> None:
        """One refusal. `now` is in seconds of a clock that does not go back."""
        app, client = (caller.app, caller.client_id) if caller is not None else ("", "")
        self.counts[app, reason] += 1
        key = (peer, reason)
        if self._rates.take(key, LINES_OF_PEER, now) or self._rates.take("all", LINES_PER_MINUTE, now):
            if len(self._left_out) < LINES_PER_MINUTE or key in self._left_out:
                self._left_out[key] += 1
            return
        _log.warning(
            "Refused (%s, %d): peer %s, app %s, client %s, %s %s, request %s; %d more of this peer and reason were not logged.",
            reason,
            status,
            peer or "-",
            app or "-",
            client or "-",
            method if method.isalpha() and len(method) <= 16 else "*",
            self.route(path),
            request_id,
            self._left_out.pop(key, 0),
        )

    def route(self, path: str) -> str:
        """The path with `*` for each part that is no fixed word of a route, at most eight parts."""
        parts = path.split("/")[1:9]
        return "/" + "/".join(part if part in self._words or not part else "*" for part in parts)

    def summed(self) -> Mapping[tuple[str, str], int]:
        """The counts so far, by app and reason."""
        return dict(self.counts)
