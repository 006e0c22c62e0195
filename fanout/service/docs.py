"""The common parts of every route's entry in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Response

from fanout.service.call import Reply
from fanout.service.v1.models import ErrorOut

__all__ = ["SECURITY", "describe", "errors", "respond", "show_tokens"]

_TEXTS = {
    400: "The request is not as it must be; the message says where",
    401: "No credential, or one that is not good",
    403: "The credential does not allow this",
    404: "There is none of that id",
    405: "Not with this method",
    406: "Too much at once: wait as Retry-After says",
    408: "The body did not arrive in time",
    409: "Idempotency-Key: used before, for another request; or the address is another user's device",
    410: "The cursor is too old: read anew, without it",
    412: "Changed meanwhile",
    413: "The body is too large",
    415: "Content-Type or Content-Encoding is not supported",
    429: "Too much at once: wait as Retry-After says",
    503: "Nothing can be stored now: try again",
    507: "No room",
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}

SECURITY: dict[str, Any] = {
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of a configured OAuth 2.0 issuer: by client credentials for the app itself, or on behalf of a "
        "user with the scope `Notifications.ReadWrite.CreatedByApp`.",
    },
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`fanout keys api`), for the app itself.",
    },
    "userToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token that the app signed for one of its users (`fanout keys api --kind signer`).",
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its `responses`; 400, 401 and 403 are every route's."""
    return {
        status: {
            "model": ErrorOut,
            "description": _TEXTS[status],
            **({"headers": _RETRY} if status in (406, 429, 503) else {}),
        }
        for status in sorted({400, 401, 403, *statuses})
    }


def respond(reply: Reply) -> Response:
    """A reply as FastAPI's routes return it."""
    response = Response(reply.body, reply.status)
    response.raw_headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    return response


def describe(document: dict[str, Any], public: tuple[str, ...]) -> dict[str, Any]:
    """The document with its security schemes, which every path but the public ones asks for."""
    document.setdefault("components", {})["securitySchemes"] = SECURITY
    document["security"] = [{name: []} for name in SECURITY]
    for path, item in document["paths"].items():
        for method in item.values():
            # FastAPI adds its own answer to a wrong request, which here is a 400 in the envelope.
            method["responses"].pop("422", None)
            if path in public:
                method["security"] = []
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"].get("schemas", {}).pop(name, None)
    return document


def show_tokens(app: FastAPI, tokens: Mapping[str, str]) -> None:
    """Fill ready tokens into the pages of the API: listed in its description, and the first one already authorized at
    `/docs`.

    For a service with simulated callers: a reader of the page gains no right by it.
    """
    listed = "\n\n".join(f"**{who}**: `{token}`" for who, token in tokens.items())
    app.description += f"\n\nThis service is for trying out. Ready tokens, good for an hour:\n\n{listed}"
    app.state.ready_tokens = dict.fromkeys(SECURITY, next(iter(tokens.values())))
