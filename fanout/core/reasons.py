"""The reasons of the service's refusals: one table, of which Python's client, JavaScript's and the OpenAPI document are
made. Pure.

Each refusal has a word of Microsoft Graph in `error.code`, by its status, and one of these in `error.innerError.code`.
A client decides by the reason; a word here never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["BY_STATUS", "REASONS"]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        # the request
        "invalid": "The request is not as it must be; the message says where.",
        "route": "There is nothing at this path.",
        "method": "The path takes other methods; Allow names them.",
        "slow": "The body did not arrive in time.",
        "size": "The body is too large.",
        "content": "The item's content is too large.",
        "media": "Content-Type or Content-Encoding is not supported.",
        "headers": "The headers are too many or too large.",
        "coding": "Transfer-Encoding must be chunked, or be left out.",
        "version": "The request is in a version of HTTP that is not spoken here.",
        # the credential
        "missing": "There is no credential.",
        "malformed": "The credential has not the form of one.",
        "too_large": "The access token is too large.",
        "crit": "The access token has an extension that is not understood.",
        "type": "The token is of another kind than an access token.",
        "algorithm": "The access token is signed with an algorithm that is not configured.",
        "issuer": "The access token is of an issuer that is not configured.",
        "key": "The key that signed or is presented is not known.",
        "certificate": "The client's certificate is not known.",
        "signature": "The token's signature is wrong.",
        "expired": "The token has expired.",
        "not_yet": "The token is not valid yet.",
        "audience": "The access token is for another service.",
        "client": "The OAuth client is not configured.",
        "app": "The credential is for another app.",
        "user": "The token names no user, or one that is not allowed.",
        "tenant": "The access token is of a tenant that is not configured.",
        "scope": "The token lacks a scope; WWW-Authenticate names it.",
        "origin": "Requests of this origin are not taken.",
        "blocked": "The caller is blocked.",
        "keys": "The issuer's keys cannot be had now: try again as Retry-After says.",
        "away": "The database that holds the keys cannot be read now: try again as Retry-After says.",
        "busy": "The issuer's keys are being fetched: try again as Retry-After says.",
        # the rights of the credential
        "unprotected": "The service knows no callers, and serves its own machine only.",
        "denied": "The credential does not allow this.",
        "role": "The key's role does not allow this.",
        "app_only": "This is for the app itself.",
        "user_only": "This is for one user.",
        "host": "The host name is none of this app.",
        "unsid": "X-UNS-ID is missing, or is no live subscription of a user of this app.",
        # the object of the request
        "gone": "There is none of that id.",
        "item": "There is no such item in this user's feed.",
        "subscription": "There is no such subscription of this user.",
        "device": "X-UNS-ID is no subscription of this user: subscribe again.",
        "address": "The device belongs to another user, and nothing proves that it has moved.",
        "conflict": "The request contradicts a stored value, such as another request with this Idempotency-Key.",
        "stale": "The item has changed since: read it again.",
        "resync": "The cursor is too old: read anew, without it.",
        # limits and trouble
        "failures": "Too many credentials of this address were not good: wait as Retry-After says.",
        "refusals": "Too many requests of this caller were refused: wait as Retry-After says.",
        "rate": "Too much at once: wait as Retry-After says.",
        "streams": "Too many event streams are open.",
        "backlog": "Too much is waiting already: wait as Retry-After says.",
        "ending": "The service is about to end: connect again.",
        "full": "There is no room to store this now.",
        "unavailable": "Nothing can be stored or read now: try again.",
        "fault": "The service has a fault; its log has the request-id.",
    }
)
"""Reason to its meaning. A refusal's message says more."""

BY_STATUS: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid",
        401: "malformed",
        403: "denied",
        404: "gone",
        405: "method",
        406: "rate",
        408: "slow",
        409: "conflict",
        410: "resync",
        412: "stale",
        413: "size",
        415: "media",
        429: "rate",
        431: "headers",
        500: "fault",
        501: "coding",
        503: "unavailable",
        505: "version",
        507: "full",
    }
)
"""The reason of a refusal that has no narrower one."""
