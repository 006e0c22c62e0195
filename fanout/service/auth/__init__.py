"""The authentication of callers: OAuth 2.0 access tokens of configured issuers, API keys, and user tokens that an app
signs for its own users.

`Authenticator` is the door. `access_token`, `claims` and `keyset` decide about an issuer's tokens and keys without I/O;
`issuer` fetches the keys, `cache` remembers verified tokens, `api_key` and `user_token` are for installations without
an issuer, and `loopback` is for programs on one machine that were told to believe every caller. The service's routes
import it, and hosts that sign user tokens.
"""

from fanout.service.auth.api_key import ApiKey, new_api_key
from fanout.service.auth.authenticator import Authenticator
from fanout.service.auth.caller import SCOPE, Caller
from fanout.service.auth.errors import AuthError
from fanout.service.auth.user_token import UserKey, new_user_key, user_token

__all__ = [
    "SCOPE",
    "ApiKey",
    "AuthError",
    "Authenticator",
    "Caller",
    "UserKey",
    "new_api_key",
    "new_user_key",
    "user_token",
]
