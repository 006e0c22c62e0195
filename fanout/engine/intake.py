"""Submit: from a caller's arguments to the requests that storage puts. Every refusal is made here, before the
commit."""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Unpack

from fanout.core import given
from fanout.core.delivery import Message
from fanout.core.frozen import fast_init
from fanout.core.model import Notification, Target, stamped
from fanout.core.policy import Policy
from fanout.core.records import Put, Submission
from fanout.core.shorten import fitted
from fanout.core.submission import Aimed, submission_of
from fanout.core.untraced import untraced
from fanout.errors import Conflict, InvalidMessage, UsageError
from fanout.plugin import Clock, Transport

__all__ = ["Asked", "Intake", "Request", "raise_refused"]

_log = logging.getLogger("fanout.engine")


class Asked(Aimed, total=False):
    """How a request is to be made, besides its notification, target and app."""

    at: float | datetime | None
    idempotency_key: str | None
    shorten: bool
    collapse_key: str | None


@fast_init
@dataclass(frozen=True, slots=True)
class Request:
    """One validated call of `send`: its submission, and for each binding that cannot take it, the error to raise if it
    is hit.

    `notification` and `messages` (by binding) are made of its content; None and empty where they are not made yet.
    A binding that is in neither `messages` nor `refusals` takes it for certain, and prepares it when it leases some of
    it.
    """

    submission: Submission
    refusals: Mapping[str, InvalidMessage]
    notification: Notification | None = None
    messages: Mapping[str, Message] = field(default_factory=dict)


class Intake:
    """Makes requests for the apps and transports of one engine."""

    def __init__(
        self,
        transports: Mapping[tuple[str, str], Transport],
        apps: Iterable[str] = (),
        *,
        names: Iterable[str] = (),
        clock: Clock,
        rng: random.Random,
        policy: Policy,
    ) -> None:
        self._transports = transports
        self._names = frozenset(names)
        self._bindings: dict[str, list[str]] = {}
        for app, binding in transports:
            self._bindings.setdefault(app, []).append(binding)
        for app in apps:
            self._bindings.setdefault(app, [])
        self.apps = tuple(self._bindings)
        """Those with a transport, and `apps` besides, which have a feed that pushes nothing."""
        self._clock = clock
        self._rng = rng
        self._policy = policy
        self._faults = 0

    def check_app(self, app: str) -> None:
        """Raise `UsageError` for an app that has no transport in this engine's configuration."""
        if not isinstance(app, str) or app not in self._bindings:
            names = ", ".join(sorted(self._bindings)) or "none"
            raise UsageError(
                f"{app!r} is no app of this engine: it has {names}. Add [apps.{app}.transports.…] to serve it."
            )

    def check_binding(self, app: str, binding: str) -> None:
        """Raise `UsageError` for a binding that this app of the configuration has not."""
        bindings = self._bindings.get(given.text("app", app), [])
        if given.text("binding", binding) not in bindings:
            raise UsageError(
                f"The app {app} has no binding {binding!r}; it has {', '.join(sorted(bindings)) or 'none'}."
            )

    def _check_overrides(self, app: str, overrides: Iterable[str]) -> None:
        """Raise `UsageError` for a name that no transport will ever look under: its overrides would be lost."""
        known = self._names.union(self._bindings[app])
        for name in overrides:
            if name not in known:
                raise UsageError(
                    f"transports names {name!r}, which is neither a binding of the app {app} nor a transport: "
                    f"use one of {', '.join(sorted(known)) or 'none'}, or take it out."
                )

    def request(
        self,
        notification: Notification,
        target: Target | str,
        *,
        app: str,
        at: float | datetime | None = None,
        idempotency_key: str | None = None,
        shorten: bool = False,
        collapse_key: str | None = None,
        **aimed: Unpack[Aimed],
    ) -> Request:
        """Validate, stamp with id and times, and prepare for each binding that may refuse. Raises `UsageError` for
        arguments that can never work."""
        self.check_app(app)
        submission = submission_of(
            notification,
            target,
            app=app,
            at=at,
            idempotency_key=idempotency_key,
            now=self._clock.now(),
            random=self._rng.randbytes(10),
            zero_ttl_grace=self._policy.zero_ttl_grace,
            collapse_key=collapse_key,
            **aimed,
        )
        if notification.transports:
            self._check_overrides(app, notification.transports)
        return self.judged(submission, notification, shorten=shorten)

    def requests(self, messages: Sequence[Any], keys: Sequence[Any], **more: Any) -> list[Request]:
        """A request for each (notification, target), with its idempotency key. Raises `UsageError`."""
        if not all(isinstance(each, (tuple, list)) and len(each) == 2 for each in messages):
            raise UsageError("messages must be a list of (notification, target) pairs.")
        if len(keys) != len(messages):
            raise UsageError(
                f"idempotency_keys has {len(keys)} for {len(messages)} messages: name one for each, or None."
            )
        return [
            self.request(notification, target, idempotency_key=key, **more)
            for (notification, target), key in zip(messages, keys, strict=True)
        ]

    def _fits(self, app: str, binding: str, notification: Notification, size: int) -> bool:
        """Whether the transport says that it cannot refuse this. A `fits` that raises is a fault of the transport, and
        says nothing."""
        fits = getattr(self._transports[app, binding], "fits", None)
        try:
            return fits is not None and fits(notification, size) is True
        except Exception as error:
            self._fault(app, binding, "fits", error)
            return False

    def _fault(self, app: str, binding: str, method: str, error: Exception) -> None:
        self._faults += 1
        if self._faults <= 10 or self._faults % 1000 == 0:
            # Where it happened, but not its message: a plugin's text may hold content of a notification.
            origin = "".join(traceback.format_tb(error.__traceback__)[-1:])
            _log.error(
                "%s/%s: %s escaped from %s (%d).\n%s",
                *(app, binding, type(error).__name__, method, self._faults, origin),
            )

    def judged(self, submission: Submission, notification: Notification, *, shorten: bool = False) -> Request:
        """The request for a submission of this content, prepared for each binding that might refuse it (`fits`); with
        `shorten`, with less text where a gateway takes no more. Raises `InvalidMessage` where none can take it."""
        whole = stamped(
            notification, id=submission.id, accepted_at=submission.accepted_at, expires_at=submission.expires_at
        )
        refusals: dict[str, InvalidMessage] = {}
        messages: dict[str, Message] = {}
        bindings = self._bindings.get(submission.app, ())
        for binding in bindings:
            try:
                if self._fits(submission.app, binding, whole, len(submission.content)):
                    continue
                prepare = self._transports[submission.app, binding].prepare
                messages[binding] = fitted(prepare, whole)[0] if shorten else prepare(whole)
            except InvalidMessage as error:
                refusals[binding] = untraced(error)
            except Exception as error:
                self._fault(submission.app, binding, "prepare", error)
                refusals[binding] = InvalidMessage(
                    f"The transport of the binding {binding} cannot prepare this notification: {type(error).__name__}. "
                    "That is a fault of the transport, which the log shows; other bindings are served."
                )
        if refusals and len(refusals) == len(bindings):
            raise untraced(next(iter(refusals.values())))
        judged = replace(submission, refused=frozenset(refusals)) if refusals else submission
        return Request(judged, refusals, whole, messages)

    def sizes(self, request: Request, bindings: Iterable[str]) -> dict[str, int]:
        """Bytes of the message, for each of these bindings that this engine has and that takes it."""
        app, notification = request.submission.app, request.notification
        sizes: dict[str, int] = {}
        for binding in bindings:
            message = request.messages.get(binding)
            transport = self._transports.get((app, binding))
            if message is None and notification is not None and transport is not None:
                message = transport.prepare(notification)
            if message is not None:
                sizes[binding] = message.size
        return sizes


def raise_refused(requests: Sequence[Request], puts: Sequence[Put]) -> None:
    """Raise for the first of these puts that was refused: `InvalidMessage`, or `Conflict`."""
    for request, put in zip(requests, puts, strict=True):
        if put.refused:
            raise untraced(request.refusals[put.refused])
        if put.conflict:
            key = request.submission.idempotency_key
            raise Conflict(
                f"The idempotency key {key!r} belongs to {put.conflict}, which was another request; use a new key."
            )
