"""Whether it lives, and whether it should be sent requests. For load balancers; both are public and say nothing else."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse

from fanout.service.call import AnyCall

__all__ = ["PATHS", "router"]

PATHS = ("/health", "/ready", "/metrics", "/openapi.json")

router = APIRouter(tags=["operation"])


class HealthOut(BaseModel):
    """It lives."""

    status: Literal["ok"]


class ReadyOut(BaseModel):
    """Whether requests should be sent here. Each part is `ok`, or one word for what is wrong."""

    ready: bool
    storage: Literal["ok", "full", "failed"]
    engine: Literal["ok", "closed", "failed"]
    service: Literal["ok", "draining"]


@router.get("/health", response_model=HealthOut, summary="The process lives")
async def _health() -> dict[str, Any]:
    return {"status": "ok"}


@router.get(
    "/ready",
    response_model=ReadyOut,
    summary="It takes requests: the database can be written, the engine works, the service is not ending",
    responses={503: {"model": ReadyOut, "description": "It does not"}},
)
async def _ready(call: AnyCall) -> JSONResponse:
    found = await call.service.readiness()
    return JSONResponse(found, 200 if found["ready"] else 503, {"cache-control": "no-store"})
