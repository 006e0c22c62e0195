"""What a registration sets and every view shows is declared once, and nothing that must have it lacks it."""

from __future__ import annotations

import dataclasses
import inspect
from types import SimpleNamespace

import apsw
import pytest

from fanout.client.answers import EndpointInfo
from fanout.core import columns
from fanout.core.columns import GIVEN, Column, changed, given, shown
from fanout.core.endpoint import Endpoint, Registration
from fanout.engine.directory import Endpoints
from fanout.service.v1.models import EndpointIn, EndpointOut, EndpointPatch
from fanout.storage.postgres.schema import STEPS as POSTGRES
from fanout.storage.sqlite.schema import STEPS as SQLITE
from fanout.testing.storage_kit import device


@pytest.mark.parametrize("column", GIVEN, ids=lambda column: column.name)
def test_a_declared_column_is_everywhere(column: Column) -> None:
    for record in (Registration, Endpoint):
        defaults = {field.name: field.default for field in dataclasses.fields(record)}
        assert defaults[column.name] == column.default
    assert inspect.signature(Endpoints.register).parameters[column.name].default == column.default
    assert column.name in {field.name for field in dataclasses.fields(EndpointInfo)}
    for model in (EndpointIn, EndpointPatch, EndpointOut):
        assert column.name in model.model_fields
    connection = apsw.Connection(":memory:")
    for step in SQLITE:
        connection.execute(step)
    types = {
        name: (kind, bool(needed)) for _, name, kind, needed, *_ in connection.execute("PRAGMA table_info(endpoint)")
    }
    affinity = {"text": "TEXT", "int": "INTEGER", "float8": "REAL"}
    assert types[column.name] == (affinity[column.type], column.default is not None)
    assert f"{column.name} {column.type}" in str(POSTGRES)


def test_values_by_order_and_by_name() -> None:
    new = device("alice", "1", platform="ios")
    assert given(new) == tuple(shown(new).values())
    assert shown(new)["platform"] == "ios"


def test_a_patch_leaves_absent_columns_and_null_sets_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "GIVEN", (Column("a", "text", ""), Column("b", "int", None), Column("c", "int", 3)))
    patch = SimpleNamespace(a=None, b=None, c=7)
    assert changed(patch, {"a", "b"}) == {"a": "", "b": None}
    assert changed(patch, {"c", "tags"}) == {"c": 7}
    assert changed(patch, set()) == {}


def test_a_default_as_sql_writes_it() -> None:
    assert [Column("x", "text", each).literal for each in ("", "it's", None)] == ["''", "'it''s'", "NULL"]
    assert Column("x", "int", 3).literal == "3"
