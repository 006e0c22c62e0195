"""Commands that are imported when they are called: asking for the version, for help or for completion loads none of
them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["LazyGroup", "lazy_group"]


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Any:
        if name not in self._table:
            raise KeyError(name)
        module = import_module(f"fanout.cli.{name}")
        found = module.app if hasattr(module, "app") else getattr(module, name)
        holder = typer.Typer(rich_markup_mode=None, add_completion=False)
        holder.callback()(lambda: None)  # with one, a single command is a group too
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name)(found)
        return typer.main.get_group(holder).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


class LazyGroup(TyperGroup):
    """A group of the commands of `table`: name -> its line in the help. The module of that name has a function of that
    name, or `app`, a group."""

    table: Mapping[str, str] = {}

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands: Any = _Commands(self.table)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The line of a command in help and completion: its name and its summary."""
        return TyperCommand(cmd_name, help=self.table[cmd_name]) if cmd_name in self.table else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, once it is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.commands[command.name], rest


def lazy_group(entries: Mapping[str, str]) -> type[LazyGroup]:
    """The class of the group of these commands, for `typer.Typer(cls=…)`."""
    return type("LazyGroup", (LazyGroup,), {"table": entries})
