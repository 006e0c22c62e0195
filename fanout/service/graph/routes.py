"""`POST /me/notifications`, and reading one back from where its Location points."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from fanout.service.call import AnyCall, Call, Reply
from fanout.service.docs import errors, respond
from fanout.service.errors import Refused
from fanout.service.feed import FeedError
from fanout.service.graph.convert import convert, first_form, resource
from fanout.service.graph.resource import GraphNotification, Resource

__all__ = ["PREFIXES", "fast_paths", "post_notification", "router"]

PREFIXES = ("", "/beta", "/v1.0")
_DOCUMENTED = "/beta"
_PATH = "/me/notifications"
_TYPE = b"application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"


async def post_notification(call: Call) -> Reply:
    """The whole of a post, from the request to its answer."""
    user = await _addressed(call)
    return await accept(call, user, GraphNotification.model_validate(await call.json()))


async def _addressed(call: Call) -> str:
    """The user of the request. Counts the post. Raises `Refused`: 400, 403, 429."""
    if b"if-modified-since" in call.headers or b"if-range" in call.headers:
        raise Refused(400, "invalidRequest", "If-Modified-Since and If-Range have no meaning here: leave them out.")
    call.charge()
    return await _user(call)


async def _user(call: Call) -> str:
    caller = call.authenticated
    unsid = call.header(b"x-uns-id")
    if unsid is None:
        if caller.user is None:
            raise Refused(
                400,
                "invalidRequest",
                "X-UNS-ID is missing: an app names the user by a user notification subscription id (UNSID).",
                reason="unsid",
            )
        return caller.user
    user = await call.service.feed.user_of_unsid(caller.app, unsid)
    if user is None or caller.user not in (None, user):
        # One answer for unknown, expired and another app's: a caller does not learn which of them it is.
        text = "X-UNS-ID is no live subscription of a user of this app."
        raise Refused(403, "accessDenied", text, reason="unsid")
    return user


async def accept(call: Call, user: str, posted: GraphNotification) -> Reply:
    """Store it and its pushes, and answer with the resource."""
    service, app = call.service, call.authenticated.app
    if posted.targetHostName is not None and not service.host_allowed(app, posted.targetHostName):
        text = "targetHostName is none of this app's host names."
        raise Refused(403, "accessDenied", text, reason="host")
    plan = convert(posted, service.clock.now())
    done = await service.feed.post(
        app,
        f"user:{user}",
        plan.item,
        plan.parts,
        fallback=plan.fallback,
        idempotency_key=call.header(b"idempotency-key"),
    )
    item = done.item or await service.feed.find(app, user, done.item_id)
    if (
        item is None or item.deleted
    ):  # a replay, by its key: the first answer again, even where the item has changed since
        item = first_form(plan.item, done.item_id, item, service.clock.now())
    root = call.base + _prefix(call)
    body = Reply.json(200 if done.replaced else 201, resource(item, user=user, root=root, now=service.clock.now()))
    body.headers = [
        (b"content-type", _TYPE),
        (b"odata-version", b"4.0"),
        (b"location", f"{root}{_PATH}/{item.id}".encode()),
    ]
    return body


def _prefix(call: Call) -> str:
    return next((prefix for prefix in PREFIXES[1:] if call.asked.path.startswith(prefix)), "")


def fast_paths() -> list[str]:
    """Every path that the post is taken at."""
    return [f"{prefix}{_PATH}{slash}" for prefix in PREFIXES for slash in ("", "/")]


router = APIRouter(tags=["Microsoft Graph"])

_OK = {
    "model": Resource,
    "headers": {name: {"schema": {"type": "string"}} for name in ("Location", "request-id", "OData-Version")},
}
Unsid = Annotated[
    str | None,
    Header(
        alias="X-UNS-ID",
        description="The recipient. An app must give it; a user's token says it itself.",
    ),
]


Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="Of ours: the same key with the same request stores nothing new."),
]


async def _post(call: AnyCall, posted: GraphNotification, unsid: Unsid = None, key: Key = None) -> Response:
    return respond(await accept(call, await _addressed(call), posted))


async def _get(call: AnyCall, id: Annotated[str, Path(max_length=512)], unsid: Unsid = None) -> Response:
    service = call.service
    user = await _user(call)
    item = await service.feed.get(call.authenticated.app, user, id)
    if item.deleted:
        raise FeedError(404, "item", "The user has deleted this notification: post another one to show it again.")
    root = call.base + _prefix(call)
    reply = Reply.json(200, resource(item, user=user, root=root, now=service.clock.now()))
    reply.headers = [(b"content-type", _TYPE), (b"odata-version", b"4.0")]
    return respond(reply)


for _prefix_text in PREFIXES:
    _shown = _prefix_text == _DOCUMENTED
    for _slash in ("", "/"):
        router.add_api_route(
            f"{_prefix_text}{_PATH}{_slash}",
            _post,
            methods=["POST"],
            status_code=201,
            response_model=None,
            summary="Send a notification to a user, in the shape of Microsoft Graph",
            description="It is stored for all the user's devices before anything is pushed. Also at `/me/notifications` and "
            "`/v1.0/me/notifications`.",
            include_in_schema=_shown and not _slash,
            responses={
                200: {**_OK, "description": "Stored, in place of the one with the same `appNotificationId`"},
                201: {**_OK, "description": "Stored"},
                **errors(405, 406, 409, 413, 415, 503, 507),
            },
        )
    router.add_api_route(
        f"{_prefix_text}{_PATH}/{{id:path}}",
        _get,
        methods=["GET"],
        response_model=None,
        summary="Read a notification back",
        include_in_schema=_shown,
        responses={200: {**_OK, "description": "As it stands"}, **errors(400, 404, 503)},
    )
