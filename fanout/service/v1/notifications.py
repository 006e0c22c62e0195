"""`/v1/notifications`: post, follow and stop notifications of the calling app."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from fanout.core.feed import Audience
from fanout.core.records import Status
from fanout.core.report import status_report
from fanout.core.states import FINAL_STATES
from fanout.errors import NotFound
from fanout.service.call import AppCall, Call, Reply
from fanout.service.docs import errors, respond
from fanout.service.errors import Refused
from fanout.service.v1.models import (
    Accepted,
    DeliveryPage,
    EndpointId,
    NotificationIn,
    PreviewOut,
    StatusOut,
    StepOut,
)
from fanout.service.v1.paging import Cursor, Limit, cursor_of, position_of

__all__ = ["accept", "post_notification", "router"]

router = APIRouter(prefix="/v1/notifications", tags=["notifications"])

Id = Annotated[str, Path(min_length=1, max_length=64, description="As the post answered it.")]
_PUSHED = Audience()
_STATES = ("pending", *FINAL_STATES)


async def post_notification(call: Call) -> Reply:
    """The whole of `POST /v1/notifications`, from the request to its answer."""
    call.check_app()
    call.check_query()
    call.charge()
    return await accept(call, NotificationIn.model_validate(await call.json()), call.header(b"idempotency-key"))


async def accept(call: Call, wanted: NotificationIn, key: str | None) -> Reply:
    """Store it, or with `dry_run` look ahead."""
    service, app = call.service, call.authenticated.app
    target = wanted.where()
    named = len(target.names) or len(target.ids)
    if named > service.limits.recipients:
        raise Refused(
            400,
            "invalidRequest",
            f"The target names {named:,} recipients, and one post may name {service.limits.recipients:,}: use a topic, or several posts.",
        )
    notification = wanted.notification()
    if wanted.dry_run:
        preview = await service.engine.preview(notification, target, app=app)
        found = {
            "endpoints": dict(preview.endpoints),
            "bytes": dict(preview.sizes),
            "total": preview.total,
            "rate": preview.rate,
            "eta_s": preview.eta_s,
        }
        return Reply.json(200, found)
    now = service.clock.now()
    due, item = wanted.due(now), wanted.item(now)
    if item is None:
        # Devices that asked for signals or for nothing are left out: there is nothing to come and fetch.
        request = service.engine.request(notification, target, app=app, at=due, idempotency_key=key, audience=_PUSHED)
        (put,) = await service.engine.accept([request], app=app)
        answer: dict[str, Any] = {"id": put.id, "total": put.total, "replayed": put.replayed, "item": None, "parts": []}
    else:
        posted = await service.feed.post(app, target, item, notification, idempotency_key=key, at=due)
        receipt = posted.receipt
        answer = {"id": receipt.id, "total": receipt.total, "replayed": receipt.replayed}
        answer |= {"item": posted.item_id or None, "parts": list(posted.parts)}
    headers = {"location": f"{call.base}/v1/notifications/{answer['id']}"} if answer["id"] else {}
    return Reply.json(202, answer, headers)


@router.post(
    "",
    status_code=202,
    response_model=Accepted,
    summary="Send to a user, users, a topic, endpoints or all",
    responses={
        200: {"model": PreviewOut, "description": "With `dry_run`: the effect of the send"},
        202: {"description": "Stored", "headers": {"Location": {"schema": {"type": "string"}}}},
        **errors(400, 403, 409, 413, 415, 429, 503, 507),
    },
)
async def _post(
    call: AppCall,
    wanted: NotificationIn,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="The same key with the same request stores nothing new. 1 to 255 characters.",
        ),
    ] = None,
) -> Response:
    call.charge()
    return respond(await accept(call, wanted, key))


@router.get("/{id}", response_model=StatusOut, summary="How it stands", responses=errors(404))
async def _get(call: AppCall, id: Id) -> dict[str, Any]:
    return await _report(call, await _owned(call, id))


@router.get(
    "/{id}/deliveries", response_model=DeliveryPage, summary="Its deliveries, by state", responses=errors(400, 404)
)
async def _deliveries(
    call: AppCall,
    id: Id,
    state: Annotated[str | None, Query(description=f"One of {', '.join(_STATES)}.", max_length=32)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    await _owned(call, id)
    if state is not None and state not in _STATES:
        raise Refused(400, "invalidRequest", f"state: use one of {', '.join(_STATES)}.")
    rows = await call.service.engine.reads.deliveries(id, state=state, after=position_of(cursor), limit=limit)
    more = len(rows) == limit
    return {
        "deliveries": [{"endpoint": endpoint, "state": state, "reason": reason} for endpoint, state, reason in rows],
        "cursor": cursor_of(rows[-1][0]) if more else None,
    }


@router.get(
    "/{id}/deliveries/{endpoint}",
    response_model=list[StepOut],
    summary="Every decision about one delivery, in order",
    responses=errors(404),
)
async def _explain(call: AppCall, id: Id, endpoint: Annotated[EndpointId, Path()]) -> list[dict[str, Any]]:
    await _owned(call, id)
    return [asdict(step) for step in await call.service.engine.explain(id, endpoint)]


@router.post("/{id}/cancel", response_model=StatusOut, summary="Send no more of it", responses=errors(404))
async def _cancel(call: AppCall, id: Id) -> dict[str, Any]:
    await _owned(call, id)
    return await _report(call, await call.service.engine.cancel(id))


@router.post("/{id}/pause", response_model=StatusOut, summary="Hold it", responses=errors(404))
async def _pause(call: AppCall, id: Id) -> dict[str, Any]:
    await _owned(call, id)
    return await _report(call, await call.service.engine.pause(id))


@router.post("/{id}/resume", response_model=StatusOut, summary="Let it go on", responses=errors(404))
async def _resume(call: AppCall, id: Id) -> dict[str, Any]:
    await _owned(call, id)
    return await _report(call, await call.service.engine.resume(id))


async def _owned(call: Call, id: str) -> Status:
    """The status of a notification of the calling app. Another app's is as unknown as none."""
    status = await call.service.engine.status(id) if len(id) == 36 and id.isascii() else None
    if status is None or status.app != call.authenticated.app:
        raise NotFound("No notification of that id is known here: check the id; or its history has been deleted.")
    return status


async def _report(call: Call, status: Status) -> dict[str, Any]:
    reasons = {state: dict(counts) for state, counts in status.reasons.items()}
    engine = call.service.engine
    shortened = await engine.reads.shortened(status.id)
    return {**status_report(status, call.service.clock.now()), "reasons": reasons, "shortened": shortened}
