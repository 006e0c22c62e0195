"""The command line: one module per command, `options` for the flags that they share, `shell` for the steps common to
every command.

It is the top level and may import everything; nothing imports it. The `fanout` program calls `main`.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage or configuration."""
    from fanout.cli import early

    early.stream()
    early.listen(sys.argv[1:])
    early.collect_rarely()
    try:
        from fanout.cli.commands import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:
        if not early.short_of_memory(error):
            raise
        early.say(early.MEMORY)
        sys.exit(1)
