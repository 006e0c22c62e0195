"""The notification resource as it is posted and answered ("notification resource type", Microsoft Graph beta)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fanout.service.v1.models import In

__all__ = [
    "EndpointFallback",
    "FallbackPolicy",
    "GraphNotification",
    "Payload",
    "Platform",
    "Resource",
    "TargetPolicy",
    "VisualContent",
]

_PLATFORMS = {"windows": "Windows", "ios": "iOS", "android": "Android", "webpush": "WebPush"}
_PRIORITIES = {"none": "None", "high": "High", "low": "Low"}
_SECONDS = 2**31 - 1


def _word(words: dict[str, str]) -> Any:
    """The documented spelling of an enum's word, however it is written."""

    def canonical(value: Any) -> Any:
        return words.get(value.lower(), value) if isinstance(value, str) else value

    return BeforeValidator(canonical)


def _seconds(value: Any) -> Any:
    """A number, or the digits of one: Microsoft's own samples sent a text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10 else value


def _stripped(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _stripped(part) for name, part in value.items() if "@odata." not in name}


def _listed(value: Any) -> Any:
    """A bare word is a list of one: the documentation shows both."""
    return [value] if isinstance(value, str) else value


Platform = Annotated[Literal["Windows", "iOS", "Android", "WebPush"], _word(_PLATFORMS)]
Priority = Annotated[Literal["None", "High", "Low"], _word(_PRIORITIES)]


class VisualContent(In):
    """The texts that the platform shows by itself."""

    title: Annotated[str, Field(min_length=1, max_length=4096)]
    body: Annotated[str, Field(max_length=65_536)] | None = None


class Payload(In):
    """At least one of the two."""

    rawContent: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Text for the app, which shows what it likes."
    )
    visualContent: VisualContent | None = None

    @model_validator(mode="after")
    def _any(self) -> Payload:
        if self.rawContent is None and self.visualContent is None:
            raise ValueError("needs rawContent or visualContent")
        return self


class TargetPolicy(In):
    """To which platforms it is pushed. It is in the feed for every device."""

    platformTypes: Annotated[list[Platform], Field(min_length=1, max_length=16)] | None = None


class EndpointFallback(In):
    """The alert that an iOS device shows which has not fetched the notification in time."""

    platformTypes: Annotated[
        list[Annotated[Literal["iOS"], _word(_PLATFORMS)]], Field(min_length=1, max_length=16), BeforeValidator(_listed)
    ]
    fallbackDelayInSeconds: Annotated[int, Field(ge=60, le=600)]
    visualContent: VisualContent


class FallbackPolicy(In):
    """For raw notifications on iOS, where a silent push may come late or never."""

    endpointFallback: EndpointFallback


class GraphNotification(In):
    """A notification for a user."""

    targetHostName: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        None, description="The app's host name. It must be the calling app's."
    )
    appNotificationId: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None,
        description="The sender's own id. Posting it again replaces the notification; with the same content only its expiry moves.",
    )
    expirationDateTime: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="ISO 8601, UTC. 7 days from now unless given, and 30 at most."
    )
    payload: Payload
    targetPolicy: TargetPolicy | None = None
    displayTimeToLive: Annotated[int, Field(ge=0, le=_SECONDS), BeforeValidator(_seconds)] | None = Field(
        None, description="Seconds for which it is shown; a number, or a text of digits."
    )
    priority: Priority | None = Field(None, description="Of a raw notification. A visual one always has high priority.")
    groupName: Annotated[str, Field(max_length=512)] | None = None
    fallbackPolicy: FallbackPolicy | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "targetHostName": "app.example.com",
                    "appNotificationId": "order-42",
                    "payload": {"visualContent": {"title": "Shipped", "body": "Order 42 is on its way"}},
                    "targetPolicy": {"platformTypes": ["windows", "ios", "android"]},
                    "priority": "High",
                    "groupName": "orders",
                    "displayTimeToLive": "60",
                },
                {
                    "targetHostName": "app.example.com",
                    "appNotificationId": "order-42",
                    "payload": {"rawContent": "any app text"},
                    "targetPolicy": {"platformTypes": ["ios", "windows"]},
                    "priority": "High",
                    "fallbackPolicy": {
                        "endpointFallback": {
                            "platformTypes": ["ios"],
                            "fallbackDelayInSeconds": 60,
                            "visualContent": {"title": "Order 42", "body": "Open the app"},
                        }
                    },
                },
            ]
        }
    )

    @model_validator(mode="before")
    @classmethod
    def _without_annotations(cls, value: Any) -> Any:
        """OData annotations say nothing here, and clients that are generated from metadata add them."""
        return _stripped(value)

    @model_validator(mode="after")
    def _fallback_is_aimed_at(self) -> GraphNotification:
        chosen = self.targetPolicy.platformTypes if self.targetPolicy is not None else None
        if self.fallbackPolicy is not None and chosen is not None and "iOS" not in chosen:
            raise ValueError("fallbackPolicy needs iOS among targetPolicy.platformTypes")
        return self


class Resource(BaseModel):
    """A stored notification, as it is answered."""

    odata_context: str = Field(alias="@odata.context")
    displayTimeToLive: int | None = Field(description="Seconds that are left.")
    expirationDateTime: str
    groupName: str | None
    id: str
    appNotificationId: str | None
    priority: Literal["None", "High", "Low"]
    payload: dict[str, Any] = Field(description="The visual content; of a raw notification nothing.")
