"""The columns of an endpoint that are only kept, declared once: a registration sets them, and every view of an endpoint
shows them."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal, NamedTuple

__all__ = ["AS_STORED", "GIVEN", "Column", "changed", "given", "shown"]


class Column(NamedTuple):
    """A column of both databases, and the field of that name in `Registration` and `Endpoint`. A `default` of None
    makes it nullable."""

    name: str
    type: Literal["text", "int", "float8"]
    default: str | float | None = ""

    @property
    def literal(self) -> str:
        """The default as SQL writes it."""
        if isinstance(self.default, str):
            return "'" + self.default.replace("'", "''") + "'"
        return "NULL" if self.default is None else str(self.default)


GIVEN: tuple[Column, ...] = (Column("platform", "text", ""),)
"""The statements that register, write, read, wipe and show endpoints are made from these columns.

One more is a line here, a step of each schema, a field of `Registration` (with its check) and `Endpoint`, an argument
of `Endpoints.register`, and a field of the service's and the client's models: `tests/core/test_columns.py` looks for
these. It does not look for the arguments of `Endpoints.change` and of `register` in `fanout.sync` and the client, a key
of the import (`_IMPORT_KEYS`), a head of the table and the options of `fanout endpoints`, and the device of
`fanout/testing/storage_kit.py`.
"""

AS_STORED = ("reason", "generation", "registered_at", "expires_at", "state_at")
"""The fields of an endpoint besides that the command line and the service show as they are stored."""
_NAMES = tuple(column.name for column in GIVEN)


def given(holder: object) -> tuple[Any, ...]:
    """Their values, of a registration, an endpoint or a request."""
    return tuple([getattr(holder, name) for name in _NAMES])


def shown(holder: object) -> dict[str, Any]:
    """The same by name."""
    return {name: getattr(holder, name) for name in _NAMES}


def changed(patch: object, names: Container[str]) -> dict[str, Any]:
    """The columns among `names`, which a merge patch (RFC 7396) holds: None sets a column to its default."""
    values = ((column, getattr(patch, column.name)) for column in GIVEN if column.name in names)
    return {column.name: column.default if value is None else value for column, value in values}
