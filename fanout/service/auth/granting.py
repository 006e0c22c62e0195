"""A new key or host name for the database, judged as the file's are: for the routes and for the shell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from fanout.config import ApiKeySettings, ServiceSettings
from fanout.core.access import MOST_GRANTS, Grant, GrantKind
from fanout.core.roles import ROLES
from fanout.core.secret import Secret
from fanout.errors import Conflict, UsageError
from fanout.plugin import Access, Clock
from fanout.service.auth.api_key import new_api_key
from fanout.service.auth.user_token import new_signer, proof_of

__all__ = ["enter", "host_of", "key_of"]

_NAME = 200


def key_of(
    app: str, now: float, *, kind: str = "caller", name: str = "", role: str | None = None, expires: str | None = None
) -> tuple[Grant, Secret]:
    """A new key of that app, and the text that is shown once. `expires` is written as in the file. Raises
    `UsageError`."""
    if role == "user":
        raise UsageError("role user is no role: a key that signs users' tokens is of the kind signer (--kind signer).")
    if kind not in ("caller", "signer"):
        raise UsageError(f"kind {kind!r} is no kind of key: use caller or signer.")
    if kind == "signer" and role is not None:
        raise UsageError("role is for a key of the kind caller: leave it out.")
    if role is not None and role not in ROLES:
        raise UsageError(f"role {role!r} is no role: use {', '.join(ROLES)}.")
    if len(name) > _NAME or not (name.isprintable() or not name):
        raise UsageError(f"name must be a text of at most {_NAME} printable characters.")
    ends_at = ApiKeySettings(id="0" * 12, hash="sha256:" + "0" * 64, expires=expires).ends_at
    if ends_at is not None and ends_at <= now:
        raise UsageError(f"expires {expires!r} is past: a key that has ended lets no client call.")
    if kind == "caller":
        made = new_api_key()
        id, secret, proof = made.id, made.key, made.hash
    else:
        signer = new_signer()
        id, secret, proof = signer.id, signer.secret, proof_of(signer)
    grant = Grant(
        id=id,
        app=app,
        kind=cast("GrantKind", kind),
        proof=proof,
        name=name,
        role=role or "app",
        expires_at=ends_at,
    )
    return grant, secret


def host_of(app: str, host: str) -> Grant:
    """A host name of that app, in lower case. Raises `UsageError` for a text that is none."""
    (name,) = ServiceSettings(host_names={host: app}).host_names
    return Grant(id=name, app=app, kind="host")


async def enter(
    access: Access, grant: Grant, clock: Clock, *, by: str, apps: Collection[str], hosts: Mapping[str, str]
) -> Grant:
    """Enter it at the word of `by`; as it stands then. `apps` and `hosts` are the file's: an app is made there, and its
    host names stand.

    Raises `UsageError` for an app that is none, and `Conflict` for a host name that is taken, and where the app has too
    many.
    """
    if grant.app not in apps:
        raise UsageError(f"{grant.app!r} is no app of the configuration: it has {', '.join(sorted(apps))}.")
    standing = [each for each in await access.grants() if each.app == grant.app]
    if len(standing) >= MOST_GRANTS:
        raise Conflict(f"The app {grant.app} has {MOST_GRANTS} keys and host names in the database: revoke one first.")
    now = clock.now()
    if grant.id in hosts or not await access.grant(grant, now, by=by):
        raise Conflict(f"{grant.id} stands already: a host name belongs to one app, so revoke it there first.")
    return next((each for each in await access.grants() if each.id == grant.id), grant)
