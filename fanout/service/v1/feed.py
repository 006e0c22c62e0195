"""`/v1/me/feed`: the items that a user's clients read and manage."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, Field, model_validator

from fanout.core.feed import FeedBulk, FeedChange, FeedQuery
from fanout.errors import UsageError
from fanout.service.call import Call, UserCall
from fanout.service.docs import errors
from fanout.service.feed import FeedError
from fanout.service.feed.streams import item_json
from fanout.service.v1.models import In

__all__ = ["Device", "router"]

router = APIRouter(prefix="/v1/me/feed", tags=["feed"])

Action = Literal["none", "activated", "dismissed", "snoozed"]
Id = Annotated[str, Path(min_length=1, max_length=512, description="The item's, or its sender's.")]
Device = Annotated[
    str,
    Header(
        alias="X-UNS-ID",
        max_length=128,
        description="The UNSID of the device that calls. Its changes are told to the others and not to it; an item that it "
        "has read needs no fallback.",
    ),
]
_ETAG = re.compile(r'"([0-9]{1,18})"')


class ItemOut(BaseModel):
    """An item, as the user left it. A deleted one is a tombstone, without content."""

    id: str
    external_id: str | None = Field(description="The sender's own id.")
    status: Literal["active", "deleted"]
    read: bool
    action: Action
    group: str | None
    priority: Literal["none", "low", "high"]
    created_at: float
    modified_at: float | None = Field(description="Null until the first change.")
    expires_at: float
    display_ttl: int | None = Field(description="Seconds that remain of it.")
    broadcast: bool
    content: dict[str, Any] | None
    etag: str


class FeedOut(BaseModel):
    """A page. Go on from `cursor`: at once where there is `more`, otherwise when something has changed."""

    items: list[ItemOut]
    cursor: str = Field(
        description="Opaque. Of two cursors that pushes or answers carry, the greater text covers the smaller."
    )
    more: bool


class ChangedOut(BaseModel):
    """The item after the change, and the cursor of the change: a push that carries it is about nothing else."""

    item: ItemOut
    cursor: str


class BulkIn(In):
    """The change, and its items: all, or those that fit every filter that is given."""

    read: bool | None = None
    action: Action | None = None
    delete: bool = False
    all: bool = Field(False, description="Every item that is there; not together with a filter.")
    items: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=1000)] | None = Field(
        None, description="These, by their ids or their sender's. Ids that are not there are passed over."
    )
    group: str | None = Field(None, max_length=512, description="Those of this group.")
    until: str | None = Field(
        None,
        max_length=64,
        description="A cursor: those that have not changed since, so items that have come meanwhile stay as they are.",
    )

    @model_validator(mode="after")
    def _something(self) -> BulkIn:
        if self.delete == (self.read is not None or self.action is not None):
            raise ValueError("give read, action or both, or delete alone")
        if self.all == (self.items is not None or self.group is not None or self.until is not None):
            raise ValueError("give all, or at least one of items, group and until")
        return self


class BulkOut(BaseModel):
    """The result of a change. An item that was so already is not counted."""

    changed: int
    cursor: str = Field(
        description="Of the last of these changes: a push that carries a smaller one tells nothing new."
    )


class ChangeIn(In):
    """The change; the other properties stay as another device left them."""

    read: bool | None = None
    action: Action | None = None

    @model_validator(mode="after")
    def _something(self) -> ChangeIn:
        if self.read is None and self.action is None:
            raise ValueError("give read, action or both")
        return self


@router.get(
    "",
    response_model=FeedOut,
    summary="The feed, or the changes since a cursor",
    description="Without a cursor: everything that is there, in pages. With the cursor of the last page: the changes since, oldest "
    "first, deleted items too as tombstones; read, action and status leave out what does not fit *now*, so a client that "
    "keeps a filtered copy asks for everything and filters itself. 410 asks to begin anew without a cursor.",
    responses=errors(400, 403, 410),
)
async def _list(
    call: UserCall,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    order: Annotated[
        Literal["changed", "newest"], Query(description="Of the whole feed: by last change, or newest first.")
    ] = "changed",
    unread: Annotated[bool | None, Query()] = None,
    action: Annotated[Action | None, Query()] = None,
    status: Annotated[
        Literal["active", "deleted", "any"] | None, Query(description="active, and any with a cursor of changes.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    device: Device = "",
) -> Response:
    found = await call.service.feed.list(
        *call.owner,
        cursor=cursor,
        order=order,
        unread=unread,
        action=action,
        status=status,
        limit=limit,
        unsid=device,
    )
    now = call.service.clock.now()
    return _json({"items": [item_json(item, now) for item in found.items], "cursor": found.cursor, "more": found.more})


@router.get("/{id:path}", response_model=ItemOut, summary="One item", responses=errors(403, 404))
async def _get(call: UserCall, id: Id, device: Device = "") -> Response:
    shown = item_json(await call.service.feed.get(*call.owner, id, unsid=device), call.service.clock.now())
    return _json(shown, shown["etag"])


@router.patch(
    "",
    response_model=BulkOut,
    summary="Mark or delete many: all, a group, these, or what was there at a cursor",
    description="The user's other devices get one signal for all of it; open streams are told of each item.",
    responses=errors(400, 403, 410, 413, 415, 429),
)
async def _patch_all(call: UserCall, wanted: BulkIn, device: Device = "") -> Response:
    call.charge("changes")
    feed = call.service.feed
    query = FeedQuery(
        group=wanted.group,
        ids=None if wanted.items is None else tuple(wanted.items),
        until=2**62 if wanted.until is None else await feed.position(wanted.until),
    )
    bulk = FeedBulk(query=query, read=wanted.read, action=wanted.action, delete=wanted.delete, writer=device)
    changed, cursor = await feed.change_all(*call.owner, bulk)
    return _json({"changed": changed, "cursor": cursor})


@router.patch(
    "/{id:path}",
    response_model=ChangedOut,
    summary="Mark it read or unread, activated, dismissed, snoozed",
    description="The user's other devices are told in the same commit. The last writer wins, property by property; with If-Match "
    "only the first of two does.",
    responses=errors(400, 403, 404, 412, 413, 415, 429),
)
async def _patch(
    call: UserCall,
    id: Id,
    wanted: ChangeIn,
    if_match: Annotated[str | None, Header(max_length=64)] = None,
    device: Device = "",
) -> Response:
    change = FeedChange(item=id, read=wanted.read, action=wanted.action, if_match=_seq(if_match), writer=device)
    return await _change(call, change)


@router.delete(
    "/{id:path}",
    response_model=ChangedOut,
    summary="Delete it",
    description="A tombstone stays until clean-up, so that every device learns of it. Deleting it again changes nothing.",
    responses=errors(403, 404, 412, 429),
)
async def _delete(
    call: UserCall, id: Id, if_match: Annotated[str | None, Header(max_length=64)] = None, device: Device = ""
) -> Response:
    return await _change(call, FeedChange(item=id, delete=True, if_match=_seq(if_match), writer=device))


async def _change(call: Call, change: FeedChange) -> Response:
    call.charge("changes")
    item, cursor = await call.service.feed.change(*call.owner, change)
    shown = item_json(item, call.service.clock.now())
    return _json({"item": shown, "cursor": cursor}, shown["etag"])


def _json(value: dict[str, Any], etag: str = "") -> Response:
    headers = {"etag": etag} if etag else {}
    return Response(orjson.dumps(value), 200, headers | {"cache-control": "no-store"}, "application/json")


def _seq(if_match: str | None) -> int | None:
    """The version that `If-Match` names. `*` is any. Raises `FeedError` 412 for one that is none of ours (RFC 9110,
    section 13.1.1), and `UsageError` for a list."""
    if if_match is None or if_match.strip() == "*":
        return None
    if '",' in if_match:
        raise UsageError("If-Match names several versions: write one.")
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise FeedError(
            412, "stale", "If-Match names no version of this item: write its etag, with the quotation marks."
        )
    return int(found.group(1))
