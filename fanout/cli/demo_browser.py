"""`fanout demo --browser`: a real push, through the browser vendor's own push service, to the browser on this
machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer

from fanout import bootstrap
from fanout.cli.demo_folder import clear, write_config, write_private
from fanout.cli.keys import make_keys
from fanout.cli.shell import quoted, this_program
from fanout.engine.live import SettledDelivery
from fanout.errors import ConfigurationError, UsageError
from fanout.registry import Registry

__all__ = ["browser_demo"]

_USER = "me"


class _Answers:
    """A batch hook that prints the push service's answer."""

    def on_settled(self, batch: Sequence[SettledDelivery]) -> None:
        """These deliveries have ended."""
        for one in batch:
            typer.echo(f"  endpoint {one.endpoint}: {one.state}" + (f" ({one.reason})" if one.reason else ""))


async def browser_demo(folder: Path, port: int) -> int:
    """Make a key pair, serve the page, and deliver the messages that its button asks for, until told to end."""
    registry = Registry()
    transport, kind, serve = _page(registry)
    clear(folder)
    _, pair = make_keys(registry, kind)
    file = folder / f"{kind}.pem"
    write_private(file, pair.private.reveal())
    config = write_config(folder, {transport: {f"{pair.setting}_file": file.name, **pair.more}}, {})
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(bootstrap.open(config, registry=registry, hooks=[_Answers()]))
        served = serve(engine, application_server_key=pair.public, binding=transport, user=_USER, port=port)
        try:
            page = await stack.enter_async_context(served)
        except OSError as error:
            raise UsageError(
                f"--port {port} cannot be used ({os.strerror(error.errno or 0)}): name another, or leave it out for a free one."
            ) from None
        send = ["send", "--to", f"user:{_USER}", "--title", "Hi", "--config", str(config)]
        typer.echo(
            f"Open {page.url} in a browser on this machine, subscribe, and press the button that sends a push.\n"
            "It goes through the push service of the browser's vendor, so both need the network. Ctrl-C ends.\n"
            "Once subscribed, another shell can push as well:\n"
            f"  {quoted([*this_program(), *send])}"
        )
        await engine.failed()
    return 1


def _page(registry: Registry) -> tuple[str, str, Callable[..., Any]]:
    """The transport that serves a page for browsers, the kind of its keys, and the server of the page."""
    for name, plugin in registry.transports().items():
        if plugin.browser is not None and plugin.keys:
            return name, next(iter(plugin.keys)), registry.resolve("transport", name, plugin.browser)
    raise ConfigurationError("No installed transport pushes to browsers: `fanout doctor` shows what is installed.")
