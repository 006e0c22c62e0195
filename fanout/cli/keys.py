"""`fanout keys`: a new credential of one's own making, and where its two halves belong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fanout.cli.gateways import toml_value
from fanout.cli.key_files import from_configuration, write_new
from fanout.cli.keys_address import address_key
from fanout.cli.keys_api import api_key
from fanout.cli.keys_database import add_key, list_keys, revoke_key
from fanout.cli.options import Config, Json
from fanout.cli.shell import answer, say
from fanout.errors import ConfigurationError, UsageError
from fanout.plugin import KeyPair
from fanout.registry import Registry

__all__ = ["keys", "make_keys"]


def keys(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="The kind of key to make: vapid, the key pair of Web Push; api, a key to the service; address, a key to encrypt "
            "addresses with. Or an action on the keys and host names in the database: add, list, revoke.",
        ),
    ],
    id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="revoke: the key's id, or the host name.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to put the private key; it is never overwritten.", show_default=False
        ),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option("--app", metavar="APP", help="api, add: the app that the key belongs to; otherwise default."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="api, add: the rights of the caller: app (all, the default), send, devices, read or operator.",
        ),
    ] = None,
    which: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="api, add: caller, a key that calls the service (the default), or signer, a key to sign users' tokens with. add: host, a "
            "host name.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="WHEN", help="api, add: until when the key serves, as 2030-01-31.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="add: the key's name for people; or the host name.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Make a new key, and print what belongs to the clients and the lines for the configuration.

    add, list and revoke are for the keys and host names in the database, which stand beside those of the file.
    """
    database = {"add", "list", "revoke"}
    if (id is None) == (kind == "revoke"):
        raise UsageError("fanout keys revoke ID: name the key's id or the host name; nothing else takes one.")
    if name is not None and kind != "add":
        raise UsageError("--name is for `fanout keys add`: leave it out.")
    if kind == "add":
        owner = "default" if app is None else app
        add_key(owner, out, kind=which or "caller", name=name, role=role, expires=expires, config=config, json=json)
        return
    if kind in database:
        for flag, value in (("--role", role), ("--kind", which), ("--expires", expires), ("--out", out)):
            if value is not None:
                raise UsageError(f"{flag} is for `fanout keys add`: leave it out.")
        if id is None:
            list_keys(app, config=config, json=json)
        else:
            revoke_key(id, app, config=config, json=json)
        return
    if kind == "api":
        owner = "default" if app is None else app
        api_key(owner, out, kind=which or "caller", role=role, expires=expires, config=config, json=json)
        return
    for flag, value in (("--app", app), ("--role", role), ("--kind", which), ("--expires", expires)):
        if value is not None:
            raise UsageError(f"{flag} is for `fanout keys api`: leave it out.")
    if kind == "address":
        address_key(out, config, json=json)
        return
    transport, pair = make_keys(Registry(), kind)
    if out is None:
        say("Nothing is stored: keep the private key that is printed, or let --out FILE put one into a file.")
        table = {pair.setting: pair.private.reveal(), **pair.more}
    else:
        write_new(out, pair.private.reveal())
        say(
            f"The private key is in {out}, readable by you alone. Keep it: subscriptions made with "
            "its public half work with no other key."
        )
        table = {f"{pair.setting}_file": from_configuration(out, config), **pair.more}
    answer(
        {"kind": kind, "transport": transport, pair.public_name: pair.public, "settings": table},
        _toml(transport, pair, table),
        json=json,
    )


def make_keys(registry: Registry, kind: str) -> tuple[str, KeyPair]:
    """A new pair of that kind and the transport that it is for. Raises `UsageError`, and `PluginError` for a broken
    plugin."""
    kinds: list[str] = []
    for name, plugin in registry.transports().items():
        if kind in plugin.keys:
            pair: KeyPair = registry.resolve("transport", name, plugin.keys[kind])()
            return name, pair
        kinds += plugin.keys
    if not kinds:
        raise ConfigurationError("No installed transport makes keys: `fanout doctor` shows what is installed.")
    raise UsageError(
        f"{kind!r} is no kind of key: there is {', '.join(sorted([*kinds, 'api', 'address']))}; or add, list and revoke."
    )


def _toml(transport: str, pair: KeyPair, table: dict[str, str]) -> str:
    lines = [f"# {pair.public_name}, for the clients: {pair.public}", f"[apps.default.transports.{transport}]"]
    for name, value in table.items():
        written = f'"""\n{value.strip()}\n"""' if "\n" in value else toml_value(value)
        lines.append(f"{name} = {written}" + ("          # your own" if name in pair.more else ""))
    return "\n".join(lines)
