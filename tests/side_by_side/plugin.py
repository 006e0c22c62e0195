"""A plugin of pytest: with `--processes N` files run side by side in N processes, forked when all has been collected.

Each process of pytest-xdist collects the whole suite, which takes six seconds of it; here that is done once. A file is
for one process, and files begin in the order of the session. A test that ends its process has failed, and another
process goes on with the rest of its file.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections import deque
from contextlib import suppress
from itertools import groupby
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

__all__ = ["pytest_addoption", "pytest_runtestloop"]

Numbers = list[int]
"""Tests, each by its place in `Session.items`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=0, metavar="N", help="run files side by side in N processes")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    limit = session.config.getoption("--processes")
    if not limit or not hasattr(os, "fork") or session.config.option.collectonly or session.testsfailed:
        return None  # pytest's own loop runs all in this process, or says what could not be collected
    numbers = groupby(range(len(session.items)), lambda number: session.items[number].path)
    files = deque([*of_file] for _, of_file in numbers)
    processes: dict[Any, _Process] = {}
    forked = 0
    try:
        while files or processes:
            while files and len(processes) < limit:
                forked += 1
                process = _Process(session, forked, [*processes])
                processes[process.pipe] = process
            for pipe in wait([*processes]):
                try:
                    processes[pipe].hear(files)
                except EOFError:
                    files.extendleft(processes.pop(pipe).ended())
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
    finally:
        for process in processes.values():
            process.stop()
    return True


class _Process:
    """One of the processes, as seen by the one that has forked it."""

    def __init__(self, session: pytest.Session, number: int, others: list[Connection]) -> None:
        self.session = session
        self.left: Numbers = []
        """Of the file that it runs."""
        self.pipe, theirs = Pipe()
        folder = session.config._tmp_path_factory.getbasetemp() / f"process-{number}"  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for pipe in (*others, self.pipe):
                pipe.close()
            _run(session, theirs, folder)
        theirs.close()

    def hear(self, files: deque[Numbers]) -> None:
        """Take one message. Raises `EOFError` when the process has ended."""
        what, value = self.pipe.recv()
        config, hook = self.session.config, self.session.config.hook
        if what == "next":
            self.left = files.popleft() if files else []
            with suppress(BrokenPipeError):  # it has ended, and the next message says so
                self.pipe.send(self.left)
        elif what == "begins":
            item = self.session.items[value]
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        elif what == "ended":
            item = self.session.items[self.left.pop(0)]
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        elif what == "warned":
            hook.pytest_warning_recorded.call_historic(kwargs=value)
        else:
            hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=value))

    def ended(self) -> list[Numbers]:
        """What is left of the file in the middle of which it ended: the test that it was at has failed."""
        self.pipe.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if not code and not self.left:
            return []
        test = self.session.items[self.left.pop(0)].nodeid if self.left else ""
        report = _failure(test, f"Its process ended with {code}.", "call")
        self.session.config.hook.pytest_runtest_logreport(report=report)
        return [self.left] if self.left else []

    def stop(self) -> None:
        """Let it clear away, and wait for that."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
        self.pipe.close()
        os.waitpid(self.pid, 0)


def _failure(test: str, why: str, when: Any) -> pytest.TestReport:
    return pytest.TestReport(test, (test.partition("::")[0], None, test), {}, "failed", why, when)


def _run(session: pytest.Session, pipe: Connection, folder: Path) -> None:
    """A forked process: file after file, as long as there are some; it then ends."""
    config, code = session.config, 1
    capture = config.pluginmanager.getplugin("capturemanager")
    try:
        capture.stop_global_capturing()  # into files that it shares with the other processes
        capture.start_global_capturing()
        terminal = config.get_terminal_writer()
        config.get_terminal_writer = lambda: terminal  # type: ignore[method-assign]  # pytest-timeout says there what hangs
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(_Teller(session, pipe))
        folder.mkdir(mode=0o700)
        config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
        random.seed()
        test = ""
        try:
            while numbers := _next(pipe):
                items: list[Any] = [session.items[number] for number in numbers]
                # A session as the next test keeps what is the session's.
                for item, after in zip(items, [*items[1:], session], strict=True):
                    test = item.nodeid
                    config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        finally:
            try:
                session._setupstate.teardown_exact(None)
            except Exception:
                _tell(config, pipe, _failure(test, traceback.format_exc(), "teardown"))
        code = 0
    except (KeyboardInterrupt, BrokenPipeError):
        code = 130
    except BaseException:
        capture.stop_global_capturing()
        traceback.print_exc()
    finally:
        os._exit(code)


def _next(pipe: Connection) -> Numbers:
    pipe.send(("next", None))
    found: Numbers = pipe.recv()
    return found


def _tell(config: pytest.Config, pipe: Connection, report: pytest.TestReport) -> None:
    pipe.send(("report", config.hook.pytest_report_to_serializable(config=config, report=report)))


class _Teller:
    """Tells the process with the terminal what would be said there."""

    def __init__(self, session: pytest.Session, pipe: Connection) -> None:
        self._numbers = {item: number for number, item in enumerate(session.items)}
        self._pipe = pipe

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        self._pipe.send(("begins", self._numbers[item]))
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            _tell(item.config, self._pipe, report)
        self._pipe.send(("ended", None))
        return True

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str, location: object) -> None:
        warning_message.source = None  # the object that it is about stays here
        heard = {"warning_message": warning_message, "when": when, "nodeid": nodeid, "location": location}
        self._pipe.send(("warned", heard))
