"""The forms of `storage = "postgresql://…"`.

    postgresql://USER:PASSWORD@HOST:PORT/DATABASE?pool=4&schema=fanout&prepared=on

Everything that libpq's URLs may hold is passed on (`sslmode`, several hosts with commas, `host=/var/run/postgresql` for
a Unix socket, `passfile`); of several hosts, which are tried overlapping, the first that takes writes is used, so that
`target_session_attrs` may say `read-write` or `primary` and nothing else. A part that is left out is taken from PGHOST,
PGPASSWORD, ~/.pgpass and the like. Ours, and not passed on: `pool` is how many connections one storage may have (1 to
100), `schema` is the name under which the tables stand, and `prepared=off` makes it fit for PgBouncer in transaction
mode: nothing is prepared by name, and settings of a connection are made in each transaction instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fanout.errors import ConfigurationError

__all__ = ["Options", "parse"]

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_POOL_LIMIT = 100
_OURS = ("pool", "schema", "prepared", "target_session_attrs")
_WISHES = ("read-write", "primary")
"""Values of libpq's `target_session_attrs` that a storage can be served with: the server that is found is asked in any
case."""


@dataclass(frozen=True, slots=True)
class Options:
    """A database's address, taken apart. `dsn` may hold a password and is never shown; `shown` is the same without
    it."""

    dsn: str = field(repr=False)
    shown: str
    pool: int = 4
    schema: str = "fanout"
    prepared: bool = True
    hosts: tuple[str, ...] = field(default=(), repr=False)
    """The same address once for each of its hosts, in their order."""


def parse(location: str) -> Options:
    """The options in the text after the scheme's colon. Raises `ConfigurationError`, which never repeats the address as
    it was given."""
    if not location.startswith("//"):
        raise ConfigurationError(
            'storage: a PostgreSQL database needs a URL: write storage = "postgresql://USER@HOST/DATABASE" (the password may stand in PGPASSWORD).'
        )
    try:
        parts = urlsplit(f"postgresql:{location}")
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigurationError(
            "storage: the URL of the PostgreSQL database cannot be read: write postgresql://USER@HOST/DATABASE, and a special character of the "
            "password as % and two digits."
        ) from None
    ours = dict(query)
    wish = ours.get("target_session_attrs", "read-write")
    if wish not in _WISHES:
        raise ConfigurationError(
            f"storage: target_session_attrs={wish!r} in its URL: write read-write or primary, or leave it out, for a storage is written to."
        )
    others = [(key, value) for key, value in query if key not in _OURS]
    schema = ours.get("schema", "fanout")
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigurationError(
            f"storage: schema={schema!r} in its URL is no name: use small letters, digits and underscores, and not pg_ in front."
        )
    pool = ours.get("pool", "4")
    if not (pool.isascii() and pool.isdigit() and len(pool) < 4 and 1 <= int(pool) <= _POOL_LIMIT):
        raise ConfigurationError(
            f"storage: pool={pool!r} in its URL: give a number of connections from 1 to {_POOL_LIMIT}."
        )
    prepared = ours.get("prepared", "on")
    if prepared not in ("on", "off"):
        raise ConfigurationError(f"storage: prepared={prepared!r} in its URL: write on, or off for PgBouncer.")
    tail = f"?{urlencode(others)}" if others else ""
    return Options(
        dsn=f"postgresql://{parts.netloc}{parts.path}{tail}",
        shown=_shown(parts.netloc, parts.path, others),
        pool=int(pool),
        schema=schema,
        prepared=prepared == "on",
        hosts=tuple(_each_host(parts.netloc, parts.path, others)),
    )


def _each_host(netloc: str, path: str, query: list[tuple[str, str]]) -> Iterator[str]:
    """An address for each host that is named: in front, in the query, or else by the environment (PGHOST), with its own
    port."""
    user, at, hosts = netloc.rpartition("@")
    named = dict(query)
    rest = [(key, value) for key, value in query if key not in ("host", "port")]
    if hosts:
        pairs = [(host, "") for host in hosts.split(",")]
    else:
        several = (named.get("host") or os.environ.get("PGHOST", "")).split(",")
        ports = (named.get("port") or os.environ.get("PGPORT", "")).split(",")
        pairs = [(host, ports[min(number, len(ports) - 1)]) for number, host in enumerate(several)]
    for host, port in pairs:
        more = [] if hosts else [(key, value) for key, value in (("host", host), ("port", port)) if value]
        tail = urlencode([*(query if hosts else rest), *more])
        yield f"postgresql://{user}{at}{host if hosts else ''}{path}{'?' + tail if tail else ''}"


def _shown(netloc: str, path: str, query: list[tuple[str, str]]) -> str:
    """Without a password, wherever it stood."""
    user, at, hosts = netloc.rpartition("@")
    user = user.partition(":")[0]
    named = dict(query)
    if not hosts and "host" in named:
        hosts = named["host"] + (f":{named['port']}" if "port" in named else "")
    return f"postgresql://{quote(unquote(user)) + at if at else ''}{hosts}{path}"
