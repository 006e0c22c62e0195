"""A stand-in for WNS and its token endpoints: strict about everything that Microsoft's pages say, over TLS on loopback.

From "Push notification service request and response headers" and "Push notifications in the Windows App SDK", and
senders' observations; nothing here has been compared with Microsoft's servers.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode
from typing import Any, ClassVar, Literal, Unpack
from urllib.parse import parse_qs
from uuid import UUID
from xml.etree import ElementTree as ET

import orjson

from fanout.plugin import Address
from fanout.testing.simulator import Answer, Http1Simulator, Push, Reply, Request, SimulatorOptions

__all__ = ["REASONS", "WnsSimulator"]

REASONS: dict[str, tuple[int, dict[str, str]]] = {
    "dropped": (200, {"X-WNS-Status": "dropped"}),
    "channelthrottled": (200, {"X-WNS-Status": "channelthrottled"}),
    "appthrottled": (200, {"X-WNS-Status": "appthrottled"}),
    "BadRequest": (400, {"X-WNS-Error-Description": "A header or the payload is malformed"}),
    "TtlConflict": (400, {"X-WNS-Error-Description": "Ttl value conflicts with X-WNS-Cache-Policy."}),
    "Unauthorized": (401, {"WWW-Authenticate": 'Bearer realm="WindowsLive"'}),
    "Forbidden": (403, {"X-WNS-Error-Description": "The cloud service is not authorized for this channel"}),
    "NotFound": (404, {}),
    "MethodNotAllowed": (405, {"Allow": "POST"}),
    "NotAcceptable": (406, {}),
    "AppThrottled": (406, {"X-WNS-Status": "appthrottled", "Retry-After": "900"}),
    "RequestTimeout": (408, {}),
    "Gone": (410, {"X-WNS-Error-Description": "The channel expired"}),
    "DomainBlocked": (410, {"X-WNS-Error-Description": "Domain Blocked"}),
    "TooLarge": (413, {}),
    "TooMany": (429, {"Retry-After": "60"}),
    "MonthlyQuota": (429, {"X-WNS-Error-Description": "Monthly Quota Exceeded"}),
    "InternalError": (500, {}),
    "Down": (503, {}),
    "DownFor": (503, {"Retry-After": "30"}),
}
"""Every answer but the usual one. Written down apart from the transport's table, so that each checks the other."""

_PATHS = {"entra": re.compile(r"/[A-Za-z0-9.-]+/oauth2/v2\.0/token"), "live": re.compile(r"/accesstoken\.srf")}
_SCOPES = {
    "entra": ("https://wns.windows.com/.default", "https://wns.windows.com/.default/"),
    "live": ("notify.windows.com",),
}
_REGIONS = ("wns2-by3p", "wns2-am3p", "wns2-sg2p")
_CHANNEL = re.compile(r"/\?token=([a-z]+)-([0-9]{8})[A-Za-z0-9%]*")
_CONTENT_TYPES = {
    "wns/toast": "text/xml",
    "wns/tile": "text/xml",
    "wns/badge": "text/xml",
    "wns/raw": "application/octet-stream",
}
_CORRELATION = re.compile(r"([A-Za-z0-9+/]{21}[AQgw])\.[0-9]{1,3}(\.[0-9]{1,3})*")
_ID = re.compile(rb'(?:"fanout":\{"id":"|&quot;fanout&quot;:\{&quot;id&quot;:&quot;|<!-- fanout )([0-9a-f-]{36})')


class WnsSimulator(Http1Simulator):
    """WNS for one app, with the token endpoint of its kind of authentication.

    Channels made by `address` behave as they are named: `expired` is answered 410, `unknown` 404, `other` 403 (another
    app's), `dropped` and `throttled` 200 with that status (`throttled` once, then accepted), `busy` 406 with a
    `Retry-After` of one second once and then accepted, `slow` is answered `slow` seconds late. Tokens last
    `token_lifetime` seconds; `token_answer`, while it is set, is the token endpoint's answer to every request;
    `fetched` counts the tokens that it gave out.
    """

    name: ClassVar[str] = "wns"
    behaviours: ClassVar[tuple[str, ...]] = (
        "good",
        "expired",
        "unknown",
        "other",
        "dropped",
        "throttled",
        "busy",
        "slow",
    )
    tenant_id: ClassVar[str] = "00000000-5150-4000-8000-000000000001"
    package_sid: ClassVar[str] = "ms-app://s-1-15-2-1-2-3-4-5-6-7"
    client_id: ClassVar[str] = "00000000-5150-4000-8000-000000000002"

    def __init__(
        self,
        *,
        auth: Literal["entra", "live"] = "entra",
        slow: float = 0.2,
        token_lifetime: float = 86_399,
        **options: Unpack[SimulatorOptions],
    ) -> None:
        super().__init__(**options)
        self.auth: Literal["entra", "live"] = auth
        self.slow = slow
        self.token_lifetime = token_lifetime
        self.token_answer: Answer | None = None
        self.fetched = 0
        self.token_requests = 0
        # With the characters that show whether a client encodes its form.
        self.secret = f"{secrets.token_urlsafe(24)}+/=&"
        self._good_until: dict[str, float] = {}
        self._once: set[str] = set()

    # -- the parts that a client needs

    def settings(self) -> dict[str, Any]:
        path = f"/{self.tenant_id}/oauth2/v2.0/token" if self.auth == "entra" else "/accesstoken.srf"
        common = {
            "auth": self.auth,
            "client_id": self.client_id if self.auth == "entra" else self.package_sid,
            "client_secret": self.secret,
            "gateway": self.url,
            "token_url": self.url + path,
            "ca_file": self.ca_file,
        }
        return common | ({"tenant_id": self.tenant_id} if self.auth == "entra" else {})

    @classmethod
    def address(cls, number: int, behaviour: str = "good") -> str:
        region = _REGIONS[number % len(_REGIONS)]
        return f"https://{region}.notify.windows.com/?token={behaviour}-{number:08d}AwYAAAC%2bSimulated%2f%3d"

    def revoke(self) -> None:
        """Forget every token given out so far: requests with one are answered 401."""
        self._good_until.clear()

    # -- the gateway

    def answer(self, request: Request) -> Answer:
        if _PATHS[self.auth].fullmatch(request.path):
            self.token_requests += 1
            return self.token_answer or self._token(request)
        return super().answer(request)

    def handle(self, request: Request) -> Answer:
        if self.lean:
            return Reply(200, {"X-WNS-Status": "received", **self._headers(request)}, push=self._push(request))
        found = _CHANNEL.fullmatch(request.path)
        if request.method != "POST":
            return self.error("MethodNotAllowed", request)
        if found is None or not self._is_ours(request.headers["host"]):
            return self.error("NotFound", request)
        until = self._good_until.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if until is None or self.clock() >= until:
            return self.error("Unauthorized", request)
        reason = _wrong(request)
        return self.error(reason, request) if reason else self._channel(found.group(1), found.group(), request)

    def error(self, reason: str, request: Request) -> Reply:
        status, headers = REASONS[reason]
        return Reply(status, {**headers, **self._headers(request)}, reason=reason)

    def _channel(self, behaviour: str, channel: str, request: Request) -> Answer:
        match behaviour:
            case "expired":
                return self.error("Gone", request)
            case "unknown":
                return self.error("NotFound", request)
            case "other":
                return self.error("Forbidden", request)
            case "dropped":
                return self.error("dropped", request)
            case "throttled" | "busy" if channel not in self._once:
                self._once.add(channel)
                if behaviour == "throttled":
                    return self.error("channelthrottled", request)
                reply = self.error("NotAcceptable", request)
                return Reply(reply.status, {**reply.headers, "Retry-After": "1"}, reason=reply.reason)
        after = self.slow if behaviour == "slow" else 0.0
        headers = {"X-WNS-Status": "received", **self._headers(request)}
        if request.headers.get("x-wns-requestforstatus") == "true":
            headers |= {"X-WNS-NotificationStatus": "received", "X-WNS-DeviceConnectionStatus": "connected"}
        return Reply(200, headers, push=self._push(request), after=after)

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"X-WNS-Msg-ID": secrets.token_hex(8).upper(), "X-WNS-Debug-Trace": "SIMULATED1"}
        if "ms-cv" in request.headers:
            headers["MS-CV"] = request.headers["ms-cv"]
        return headers

    def _push(self, request: Request) -> Push:
        host = request.headers["host"]
        correlation = _CORRELATION.fullmatch(request.headers.get("ms-cv", ""))
        delivery = str(UUID(bytes=b64decode(correlation.group(1) + "=="))) if correlation else ""
        notification = _ID.search(request.body)
        digest = Address(f"https://{host}{request.path}").digest
        return Push(delivery, digest, notification.group(1).decode() if notification else "")

    def _is_ours(self, host: str) -> bool:
        return host.endswith(".notify.windows.com") or host in (f"{self._host}:{self._port}", f"localhost:{self._port}")

    # -- the token endpoint

    def _token(self, request: Request) -> Reply:
        form = {name: values for name, values in parse_qs(request.body.decode("latin-1")).items() if len(values) == 1}
        given = {name: values[0] for name, values in form.items()}
        expected = self.settings()
        is_form = request.headers.get("content-type") == "application/x-www-form-urlencoded"
        if request.method != "POST" or not is_form:
            return self._refused("invalid_request", "AADSTS900144: The request must be a form.")
        if given.get("grant_type") != "client_credentials" or given.get("scope") not in _SCOPES[self.auth]:
            return self._refused("invalid_scope", "AADSTS1002012: The scope is not valid.")
        if given.get("client_id") != expected["client_id"]:
            return self._refused("unauthorized_client", "AADSTS700016: Application not found in the directory.")
        if given.get("client_secret") != self.secret:
            return self._refused("invalid_client", "AADSTS7000215: Invalid client secret provided.", status=401)
        token = secrets.token_urlsafe(48)
        self._good_until[token] = self.clock() + self.token_lifetime
        self.fetched += 1
        lifetime = int(self.token_lifetime)
        content = {
            "token_type": "bearer",
            "access_token": token,
            "expires_in": str(lifetime) if self.auth == "entra" else lifetime,
        }
        return Reply(200, {"Content-Type": "application/json"}, orjson.dumps(content))

    def _refused(self, error: str, description: str, *, status: int = 400) -> Reply:
        """Entra numbers its errors; login.live.com answers 400 with words of its own."""
        content = {"error": error, "error_description": description}
        if self.auth == "live":
            status, content = 400, {"error": error, "error_description": "Invalid client id or secret"}
        return Reply(status, {"Content-Type": "application/json"}, orjson.dumps(content))


def _wrong(request: Request) -> str:
    """The reason for which WNS would refuse the request's headers or body, or "" where it would not."""
    given = request.headers
    names = [name for name, _ in request.fields]
    kind = given.get("x-wns-type", "")
    if len(set(names)) != len(names) or kind not in _CONTENT_TYPES or given.get("content-type") != _CONTENT_TYPES[kind]:
        return "BadRequest"
    if len(request.body) > 5000:
        return "TooLarge"
    if not request.body or (kind != "wns/raw" and not _is_element(request.body, kind.removeprefix("wns/"))):
        return "BadRequest"
    policy, ttl = given.get("x-wns-cache-policy"), given.get("x-wns-ttl")
    if policy not in (None, "cache", "no-cache") or not re.fullmatch("[0-9]{1,10}", ttl if ttl is not None else "1"):
        return "BadRequest"
    if ttl is not None and int(ttl) == 0 and policy != "no-cache":
        return "TtlConflict"
    return "" if _known_values(given) else "BadRequest"


def _known_values(given: dict[str, str]) -> bool:
    forms = {
        "x-wns-tag": "[A-Za-z0-9]{1,16}",
        "x-wns-group": "[A-Za-z0-9]{1,16}",
        "x-wns-priority": "[1-4]",
        "x-wns-requestforstatus": "true|false",
        "x-wns-suppresspopup": "false",
    }
    if "ms-cv" in given and not _CORRELATION.fullmatch(given["ms-cv"]):
        return False
    return all(re.fullmatch(form, given[name]) for name, form in forms.items() if name in given)


def _is_element(body: bytes, tag: str) -> bool:
    try:
        return ET.fromstring(body).tag == tag
    except ET.ParseError:
        return False
