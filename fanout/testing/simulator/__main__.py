"""A simulator as a process of its own: `python -m fanout.testing.simulator apns [--port N] [--ca-dir DIR] …`.

Prints one JSON object on a line when it is ready: name, url, ca_file, settings, pid. It ends on SIGTERM, SIGINT, or
when its standard input was a pipe and is closed, so that it cannot outlive the program that started it. Lines on that
pipe are commands, each answered by one line of JSON: `counters`, and `faults {"stall": 0.01}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from fanout.plugin import TransportPlugin
from fanout.testing.simulator.base import Simulator
from fanout.testing.simulator.faults import Faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to end. Exit codes: 0 done, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m fanout.testing.simulator", description="A gateway on loopback.")
    parser.add_argument("transport", help="the transport whose gateway to simulate, such as apns")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--ca-dir", help="where certificates are kept; default: a temporary folder")
    parser.add_argument("--ledger", help="append what is accepted to this file")
    parser.add_argument("--lean", action="store_true", help="accept everything, check nothing, as fast as possible")
    parser.add_argument("--faults", default="{}", help="a JSON object with the fields of Faults")
    parser.add_argument("--options", default="{}", help="a JSON object with further arguments of that simulator")
    chosen = parser.parse_args(arguments)
    try:
        make = _find(chosen.transport)
        simulator = make(
            host=chosen.host,
            port=chosen.port,
            folder=chosen.ca_dir,
            ledger=chosen.ledger,
            lean=chosen.lean,
            faults=Faults.parse(json.loads(chosen.faults)),
            **json.loads(chosen.options),
        )
    except (LookupError, TypeError, ValueError, OSError) as error:
        print(f"The simulator cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        asyncio.run(_serve(simulator))
    except BrokenPipeError:  # the parent process is gone
        sys.stdout = None
    return 0


def _find(name: str) -> Callable[..., Simulator]:
    found = [entry for entry in entry_points(group="fanout.transports") if entry.name == name]
    if not found:
        names = ", ".join(sorted(entry.name for entry in entry_points(group="fanout.transports")))
        raise LookupError(f"no transport named {name!r} is installed; there are: {names or 'none'}.")
    plugin = found[0].load()
    if not isinstance(plugin, TransportPlugin) or plugin.simulator is None:
        raise LookupError(f"the transport {name!r} brings no simulator.")
    if not isinstance(plugin.simulator, str):
        return plugin.simulator
    module, _, attribute = plugin.simulator.partition(":")
    make: Callable[..., Simulator] = getattr(import_module(module), attribute)
    return make


async def _serve(simulator: Simulator) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with simulator:
        where = {"url": simulator.url, "ca_file": simulator.ca_file, "settings": simulator.settings()}
        _say({"name": simulator.name, **where, "pid": os.getpid()})
        commands = asyncio.create_task(_obey(simulator, ended)) if _stdin_is_a_pipe() else None
        try:
            await ended.wait()
        finally:
            if commands is not None:
                commands.cancel()
                await asyncio.gather(commands, return_exceptions=True)


def _stdin_is_a_pipe() -> bool:
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def _obey(simulator: Simulator, ended: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", buffering=0, closefd=False)
    )
    try:
        while line := await reader.readline():
            try:
                _say(_command(simulator, line.decode()))
            except (TypeError, ValueError) as error:
                _say({"error": str(error)})
    except OSError:
        pass
    finally:
        pipe.close()
        ended.set()


def _command(simulator: Simulator, line: str) -> dict[str, Any]:
    word, _, rest = line.strip().partition(" ")
    if word == "counters":
        return simulator.counters.as_dict()
    if word == "faults":
        simulator.faults = Faults.parse(json.loads(rest))
        return {"faults": "set"}
    raise ValueError(f"no such command: {word!r}; there are counters and faults.")


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
