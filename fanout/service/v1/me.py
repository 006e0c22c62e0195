"""`/v1/me`: as whom a client calls."""

from __future__ import annotations

from hashlib import blake2b

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from fanout.service.call import UserCall
from fanout.service.docs import errors

__all__ = ["router", "user_key"]

router = APIRouter(prefix="/v1/me", tags=["subscriptions"])


class MeOut(BaseModel):
    """The app and the user of the token."""

    app: str
    key: str = Field(
        description="The same for this user of this app, always and from every service over it, and another for every other: what a client "
        "keeps for her is kept by it. It does not tell who she is."
    )


def user_key(app: str, user: str) -> str:
    """32 hexadecimal digits that stand for this user of this app where her name must not."""
    data = f"{len(app)}:{app}{user}".encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=16, person=b"fanout-me").hexdigest()


@router.get("", response_model=MeOut, summary="As whom this token calls", responses=errors(403))
async def _me(call: UserCall) -> JSONResponse:
    caller = call.known
    found = {"app": caller.app, "key": user_key(caller.app, caller.user or "")}
    return JSONResponse(found, headers={"cache-control": "no-store"})
