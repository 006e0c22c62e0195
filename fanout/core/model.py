"""Notifications and their targets: the values that users of the library make and receive."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal
from warnings import warn

from fanout.core import given
from fanout.core.address import Address
from fanout.core.frozen import fast_init, unchecked_maker
from fanout.errors import UsageError

__all__ = [
    "DEFAULT_TTL",
    "LANES",
    "Action",
    "Lane",
    "Notification",
    "Repeat",
    "Target",
    "stamped",
]

DEFAULT_TTL = 86_400.0
"""Seconds for which a notification is worth delivering unless it says otherwise."""

LANES = ("urgent", "normal", "bulk")
"""The lanes in the order of precedence, first to last; storage keeps the index."""

Lane = Literal["urgent", "normal", "bulk"]
Repeat = Literal["prefer_delivery", "prefer_once", "at_most_once"]
"""The meaning of doubt. An attempt that may have arrived is tried again (`prefer_delivery`) or not (`prefer_once`);
with `at_most_once` it is also marked before it is sent, so that not even a crash can repeat it."""

_MAX_TTL = 366 * 86_400.0
_COLLAPSE_KEY_LIMIT = 256
_TEXTS = ("title", "body", "subtitle", "image", "icon", "sound", "url", "category", "thread")
_TEXTS_OF = attrgetter(*_TEXTS)


@dataclass(frozen=True, slots=True)
class Action:
    """A button of the notification: the id that the app receives, the label, and where a press leads. Raises
    `UsageError`.

    Raises:
        UsageError: `id` or `title` is empty or no text.
        InvalidMessage: `url` is no text.
    """

    id: str
    title: str
    url: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("id", self.id), ("title", self.title)):
            if not isinstance(value, str) or not value:
                raise UsageError(f"The {name} of an action must be a text that is not empty.")
        given.shown("the url of an action", self.url)


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """The content of a push. Immutable, and encoded once per binding.

    A notification with a title, a body or an image is *visible*; one with only `data` (or nothing) is *raw*: it wakes
    the app and shows nothing.

    Attributes:
        title, body, subtitle: The texts that are shown.
        data: The values for the app: plain JSON.
        image, icon: The address of a picture, or the name of an icon, in the gateway's terms.
        badge, sound: The number on the app's icon (0 removes it), and the name of a sound, in the gateway's terms.
        url: The page or place of the app that a tap opens.
        actions: The buttons.
        ttl: The time to live in seconds from acceptance (or from the due time), or a timedelta; 0 means now or never.
        lane: `urgent`, `normal` or `bulk`: an urgent delivery overtakes the others.
        collapse_key: A text of at most 256 bytes: a later notification with the same key and target supersedes this one
            while it waits, and replaces it on the device where the gateway can.
        repeat: The treatment of an attempt with an unknown result: `prefer_delivery`, `prefer_once` or `at_most_once`.
        transports: Overrides by the name of a binding or transport, in that gateway's own terms: plain JSON.
        id, accepted_at, expires_at: The notification's id, and times in UNIX seconds: set at acceptance.
        category, thread: The kind (its buttons and channels), and the group that a device shows together.

    Raises:
        UsageError: A gateway could not take a value; the text names the field.
        InvalidMessage: A text is none, or `data` or `transports` is no plain JSON.

    Example:
        ```python
        Notification(title="Your table is ready", data={"table": 7}, ttl=600, lane="urgent")
        ```
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
        for name, value in zip(_TEXTS, _TEXTS_OF(self), strict=True):
            if value is not None and type(value) is not str:
                given.shown(name, value)
        if type(self.ttl) is not float or not 0 <= self.ttl <= _MAX_TTL:
            object.__setattr__(self, "ttl", given.seconds("ttl", self.ttl, _MAX_TTL))
        if self.lane not in LANES:
            raise UsageError(f"lane is {self.lane!r}: use one of {', '.join(LANES)}.")
        if self.repeat not in ("prefer_delivery", "prefer_once", "at_most_once"):
            raise UsageError(f"repeat is {self.repeat!r}: use prefer_delivery, prefer_once or at_most_once.")
        if self.collapse_key is not None:
            given.sized("collapse_key", self.collapse_key, _COLLAPSE_KEY_LIMIT)
        if self.badge is not None:
            given.number("badge", self.badge, highest=2**31 - 1)
        if self.data or type(self.data) is not dict:
            object.__setattr__(self, "data", given.table("data", self.data))
        if self.transports or type(self.transports) is not dict:
            tables = given.table("transports", self.transports).items()
            object.__setattr__(self, "transports", {name: given.table(f"transports.{name}", of) for name, of in tables})
        if self.actions != ():
            object.__setattr__(self, "actions", tuple(given.collection("actions", self.actions)))
            if not all(isinstance(action, Action) for action in self.actions):
                raise UsageError("actions must be a list of fanout.Action(id, title, url).")
        self.check_json()

    def check_json(self) -> None:
        """Check `data` and `transports` again: they are dicts, which may have changed since they were given.

        Raises:
            InvalidMessage: One of them is no plain JSON.
        """
        if self.data:
            given.plain("data", self.data)
        if self.transports:
            given.plain("transports", self.transports)

    def check_texts(self) -> None:
        """Check every text that devices show.

        Raises:
            InvalidMessage: A text cannot be encoded as UTF-8.
        """
        for name, value in zip(_TEXTS, _TEXTS_OF(self), strict=True):
            given.plain(name, value)
        for number, action in enumerate(self.actions):
            given.plain(f"actions[{number}]", [action.id, action.title, action.url])

    @property
    def visible(self) -> bool:
        """Whether the device is meant to show something."""
        return self.title is not None or self.body is not None or self.image is not None

    def override(self, *names: str) -> Mapping[str, Any]:
        """The overrides of the first of these names that has any.

        Args:
            *names: A binding's name, then its transport's.

        Returns:
            The overrides, in the gateway's own terms; empty where there are none.
        """
        for name in names:
            if name in self.transports:
                return self.transports[name]
        return {}


_CONTENT = attrgetter(
    *(slot.name for slot in fields(Notification) if slot.name not in ("id", "accepted_at", "expires_at"))
)
_stamp = unchecked_maker(Notification)


def stamped(notification: Notification, *, id: str, accepted_at: float, expires_at: float) -> Notification:
    """The same with the envelope of its acceptance. A value that was checked when it was made is not checked again."""
    return _stamp(*_CONTENT(notification), id, accepted_at, expires_at)


@fast_init
@dataclass(frozen=True, slots=True)
class Target:
    """The devices of a notification. Made by one of the constructors, or from text such as `user:alice` by
    `Target.parse`; they set `kind`, `names`, `ids`, `binding` and `addresses`.

    Raises:
        UsageError: The target was not made by one of them.
    """

    kind: Literal["user", "users", "topic", "endpoints", "addresses", "all"]
    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    binding: str = ""
    addresses: tuple[Address, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS or not (
            isinstance(self.names, tuple) and isinstance(self.ids, tuple) and isinstance(self.addresses, tuple)
        ):
            raise UsageError("A target is made by one of Target.user, users, topic, endpoints, all and parse.")

    @classmethod
    def user(cls, user: str) -> Target:
        """Every active endpoint of one user.

        Args:
            user: The user's id, as it was registered; not empty.

        Returns:
            The target.

        Raises:
            UsageError: `user` is empty, too long or no text.

        Example:
            ```python
            await engine.send(Notification(title="Hello"), Target.user("alice"))
            ```
        """
        return cls("user", (given.text("user", user),))

    @classmethod
    def users(cls, users: Iterable[str]) -> Target:
        """Every active endpoint of these users, each once.

        Args:
            users: The users' ids, as they were registered; at least one.

        Returns:
            The target.

        Raises:
            UsageError: `users` is empty or no list, or an element is no text.

        Example:
            ```python
            await engine.send(Notification(title="Hello"), Target.users(["alice", "bob"]))
            ```
        """
        names = tuple(dict.fromkeys(given.text("user", user) for user in given.collection("users", users)))
        if not names:
            raise UsageError("The target names no user: give at least one, or do not send.")
        return cls("users", names)

    @classmethod
    def topic(cls, tag: str) -> Target:
        """Every active endpoint that carries this tag at acceptance; at the due time, where that is later.

        A tag with a blank or one of `& | ! ( ) < > =` is taken with a warning, for endpoints that got it before these
        were reserved.

        Args:
            tag: The tag.

        Returns:
            The target.

        Raises:
            UsageError: `tag` is empty, too long or no text.

        Example:
            ```python
            await engine.send(Notification(title="Hello"), Target.topic("news"))
            ```
        """
        if found := given.reserved_in(given.text("topic", tag)):
            warn(f"The topic holds {found!r}, which new tags may not: rename the tag of its endpoints.", stacklevel=2)
        return cls("topic", (tag,))

    @classmethod
    def endpoints(cls, ids: Iterable[int]) -> Target:
        """Exactly these endpoints, by id.

        Args:
            ids: The endpoints' ids, as `Endpoint.id`; at least one.

        Returns:
            The target.

        Raises:
            UsageError: `ids` is empty or no list, or an element is no endpoint's id.

        Example:
            ```python
            await engine.send(Notification(title="Hello"), Target.endpoints([endpoint.id]))
            ```
        """
        unique = tuple(dict.fromkeys(given.number("endpoint", id) for id in given.collection("endpoints", ids)))
        if not unique:
            raise UsageError("The target names no endpoint: give at least one id, or do not send.")
        return cls("endpoints", ids=unique)

    @classmethod
    def all(cls) -> Target:
        """Every active endpoint of the app at acceptance; at the due time, where that is later.

        Returns:
            The target.

        Example:
            ```python
            await engine.send(Notification(title="Hello"), Target.all())
            ```
        """
        return cls("all")

    @classmethod
    def parse(cls, text: str) -> Target:
        """A target from its short form.

        Args:
            text: `user:alice`, `topic:news`, `endpoint:7` or `all`.

        Returns:
            The target.

        Raises:
            UsageError: The text is none of these, or the topic has a blank or a reserved character.

        Example:
            ```python
            await engine.send(Notification(title="Hello"), Target.parse("user:alice"))
            ```
        """
        kind, colon, rest = text.partition(":")
        if text == "all":
            return cls.all()
        if kind == "user" and colon:
            return cls.user(rest)
        if kind == "topic" and colon:
            return cls.topic(given.unreserved("topic", given.text("topic", rest)))
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


_KINDS = frozenset(("user", "users", "topic", "endpoints", "addresses", "all"))
