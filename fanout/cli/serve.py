"""`fanout serve`: the REST service and the work that it accepts, in one process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fanout.bootstrap import Parts, spare_collector
from fanout.cli.options import Config
from fanout.cli.shell import parts, run, say
from fanout.core.urls import is_loopback
from fanout.errors import ConfigurationError, UsageError

__all__ = ["serve"]

_DRAIN = 3.0
"""Seconds, twice, that the engine is given when the server has ended: together with the server's own, under ten."""


def serve(
    host: Annotated[str, typer.Option("--host", metavar="H", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="0 for any free one.", min=0, max=65_535)] = 8080,
    config: Config = None,
) -> None:
    """Serve the REST API and deliver, until Ctrl-C or SIGTERM: requests under way are answered, and answers of gateways stored.

    Without an issuer or a key in [service] nobody can prove who they are, so the service listens on loopback only.
    """
    run(lambda: _serve(config, host, port), graceful=True)


async def _serve(config: Path | None, host: str, port: int) -> int:
    made = parts(config, "serve")
    _check_exposure(made, host)
    try:
        from fastapi import FastAPI

        from fanout.service.app import create_app
        from fanout.service.server import serving
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "httptools", "starlette"):
            raise
        raise UsageError(
            f"fanout serve needs {error.name}: install the extra 'service' (from a checkout: pip install '.[service]')."
        ) from None

    engine = made.engine(drain_timeout=_DRAIN)
    app: FastAPI = create_app(engine, made.settings, clock=made.clock)
    spare_collector()
    async with app.state.service as service, serving(app, host, port, service.limits) as url:
        say(f"Serving {made.storage.location} at {url} (API: {url}/docs). Ctrl-C ends.")
        if not made.settings.service.authenticated:
            say(
                "No issuer and no key is configured in [service]: whoever can reach this address is believed. Loopback only."
            )
        try:
            await engine.failed()
        except asyncio.CancelledError:
            await service.drain()
            raise
    return 1


def _check_exposure(made: Parts, host: str) -> None:
    if not made.settings.service.authenticated and not is_loopback(host):
        raise ConfigurationError(
            f"Nobody could prove who they are, so the service does not listen on {host}: configure [[service.issuers]] or "
            "[[service.keys]] (`fanout keys api`), or leave --host out."
        )
