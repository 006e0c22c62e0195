"""The typed, asynchronous client of the notification service, for the programs that post to it.

`tokens` gets the access tokens for both ways to call it: as the app itself, and on behalf of a user. It needs nothing of the engine: of
`fanout` it imports core and errors alone.
"""

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

__all__ = [
    "BearerSource",
    "ClientCredentials",
    "OnBehalfOf",
    "SignInNeeded",
    "TokenError",
    "TokenRefused",
    "TokenUnavailable",
    "UserTokens",
]
