"""`/v1/audit`: the audit log of the caller's app."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fanout.core.audit import AUDIT
from fanout.service.call import AppCall
from fanout.service.docs import errors
from fanout.service.v1.paging import Cursor, Limit, cursor_of, position_of

__all__ = ["router"]

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class AuditOut(BaseModel):
    """One line. `data` names the caller (`by`) and the fields of its kind; a user is a hash (`person`)."""

    id: int
    at: float = Field(description="UNIX seconds.")
    kind: str
    data: dict[str, Any]


class AuditPage(BaseModel):
    """Lines, oldest first. Keep the cursor: with it the next page begins, now or when there is more."""

    lines: list[AuditOut]
    cursor: str


@router.get(
    "",
    response_model=AuditPage,
    summary="The audit log: users erased, keys made, bindings and notifications stopped",
    description="For an API key of the role `operator`, and of its app.",
    responses=errors(400, 403),
)
async def _audit(
    call: AppCall,
    kind: Annotated[str, Query(max_length=64, description="Only kinds that begin so, such as `audit.user`.")] = AUDIT,
    since: Annotated[float, Query(ge=0, description="Only from then on (UNIX seconds).")] = 0.0,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    after = position_of(cursor)
    page = await call.service.engine.reads.events(after=after, limit=limit, audit=True)
    mine = [
        line for line in page if line.app == call.authenticated.app and line.kind.startswith(kind) and line.at >= since
    ]
    lines = [{"id": line.id, "at": line.at, "kind": line.kind, "data": dict(line.data)} for line in mine]
    return {"lines": lines, "cursor": cursor_of(page[-1].id if page else after)}
