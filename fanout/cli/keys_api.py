"""`fanout keys api`: a key to the service, and the lines by which the service knows it."""

from __future__ import annotations

from pathlib import Path

import typer

from fanout.cli.gateways import toml_value
from fanout.cli.key_files import from_configuration, write_new
from fanout.cli.shell import emit, say
from fanout.config import ApiKeySettings
from fanout.core.roles import ROLES
from fanout.core.secret import Secret
from fanout.errors import UsageError

__all__ = ["api_key"]

_KINDS = ("caller", "signer")


def api_key(
    app: str,
    out: Path | None,
    *,
    kind: str = "caller",
    role: str | None = None,
    expires: str | None = None,
    config: Path | None = None,
    json: bool,
) -> None:
    """Make a key of that kind for that app and print it, once. Raises `UsageError`.

    The key of a caller is for the app's server, and the configuration holds its hash; `role` (otherwise app) gives its
    rights, and `expires` until when it serves. The key of a signer is for the app's server, which signs user tokens
    with it, and for the configuration as well: with `out` it is put into a file that the configuration names.
    """
    if kind not in _KINDS:
        raise UsageError(f"--kind {kind!r} is no kind of key: use caller or signer.")
    if role == "user":
        raise UsageError("--role user is no role: a key that signs users' tokens is made with --kind signer.")
    if role is not None and role not in ROLES:
        raise UsageError(f"--role {role!r} is no role: use {', '.join(ROLES)}.")
    if kind == "signer" and (role is not None or expires is not None):
        raise UsageError("--role and --expires are for --kind caller: leave them out.")
    if not app:
        raise UsageError("--app is empty: name the app that the key belongs to.")
    table = "keys" if kind == "caller" else "user_keys"
    secret, lines = _app_key(app, role, expires, out) if kind == "caller" else _user_key(app, out, config)
    shown = secret if out is None else None
    if json:
        emit(
            {
                "kind": "api",
                "role": role or "app" if kind == "caller" else None,
                "key": shown and shown.reveal(),
                "table": f"service.{table}",
                "settings": lines,
            }
        )
        return
    if shown is not None and kind == "caller":
        typer.echo(f"# The key, for the app's server: {shown.reveal()}")
    typer.echo("\n".join([f"[[service.{table}]]", *(f"{name} = {toml_value(value)}" for name, value in lines.items())]))


def _app_key(app: str, role: str | None, expires: str | None, out: Path | None) -> tuple[Secret, dict[str, str]]:
    from fanout.service.auth import new_api_key

    made = new_api_key()
    more = {name: value for name, value in (("role", role), ("expires", expires)) if value is not None}
    try:
        ApiKeySettings(id=made.id, hash=made.hash, expires=expires)
    except UsageError as error:
        raise UsageError(f"--{error}") from None
    if out is None:
        say("The key is shown this once: the configuration holds only its hash. It goes into Authorization: Bearer.")
    else:
        write_new(out, made.key.reveal())
        say(
            f"The key is in {out}, readable by you alone: give it to the app's server, which sends it as Authorization: Bearer."
        )
    return made.key, {"id": made.id, "hash": made.hash, "app": app, **more}


def _user_key(app: str, out: Path | None, config: Path | None) -> tuple[Secret, dict[str, str]]:
    from fanout.service.auth import new_user_key

    made = new_user_key()
    lines = {"id": made.id, "secret": made.secret.reveal(), "app": app}
    if out is None:
        say(
            "Nothing is stored. The secret is for the app's server too, which signs user tokens with it; --out FILE puts it into a file."
        )
    else:
        write_new(out, made.secret.reveal())
        say(
            f"The secret is in {out}, readable by you alone: the app's server signs user tokens with it, and needs a copy."
        )
        lines = {"id": made.id, "secret_file": from_configuration(out, config), "app": app}
    return made.secret, lines
