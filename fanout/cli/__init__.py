"""The command line: one module per command, `options` for the flags that they share, `shell` for what every command goes through.

It is the top level and may import everything; nothing imports it. `main` is what the `fanout` program calls.
"""

from fanout.cli.commands import main

__all__ = ["main"]
