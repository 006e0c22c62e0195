"""`fanout keys`: a new credential of one's own making, and where its two halves belong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fanout.cli.gateways import toml_value
from fanout.cli.options import Json
from fanout.cli.shell import emit, say
from fanout.errors import ConfigurationError, UsageError
from fanout.plugin import KeyPair
from fanout.registry import Registry

__all__ = ["keys", "make_keys"]


def keys(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to make: vapid, the key pair of Web Push.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to put the private key; it is never overwritten.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a new key pair, and print its public half and the lines for the configuration."""
    transport, pair = make_keys(Registry(), kind)
    if out is None:
        say("Nothing is stored: keep the private key that is printed, or let --out FILE put one into a file.")
        table = {pair.setting: pair.private.reveal(), **pair.more}
    else:
        _write_new(out, pair.private.reveal())
        say(
            f"The private key is in {out}, readable by you alone. Keep it: what is made with its public half works with no other."
        )
        table = {f"{pair.setting}_file": _from_configuration(out), **pair.more}
    if json:
        emit({"kind": kind, "transport": transport, pair.public_name: pair.public, "settings": table})
    else:
        typer.echo(_toml(transport, pair, table))


def make_keys(registry: Registry, kind: str) -> tuple[str, KeyPair]:
    """A new pair of that kind and the transport that it is for. Raises `UsageError`, and `PluginError` for a broken plugin."""
    known: list[str] = []
    for info in registry.list(load=True):
        if info.kind != "transport" or info.state != "loaded":
            continue
        makers = registry.transport(info.name).keys
        if kind in makers:
            pair: KeyPair = registry.resolve("transport", info.name, makers[kind])()
            return info.name, pair
        known += makers
    if not known:
        raise ConfigurationError("No installed transport makes keys: `fanout doctor` shows what is installed.")
    raise UsageError(f"{kind!r} is no kind of key: there is {', '.join(sorted(known))}.")


def _write_new(file: Path, text: str) -> None:
    """A file that only its owner can read and that was not there before. Raises `UsageError`."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"--out {file} exists already, and a key is not overwritten, as its subscriptions would be lost: name another file."
        ) from None
    except OSError as error:
        raise UsageError(f"--out {file} cannot be made ({error.strerror}): name another file.") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        file.unlink(missing_ok=True)
        raise UsageError(f"--out {file} cannot be written ({error.strerror}): name another file.") from None


def _from_configuration(file: Path) -> str:
    """The path as the configuration has to name it: relative paths start at the configuration's own folder."""
    folder = Path(os.environ.get("FANOUT_CONFIG") or "fanout.toml").absolute().parent
    absolute = file.absolute()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def _toml(transport: str, pair: KeyPair, table: dict[str, str]) -> str:
    lines = [f"# {pair.public_name}, for the clients: {pair.public}", f"[apps.default.transports.{transport}]"]
    for name, value in table.items():
        written = f'"""\n{value.strip()}\n"""' if "\n" in value else toml_value(value)
        lines.append(f"{name} = {written}" + ("          # your own" if name in pair.more else ""))
    return "\n".join(lines)
