"""The ways to an access token: each asks one or two endpoints, by a function that is injected, and raises `TokenError`.

"Application Default Credentials", "Workload identity federation", RFC 8693 (token exchange), and the IAM credentials
API's `generateAccessToken`. The text of an error holds no secret.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import orjson

from fanout.plugin import Fetched, RequestFailed, Response, Secret, TokenError, read_token
from fanout_fcm.signer import JWT_BEARER, Signer

__all__ = [
    "Ask",
    "ByFile",
    "ByUrl",
    "ExternalGrant",
    "Grant",
    "ImpersonatedGrant",
    "MetadataGrant",
    "ServiceAccountGrant",
    "UserGrant",
]

Ask = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Response]]
"""(method, URL, headers, body) -> answer. Raises `RequestFailed`."""

_IAM_SCOPE = "https://www.googleapis.com/auth/iam"
"""The scope of a token that only impersonates."""
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
_LARGEST = 65_536


class Grant(Protocol):
    """One way to a token."""

    async def fetch(self, ask: Ask, now: float, scope: str) -> Fetched:
        """A token for `scope`. `now` in UNIX seconds. Raises `TokenError`."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceAccountGrant:
    """A key signs an assertion (RFC 7523)."""

    signer: Signer
    token_url: str

    async def fetch(self, ask: Ask, now: float, scope: str) -> Fetched:
        form = {"grant_type": JWT_BEARER, "assertion": self.signer.assertion(now, scope)}
        return read_token(await _asked(ask, "POST", self.token_url, _FORM, urlencode(form).encode()), now=now)


@dataclass(frozen=True, slots=True)
class UserGrant:
    """A user's refresh token, as `gcloud auth application-default login` leaves it: for development."""

    client_id: Secret
    client_secret: Secret
    refresh_token: Secret
    token_url: str

    async def fetch(self, ask: Ask, now: float, scope: str) -> Fetched:
        form = {
            "grant_type": "refresh_token",
            "client_id": self.client_id.reveal(),
            "client_secret": self.client_secret.reveal(),
            "refresh_token": self.refresh_token.reveal(),
            "scope": scope,
        }
        return read_token(await _asked(ask, "POST", self.token_url, _FORM, urlencode(form).encode()), now=now)


@dataclass(frozen=True, slots=True)
class MetadataGrant:
    """The metadata server of Compute Engine, GKE, Cloud Run and the like: it knows the service account of the machine
    or workload."""

    host: str

    async def fetch(self, ask: Ask, now: float, scope: str) -> Fetched:
        url = f"http://{self.host}/computeMetadata/v1/instance/service-accounts/default/token?{urlencode({'scopes': scope})}"
        try:
            response = await ask("GET", url, {"Metadata-Flavor": "Google"}, b"")
        except RequestFailed as failed:
            raise TokenError(
                "unavailable",
                f"There is no credential's file, and no metadata server answered ({failed.reason}): outside of Google Cloud set "
                "GOOGLE_APPLICATION_CREDENTIALS or credentials_file.",
            ) from None
        if response.header("metadata-flavor") != "Google":
            raise TokenError(
                "unavailable",
                f"The host that answers as the metadata server is none (status {response.status}, no Metadata-Flavor): name service_account_file where there is no metadata server.",
            )
        if response.status == 404:
            raise TokenError(
                "misconfigured",
                "The metadata server knows no service account here: attach one to this machine or workload.",
            )
        if 400 <= response.status < 429:
            raise TokenError("misconfigured", f"The metadata server gives no token ({response.status}).")
        return read_token(response, now=now)


@dataclass(frozen=True, slots=True)
class ByFile:
    """A subject token in a file, which another program renews. `field` is where it stands, if the file is JSON."""

    path: Path
    field: str

    async def subject_token(self, ask: Ask) -> str:
        try:
            with self.path.open("rb") as stream:
                raw = stream.read(_LARGEST)
        except OSError as error:
            raise TokenError(
                "misconfigured", f"The file of the subject token cannot be read ({error.strerror})."
            ) from None
        return _subject(raw, self.field, "The file of the subject token")


@dataclass(frozen=True, slots=True)
class ByUrl:
    """A subject token that a server nearby gives out."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    field: str = ""

    async def subject_token(self, ask: Ask) -> str:
        what = "The URL of the subject token"
        try:
            response = await ask("GET", self.url, self.headers, b"")
        except RequestFailed as failed:
            raise TokenError("unavailable", f"{what} gave no answer ({failed.reason}).") from None
        if response.status != 200:
            kind = "unavailable" if response.status == 429 or response.status >= 500 else "misconfigured"
            raise TokenError(kind, f"{what} answered {response.status}.")  # type: ignore[arg-type]
        return _subject(response.body, self.field, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalGrant:
    """Workload identity federation: a token of another issuer is exchanged for one of Google's (RFC 8693)."""

    audience: str
    subject_token_type: str
    token_url: str
    source: ByFile | ByUrl
    client_id: str = ""
    client_secret: Secret | None = None
    user_project: str = ""

    async def fetch(self, ask: Ask, now: float, scope: str) -> Fetched:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": self.audience,
            "scope": scope,
            "requested_token_type": _TOKEN_TYPE,
            "subject_token": await self.source.subject_token(ask),
            "subject_token_type": self.subject_token_type,
        }
        headers = dict(_FORM)
        if self.client_id:
            # With a client's own credential the project is known by it.
            pair = f"{self.client_id}:{self.client_secret.reveal() if self.client_secret else ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif self.user_project:
            form["options"] = quote(orjson.dumps({"userProject": self.user_project}).decode())
        return read_token(await _asked(ask, "POST", self.token_url, headers, urlencode(form).encode()), now=now)


@dataclass(frozen=True, slots=True)
class ImpersonatedGrant:
    """The token of a service account, which another credential may ask for. `lifetime` in seconds."""

    source: Grant
    url: str
    delegates: tuple[str, ...]
    lifetime: int

    async def fetch(self, ask: Ask, now: float, scope: str) -> Fetched:
        token = await self.source.fetch(ask, now, _IAM_SCOPE)
        wanted = {"delegates": list(self.delegates), "scope": [scope], "lifetime": f"{self.lifetime}s"}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token.text}"}
        response = await _asked(ask, "POST", self.url, headers, orjson.dumps(wanted))
        if response.status in (401, 403, 404) and _json(response.body).get("error"):
            raise TokenError(
                "misconfigured",
                f"Google does not let this credential act as the service account ({response.status}): grant it the role "
                "roles/iam.serviceAccountTokenCreator on that account, and check its name.",
            )
        if response.status != 200:
            return read_token(response, now=now)  # raises, as the answer says
        values = _json(response.body)
        text, until = values.get("accessToken"), values.get("expireTime")
        # In the words of a token endpoint, so that one reader judges both.
        lifetime = _left(until, response.header("date"), now)
        return read_token(Response(200, orjson.dumps({"access_token": text, "expires_in": lifetime}), b""), now=now)


async def _asked(ask: Ask, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
    try:
        return await ask(method, url, headers, body)
    except RequestFailed as failed:
        raise TokenError("unavailable", f"The token endpoint gave no answer ({failed.reason}).") from None


def _left(until: object, date: str | None, now: float) -> float:
    """Seconds from the answer's own `Date` to its end: the endpoint's clock is not ours."""
    try:
        end = datetime.fromisoformat(until.replace("Z", "+00:00")) if isinstance(until, str) else None
        server_time = parsedate_to_datetime(date) if date else None
    except ValueError:
        return 0.0
    if end is None or end.tzinfo is None:
        return 0.0
    start = (
        server_time if server_time is not None and server_time.tzinfo is not None else datetime.fromtimestamp(now, UTC)
    )
    return (end - start).total_seconds()


def _subject(raw: bytes, name: str, what: str) -> str:
    text: Any = raw.decode("utf-8", "replace")
    if name:
        text = _json(raw).get(name)
    token = text.strip() if isinstance(text, str) else ""
    if not token or not token.isprintable():
        raise TokenError("misconfigured", f"{what} holds no token{f' under {name}' if name else ''}.")
    return token


def _json(raw: bytes) -> dict[str, Any]:
    try:
        values = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}
