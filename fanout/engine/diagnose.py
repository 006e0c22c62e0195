"""Opening a binding's transport, and its own proof of its credentials, in bounded time, even where its plugin hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from fanout.errors import ConfigurationError, FanoutError
from fanout.plugin import Diagnosis, Transport

__all__ = ["diagnose", "enter"]


async def enter(stack: AsyncExitStack, transports: Mapping[tuple[str, str], Transport]) -> None:
    """Open transports, to be closed with `stack`. Raises `ConfigurationError`, which names the place, for settings that
    a transport cannot use."""
    for (app, binding), transport in transports.items():
        try:
            await stack.enter_async_context(transport)
        except ConfigurationError as error:
            key, text = f"apps.{app}.transports.{binding}", str(error)
            raise ConfigurationError(text if text.startswith(key) else f"{key}: {text}") from None


async def diagnose(transport: Transport, timeout: float, *, closed: bool = False) -> Diagnosis:
    """The result of its `check` within `timeout` seconds; nothing is pushed to a user. One that is `closed` is opened
    for that."""
    try:
        async with asyncio.timeout(timeout), AsyncExitStack() as stack:
            if closed:
                await stack.enter_async_context(transport)
            return await transport.check()
    except TimeoutError:
        return Diagnosis(
            f"The gateway did not answer within {timeout:g} s: check the network and the gateway's address."
        )
    except FanoutError as error:
        return Diagnosis(str(error))
    except Exception as error:
        return Diagnosis(f"The plugin failed: {type(error).__name__} escaped from check; report it to its authors.")
