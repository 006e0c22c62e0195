"""Simulated gateways as processes of their own, and a configuration that talks to them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fanout.errors import ConfigurationError, FanoutError
from fanout.registry import Registry

__all__ = ["Gateway", "GatewayFailed", "Simulated", "simulated_transports", "toml", "toml_value"]

_START = 30.0
"""Seconds for a simulator to make its certificates and listen."""
_END = 5.0


class GatewayFailed(FanoutError):
    """A simulator did not start."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A transport that brings a simulator. `address(number, behaviour)` makes device addresses for it."""

    name: str
    behaviours: tuple[str, ...]
    address: Callable[[int, str], Any]


def simulated_transports(registry: Registry) -> list[Simulated]:
    """The installed transports whose gateway can be simulated. Raises `ConfigurationError` where there is none."""
    found = []
    for name, plugin in registry.transports().items():
        if plugin.simulator is not None:
            made: Any = registry.resolve("transport", name, plugin.simulator)
            found.append(Simulated(name, tuple(made.behaviours), made.address))
    if not found:
        raise ConfigurationError("No installed transport brings a simulator: `fanout doctor` shows what is installed.")
    return found


class Gateway:
    """One simulator in a process of its own, which ends with this one in every case. An async context manager.

    `words` are further arguments of `python -m fanout.testing.simulator`.
    """

    def __init__(self, transport: str, folder: Path, *words: str) -> None:
        self._transport = transport
        self._folder = folder
        self._words = words
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.settings: Mapping[str, Any] = {}

    async def __aenter__(self) -> Self:
        words = [sys.executable, "-m", "fanout.testing.simulator", self._transport, "--ca-dir", str(self._folder)]
        words += self._words
        # A session of its own: Ctrl-C must not take the gateway away while the engine still waits for its answers.
        self._process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        try:
            assert self._process.stdout is not None
            async with asyncio.timeout(_START):
                line = await self._process.stdout.readline()
            said = json.loads(line)
        except (TimeoutError, ValueError):
            await self._end()
            raise GatewayFailed(f"The simulator of {self._transport} did not start; its own words are above.") from None
        except BaseException:
            await self._end()
            raise
        self.url, self.settings = said["url"], said["settings"]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(_END):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def toml(storage: str, bindings: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any]) -> str:
    """A configuration file's text."""
    lines = [f"storage = {toml_value(storage)}"]
    for binding, settings in bindings.items():
        lines += ["", f"[apps.default.transports.{binding}]"]
        lines += [f"{key} = {toml_value(value)}" for key, value in settings.items() if value is not None]
    if policy:
        lines += ["", "[policy]", *(f"{key} = {toml_value(value)}" for key, value in policy.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML writes it, and `fanout.config` reads it: a dollar sign is doubled there."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml_value(part)}' for key, part in value.items() if part is not None)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    # The values that JSON and TOML write alike: texts (TOML's basic strings take JSON's escapes), numbers, booleans,
    # arrays of them.
    return json.dumps(value, ensure_ascii=True).replace("$", "$$")
