"""The typed, asynchronous client of the notification service.

`AppClient` is for the programs that post to it, `UserClient` for a device that reads the feed; `tokens` gets the access
tokens for both ways to call it: as the app itself, and on behalf of a user. It needs nothing of the engine: of `fanout`
it imports core and errors alone.
"""

from fanout.client.answers import (
    Changed,
    Counts,
    DeliveryInfo,
    EndpointInfo,
    FeedEvent,
    FeedPage,
    GraphAccepted,
    Item,
    Me,
    NotificationStatus,
    Posted,
    SubscriptionInfo,
)  # fmt: skip
from fanout.client.app import AppClient
from fanout.client.tokens import (
    BearerSource,
    ClientCredentials,
    OnBehalfOf,
    SignInNeeded,
    TokenError,
    TokenRefused,
    TokenUnavailable,
    UserTokens,
)
from fanout.client.user import UserClient
from fanout.client.wire import ServiceError, ServiceUnavailable

__all__ = [
    "AppClient", "BearerSource", "Changed", "ClientCredentials", "Counts", "DeliveryInfo", "EndpointInfo",
    "FeedEvent", "FeedPage", "GraphAccepted", "Item", "Me", "NotificationStatus", "OnBehalfOf", "Posted",
    "ServiceError", "ServiceUnavailable", "SignInNeeded", "SubscriptionInfo", "TokenError", "TokenRefused",
    "TokenUnavailable", "UserClient", "UserTokens",
]  # fmt: skip
