"""What `storage = "postgresql://…"` may say.

    postgresql://USER:PASSWORD@HOST:PORT/DATABASE?pool=4&schema=fanout&prepared=on

Everything that libpq's URLs may hold is passed on (`sslmode`, several hosts with commas, `host=/var/run/postgresql` for a Unix
socket, `passfile`), and what is left out is taken from PGHOST, PGPASSWORD, ~/.pgpass and the like. Ours, and not passed on:
`pool` is how many connections one storage may have (1 to 100), `schema` is the name under which the tables stand, and
`prepared=off` makes it fit for PgBouncer in transaction mode: nothing is prepared by name, and what is set for a connection is set
in each transaction instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fanout.errors import ConfigurationError

__all__ = ["Options", "parse"]

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_POOL_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Options:
    """A database's address, taken apart. `dsn` may hold a password and is never shown; `shown` is the same without it."""

    dsn: str = field(repr=False)
    shown: str
    pool: int = 4
    schema: str = "fanout"
    prepared: bool = True
    several: bool = False
    """Whether it names more than one host."""


def parse(location: str) -> Options:
    """The options in what follows the scheme's colon. Raises `ConfigurationError`, which never repeats the address as it was given."""
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
    others = [(key, value) for key, value in query if key not in ("pool", "schema", "prepared")]
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
        several="," in parts.netloc.rpartition("@")[2] or "," in ours.get("host", ""),
    )


def _shown(netloc: str, path: str, query: list[tuple[str, str]]) -> str:
    """Without a password, wherever it stood."""
    user, at, hosts = netloc.rpartition("@")
    user = user.partition(":")[0]
    named = dict(query)
    if not hosts and "host" in named:
        hosts = named["host"] + (f":{named['port']}" if "port" in named else "")
    return f"postgresql://{quote(unquote(user)) + at if at else ''}{hosts}{path}"
