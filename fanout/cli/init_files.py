"""The files that `fanout init` leaves: a commented configuration, and secrets beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fanout.cli.gateways import toml_value
from fanout.cli.init_answers import Answers, Binding
from fanout.cli.key_files import write_new
from fanout.errors import UsageError
from fanout.registry import Registry

__all__ = ["Made", "lay_out", "write"]

_FOLDER = "secrets"

_HEAD = """\
# Made by `fanout init`. `fanout doctor` proves what stands here and pushes nothing; a running program follows changes.
# Relative paths start at this file's folder. "${NAME}" in a value is an environment variable, "$$" a dollar sign. Any
# setting may come from the environment alone: FANOUT_STORAGE, FANOUT_APPS__DEFAULT__TRANSPORTS__…
"""
_TAIL = """
# The limits of its patience with gateways. These are the defaults.
# [policy]
# attempts = 10
# backoff_cap = "1h"

# For how long what is finished is kept.
# [retention]
# notifications = "7d"

# Addresses of devices encrypted in the database, with the key of `fanout keys address --out secrets/address`.
# [addresses]
# key_file = "secrets/address"
"""


@dataclass(frozen=True, slots=True)
class Made:
    """The files to be written. `told` are the files of secrets, each with its purpose."""

    file: Path
    text: str = field(repr=False)
    secrets: Mapping[Path, str] = field(repr=False)
    notes: tuple[tuple[Path, str], ...]


def lay_out(registry: Registry, answers: Answers, file: Path) -> Made:
    """The configuration's text and the secrets that it names, in a folder beside it."""
    from fanout.service.auth import new_api_key, new_user_key

    secrets: dict[str, str] = {}
    notes: dict[str, str] = {}

    def secret(name: str, text: str, what: str) -> str:
        secrets[name], notes[name] = text, what
        return f"{_FOLDER}/{name}"

    lines = [_HEAD]
    lines += ["# Where the queue is: SQLite's file on one machine, or PostgreSQL (postgresql://…) for several."]
    if _holds_password(answers.storage):
        lines.append(
            f"storage_file = {toml_value(secret('storage', answers.storage, 'where the database is, and its password'))}"
        )
    else:
        lines.append(f"storage = {toml_value(answers.storage)}")
    lines += [
        "",
        '# The egress proxy, where the network has one, or "environment" for what HTTPS_PROXY and NO_PROXY say.',
    ]
    lines += ['# proxy = "http://proxy.example.com:3128"']
    for name, binding in answers.bindings.items():
        lines += ["", f"[apps.{_key(answers.app)}.transports.{_key(name)}]"]
        lines += _settings(name, binding, secret)
    api, user = new_api_key(), new_user_key()
    app = toml_value(answers.app)
    secret("api-key", api.key.reveal(), "the API key: for the app's server, as Authorization: Bearer")
    lines += [
        "",
        "# Callers of `fanout serve`. The app's server has the key; here is only its hash (`fanout keys api` makes more).",
        "[[service.keys]]",
    ]
    lines += [f"id = {toml_value(api.id)}", f"hash = {toml_value(api.hash)}", f"app = {app}"]
    path = secret("user-key", user.secret.reveal(), "signs users' tokens: for the app's server, and for the service")
    lines += [
        "",
        "# The app's server signs short tokens for its users with this key: their devices call the service with them.",
        "[[service.user_keys]]",
    ]
    lines += [f"id = {toml_value(user.id)}", f"secret_file = {toml_value(path)}", f"app = {app}", _TAIL]
    folder = file.parent / _FOLDER
    return Made(
        file,
        "\n".join(lines),
        {folder / name: text for name, text in secrets.items()},
        tuple((folder / name, what) for name, what in notes.items()),
    )


def write(made: Made, *, force: bool) -> list[tuple[Path, Path]]:
    """Put the files there; returns the earlier files and the names under which they are kept. Raises `UsageError`, with
    nothing left half written."""
    there = [path for path in (*made.secrets, made.file) if path.exists() or path.is_symlink()]
    if there and not force:
        raise UsageError(
            f"{there[0]} exists already: --force replaces it and keeps it as {there[0].name}.1, or name another --config."
        )
    kept: list[tuple[Path, Path]] = []
    written: list[Path] = []
    try:
        for folder in {path.parent for path in made.secrets}:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in there:
            kept.append((old, _aside(old)))
            old.rename(kept[-1][1])
        for path, text in made.secrets.items():
            write_new(path, text + "\n", flag="--config: its secret")
            written.append(path)
        write_new(made.file, made.text, 0o644, flag="--config")
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        for old, new in kept:
            if not old.exists():
                new.rename(old)
        if isinstance(error, OSError):
            raise UsageError(
                f"{error.filename or made.file} cannot be written ({error.strerror}): name another --config."
            ) from None
        raise
    return kept


def _settings(name: str, binding: Binding, secret: Any) -> Iterator[str]:
    for setting, value in binding.values.items():
        if setting in binding.why:
            yield f"# {binding.why[setting]}."
        yield f"{setting} = {toml_value(value)}"
    for label, text in binding.public.items():
        yield f"# {label}, for the clients: {text}"
    for setting, hidden in binding.secrets.items():
        if setting in binding.why:
            yield f"# {binding.why[setting]}."
        yield f"{setting}_file = {toml_value(secret(f'{name}-{setting}', hidden.reveal().strip(), f'{name}: {setting}'))}"


def _key(name: str) -> str:
    """A key of TOML."""
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isascii() and bare.isalnum() else toml_value(name)


def _holds_password(storage: str) -> bool:
    scheme, _, rest = storage.partition(":")
    return rest.startswith("//") and ("@" in urlsplit(f"{scheme}:{rest}").netloc or "password=" in rest)


def _aside(path: Path) -> Path:
    number = 1
    while os.path.lexists(made := path.with_name(f"{path.name}.{number}")):
        number += 1
    return made
