"""`/v1/users`: forget one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from fanout.service.call import AppCall
from fanout.service.docs import errors
from fanout.service.errors import Refused
from fanout.service.v1.models import Erased

__all__ = ["router"]

router = APIRouter(prefix="/v1/users", tags=["users"])


@router.delete(
    "/{user:path}",
    response_model=Erased,
    summary="Forget a user: devices with their addresses, subscriptions, feed, and queued deliveries",
    responses=errors(400),
)
async def _erase(
    call: AppCall, user: Annotated[str, Path(min_length=1, max_length=512, description="Percent-encoded.")]
) -> dict[str, Any]:
    if "\x00" in user:
        raise Refused(400, "invalidRequest", "A user is a text of 1 to 512 characters without NUL.")
    return {"endpoints": await call.service.feed.erase_user(call.authenticated.app, user)}
