"""That a number learned earlier still stands for that app or binding: asked by each transaction that used one, in the
same message as its COMMIT.

A process keeps numbers of apps and bindings for good, and rows may come to have other ones below it: tables that were
made anew or loaded from a copy while connections stayed. Then nothing is committed under the numbers. The numbers are
forgotten, and the operation is run once more.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Used"]


class Used:
    """The numbers that an operation took from its pool's memory."""

    __slots__ = ("_apps", "_bindings")

    def __init__(self) -> None:
        self._apps: dict[tuple[int, int | None], str] = {}
        self._bindings: dict[tuple[int, int | None], str] = {}

    def __bool__(self) -> bool:
        return bool(self._apps or self._bindings)

    def app(self, number: int, name: str) -> None:
        """An app's."""
        self._apps[number, None] = name

    def binding(self, number: int, name: str, app: int | None = None) -> None:
        """A binding's, of the app of that number where one was asked for."""
        self._bindings[number, app] = name

    def sql(self) -> str:
        """A statement that fails with a division by zero unless all of them have these names. Names go as hexadecimal
        digits."""
        parts = [_matching("app", "NULL::int", self._apps)] if self._apps else []
        parts += [_matching("binding", "app", self._bindings)] if self._bindings else []
        count = len(self._apps) + len(self._bindings)
        return f"SELECT 1 / (count(*) = {count})::int FROM ({' UNION ALL '.join(parts)}) named"


def _matching(table: str, app: str, names: Mapping[tuple[int, int | None], str]) -> str:
    """A row for each number that has its name. One look into the key for each (see `db`)."""
    rows = ", ".join(
        f"({number}, {'NULL::int' if of is None else of}, '\\x{name.encode().hex()}'::bytea)"
        for (number, of), name in names.items()
    )
    return (
        f"SELECT 1 FROM (VALUES {rows}) j (id, app, name) CROSS JOIN LATERAL "
        f"(SELECT {app} AS app, name FROM {table} WHERE id = j.id OFFSET 0) t "
        "WHERE convert_to(t.name, 'UTF8') = j.name AND (j.app IS NULL OR j.app = t.app)"
    )
