"""The columns of an endpoint that are only kept, declared once: a registration sets them, and every view of an endpoint
shows them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["AS_STORED", "DEFAULTS", "GIVEN", "Column", "changed", "given", "shown"]


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

One more is a line here, and:

- a step of `fanout/storage/sqlite/schema.py` and of `fanout/storage/postgres/schema.py`;
- a field of `Registration` (with its check) and of `Endpoint`: `fanout/core/endpoint.py`;
- an argument of `Endpoints.registration` and `Endpoints.register`: `fanout/engine/registering.py`;
- a field of `EndpointIn`, `EndpointPatch` and `EndpointOut`, `fanout/service/v1/models.py`, and of `EndpointInfo`,
  `fanout/client/answers.py`.

`tests/core/test_columns.py` looks for these, and tests of `tests/contract` for the sentences of new arguments and
fields. No test looks for the other places:

- the arguments of `Endpoints.change`, and of `register` in `fanout/sync/directory.py` and `fanout/client/directory.py`;
- the options of `fanout endpoints add`, and a column of the table that `fanout endpoints list` prints:
  `fanout/cli/endpoints.py`. `show`, `list --json` and the import have the column by themselves;
- the device of `fanout/testing/storage_kit.py`, from which the laws of storages are made.
"""

AS_STORED = ("reason", "generation", "registered_at", "expires_at", "state_at")
"""The fields of an endpoint besides that the command line and the service show as they are stored."""
DEFAULTS: Mapping[str, Any] = {column.name: column.default for column in GIVEN}
"""The default of each column, by its name."""
_NAMES = tuple(DEFAULTS)


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
