"""What is said, to whom, and to which device: the values that users of the library make and receive."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

from fanout.core.address import Address
from fanout.errors import UsageError

__all__ = [
    "DEFAULT_TTL",
    "LANES",
    "Action",
    "Endpoint",
    "EndpointState",
    "Lane",
    "Notification",
    "Registration",
    "Repeat",
    "Target",
    "stamped",
]

DEFAULT_TTL = 86_400.0
"""Seconds for which a notification is worth delivering unless it says otherwise."""

LANES = ("urgent", "normal", "bulk")
"""What overtakes what, first to last; the index is what storage keeps."""

Lane = Literal["urgent", "normal", "bulk"]
Repeat = Literal["prefer_delivery", "prefer_once", "at_most_once"]
"""What doubt means. An attempt that may have arrived is tried again (`prefer_delivery`) or not (`prefer_once`); with
`at_most_once` it is also marked before it is sent, so that not even a crash can repeat it."""

_MAX_TTL = 366 * 86_400.0
_COLLAPSE_KEY_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Action:
    """A button of the notification: the id that the app receives, the label, and where a press leads."""

    id: str
    title: str
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What to say. Immutable, and encoded once per binding.

    A notification with a title, a body or an image is *visible*; one with only `data` (or nothing) is *raw*: it wakes the
    app and shows nothing. `transports` holds overrides per binding or transport name, passed through in that gateway's own terms.
    `ttl` is in seconds from acceptance (or from the due time); 0 means now or never. `collapse_key`: a later notification with
    the same key and target supersedes this one while it waits, and replaces it on the device where the gateway can.
    `id`, `accepted_at` and `expires_at` (UNIX seconds) are filled in at acceptance.

    Raises `UsageError` for a value that no gateway could take.
    """

    title: str | None = None
    body: str | None = None
    subtitle: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    icon: str | None = None
    badge: int | None = None
    sound: str | None = None
    url: str | None = None
    category: str | None = None
    thread: str | None = None
    actions: tuple[Action, ...] = ()
    ttl: float = DEFAULT_TTL
    lane: Lane = "normal"
    collapse_key: str | None = None
    repeat: Repeat = "prefer_delivery"
    transports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    id: str = ""
    accepted_at: float = 0.0
    expires_at: float = math.inf

    def __post_init__(self) -> None:
        if not (isinstance(self.ttl, (int, float)) and 0 <= self.ttl <= _MAX_TTL):
            raise UsageError(f"ttl is {self.ttl!r}: give seconds from 0 (now or never) to {int(_MAX_TTL)} (a year).")
        if self.lane not in LANES:
            raise UsageError(f"lane is {self.lane!r}: use one of {', '.join(LANES)}.")
        if self.repeat not in ("prefer_delivery", "prefer_once", "at_most_once"):
            raise UsageError(f"repeat is {self.repeat!r}: use prefer_delivery, prefer_once or at_most_once.")
        if self.collapse_key is not None and not 0 < len(self.collapse_key.encode()) <= _COLLAPSE_KEY_LIMIT:
            raise UsageError(
                f"collapse_key must have 1 to {_COLLAPSE_KEY_LIMIT} bytes; leave it out to collapse nothing."
            )
        if self.badge is not None and (isinstance(self.badge, bool) or not 0 <= self.badge < 2**31):
            raise UsageError(f"badge is {self.badge!r}: give a count from 0 (clears it) to 2147483647.")

    @property
    def visible(self) -> bool:
        """Whether the device is meant to show something."""
        return self.title is not None or self.body is not None or self.image is not None

    def override(self, *names: str) -> Mapping[str, Any]:
        """The overrides of the first of these names (a binding's, then its transport's) that has any."""
        for name in names:
            if name in self.transports:
                return self.transports[name]
        return {}


_SLOTS: list[Any] = [getattr(Notification, slot.name) for slot in fields(Notification)]


def stamped(notification: Notification, *, id: str, accepted_at: float, expires_at: float) -> Notification:
    """The same with the envelope of its acceptance. What was checked when it was made is not checked again."""
    made: Notification = object.__new__(Notification)
    for slot in _SLOTS:
        slot.__set__(made, slot.__get__(notification))
    object.__setattr__(made, "id", id)
    object.__setattr__(made, "accepted_at", accepted_at)
    object.__setattr__(made, "expires_at", expires_at)
    return made


@dataclass(frozen=True, slots=True)
class Target:
    """To whom. Made by one of the constructors, or from text such as `user:alice` by `Target.parse`."""

    kind: Literal["user", "users", "topic", "endpoints", "addresses", "all"]
    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    binding: str = ""
    addresses: tuple[Address, ...] = field(default=(), repr=False)

    @classmethod
    def user(cls, user: str) -> Target:
        """Every active endpoint of one user."""
        return cls("user", (_name("user", user),))

    @classmethod
    def users(cls, users: Iterable[str]) -> Target:
        """Every active endpoint of these users, each once."""
        names = tuple(dict.fromkeys(_name("user", user) for user in users))
        if not names:
            raise UsageError("The target names no user: give at least one, or do not send.")
        return cls("users", names)

    @classmethod
    def topic(cls, tag: str) -> Target:
        """Every active endpoint that carries this tag at acceptance."""
        return cls("topic", (_name("topic", tag),))

    @classmethod
    def endpoints(cls, ids: Iterable[int]) -> Target:
        """Exactly these endpoints, by id."""
        unique = tuple(dict.fromkeys(ids))
        if not unique:
            raise UsageError("The target names no endpoint: give at least one id, or do not send.")
        return cls("endpoints", ids=unique)

    @classmethod
    def all(cls) -> Target:
        """Every active endpoint of the app at acceptance."""
        return cls("all")

    @classmethod
    def parse(cls, text: str) -> Target:
        """`user:alice`, `topic:news`, `endpoint:7` or `all`; raises `UsageError` for anything else."""
        kind, colon, rest = text.partition(":")
        if text == "all":
            return cls.all()
        if kind == "user" and colon:
            return cls.user(rest)
        if kind == "topic" and colon:
            return cls.topic(rest)
        if kind == "endpoint" and rest.isascii() and rest.isdigit() and len(rest) < 19:
            return cls.endpoints([int(rest)])
        raise UsageError(f"{text!r} is no target: write user:NAME, topic:NAME, endpoint:ID or all.")

    def __str__(self) -> str:
        if self.kind == "addresses":
            return f"{len(self.addresses)} addresses of {self.binding}"
        if self.kind == "endpoints":
            return f"endpoint:{self.ids[0]}" if len(self.ids) == 1 else f"{len(self.ids)} endpoints"
        if self.kind == "users":
            return f"{len(self.names)} users"
        return "all" if self.kind == "all" else f"{self.kind}:{self.names[0]}"


class EndpointState(StrEnum):
    """Where an endpoint stands in the directory."""

    ACTIVE = "active"
    GONE = "gone"  # a gateway said so; kept in quarantine, from which it can be restored
    REPLACED = "replaced"  # its address was registered under another user
    REMOVED = "removed"  # the host took it out
    EXPIRED = "expired"  # its own expires_at passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One device address to be entered in the directory, already in its transport's canonical form.

    `expires_at` is UNIX seconds; None means until the gateway or the host says otherwise.
    """

    user: str
    binding: str
    address: Address
    app: str = "default"
    platform: str = ""
    tags: tuple[str, ...] = ()
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One device address on one binding, as the directory knows it. Times are UNIX seconds.

    `user` is empty for an endpoint interned from an explicit address: it belongs to nobody, no topic and not to `all`.
    `generation` grows with each registration, so that a late verdict on an old one cannot harm the new.
    """

    id: int
    app: str
    user: str
    binding: str
    address: Address
    platform: str = ""
    tags: tuple[str, ...] = ()
    generation: int = 1
    registered_at: float = 0.0
    expires_at: float | None = None
    state: EndpointState = EndpointState.ACTIVE
    state_at: float | None = None
    reason: str = ""


def _name(what: str, value: str) -> str:
    if not isinstance(value, str) or not value or len(value) > 512 or "\x00" in value:
        raise UsageError(
            f"A {what} is a text of 1 to 512 characters without NUL; got {type(value).__name__} of another form."
        )
    return value
