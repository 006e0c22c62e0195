"""`/v1/endpoints`: the directory of the calling app's devices. Addresses go in and are never told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from fanout.core.columns import AS_STORED, changed, shown
from fanout.core.endpoint import Endpoint, EndpointState
from fanout.core.lines import LineSplitter
from fanout.engine.directory import endpoint_filter
from fanout.errors import Conflict, StorageError
from fanout.service.body import read_stream
from fanout.service.call import AppCall, Call
from fanout.service.docs import errors
from fanout.service.errors import Refused, problem_of
from fanout.service.v1.models import (
    EndpointId,
    EndpointIn,
    EndpointOut,
    EndpointPage,
    EndpointPatch,
    Ids,
    ImportOut,
    Restored,
)
from fanout.service.v1.paging import Cursor, Limit, cursor_of, position_of

__all__ = ["router"]

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

Id = Annotated[EndpointId, Path()]
Word = Annotated[str | None, Query(max_length=512)]
_STATES = (*(str(state) for state in EndpointState), "any")


@router.post(
    "",
    status_code=201,
    response_model=EndpointOut,
    summary="Enter a device",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **errors(400, 413, 415, 503, 507),
    },
)
async def _create(call: AppCall, wanted: EndpointIn, response: Response) -> dict[str, Any]:
    endpoint = await call.service.engine.endpoints.register(
        user=wanted.user,
        binding=wanted.binding,
        address=wanted.address,
        app=call.authenticated.app,
        **shown(wanted),
        tags=wanted.tags,
        expires_at=wanted.expires_at,
    )
    response.headers["location"] = f"{call.base}/v1/endpoints/{endpoint.id}"
    return _report(endpoint)


@router.get(
    "", response_model=EndpointPage, summary="List devices; `state=gone` is the quarantine", responses=errors(400)
)
async def _list(
    call: AppCall,
    user: Word = None,
    binding: Word = None,
    tag: Word = None,
    state: Annotated[str, Query(max_length=16, description=f"One of {', '.join(_STATES)}.")] = "active",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    if state not in _STATES:
        raise Refused(400, "invalidRequest", f"state: use one of {', '.join(_STATES)}.")
    which = endpoint_filter(
        app=call.authenticated.app, user=user, binding=binding, tag=tag, state=None if state == "any" else state
    )
    page = await call.service.engine.reads.endpoints(which, after=position_of(cursor), limit=limit)
    return {
        "endpoints": [_report(endpoint) for endpoint in page],
        "cursor": cursor_of(page[-1].id) if len(page) == limit else None,
    }


@router.post(
    "/import",
    response_model=ImportOut,
    summary="Enter devices by the million: NDJSON, read as it comes",
    description='Each line is `{"user", "transport", "address", "tags", "platform", "expires_at"}`, where `transport` names '
    "the binding. Good lines are stored although others are bad, ten thousand in a commit. The body may have `import_bytes`; "
    "`Content-Encoding` may be gzip or deflate.",
    responses=errors(400, 408, 413, 415, 503, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string"},
                    "example": '{"user": "alice", "transport": "fcm", "address": "d1Z-token", "tags": ["news"]}\n',
                }
            },
        }
    },
)
async def _import(call: AppCall) -> dict[str, Any]:
    kind = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind not in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
        raise Refused(415, "notSupported", "Content-Type must be application/x-ndjson.")
    done = 0

    def progress(report: Any) -> None:
        nonlocal done
        done = report.imported

    try:
        report = await call.service.engine.endpoints.import_(
            _lines(call),
            app=call.authenticated.app,
            longest=call.service.limits.import_line_bytes,
            on_progress=progress,
        )
    except StorageError as error:
        call.service.not_done(error)
        problem = problem_of(error)
        text = f"{problem.message} Of this import {done:,} lines were stored; importing them again does no harm."
        raise Refused(problem.status, problem.code, text, problem.headers) from error
    return {
        "imported": report.imported,
        "bad": report.bad,
        "errors": [{"line": line, "error": sentence} for line, sentence in report.errors],
    }


async def _lines(call: Call) -> AsyncIterator[bytes]:
    splitter = LineSplitter(call.service.limits.import_line_bytes + 1)
    async for piece in read_stream(call.receive, call.headers, call.service.limits):
        for line in splitter.feed(piece):
            yield line
    for line in splitter.end():
        yield line


@router.post("/restore", response_model=Restored, summary="Take devices back from quarantine", responses=errors(400))
async def _restore_many(call: AppCall, wanted: Ids) -> dict[str, Any]:
    restored = await call.service.engine.endpoints.restore(wanted.ids, app=call.authenticated.app)
    return {"restored": restored, "asked": len(set(wanted.ids))}


@router.get("/{id}", response_model=EndpointOut, summary="One device, in whatever state", responses=errors(404))
async def _get(call: AppCall, id: Id) -> dict[str, Any]:
    return _report(await call.service.engine.endpoints.get(id, app=call.authenticated.app))


@router.patch(
    "/{id}",
    response_model=EndpointOut,
    summary="Change the properties of a device",
    description="A property that is left out stays; null sets its default: no platform, no tags, no end. The address is changed by "
    "entering the new one and deleting this.",
    responses=errors(400, 404, 409),
)
async def _update(call: AppCall, id: Id, wanted: EndpointPatch) -> dict[str, Any]:
    stored = await call.service.engine.endpoints.get(id, app=call.authenticated.app)
    if stored.state is not EndpointState.ACTIVE or not stored.user:
        raise Conflict(f"The endpoint {id} is not active: enter its address again, or restore it.")
    given = wanted.model_fields_set
    endpoint = await call.service.engine.endpoints.change(
        stored,
        **shown(stored) | changed(wanted, given),
        tags=wanted.tags or () if "tags" in given else stored.tags,
        expires_at=wanted.expires_at if "expires_at" in given else stored.expires_at,
    )
    return _report(endpoint)


@router.delete(
    "/{id}",
    status_code=204,
    response_model=None,  # an annotation of None would be one, in the lowest version of FastAPI that is allowed
    summary="Take a device out; its queued deliveries are cancelled",
    responses=errors(404),
)
async def _delete(call: AppCall, id: Id) -> None:
    endpoints = call.service.engine.endpoints
    await endpoints.get(id, app=call.authenticated.app)
    await endpoints.remove(id, app=call.authenticated.app)


@router.post(
    "/{id}/restore",
    response_model=EndpointOut,
    summary="Take a device back from quarantine",
    responses=errors(404, 409),
)
async def _restore(call: AppCall, id: Id) -> dict[str, Any]:
    endpoints = call.service.engine.endpoints
    await endpoints.restore(id, app=call.authenticated.app)
    found = await endpoints.get(id, app=call.authenticated.app)
    if found.state is not EndpointState.ACTIVE:
        raise Conflict(
            f"The endpoint {id} cannot be restored: it is {found.state}, or its address was registered anew. Register its address again."
        )
    return _report(found)


def _report(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "user": endpoint.user,
        "binding": endpoint.binding,
        "kind": endpoint.address.kind,
        "group": endpoint.address.group,
        **shown(endpoint),
        "tags": list(endpoint.tags),
        "state": str(endpoint.state),
        **{name: getattr(endpoint, name) for name in AS_STORED},
    }
