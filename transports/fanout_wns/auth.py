"""How WNS access tokens are fetched: one form for Microsoft Entra, another for login.live.com.

From Microsoft's "Push notification service request and response headers" (legacy) and "Push notifications in the
Windows App SDK" (Entra). When they are fetched, and by how many at a time, is `TokenSource`'s affair.
"""

from __future__ import annotations

from fanout.plugin import Clock, Fetched, Http1Client, fetch_token
from fanout_wns.settings import WnsSettings

__all__ = ["Fetcher", "token_form"]

_SCOPES = {"entra": "https://wns.windows.com/.default", "live": "notify.windows.com"}


def token_form(settings: WnsSettings) -> dict[str, str]:
    """The form that is posted to the token endpoint. Pure. It holds the secret."""
    return {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": settings.client_secret.reveal(),
        "scope": _SCOPES[settings.auth],
    }


class Fetcher:
    """Fetches a token each time it is called. Raises `TokenError`."""

    def __init__(self, settings: WnsSettings, client: Http1Client, clock: Clock) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock

    async def __call__(self) -> Fetched:
        form = token_form(self._settings)
        return await fetch_token(self._client, self._settings.token_endpoint, form, now=self._clock.now())
