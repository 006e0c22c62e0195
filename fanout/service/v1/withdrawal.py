"""`/v1/feed`: an app takes its posts back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fanout.service.call import AppCall
from fanout.service.docs import errors
from fanout.service.errors import Refused

__all__ = ["router"]

# Not below /v1/users/, where DELETE takes the rest of the path for a user, and erases her.
router = APIRouter(prefix="/v1/feed", tags=["notifications"])

Text = Annotated[str, Query(min_length=1, max_length=512)]


class WithdrawnOut(BaseModel):
    """The item is in no feed and no tray any more."""

    item: str = Field(description="Its id.")


@router.delete(
    "",
    response_model=WithdrawnOut,
    summary="Take an item back from a user's feed and devices",
    description="By its id, as the post answered it, or by the sender's. Its queued deliveries are stopped; her devices are told as when she "
    "deletes it herself. Withdrawing it again changes nothing.",
    responses=errors(400, 404, 429),
)
async def _withdraw(
    call: AppCall,
    user: Annotated[str, Query(min_length=1, max_length=512, description="The feed's user.")],
    id: Text | None = None,
    external_id: Text | None = None,
) -> dict[str, Any]:
    call.charge()
    wanted = id or external_id
    if wanted is None or (id is not None and external_id is not None):
        raise Refused(400, "invalidRequest", "Give the item's id, or external_id, its sender's: one of the two.")
    item = await call.service.feed.withdraw(call.authenticated.app, user, wanted)
    return {"item": item.id}
