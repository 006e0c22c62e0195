"""The bodies and answers of the routes under `/v1`, as the OpenAPI document shows them. Unknown properties are
refused."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fanout.core import given
from fanout.core.duration import parse_duration, parse_when
from fanout.core.model import DEFAULT_TTL, Action, Lane, Notification, Repeat, Target
from fanout.core.reasons import REASONS
from fanout.service.feed import NewItem

__all__ = [
    "Accepted",
    "ActionIn",
    "DeliveryOut",
    "DeliveryPage",
    "EndpointIn",
    "EndpointOut",
    "EndpointPage",
    "EndpointPatch",
    "Erased",
    "ErrorOut",
    "ImportOut",
    "NotificationIn",
    "PreviewOut",
    "Restored",
    "StatusOut",
    "StepOut",
    "TargetIn",
]

_SHOWN = ("title", "body", "subtitle", "image", "icon", "url", "category", "thread")
_SAME = (*_SHOWN, "data", "badge", "sound", "lane", "collapse_key", "repeat", "transports")
"""Fields of a request that are those of a `Notification`."""
_same = attrgetter(*_SAME)

Text = Annotated[str, Field(max_length=65_536)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
EndpointId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class In(BaseModel):
    # Strict: "1" is no number. Names in what is sent are few and known, so a misspelt one is worth a refusal.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class TargetIn(In):
    """To whom. Exactly one of these."""

    user: Name | None = None
    users: list[Name] | None = Field(None, min_length=1)
    topic: Name | None = None
    endpoints: list[EndpointId] | None = Field(None, min_length=1)
    all: Literal[True] | None = Field(None, description="Every endpoint of the app.")

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 1,
            "examples": [{"user": "alice"}, {"topic": "news"}, {"all": True}],
        }
    )

    @model_validator(mode="after")
    def _one(self) -> TargetIn:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of user, users, topic, endpoints and all")
        if getattr(self, next(iter(self.model_fields_set))) is None:
            raise ValueError("a field that is given must not be null")
        return self

    def target(self) -> Target:
        """As the engine has it."""
        if self.user is not None:
            return Target.user(self.user)
        if self.users is not None:
            return Target.users(self.users)
        if self.topic is not None:
            # Not by `Target.topic`, whose warning is for Python programs.
            return Target("topic", (given.text("target.topic", self.topic),))
        if self.endpoints is not None:
            return Target.endpoints(self.endpoints)
        return Target.all()


class ActionIn(In):
    """A button."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    title: Annotated[str, Field(min_length=1, max_length=256)]
    url: Annotated[str, Field(max_length=4096)] | None = None


class FeedIn(In):
    """How it stands in the feed of those it is for."""

    id: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None,
        description="The sender's own id. Posting it again to the same target replaces the item; with nothing new in it, and no Idempotency-Key, "
        "only its expiry moves, and nothing is pushed.",
    )
    group: Annotated[str, Field(max_length=512)] | None = None
    priority: Literal["none", "low", "high"] = "none"
    expires_in: Annotated[float, Field(gt=0)] | Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Seconds, or a text such as `3d`; 7 days unless given, and 30 at most."
    )
    display_ttl: Annotated[float, Field(ge=0, lt=2**31)] | None = Field(
        None, description="Seconds for which it is shown."
    )


class NotificationIn(In):
    """The content, the target, and the time that it is worth sending. One with neither title, body nor image wakes the
    app and shows nothing."""

    target: (
        TargetIn
        | Annotated[str, Field(max_length=600, description="`user:NAME`, `topic:NAME`, `endpoint:ID` or `all`.")]
    )
    title: Text | None = None
    body: Text | None = None
    subtitle: Text | None = None
    data: dict[str, Any] = Field(default_factory=dict, description="For the app; any JSON.")
    image: Text | None = None
    icon: Text | None = None
    badge: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    sound: Text | None = None
    url: Text | None = None
    category: Text | None = None
    thread: Text | None = None
    actions: list[ActionIn] = Field(default_factory=list, max_length=16)
    ttl: Annotated[float, Field(ge=0, le=366 * 86_400)] | Annotated[str, Field(max_length=64)] = Field(
        DEFAULT_TTL, description="Seconds, or a text such as `1h30m`. 0 means now or never.", examples=[3600, "1h"]
    )
    lane: Lane = "normal"
    collapse_key: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="A later one with the same key and target takes the place of this one."
    )
    repeat: Repeat = "prefer_delivery"
    transports: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="By binding or transport: fields for its gateway, in the gateway's own terms. Other names are refused.",
    )
    at: float | Annotated[str, Field(max_length=64)] | None = Field(
        None,
        description="When to deliver: UNIX seconds, an ISO 8601 time (no zone means UTC), or `+1h30m`. Now where left out.",
        examples=["2030-01-31T09:00:00+01:00"],
    )
    feed: bool | FeedIn = Field(
        False,
        description="Whether it enters the feed that all devices of those it is for read; for users, topics and all.",
    )
    dry_run: bool = Field(False, description="Say what would be sent, and send nothing.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "target": {"user": "alice"},
                    "title": "Shipped",
                    "body": "Order 42 is on its way",
                    "data": {"order": "42"},
                    "ttl": "1h",
                    "lane": "urgent",
                },
                {"target": {"topic": "news"}, "title": "Late edition", "lane": "bulk", "collapse_key": "edition"},
            ]
        }
    )

    def where(self) -> Target:
        """Its target. Raises `UsageError`."""
        return self.target.target() if isinstance(self.target, TargetIn) else Target.parse(self.target)

    def notification(self) -> Notification:
        """As the engine has it. Raises `UsageError`."""
        return Notification(
            **dict(zip(_SAME, _same(self), strict=True)),
            actions=tuple(Action(action.id, action.title, action.url) for action in self.actions),
            ttl=parse_duration(self.ttl) if isinstance(self.ttl, str) else self.ttl,
        )

    def item(self, now: float) -> NewItem | None:
        """The item that enters the feed, if any does. Raises `UsageError`."""
        if self.feed is False:
            return None
        wanted = FeedIn.model_validate({}) if self.feed is True else self.feed
        shown = {name: getattr(self, name) for name in _SHOWN}
        content = {name: value for name, value in shown.items() if value is not None}
        if self.data:
            content["data"] = self.data
        if self.actions:
            content["actions"] = [action.model_dump(exclude_none=True) for action in self.actions]
        left = wanted.expires_in
        return NewItem(
            content=content,
            external_id=wanted.id,
            expires_at=None if left is None else now + (parse_duration(left) if isinstance(left, str) else left),
            display_ttl=wanted.display_ttl,
            group=wanted.group,
            priority=wanted.priority,
        )

    def due(self, now: float) -> float | None:
        """UNIX seconds of its time, None for now. Raises `UsageError`."""
        return parse_when(self.at, now) if isinstance(self.at, str) else self.at


class Accepted(_Out):
    """It is stored; nothing that happens now loses it."""

    id: str
    total: int | None = Field(
        description="Deliveries; null while a topic or broadcast is to be expanded, or its time is to come."
    )
    replayed: bool = Field(description="The Idempotency-Key was known: this is the first request's notification.")
    item: str | None = Field(
        description="The item in the feed, where there is one; null too for a post to several users, of whom each has her own."
    )
    parts: list[str] = Field(
        description="Further notifications of this post, such as bare signals for devices that want no content."
    )


class PreviewOut(_Out):
    """The effect that a request with `dry_run` would have had. Nothing was stored."""

    endpoints: dict[str, int] = Field(description="By binding.")
    bytes: dict[str, int] = Field(description="Of payload, by binding.")
    total: int
    rate: float | None = Field(
        description="Deliveries a second, of the last large notification; null where there was none."
    )
    eta_s: float | None


class StatusOut(_Out):
    """How things stand. Times are UNIX seconds."""

    id: str
    state: Literal["scheduled", "expanding", "running", "paused", "done", "cancelled"]
    total: int | None
    counts: dict[str, int]
    pending_by_reason: dict[str, int]
    attempts: int
    accepted_at: float
    finished_at: float | None
    oldest_pending_at: float | None
    eta_s: float | None
    reasons: dict[str, dict[str, int]] = Field(description="By state: why deliveries ended so, in the gateways' words.")
    shortened: list[str] = Field(description="The bindings whose gateways take this post into the feed with less text.")


class DeliveryOut(_Out):
    """How one delivery stands or ended."""

    endpoint: int
    state: str = Field(description="`pending`, or how it ended.")
    reason: str


class DeliveryPage(_Out):
    """Deliveries by endpoint."""

    deliveries: list[DeliveryOut]
    cursor: str | None = Field(description="For the next page; null on the last.")


class StepOut(_Out):
    """One thing that was decided about a delivery. Times are UNIX seconds."""

    at: float
    what: str
    reason: str
    attempt: int
    until: float | None
    worker: str
    waiting: str
    state: str


class EndpointIn(In):
    """One device to be entered. The same address again refreshes it; under another user it becomes that user's."""

    user: Name
    binding: Annotated[
        str, Field(min_length=1, max_length=64, description="The name of the transport in the configuration.")
    ]
    address: Annotated[str, Field(max_length=8192)] | dict[str, Any] = Field(
        description="The address that the platform hands the client: APNs device token, FCM registration token, WNS channel "
        "URL, or the browser's PushSubscription object."
    )
    platform: Annotated[str, Field(max_length=64)] = ""
    tags: list[Name] = Field(default_factory=list, max_length=256, description="Its topics.")
    expires_at: Annotated[float, Field(gt=0, lt=1e11)] | None = Field(None, description="UNIX seconds.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user": "alice", "binding": "fcm", "address": "d1Z-token-of-the-device", "platform": "android"}
            ]
        }
    )


class EndpointPatch(In):
    """The change, as a merge patch (RFC 7396). A property that is left out stays, and null sets its default."""

    platform: Annotated[str, Field(max_length=64)] | None = None
    tags: list[Name] | None = Field(None, max_length=256)
    expires_at: Annotated[float, Field(gt=0, lt=1e11)] | None = Field(None, description="UNIX seconds; null for never.")


class EndpointOut(_Out):
    """A device as the directory knows it. Its address is not shown."""

    id: int
    user: str
    binding: str
    kind: str
    group: str
    platform: str
    tags: list[str]
    state: Literal["active", "gone", "replaced", "removed", "expired"]
    reason: str
    generation: int
    registered_at: float
    expires_at: float | None
    state_at: float | None


class EndpointPage(_Out):
    """Endpoints by id."""

    endpoints: list[EndpointOut]
    cursor: str | None = Field(description="For the next page; null on the last.")


class Ids(In):
    """Some endpoints."""

    ids: Annotated[list[EndpointId], Field(min_length=1, max_length=10_000)]


class Restored(_Out):
    """How many of those asked for are active again. The others are unknown, or their address is in use."""

    restored: int
    asked: int


class ImportError_(_Out):
    """A line that was not taken."""

    line: int
    error: str


class ImportOut(_Out):
    """The result of an import. Good lines are stored although others are bad."""

    imported: int
    bad: int
    errors: list[ImportError_] = Field(description="The first thousand.")


class Erased(_Out):
    """The data of a user that was erased."""

    endpoints: int


class InnerError(_Out):
    """For the log's sake."""

    code: str = Field(description="The reason by which a client decides.", json_schema_extra={"enum": list(REASONS)})
    request_id: str = Field(alias="request-id")
    date: str
    client_request_id: str | None = Field(None, alias="client-request-id")


class ErrorBody(_Out):
    """The fault, and the change that mends it."""

    code: str
    message: str
    inner_error: InnerError = Field(alias="innerError")


class ErrorOut(_Out):
    """The one envelope of every refusal, as Microsoft Graph has it."""

    error: ErrorBody
