"""A binding's own proof of its credentials, in bounded time, whatever its plugin does."""

from __future__ import annotations

import asyncio

from fanout.errors import FanoutError
from fanout.plugin import Diagnosis, Transport

__all__ = ["diagnose"]


async def diagnose(transport: Transport, timeout: float) -> Diagnosis:
    """What its `check` says within `timeout` seconds; nothing is pushed to a user."""
    try:
        async with asyncio.timeout(timeout):
            return await transport.check()
    except TimeoutError:
        return Diagnosis(
            f"The gateway did not answer within {timeout:g} s: check the network and the gateway's address."
        )
    except FanoutError as error:
        return Diagnosis(str(error))
    except Exception as error:
        return Diagnosis(f"The plugin failed: {type(error).__name__} escaped from check; report it to its authors.")
