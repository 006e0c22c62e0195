"""The table `[service.limits]`: how much the service takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from fanout.errors import UsageError, refuse

__all__ = ["Limits"]

_DEEPEST = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the service takes from one app or in one request. A number that cannot work is a `UsageError`."""

    body_bytes: int = 524_288
    """Of a request's body, as it comes over the wire."""
    inflated_bytes: int = 2_097_152
    """Of a gzip or deflate body, inflated."""
    import_line_bytes: int = 65_536
    """Of one line of a bulk import."""
    depth: int = 32
    """Of arrays and objects in one another, at most 128: the encoder of JSON (orjson) takes 254, around which the
    service puts its own."""
    headers: int = 100
    header_bytes: int = 32_768
    """Of all headers of a request together, names and values."""
    recipients: int = 10_000
    """Users, endpoints or addresses named by one post; a topic counts as one."""
    content_bytes: int = 65_536
    """Of the content of one item of a feed, as JSON, independent of the limits of the gateways."""
    import_bytes: int = 17_179_869_184
    """Of one bulk import, inflated where it is compressed."""
    connections: int = 20_000
    """Open at once in `fanout serve`; fewer where the process may have fewer descriptors."""
    connections_per_peer: int = 1_000
    """Of one IPv4 address or IPv6 network of 64 bits, which is none of `trusted_proxies`; at most a quarter of all."""
    posts_per_minute: int = 60_000
    """Of one app's own posts; and, counted apart, of the posts of all of its users together."""
    user_posts_per_minute: int = 60
    """Of one user's posts to herself."""
    user_changes_per_minute: int = 600
    """Of one user: changes of items (read, dismissed, deleted) and of subscriptions."""
    user_streams_per_minute: int = 60
    """Of one user: event streams that her clients begin."""
    failures_per_minute: int = 120
    """Of one peer: credentials that are not good. Beyond them the answer is 429; a good credential is served all the
    same."""
    refusals_per_minute: int = 6_000
    """Of one key, OAuth client or user whose credential is good: requests that are refused (400, 403, 404, 405, 408,
    413, 415). Beyond them the answer to every request is 429, before anything is read or done for it."""
    subscriptions: int = 50
    """Of one user of one app. With one more the subscription that was renewed longest ago ends."""

    def __post_init__(self) -> None:
        refuse(self._problems(), UsageError)

    def _problems(self) -> Iterator[str]:
        for limit in fields(self):
            if getattr(self, limit.name) < 1:
                yield f"{limit.name} is {getattr(self, limit.name)}: it must be above zero."
        if self.depth > _DEEPEST:
            yield f"depth is {self.depth}: it must be at most {_DEEPEST}."
        if self.inflated_bytes < self.body_bytes:
            yield f"inflated_bytes is {self.inflated_bytes}: it must not be below body_bytes ({self.body_bytes})."
