"""Whether an open stream may go on: its caller's credential, and its device's subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fanout.errors import FanoutError
from fanout.plugin import Feed

if TYPE_CHECKING:
    from fanout.service.feed.streams import EventStream

__all__ = ["Authenticates", "refusal", "subscription_state"]

_REREAD = 60.0
"""Seconds after which a stream's subscription is read again, though nothing says that it has changed."""


class Authenticates(Protocol):
    """The authenticator, which also says whether a token is still good."""

    async def authenticate(self, request: Any, /) -> Any:
        """Raises an error with a `status` when it is not."""
        ...


async def refusal(authenticator: Authenticates | None, stream: EventStream) -> str:
    """The reason for which the caller's credential is no longer good; "" while it is, or while that is unknown."""
    if authenticator is None:
        return ""
    try:
        await authenticator.authenticate(stream.credentials)
    except FanoutError as error:
        return str(error) if getattr(error, "status", 503) in (401, 403) else ""
    return ""


async def subscription_state(feed: Feed, stream: EventStream, monotonic: float, now: float, warning: float) -> str:
    """The state of the stream's subscription, read again where it may have changed; "" for a stream without one.

    Args:
        feed: Holds the subscriptions.
        stream: Gets the subscription as it was read, and the time of that.
        monotonic: Monotonic seconds.
        now: UNIX seconds.
        warning: Seconds before the end of a subscription from which it is about to end.
    """
    subscription = stream.subscription
    if subscription is None:
        return ""
    state = subscription.state(now, warning)
    if stream.state and (state != stream.state or monotonic - stream.read_at >= _REREAD):
        # It may have been renewed since, or ended by another device or process.
        stream.read_at = monotonic
        found = await feed.subscription(stream.app, subscription.unsid)
        if found is None or found.user != stream.user or found.endpoint_state in ("removed", "replaced"):
            return "ended"
        stream.subscription = found
        state = found.state(now, warning)
    return state
