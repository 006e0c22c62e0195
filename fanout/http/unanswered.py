"""The meaning of a request without an answer: the one rule for all transports that use this client."""

from __future__ import annotations

from typing import Literal

from fanout.core.alerts import CERTIFICATE_ALERTS
from fanout.core.outcome import Deferred, Misconfigured, Scope, Unavailable

__all__ = ["unanswered"]

_CONNECTING = frozenset({"connect", "descriptors", "dns", "proxy", "tls", "alpn", "settings"})
"""Failures of a connection that did not come about: no endpoint has a part in them."""


def unanswered(
    sent: Literal["no", "unknown"], reason: str, *, own: bool = False, cause: str = "", connected: bool = True
) -> Unavailable | Deferred | Misconfigured:
    """The outcome of a request that got no answer. `RequestFailed.evidence` has the last three arguments.

    An event of our own is `Deferred`. A gateway whose TLS refuses our certificate is `Misconfigured`, with an alarm.
    Without a connection the whole group is `Unavailable`, and no endpoint is named by it. An event on one connection is
    the endpoint's affair, unless others say the same.

        except RequestFailed as failed:
            return unanswered(failed.sent, failed.reason, **failed.evidence)

    Args:
        sent: Whether the request went out: `no` or `unknown`.
        reason: The word of `RequestFailed` for it, which logs and metrics have.
        own: Whether this side ended the request: that says nothing about the gateway.
        cause: The name of the connection whose end was the end of this request; empty for another cause.
        connected: Whether a connection took the request.

    Returns:
        The outcome.
    """
    if own:
        return Deferred(reason, sent=sent)
    if reason in CERTIFICATE_ALERTS:
        return Misconfigured(reason, Scope.GROUP, named=False)
    if sent == "no" and (reason in _CONNECTING or not connected):
        return Unavailable(sent, Scope.GROUP, reason, named=False)
    return Unavailable(sent, Scope.ENDPOINT, reason, cause=cause)
