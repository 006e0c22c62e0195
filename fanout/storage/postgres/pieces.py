"""Pieces of SQL as PostgreSQL has them: see `storage.sql.db`, and for the plans `db`."""

from __future__ import annotations

from typing import Any

__all__ = ["Pieces"]

_OF = "SELECT * FROM endpoint WHERE id = {0}.id AND shard = ({0}.id & 15)::smallint OFFSET 0"
"""The endpoint of a row of `{0}`."""


class Pieces:
    """The part of `Db` that makes text."""

    __slots__ = ()

    def given(self, n: int, /, **columns: str) -> str:
        """A list as a table."""
        arrays = ", ".join(f"${number}::{type}[]" for number, type in enumerate(columns.values(), n))
        return f"unnest({arrays}) j ({', '.join(columns)})"

    def joined(self, n: int, table: str, by: str = "", also: str = "", /, **columns: str) -> str:
        """The fence (see above)."""
        name, _, alias = table.partition(" ")
        keys = " AND ".join(f"{key} = j.{key}" for key in (by.split(", ") if by else columns))
        # `also` names the table as the rest of the statement does.
        within = f"{table} WHERE {keys} AND {also}" if also else f"{name} WHERE {keys}"
        fence = f"(SELECT * FROM {within} OFFSET 0) {alias or name}"
        return f"{self.given(n, **columns)} CROSS JOIN LATERAL {fence}"

    def keyed(self, column: str, given: str, /) -> str:
        """The loop from the list alone."""
        return f"{column} = ANY (ARRAY[{given}])"

    def deleting(self, table: str, n: int, /, **columns: str) -> str:
        """By the first column's index, and the others."""
        first, *rest = columns
        # `+ 0`: by no other index.
        also = "".join(f" AND t.{name}{' + 0' if 'int' in columns[name] else ''} = j.{name}" for name in rest)
        return f"DELETE FROM {table} t USING {self.given(n, **columns)} WHERE {self.keyed(f't.{first}', f'j.{first}')}{also}"

    def among(self, n: int, type: str, /) -> str:
        """One of an array."""
        return f"= ANY (${n}::{type}[])"

    def binary(self, column: str, /) -> str:
        """As it is."""
        return column

    def bytes_of(self, value: Any, /) -> bytes:
        """As it is."""
        return bytes(value)

    def list_of(self, value: Any, /) -> list[Any]:
        """As it is."""
        return list(value)

    def lists(self, columns: str, rest: str, /) -> str:
        """Built by the server."""
        return f"coalesce((SELECT json_agg(json_build_array({columns})) FROM {rest}), '[]')"

    def retries_of(self, notification: str, /) -> str:
        """By the index of notifications: each partition has one."""
        return f"retry r WHERE r.notification = {notification}"

    def each(self, column: str, alias: str, /) -> str:
        """Of an array."""
        return f"CROSS JOIN LATERAL unnest({column}) {alias} (value)"

    def listed(self, column: str, rest: str, /) -> str:
        """An array."""
        return f"ARRAY(SELECT DISTINCT {column} FROM {rest})"

    def one_of(self, values: str, type: str, /) -> str:
        """Of an array."""
        return f"= ANY (({values})::{type}[])"

    def hexadecimal(self, column: str, /) -> str:
        """As text."""
        return f"encode({column}, 'hex')"

    def has(self, column: str, n: int, /) -> str:
        """An element of an array."""
        return f"${n} = ANY ({column})"

    def unindexed(self, column: str, /) -> str:
        """As it is: the planner knows better."""
        return column

    def part(self, table: str, number: str, /) -> str:
        """One partition."""
        return f" AND {table}.shard = ({number})::smallint"

    def holder(self, binding: int, digest: int, /, *, former: bool = False) -> str:
        """The active one by `address`, in any part; the others by the index of each part."""
        which = f"binding = ${binding} AND digest = ${digest}"
        if former:
            return f"(SELECT * FROM endpoint WHERE {which} AND state_at IS NOT NULL OFFSET 0) e"
        owner = f"(SELECT endpoint FROM address WHERE {which} OFFSET 0) h"
        return f"{owner} CROSS JOIN LATERAL (SELECT * FROM endpoint WHERE id = h.endpoint{self.part('endpoint', 'h.endpoint & 15')} OFFSET 0) e"

    def endpoints(self, n: int, condition: str, columns: str, /) -> str:
        """Looked at first, so that rows that do not fit are not waited for."""
        return (
            f"WITH f AS MATERIALIZED (SELECT e.id FROM {self.of_endpoints(n)} WHERE {condition}) "
            f"SELECT {columns} FROM f CROSS JOIN LATERAL ({_OF.format('f')} FOR NO KEY UPDATE) e WHERE {condition}"
        )

    def of_endpoints(self, n: int, /) -> str:
        """The fence, into one partition for each."""
        return f"{self.given(n, id='bigint')} CROSS JOIN LATERAL ({_OF.format('j')}) e"

    def tagged(self, rest: str, /) -> str:
        """Tag by tag."""
        return f"EXISTS (SELECT 1 FROM unnest(e.tags) t (value) CROSS JOIN LATERAL (SELECT FROM {rest} OFFSET 0) l)"

    def count_held(self, n: int, binding: str, /) -> str:
        """By the key of `address`."""
        return (
            f"(SELECT count(*) FROM {self.given(n, digest='bytea')} CROSS JOIN LATERAL "
            f"(SELECT FROM address WHERE digest = j.digest AND binding = {binding} OFFSET 0) a)"
        )

    def at_places(self, n: int, /) -> str:
        """By `notification_collapse`, and by no other index on these columns."""
        return (
            f"{self.given(n, app='int', key='text', target='bytea', i='int')} "
            "CROSS JOIN LATERAL (SELECT id, uuid, stopped, expansions FROM notification WHERE app = j.app "
            "AND coalesce(collapse_key, '') = j.key AND target_key = j.target AND num_nulls(finished_at) = 1 OFFSET 0) n"
        )

    def unheld(self, alias: str, /) -> str:
        """Not in `address`."""
        taken = f"a.digest = {alias}.digest AND a.binding = {alias}.binding"
        return f"NOT EXISTS (SELECT FROM address a WHERE {taken} OFFSET 0)"

    def hold(self, order: str = "", /, *, free: bool = False, of: str = "") -> str:
        """Row locks."""
        return f"{order and f' ORDER BY {order}'} FOR NO KEY UPDATE{of and f' OF {of}'}{' SKIP LOCKED' if free else ''}"

    def old_events(self, condition: str, before: int, limit: int, /) -> str:
        """By `event_at`."""
        return f"SELECT number FROM event WHERE at < ${before} AND {condition} ORDER BY at, number LIMIT ${limit}"

    event_key = "number"
    is_audit = "left(kind, 6) = 'audit.'"
