"""`/v1/me/feed/events`: changes as they happen, as server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from fanout.core.cursor import Listing, parse
from fanout.service.auth.claims import SKEW
from fanout.service.call import UserCall
from fanout.service.docs import errors
from fanout.service.feed import FeedError
from fanout.service.feed.streams import EventStream
from fanout.service.v1.feed import Device

__all__ = ["router"]

router = APIRouter(prefix="/v1/me/feed", tags=["feed"])


@router.get(
    "/events",
    response_class=Response,
    summary="Changes as they happen",
    description="An event stream that goes on from `Last-Event-ID` (or `cursor`, of a page of the feed too), else from now. `cursor` comes first and says where. "
    "`change` is an item, deleted ones too; its id is the cursor from which to go on. `resync` says: read the feed anew, without a "
    "cursor; the stream goes on from its id. `subscription` says that the calling device's is expiring; before the end "
    "of the stream, that it has `expired` or `ended`. `counts` says how many items are `unread` and `unseen`: in the beginning, and whenever it has changed. `unauthorized` comes before the end of a stream whose token has ended. Comments in between are signs of life. A change by "
    "the calling device (`X-UNS-ID`) is not told to it.",
    responses={200: {"description": "The stream", "content": {"text/event-stream": {}}}, **errors(400, 403, 429)},
)
async def _events(
    call: UserCall,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)] = None,
    device: Device = "",
) -> Response:
    call.charge("streams")
    caller, feed = call.authenticated, call.service.feed
    user = caller.user or ""
    text = last or cursor
    found = parse(text) if text else None
    # From a page of the feed: the changes since the reading began.
    begin = found.then if isinstance(found, Listing) else found
    feed.hub.check_room(caller.app, user)
    subscription = None
    if device:
        subscription = await feed.device(caller.app, user, device)
        if subscription is None or not subscription.live(call.service.clock.now()):
            raise FeedError(403, "device", "X-UNS-ID is no subscription of this user: subscribe again.")
    ends_at = math.inf if caller.ends_at is None else caller.ends_at
    if call.service.clock.now() >= ends_at:
        ends_at += SKEW  # let in because clocks differ, as any request would be
    return EventStream(feed.hub, caller.app, user, begin, subscription, call.asked, ends_at)
