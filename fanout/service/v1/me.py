"""`/v1/me`: as whom a client calls, and how much is new to her."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from fanout.core.counts import Counts
from fanout.service.call import UserCall
from fanout.service.docs import errors
from fanout.service.v1.models import In

__all__ = ["router", "user_key"]

router = APIRouter(prefix="/v1/me", tags=["subscriptions"])


class MeOut(BaseModel):
    """The app and the user of the token."""

    app: str
    key: str = Field(
        description="The same for this user of this app, always and from every service over it, and another for every other: a client "
        "stores her data under it. It does not tell who she is."
    )


def user_key(app: str, user: str) -> str:
    """32 hexadecimal digits that stand for this user of this app where her name must not."""
    data = f"{len(app)}:{app}{user}".encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=16, person=b"fanout-me").hexdigest()


@router.get("", response_model=MeOut, summary="As whom this token calls", responses=errors(403))
async def _me(call: UserCall) -> JSONResponse:
    return _unstored({"app": call.owner[0], "key": user_key(*call.owner)})


class CountsOut(BaseModel):
    """Of the items that are there for the user."""

    unread: int = Field(description="Those that are not marked as read.")
    unseen: int = Field(
        description="Those that have come since the user last looked (`PUT /v1/me/seen`), read ones too."
    )


class SeenIn(In):
    """Up to where the user has seen her feed."""

    item: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="The newest item that was shown, by its id or its sender's; all that is there where it is left out.",
    )


@router.get(
    "/counts",
    response_model=CountsOut,
    summary="How many items are unread, and how many are new",
    description="The stream of events says the same, and when it changes.",
    responses=errors(403),
)
async def _counts(call: UserCall) -> JSONResponse:
    return _counted(await call.service.feed.counts(*call.owner))


@router.put(
    "/seen",
    response_model=CountsOut,
    summary="The user has looked: up to which item",
    description="It never moves back. The user's open streams are told; nothing is pushed.",
    responses=errors(400, 403, 404, 413, 415, 429),
)
async def _mark_seen(call: UserCall, wanted: SeenIn) -> JSONResponse:
    call.charge("changes")
    return _counted(await call.service.feed.mark_seen(*call.owner, wanted.item))


def _counted(counts: Counts) -> JSONResponse:
    return _unstored({"unread": counts.unread, "unseen": counts.unseen})


def _unstored(found: dict[str, Any]) -> JSONResponse:
    return JSONResponse(found, headers={"cache-control": "no-store"})
