"""`fanout keys api`: a key to the service, and the lines by which the service knows it."""

from __future__ import annotations

from pathlib import Path

import typer

from fanout.cli.gateways import toml_value
from fanout.cli.key_files import from_configuration, write_new
from fanout.cli.shell import emit, say
from fanout.core.secret import Secret
from fanout.errors import UsageError

__all__ = ["api_key"]

_ROLES = ("app", "user")


def api_key(app: str, role: str, out: Path | None, *, json: bool) -> None:
    """Make a key of that role for that app and print it, once. Raises `UsageError`.

    The key of role `app` is for the caller, and the configuration holds its hash. The key of role `user` is for the app's server, which
    signs user tokens with it, and for the configuration as well: with `out` it is put into a file that the configuration names.
    """
    if role not in _ROLES:
        raise UsageError(f"--role {role!r} is no role: use app or user.")
    if not app:
        raise UsageError("--app is empty: name the app that the key belongs to.")
    table = "keys" if role == "app" else "user_keys"
    secret, lines = _app_key(app, out) if role == "app" else _user_key(app, out)
    shown = secret if out is None else None
    if json:
        emit(
            {
                "kind": "api",
                "role": role,
                "key": shown and shown.reveal(),
                "table": f"service.{table}",
                "settings": lines,
            }
        )
        return
    if shown is not None and role == "app":
        typer.echo(f"# The key, for the app's server: {shown.reveal()}")
    typer.echo("\n".join([f"[[service.{table}]]", *(f"{name} = {toml_value(value)}" for name, value in lines.items())]))


def _app_key(app: str, out: Path | None) -> tuple[Secret, dict[str, str]]:
    from fanout.service.auth import new_api_key

    made = new_api_key()
    if out is None:
        say("The key is shown this once: the configuration holds only its hash. It goes into Authorization: Bearer.")
    else:
        write_new(out, made.key.reveal())
        say(
            f"The key is in {out}, readable by you alone: give it to the app's server, which sends it as Authorization: Bearer."
        )
    return made.key, {"id": made.id, "hash": made.hash, "app": app}


def _user_key(app: str, out: Path | None) -> tuple[Secret, dict[str, str]]:
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
        lines = {"id": made.id, "secret_file": from_configuration(out), "app": app}
    return made.secret, lines
