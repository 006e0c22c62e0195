"""`fanout serve`: the REST service and the work that it accepts, in one process."""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fanout.bootstrap import Parts, dedicate_process
from fanout.cli import logs
from fanout.cli.options import Config, LogFormat
from fanout.cli.serve_keys import OwnKeys
from fanout.cli.shell import parts, run, say
from fanout.cli.systemd import Announcer
from fanout.cli.waiting import entered
from fanout.core.urls import is_loopback
from fanout.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from fanout.cli.simulation import Simulation

__all__ = ["serve"]

_DRAIN = 3.0
"""Seconds, twice, that the engine is given when the server has ended: together with the server's own, under ten."""


def serve(
    host: Annotated[str, typer.Option("--host", metavar="H", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="0 for any free one.", min=0, max=65_535)] = 8080,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Serve Prometheus metrics there, those of all apps; a port alone is on loopback.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert", metavar="FILE", help="Speak https with this certificate chain (PEM). Needs --tls-key."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", metavar="FILE", help="Its key (PEM). A changed pair is taken within seconds."),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-client-ca",
            metavar="FILE",
            help="Authorities (PEM) of clients that may show a certificate: one in [[service.certificates]] is an app's server.",
        ),
    ] = None,
    log_format: LogFormat = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="With simulated gateways, an identity provider on loopback and ready tokens."),
    ] = False,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where --simulate leaves its database and configuration.")
    ] = Path("fanout-simulated"),
    config: Config = None,
) -> None:
    """Serve the REST API and deliver, until Ctrl-C or SIGTERM: requests under way are answered, and answers of gateways
    stored.

    Without an issuer or a key in [service] it makes two keys of its own, and listens on loopback only.
    """
    logs.configure(log_format)
    listen = None
    if metrics is not None:
        from fanout.metrics import listen_address

        listen = listen_address(metrics)
    if (tls_cert is None) != (tls_key is None) or (tls_client_ca is not None and tls_cert is None):
        raise UsageError("--tls-cert and --tls-key go together, and --tls-client-ca with both.")
    if simulate and tls_cert is not None:
        raise UsageError("--simulate serves http on loopback: leave --tls-cert out.")
    tls = (tls_cert, tls_key, tls_client_ca)
    if simulate and config is not None:
        raise UsageError("--simulate makes a configuration of its own: leave --config out.")
    if simulate:
        run(lambda: _simulate(folder.absolute(), host, port, listen), graceful=True, log_format=log_format)
    run(lambda: _serve(config, host, port, listen, tls=tls), graceful=True, log_format=log_format)


async def _simulate(folder: Path, host: str, port: int, listen: tuple[str, int] | None) -> int:
    if not is_loopback(host):
        raise UsageError(f"--simulate gives a token to any caller, so it does not listen on {host}: leave --host out.")
    try:
        from fanout.cli.simulation import simulated
    except ModuleNotFoundError as error:
        raise UsageError(
            f"fanout serve --simulate needs {error.name}: install the extra 'service' (from a checkout: pip install '.[service]')."
        ) from None
    async with simulated(folder) as world:
        return await _serve(world.config, host, port, listen, world)


async def _serve(
    config: Path | None,
    host: str,
    port: int,
    listen: tuple[str, int] | None,
    world: Simulation | None = None,
    *,
    tls: tuple[Path | None, Path | None, Path | None] = (None, None, None),
) -> int:
    made = parts(config, "serve", create=True)
    _check_exposure(made, host)
    if made.settings.service.certificates and tls[2] is None:
        raise UsageError("[[service.certificates]] are asked for with --tls-client-ca: give it, or take them out.")
    try:
        from fanout.service.app import create_app
        from fanout.service.server import serving
        from fanout.service.tls import ServerTls
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "httptools", "starlette"):
            raise
        raise UsageError(
            f"fanout serve needs {error.name}: install the extra 'service' (from a checkout: pip install '.[service]')."
        ) from None

    secured = ServerTls(tls[0], tls[1], tls[2]) if tls[0] is not None and tls[1] is not None else None
    engine = made.engine(drain_timeout=_DRAIN)
    own = None if made.settings.service.authenticated else OwnKeys.made(made.settings)
    if own is None:
        app = create_app(engine, made.settings, clock=made.clock)
    else:
        settings = replace(made.settings, service=own.complete(made.settings.service))
        app = create_app(engine, settings, clock=made.clock)
        app.state.service.follows = own.complete
    if world is not None:
        from fanout.service.docs import show_tokens

        show_tokens(app, world.tokens)
    dedicate_process()
    async with AsyncExitStack() as stack:
        service = await entered(stack, app.state.service)
        served = partial(serving, app, host, port, tls=secured, unreadable=service.unreadable)
        url = await stack.enter_async_context(served(lambda: service.limits, proxies=lambda: service.edge.proxies))
        stack.push_async_callback(service.drain)  # first of all when it ends: streams would hold up the server
        exporter = None
        if listen is not None or world is not None:
            from fanout.metrics import Exporter

            where = ("127.0.0.1", 0) if listen is None else listen
            exporter = await stack.enter_async_context(Exporter(engine, *where, refused=service.security.summed))
        if world is not None and exporter is not None:
            world.write_walk(url, exporter.url)
        say(f"Serving {made.storage.location} at {url} (API: {url}/docs). Ctrl-C ends.")
        for line in world.lines(url) if world is not None else ():
            say(line)
        if own is not None:
            file = stack.enter_context(own.left(made.settings.folder, url))
            say(
                "No caller is configured in [service], so it listens on loopback only, and has made an API key and a user key that end with it: "
                f". {shlex.quote(str(file))} sets SERVICE, API_KEY, USER_KEY and USER_TOKEN in a shell."
            )
            say(f"The page of a user: {own.page(url)}")
        if exporter is not None:
            say(f"Metrics are at {exporter.url}, /health and /ready beside them.")
        await stack.enter_async_context(Announcer(engine, f"Serving at {url}."))
        await engine.failed()
    return 1


def _check_exposure(made: Parts, host: str) -> None:
    if not made.settings.service.authenticated and not is_loopback(host):
        raise ConfigurationError(
            f"No caller could prove an identity, so the service does not listen on {host}: configure "
            "[[service.issuers]] or [[service.keys]] (`fanout keys api`), or leave --host out."
        )
