"""`fanout keys address`: a key under which addresses are kept, and the lines of the configuration that name it."""

from __future__ import annotations

from pathlib import Path

from fanout.cli.gateways import toml_value
from fanout.cli.key_files import from_configuration, write_new
from fanout.cli.shell import answer, say
from fanout.plugin import Sealer, new_address_key

__all__ = ["address_key"]


def address_key(out: Path | None, config: Path | None, *, json: bool) -> None:
    """Make a key, put it into the file `out`, or show it this once; `config` is the configuration that is to name it.
    Raises `UsageError`."""
    key = new_address_key()
    (id,) = Sealer.of(key).ids
    if out is None:
        say("Nothing is stored: put the key that is printed into a file of its own, or let --out FILE do it.")
        lines = {"key": key.reveal()}
    else:
        write_new(out, key.reveal() + "\n")
        say(
            f"The key {id} is in {out}, readable by you alone. Keep a copy apart from the database's: without it no address opens."
        )
        lines = {"key_file": from_configuration(out, config)}
    say(
        "A database that has addresses in clear is sealed by `fanout endpoints seal`, an empty one when it is first opened."
    )
    answer(
        {"kind": "address", "id": id, "table": "addresses", "settings": lines},
        "\n".join(["[addresses]", *(f"{name} = {toml_value(value)}" for name, value in lines.items())]),
        json=json,
    )
