"""The answers of the four vendors' push services, word for word as far as they are known: the simulator's side of the
table in `outcome`.

Written down apart from that table, so that each checks the other. `SAYS` has every answer by vendor and name,
`CONDITIONS` names the one that a vendor gives for something that is wrong with a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from fanout_webpush.vendors import Vendor

__all__ = ["CONDITIONS", "ORIGINS", "PLAIN", "SAYS", "Said", "endpoint_of", "place_of"]


class Said(NamedTuple):
    """One answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


ORIGINS: dict[Vendor, str] = {
    Vendor.MOZILLA: "https://updates.push.services.mozilla.com",
    Vendor.GOOGLE: "https://fcm.googleapis.com",
    Vendor.APPLE: "https://web.push.apple.com",
    Vendor.EDGE: "https://wns2-sim.notify.windows.com",
}

_PATHS: dict[Vendor, tuple[str, re.Pattern[str]]] = {
    Vendor.MOZILLA: ("/wpush/v2/", re.compile(r"/wpush/v2/([A-Za-z0-9_-]+)")),
    Vendor.GOOGLE: ("/fcm/send/", re.compile(r"/fcm/send/([A-Za-z0-9_-]+)")),
    Vendor.APPLE: ("/Q", re.compile(r"/Q([A-Za-z0-9_-]+)")),
    Vendor.EDGE: ("/w/?token=", re.compile(r"/w/\?token=([A-Za-z0-9_-]+)")),
}


def endpoint_of(vendor: Vendor, token: str) -> str:
    """The endpoint's URL for a token."""
    return f"{ORIGINS[vendor]}{_PATHS[vendor][0]}{token}"


def place_of(path: str) -> tuple[Vendor, str] | None:
    """The vendor and token of a path, or None for a path of none of them."""
    for vendor, (_, pattern) in _PATHS.items():
        found = pattern.fullmatch(path)
        if found is not None:
            return vendor, found.group(1)
    return None


def _mozilla(status: int, errno: int, message: str, **headers: str) -> Said:
    content = {
        "code": status,
        "errno": errno,
        "error": "",
        "message": message,
        "more_info": "http://autopush.readthedocs.io/",
    }
    return Said(status, orjson.dumps(content), {"content-type": "application/json", **headers})


def _google(status: int, text: str) -> Said:
    return Said(status, f"<HTML><BODY><H1>{text}</H1></BODY></HTML>".encode(), {"content-type": "text/html"})


def _apple(status: int, reason: str, **headers: str) -> Said:
    return Said(status, orjson.dumps({"reason": reason}), {"content-type": "application/json", **headers})


def _edge(status: int, description: str = "", **headers: str) -> Said:
    description_field = {"X-WNS-Error-Description": description} if description else {}
    return Said(status, b"", {"X-WNS-NotificationStatus": "dropped", **description_field, **headers})


_RETRY = {"retry-after": "120"}

SAYS: dict[Vendor, dict[str, Said]] = {
    Vendor.MOZILLA: {
        "moved": Said(301),  # the simulator adds Location
        "errno 101": _mozilla(400, 101, "Missing necessary crypto keys"),
        "errno 108": _mozilla(400, 108, "Router type is invalid"),
        "errno 110": _mozilla(400, 110, "Invalid crypto keys specified"),
        "errno 111": _mozilla(400, 111, "Missing necessary header"),
        "errno 112": _mozilla(400, 112, "Invalid TTL header value"),
        "errno 113": _mozilla(400, 113, "Invalid Topic header value"),
        "errno 114": _mozilla(400, 114, "TTL below zero"),
        "errno 109": _mozilla(401, 109, "Invalid authentication"),
        "errno 102": _mozilla(404, 102, "Invalid URL endpoint"),
        "errno 103": _mozilla(410, 103, "Expired URL endpoint"),
        "errno 105": _mozilla(410, 105, "Endpoint became unavailable during request"),
        "errno 106": _mozilla(410, 106, "Invalid subscription", **{"cache-control": "max-age=86400"}),
        "errno 104": _mozilla(413, 104, "Data payload too large"),
        "errno 999": _mozilla(500, 999, "Unknown error"),
        "errno 900": _mozilla(502, 900, "Internal Bridge misconfiguration"),
        "errno 901": _mozilla(502, 901, "Invalid authentication"),
        "errno 902": _mozilla(502, 902, "An error occurred while establishing a connection"),
        "errno 903": _mozilla(502, 903, "The request timed out"),
        "errno 201": _mozilla(503, 201, "Use exponential back-off for retries", **_RETRY),
        "errno 202": _mozilla(503, 202, "Immediate retry ok", **_RETRY),
    },
    Vendor.GOOGLE: {
        "UnauthorizedRegistration": _google(400, "UnauthorizedRegistration"),
        "key mismatch": Said(
            403,
            b"the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.\n",
        ),
        "aud claim": Said(403, b"the aud claim in the token MUST include the origin of the push resource.\n"),
        "MismatchSenderId": _google(403, "MismatchSenderId"),
        "invalid endpoint": Said(403, b"invalid push subscription endpoint.\n"),
        "stale endpoint": Said(
            404,
            b"A valid push subscription endpoint should be specified in the URL as such: https://fcm.googleapis.com/wp/dHIoDxE7Hdg:APA91b...\n",
        ),
        "unsubscribed": Said(410, b"push subscription has unsubscribed or expired.\n"),
    },
    Vendor.EDGE: {
        "dropped": Said(201, b"", {"X-WNS-Status": "dropped"}),
        "ttl conflict": _edge(400, "Ttl value conflicts with X-WNS-Cache-Policy."),
        "unauthorized": _edge(401),
        "gone": _edge(410),
        "appthrottled": _edge(406, **{"X-WNS-Status": "appthrottled", "Retry-After": "900"}),
        "channelthrottled": _edge(406, **{"X-WNS-Status": "channelthrottled", "Retry-After": "900"}),
        "appthrottled 429": _edge(429, **{"X-WNS-Status": "appthrottled", "Retry-After": "900"}),
        "channelthrottled 429": _edge(429, **{"X-WNS-Status": "channelthrottled", "Retry-After": "900"}),
        "throttled": _edge(406, **{"Retry-After": "900"}),
        "Domain Blocked": _edge(410, "Domain Blocked"),
    },
    Vendor.APPLE: {
        "BadTtl": _apple(400, "BadTtl"),
        "BadUrgency": _apple(400, "BadUrgency"),
        "BadWebPushTopic": _apple(400, "BadWebPushTopic"),
        "BadWebPushRequest": _apple(400, "BadWebPushRequest"),
        "VapidPkHashMismatch": _apple(400, "VapidPkHashMismatch"),
        "VapidPkHashMismatch 403": _apple(403, "VapidPkHashMismatch"),
        "BadAuthorizationHeader": _apple(400, "BadAuthorizationHeader"),
        "BadJwtToken": _apple(403, "BadJwtToken"),
        "BadVapidPublicKey": _apple(403, "BadVapidPublicKey"),
        "BadPath": _apple(404, "BadPath"),
        "MethodNotAllowed": _apple(405, "MethodNotAllowed"),
        "Unregistered": _apple(410, "Unregistered"),
        "PayloadTooLarge": _apple(413, "PayloadTooLarge"),
        "TooManyRequests": _apple(429, "TooManyRequests", **{"retry-after": "30"}),
        "InternalServerError": _apple(500, "InternalServerError"),
        "ServiceUnavailable": _apple(503, "ServiceUnavailable"),
        "Shutdown": _apple(503, "Shutdown"),
        "IdleTimeout": _apple(400, "IdleTimeout"),
    },
}

PLAIN: dict[str, Said] = {
    "301": Said(301, b"", {"location": "https://169.254.169.254/latest/meta-data/"}),
    "302": Said(302, b"", {"location": "https://evil.example/"}),
    "307": Said(307, b"", {"location": "https://evil.example/"}),
    "308": Said(308, b"", {"location": "https://evil.example/"}),
    "400": Said(400, b"no"),
    "401": Said(401),
    "403": Said(403),
    "404": Said(404),
    "408": Said(408),
    "410": Said(410),
    "413": Said(413),
    "418": Said(418),
    "429": Said(429, b"", {"retry-after": "30"}),
    "500": Said(500),
    "502": Said(502, b"<html>bad gateway</html>"),
    "503": Said(503, b"", {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
}
"""Answers that any server may give, by status alone."""

_MOZILLA = {
    "method": "405",
    "path": "errno 102",
    "ttl missing": "errno 111",
    "ttl": "errno 112",
    "urgency": "400",
    "topic": "errno 113",
    "encoding": "errno 110",
    "token missing": "errno 109",
    "token": "errno 109",
    "audience": "errno 109",
    "key": "errno 109",
    "size": "errno 104",
    "dead": "errno 106",
    "throttled": "429",
}
_GOOGLE = {
    "method": "405",
    "path": "stale endpoint",
    "ttl missing": "400",
    "ttl": "400",
    "urgency": "400",
    "topic": "400",
    "encoding": "400",
    "token missing": "UnauthorizedRegistration",
    "token": "401",
    "audience": "aud claim",
    "key": "key mismatch",
    "size": "413",
    "dead": "unsubscribed",
    "throttled": "429",
}
_APPLE = {
    "method": "MethodNotAllowed",
    "path": "BadPath",
    "ttl missing": "BadTtl",
    "ttl": "BadTtl",
    "urgency": "BadUrgency",
    "topic": "BadWebPushTopic",
    "encoding": "BadWebPushRequest",
    "token missing": "BadAuthorizationHeader",
    "token": "BadJwtToken",
    "audience": "BadJwtToken",
    "key": "VapidPkHashMismatch",
    "size": "PayloadTooLarge",
    "dead": "Unregistered",
    "throttled": "TooManyRequests",
}
_EDGE = {
    "method": "405",
    "path": "404",
    "ttl missing": "400",
    "ttl": "400",
    "cache policy": "ttl conflict",
    "urgency": "400",
    "topic": "400",
    "encoding": "400",
    "token missing": "unauthorized",
    "token": "unauthorized",
    "audience": "unauthorized",
    "key": "unauthorized",
    "size": "413",
    "dead": "gone",
    "throttled": "channelthrottled 429",
}
CONDITIONS: dict[Vendor, dict[str, str]] = {
    Vendor.MOZILLA: _MOZILLA,
    Vendor.GOOGLE: _GOOGLE,
    Vendor.APPLE: _APPLE,
    Vendor.EDGE: _EDGE,
}
