"""`/v1/export`: all that is held of one user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from fanout.service.call import AppCall
from fanout.service.docs import errors
from fanout.service.errors import Refused

__all__ = ["router"]

router = APIRouter(prefix="/v1/export", tags=["users"])

_PIECE = 32 * 1024
"""Bytes that are gathered before they are handed to the connection."""


@router.get(
    "",
    response_class=Response,
    summary="All that is stored of a user: devices with their addresses, subscriptions, feed, notifications, events",
    description="NDJSON: a record a line, each with a `kind` (`user`, `endpoint`, `subscription`, `seen`, `item`, `notification`, `event`, `audit`). The "
    "last is `end`, with the number of records before it: an answer without it is not whole. A notification to a list has the user's own deliveries and "
    "no others. For an API key of the role `app`. The audit log has a line of it.",
    responses={200: {"description": "The records", "content": {"application/x-ndjson": {}}}, **errors(400, 403, 503)},
)
async def _export(
    call: AppCall, user: Annotated[str, Query(min_length=1, max_length=512, description="The user's id.")]
) -> Response:
    if "\x00" in user:
        raise Refused(400, "invalidRequest", "A user is a text of 1 to 512 characters without NUL.")
    records = call.service.engine.export_user(user, app=call.authenticated.app)
    first = await anext(records)  # every refusal comes before the answer begins
    return StreamingResponse(
        _lines(first, records), media_type="application/x-ndjson", headers={"cache-control": "no-store"}
    )


async def _lines(first: dict[str, Any], records: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    piece = bytearray(orjson.dumps(first) + b"\n")
    async for record in records:
        piece += orjson.dumps(record) + b"\n"
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
