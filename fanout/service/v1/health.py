"""Whether it lives, whether it should be sent requests, and its metrics. The first two are public, and say nothing
else."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from fanout.metrics import CONTENT_TYPE, render
from fanout.service.call import AnyCall
from fanout.service.docs import errors

__all__ = ["PATHS", "router"]

PATHS = ("/health", "/ready", "/openapi.json")

router = APIRouter(tags=["operation"])


class HealthOut(BaseModel):
    """It lives."""

    status: Literal["ok"]


class ReadyOut(BaseModel):
    """Whether requests should be sent here. Each part is `ok`, or one word for what is wrong."""

    ready: bool
    storage: Literal["ok", "full", "refused", "unavailable", "failed"]
    engine: Literal["ok", "closed", "failed"]
    service: Literal["ok", "draining"]
    issuers: Literal["ok", "stale", "failed"] = Field(
        description="`stale`: keys of an issuer cannot be fetched, those that it gave last serve. `failed`: its tokens cannot be judged, and are "
        "answered 503. Neither makes the service unready, for all others are served."
    )
    configuration: Literal["ok", "refused"] = Field(
        description="`refused`: the configuration's files have changed and cannot be used; the one from before serves, and the log says why."
    )


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


@router.get(
    "/metrics",
    response_class=Response,
    summary="Metrics in the Prometheus text format, for a key of the role operator",
    description="With `[service] metrics = true`: the series of the key's own app, and those that are of no app. To any other caller there is nothing "
    "here; `fanout serve --metrics` serves those of all apps at an address of their own.",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(404)},
)
async def _metrics(call: AnyCall) -> Response:
    service = call.service
    refused = service.security.summed()
    found = await render(service.engine, lag=service.lag, refused=refused, app=call.authenticated.app)
    return Response(found, headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})
