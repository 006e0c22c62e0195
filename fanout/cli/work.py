"""`fanout work`: deliver, in this process or in several."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from fanout.bootstrap import dedicate_process
from fanout.cli import logs
from fanout.cli.checkup import check_up, look_around
from fanout.cli.options import Config, LogFormat
from fanout.cli.shell import parts, run, say, this_program
from fanout.cli.systemd import Announcer, Children
from fanout.cli.waiting import entered
from fanout.engine import Engine
from fanout.errors import UsageError

__all__ = ["work"]

_GRACE = 20.0
"""Seconds that a child is given to drain before it is killed; its leases then run out by themselves."""


def work(
    drain: Annotated[
        bool, typer.Option("--drain", help="End when nothing is left; 1 if only parked deliveries are.")
    ] = False,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Share the work among so many.", min=1)
    ] = 1,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Serve /metrics (Prometheus), /health and /ready there; a port alone is on loopback. Of several processes each has the next port.",
        ),
    ] = None,
    log_format: LogFormat = None,
    config: Config = None,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
    sibling: Annotated[bool, typer.Option("--sibling", hidden=True)] = False,
) -> None:
    """Deliver what is queued, until Ctrl-C or SIGTERM; answers under way are awaited and stored before it ends.

    Exit codes: 0 it was told to end, or has drained; 1 it failed, or only parked deliveries are left; 2 the
    configuration is wrong.
    """
    logs.configure(log_format)
    listen = None
    if metrics is not None:
        from fanout.metrics import listen_address

        listen = listen_address(metrics)
    if processes > 1:
        parts(config, "work")  # faults of the configuration are reported once, here
        words = _words(drain=drain, log_format=log_format, config=config)
        ports = [_nth(listen, number) for number in range(processes)]
        # A fault of the machine or of a file is told by one of them.
        commands = [words + port + (["--sibling"] if at else []) for at, port in enumerate(ports)]
        run(lambda: _parent(commands, drain=drain), graceful=True, log_format=log_format)
    else:
        run(
            lambda: _worker(config, drain=drain, until_eof=until_eof, sibling=sibling, listen=listen),
            graceful=True,
            log_format=log_format,
        )


def _words(*, drain: bool, log_format: logs.Format | None, config: Path | None) -> list[str]:
    """The command of a child, without the arguments that differ between children."""
    words = [*this_program(), "work", "--until-eof"]
    words += ["--drain"] if drain else []
    words += ["--log-format", log_format.value] if log_format is not None else []
    return words + (["--config", str(config)] if config is not None else [])


def _nth(listen: tuple[str, int] | None, number: int) -> list[str]:
    """The flag by which the child `number` serves its metrics: on the port after that of the child before it."""
    if listen is None:
        return []
    host, port = listen
    if port and port + number > 65_535:
        raise UsageError(f"--metrics: the port {port} leaves no room for {number + 1} processes: choose a lower one.")
    return ["--metrics", f"[{host}]:{port and port + number}" if ":" in host else f"{host}:{port and port + number}"]


async def _worker(
    config: Path | None, *, drain: bool, until_eof: bool, sibling: bool, listen: tuple[str, int] | None
) -> int:
    made = parts(config, "work", create=True)
    dedicate_process()
    bindings = ", ".join(f"{app}/{binding}" for app, binding in made.transports)
    async with AsyncExitStack() as stack:
        engine = await entered(stack, made.engine(role="work"))
        if not until_eof:
            say(
                f"Working on {made.storage.location} for {bindings}. "
                + ("Ends when done." if drain else "Ctrl-C ends.")
            )
        if listen is not None:
            from fanout.metrics import Exporter

            exporter = await stack.enter_async_context(Exporter(engine, *listen))
            say(f"Metrics are at {exporter.url}, /health and /ready beside them.")
        await stack.enter_async_context(Announcer(engine, f"Working for {bindings}."))
        ends = [asyncio.ensure_future(_drained(engine) if drain else _failed(engine))]
        if until_eof:
            ends.append(asyncio.ensure_future(_eof()))
        beside = [asyncio.ensure_future(check_up(engine))]
        if not sibling:
            beside.append(asyncio.ensure_future(look_around(config)))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return max(end.result() for end in done)
        finally:
            for task in (*ends, *beside):
                task.cancel()
            await asyncio.gather(*ends, *beside, return_exceptions=True)


async def _drained(engine: Engine) -> int:
    report = await engine.drain()
    for reason, count in report.parked.items():
        say(f"{count:,} deliveries are parked at {reason}. Mend it, and start `fanout work` again.")
    return 0 if report.clean else 1


async def _failed(engine: Engine) -> int:
    await engine.failed()
    return 1


async def _eof() -> int:
    """Until standard input ends: the parent that held its other end is gone, or wants this process to end."""
    reader = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    try:
        while await reader.read(1024):
            pass
    finally:
        pipe.close()
    return 0


async def _parent(commands: Sequence[Sequence[str]], *, drain: bool) -> int:
    """Start the workers, and end them all when told to, when one of them ends unasked, or when all have drained."""
    children: list[asyncio.subprocess.Process] = []
    async with Children(len(commands), f"Working in {len(commands)} processes.") as manager:
        return await _run_all(commands, children, manager, drain=drain)


async def _run_all(
    commands: Sequence[Sequence[str]], children: list[asyncio.subprocess.Process], manager: Children, *, drain: bool
) -> int:
    try:
        for words in commands:
            # A session of its own: Ctrl-C on the terminal reaches this process only, which tells the children once.
            child = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.PIPE, start_new_session=True, env=manager.environ
            )
            children.append(child)
        say(
            f"{len(commands)} workers: {', '.join(str(child.pid) for child in children)}. "
            + ("End when done." if drain else "Ctrl-C ends.")
        )
        return await _watch(children, manager, drain=drain)
    finally:
        await asyncio.gather(*(_end(child) for child in children))


async def _watch(children: list[asyncio.subprocess.Process], manager: Children, *, drain: bool) -> int:
    waits = {asyncio.ensure_future(child.wait()): child for child in children}
    worst = 0
    try:
        while waits:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                child = waits.pop(ended)
                code = ended.result()
                if not drain or code not in (0, 1):
                    say(
                        f"Worker {child.pid} ended unasked with {code}; the others are ended too. Its leases run out by themselves."
                    )
                    return 1
                worst = max(worst, code)
                manager.ended()
    finally:
        for wait in waits:
            wait.cancel()
    return worst


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(_GRACE):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
