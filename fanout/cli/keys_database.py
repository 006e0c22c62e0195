"""`fanout keys add | list | revoke`: keys and host names in the database, for every process at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from fanout.cli.key_files import write_new
from fanout.cli.shell import emit, parts, run, say, table
from fanout.core.access import Grant
from fanout.core.secret import Secret
from fanout.errors import UsageError

__all__ = ["add_key", "list_keys", "revoke_key"]

_BY = "shell"
_HEADS = ("id", "app", "kind", "role", "name", "expires", "made", "used")


def add_key(
    app: str,
    out: Path | None,
    *,
    kind: str,
    name: str | None,
    role: str | None,
    expires: str | None,
    config: Path | None,
    json: bool,
) -> None:
    """Make a key of that kind, or take the host name `name`, for that app, and print the key once. Raises
    `UsageError`."""
    if kind not in ("caller", "signer", "host"):
        raise UsageError(f"--kind {kind!r} is nothing that is added: use caller, signer or host.")
    if kind == "host" and (name is None or role is not None or expires is not None or out is not None):
        raise UsageError("--kind host takes --name, the host name, and neither --role, --expires nor --out.")

    async def command() -> int:
        from fanout.service.auth.granting import enter, host_of, key_of

        made = parts(config, "keys", create=True, app=app)
        async with made.engine(role="submit") as engine:
            clock, secret = engine.reads.clock(made.clock), None
            if kind == "host":
                grant = host_of(app, name or "")
            else:
                grant, secret = key_of(app, clock.now(), kind=kind, name=name or "", role=role, expires=expires)
            if out is not None and secret is not None:
                write_new(out, secret.reveal())  # before it is one: a key without a holder is of no use
            service = made.settings.service
            grant = await enter(engine.reads.access, grant, clock, by=_BY, apps=engine.apps, hosts=service.host_names)
        _show(grant, None if out is not None else secret, out, json=json)
        return 0

    run(command)


def list_keys(app: str | None, *, config: Path | None, json: bool) -> None:
    """Print those of the app, or of all, without secrets."""

    async def command() -> int:
        async with parts(config, "keys", app=app).engine(role="submit") as engine:
            found = [grant for grant in await engine.reads.access.grants() if app in (None, grant.app)]
        if json:
            for grant in found:
                emit(_shown(grant))
        elif found:
            typer.echo(table([_row(grant) for grant in found], _HEADS))
        else:
            say("There is no key and no host name in the database: those of the file stand in [service].")
        return 0

    run(command)


def revoke_key(id: str, app: str | None, *, config: Path | None, json: bool) -> None:
    """Take out the key or host name of that id, of any app unless one is named. Ends with 1 where there is none."""

    async def command() -> int:
        made = parts(config, "keys", app=app)
        async with made.engine(role="submit") as engine:
            access, now = engine.reads.access, engine.reads.clock(made.clock).now()
            owners = [grant.app for grant in await access.grants() if grant.id == id and app in (None, grant.app)]
            gone = bool(owners) and await access.revoke(owners[0], id, now, by=_BY)
        if json:
            emit({"id": id, "revoked": gone})
        elif gone:
            say(f"{id} is revoked: every process refuses it within five seconds.")
        else:
            say(
                f"There is no {id} in the database: `fanout keys list` shows what there is; a key of the file is taken out there."
            )
        return 0 if gone else 1

    run(command)


def _show(grant: Grant, shown: Secret | None, out: Path | None, *, json: bool) -> None:
    if json:
        emit(_shown(grant) | {"key": shown and shown.reveal()})
    elif grant.kind == "host":
        typer.echo(grant.id)
    elif shown is not None:
        say(f"The key {grant.id} of the app {grant.app} is shown this once; every process knows it by now.")
        typer.echo(shown.reveal())
    else:
        say(f"The key is in {out}, readable by you alone; every process knows it by now.")
        typer.echo(grant.id)


def _shown(grant: Grant) -> dict[str, Any]:
    names = ("id", "app", "kind", "name", "role", "expires_at", "made_at", "used_at")
    return {name: getattr(grant, name) for name in names} | {"role": grant.role if grant.kind == "caller" else None}


def _row(grant: Grant) -> list[object]:
    role = grant.role if grant.kind == "caller" else "-"
    times = (grant.expires_at, grant.made_at, grant.used_at)
    return [grant.id, grant.app, grant.kind, role, grant.name or "-", *map(_when, times)]


def _when(at: float | None) -> str:
    """An expiry of any year was stored once; a datetime ends with 9999."""
    return "-" if at is None else datetime.fromtimestamp(min(at, 253_402_300_799), UTC).strftime("%Y-%m-%d %H:%M")
