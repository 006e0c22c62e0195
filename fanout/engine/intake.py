"""Submit: from what the caller said to what storage puts. Everything that can be refused is refused here, before the commit."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fanout.core.codec import digest, encode
from fanout.core.ids import notification_id
from fanout.core.model import LANES, Notification, Target
from fanout.core.policy import Policy
from fanout.core.records import Submission
from fanout.errors import InvalidMessage, UsageError
from fanout.plugin import Clock, Transport

__all__ = ["Intake", "Request"]

_IDEMPOTENCY_KEY_LIMIT = 255
_FARTHEST = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Request:
    """One validated call of `send`: what is put, and for each binding that cannot take it, the error to raise if it is hit."""

    submission: Submission
    refusals: Mapping[str, InvalidMessage]
    sizes: Mapping[str, int]


class Intake:
    """Makes requests for the apps and transports of one engine."""

    def __init__(
        self,
        transports: Mapping[tuple[str, str], Transport],
        *,
        clock: Clock,
        rng: random.Random,
        policy: Policy,
    ) -> None:
        self._transports = transports
        self._clock = clock
        self._rng = rng
        self._policy = policy

    def check_app(self, app: str) -> None:
        """Raise `UsageError` for an app that has no transport in this engine's configuration."""
        apps = {name for name, _ in self._transports}
        if app not in apps:
            known = ", ".join(sorted(apps)) or "none"
            raise UsageError(
                f"{app!r} is no app of this engine: it has {known}. Add [apps.{app}.transports.…] to serve it."
            )

    def request(
        self,
        notification: Notification,
        target: Target | str,
        *,
        app: str,
        at: float | None,
        idempotency_key: str | None,
    ) -> Request:
        """Validate, stamp with id and times, and prepare once per binding. Raises `UsageError` for what can never work."""
        self.check_app(app)
        if isinstance(target, str):
            target = Target.parse(target)
        if idempotency_key is not None and not 0 < len(idempotency_key) <= _IDEMPOTENCY_KEY_LIMIT:
            raise UsageError(
                f"An idempotency key has 1 to {_IDEMPOTENCY_KEY_LIMIT} characters; got {len(idempotency_key)}."
            )
        now = self._clock.now()
        if at is not None and not (math.isfinite(at) and at <= now + _FARTHEST):
            raise UsageError(f"at is {at!r}: give UNIX seconds within a year from now.")
        due_at = now if at is None else max(at, now)
        content = encode(notification)
        stamped = replace(
            notification,
            id=notification_id(now, self._rng.randbytes(10)),
            accepted_at=now,
            expires_at=due_at + (notification.ttl or self._policy.zero_ttl_grace),
        )
        refusals: dict[str, InvalidMessage] = {}
        sizes: dict[str, int] = {}
        for (owner, binding), transport in self._transports.items():
            if owner != app:
                continue
            try:
                sizes[binding] = transport.prepare(stamped).size
            except InvalidMessage as error:
                refusals[binding] = error
        if refusals and not sizes:
            raise next(iter(refusals.values()))
        submission = Submission(
            id=stamped.id,
            app=app,
            target=target,
            content=content,
            lane=LANES.index(notification.lane),
            repeat=notification.repeat,
            accepted_at=now,
            due_at=due_at,
            expires_at=stamped.expires_at,
            collapse_key=notification.collapse_key,
            idempotency_key=idempotency_key,
            digest=digest(content, target, at),
            refused=frozenset(refusals),
        )
        return Request(submission, refusals, sizes)
