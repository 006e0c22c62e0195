"""`/v1/keys` and `/v1/hosts`: the credentials of callers, made, listed and revoked at run time by a key of the role
operator, for its own app."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from fanout.core.access import Grant
from fanout.core.roles import Role
from fanout.errors import NotFound
from fanout.service.auth.granting import enter, host_of, key_of
from fanout.service.call import AppCall
from fanout.service.docs import errors
from fanout.service.v1.models import In

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["keys"])

Kind = Literal["caller", "signer"]
Source = Literal["database", "file"]
_UNSTORED = {"cache-control": "no-store"}


class KeyIn(In):
    """A new key of the caller's app."""

    kind: str = Field("caller", max_length=16, description="caller, or signer: a key that signs users' tokens.")
    name: str = Field("", max_length=200, description="For people.")
    role: str | None = Field(
        None, max_length=16, description="Of a caller: app (the default), send, devices, read, operator."
    )
    expires: str | None = Field(None, max_length=64, description="Until when it serves, as 2030-01-31.")


class KeyOut(BaseModel):
    """A key, without its secret. Times are UNIX seconds; `used_at` lags by a minute."""

    id: str
    kind: Kind
    name: str
    role: Role | None = Field(description="None for a signer.")
    expires_at: float | None
    made_at: float | None = Field(description="None for a key of the configuration.")
    used_at: float | None
    source: Source = Field(description="A key of the file is made and taken out there.")


class KeyMade(KeyOut):
    """A new key, with what is shown once."""

    key: str


class KeyList(BaseModel):
    """All of the app's."""

    keys: list[KeyOut]


class HostIn(In):
    """A host name that is to be the caller's app's."""

    host: str = Field(min_length=1, max_length=260)


class HostOut(BaseModel):
    """A `targetHostName` of the app."""

    host: str
    made_at: float | None
    source: Source


class HostList(BaseModel):
    """All of the app's."""

    hosts: list[HostOut]


Id = Annotated[str, Path(min_length=1, max_length=260)]


@router.post(
    "/keys", status_code=201, response_model=KeyMade, summary="Make a key", responses=errors(409, 413, 415, 503, 507)
)
async def _make(call: AppCall, wanted: KeyIn, response: Response) -> dict[str, Any]:
    caller, service = call.authenticated, call.service
    grant, secret = key_of(
        caller.app,
        service.clock.now(),
        kind=wanted.kind,
        name=wanted.name,
        role=wanted.role,
        expires=wanted.expires,
    )
    made = await _enter(call, grant)
    response.headers.update(_UNSTORED)
    response.headers["location"] = f"{call.base}/v1/keys/{made.id}"
    return _key(made) | {"key": secret.reveal()}


@router.get("/keys", response_model=KeyList, summary="The app's keys, without secrets", responses=errors(503))
async def _keys(call: AppCall, response: Response) -> dict[str, Any]:
    response.headers.update(_UNSTORED)
    app, settings = call.authenticated.app, call.service.settings
    file = [
        {"id": key.id, "kind": "caller", "name": "", "role": key.role, "expires_at": key.ends_at}
        for key in settings.keys
        if key.app == app
    ] + [
        {"id": key.id, "kind": "signer", "name": "", "role": None, "expires_at": None}
        for key in settings.user_keys
        if key.app == app
    ]
    found = [_key(grant) for grant in await _grants(call) if grant.kind != "host"]
    return {"keys": found + [key | {"made_at": None, "used_at": None, "source": "file"} for key in file]}


@router.delete("/keys/{id}", status_code=204, response_model=None, summary="Revoke a key", responses=errors(404, 503))
async def _revoke(call: AppCall, id: Id) -> None:
    settings, app = call.service.settings, call.authenticated.app
    file = {(key.id, key.app) for key in settings.keys} | {(key.id, key.app) for key in settings.user_keys}
    if (id, app) in file:
        raise NotFound(f"The key {id} is of the configuration: take it out of [service] there.")
    await _take_out(call, id, "key", of_hosts=False)


@router.post(
    "/hosts",
    status_code=201,
    response_model=HostOut,
    summary="Take a host name",
    responses=errors(409, 413, 415, 503, 507),
)
async def _take(call: AppCall, wanted: HostIn) -> dict[str, Any]:
    return _host(await _enter(call, host_of(call.authenticated.app, wanted.host)))


@router.get("/hosts", response_model=HostList, summary="The app's host names", responses=errors(503))
async def _hosts(call: AppCall) -> dict[str, Any]:
    file = [name for name, app in call.service.settings.host_names.items() if app == call.authenticated.app]
    found = [_host(grant) for grant in await _grants(call) if grant.kind == "host"]
    return {"hosts": found + [{"host": name, "made_at": None, "source": "file"} for name in file]}


@router.delete(
    "/hosts/{id}", status_code=204, response_model=None, summary="Give a host name up", responses=errors(404, 503)
)
async def _give_up(call: AppCall, id: Id) -> None:
    await _take_out(call, id.lower(), "host name", of_hosts=True)


async def _grants(call: AppCall) -> list[Grant]:
    return [grant for grant in await call.service.engine.reads.access.grants() if grant.app == call.authenticated.app]


async def _enter(call: AppCall, grant: Grant) -> Grant:
    service = call.service
    made = await enter(
        service.engine.reads.access,
        grant,
        service.clock,
        by=f"key:{call.authenticated.client_id}",
        apps=service.engine.apps,
        hosts=service.settings.host_names,
    )
    await service.granted.read()
    return made


async def _take_out(call: AppCall, id: str, what: str, *, of_hosts: bool) -> None:
    app, service = call.authenticated.app, call.service
    fits = any(grant.id == id and (grant.kind == "host") == of_hosts for grant in await _grants(call))
    access = service.engine.reads.access
    if not fits or not await access.revoke(app, id, service.clock.now(), by=f"key:{call.authenticated.client_id}"):
        raise NotFound(f"The app has no {what} {id} in the database: GET /v1/keys and /v1/hosts list them.")
    await service.granted.read()


def _key(grant: Grant) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(grant).items() if name not in ("app", "proof")}
    return shown | {"role": grant.role if grant.kind == "caller" else None, "source": "database"}


def _host(grant: Grant) -> dict[str, Any]:
    return {"host": grant.id, "made_at": grant.made_at, "source": "database"}
