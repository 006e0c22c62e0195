"""What every test runs under: asyncio through anyio's plugin, warnings as errors, and no thread left behind."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis.strategies import none

from fanout import registry
from fanout.storage.sqlite import in_memory, opening
from fanout_kit.examples import LONG, SHORT
from fanout_kit.postgres import PostgresServer

# No test meets a certificate of the public's authorities, and to read all of them takes 40 ms of each TLS context.
# Processes that a test starts inherit this.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "authority.pem")

# httpcore asks for this module at each lock of each request. Where it is not installed, Python looks for it in all
# folders each time: a hundredth of the tests' time.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]

# A loaded machine is no failure. What a test states for itself holds instead.
settings.register_profile("short", deadline=None, max_examples=SHORT)
settings.register_profile("long", deadline=None, max_examples=LONG)


_FIRST = ("clocks", "faults", "webpush_browser")
"""Folders whose files begin, one of each by turns: each file is work for a process for long, most of it spent waiting,
beside which others run."""
_DEAR = (
    "contract/test_readme.py",
    "postgres/test_conformance.py",
    "postgres/test_standby.py",
    "cli/test_demo.py",
    "postgres/test_ground.py",
    "postgres/test_sealed.py",
    "postgres/test_enqueue.py",
    "engine/test_evidence.py",
    "service/test_serve.py",
    "service/test_document.py",
    "simulation/test_bugs.py",
    "postgres/test_statements.py",
    "cli/test_processes.py",
    "postgres/test_trouble.py",
    "storage/test_sqlite.py",
    "apns/test_conformance.py",
    "engine/test_fleet.py",
    "webpush/test_conformance.py",
    "postgres/test_connection.py",
    "postgres/test_cost.py",
    "cli/test_early.py",
    "engine/test_watch.py",
    "feed/test_fallback.py",
    "service/test_v1_notifications.py",
    "storage/test_refused.py",
    "postgres/test_clocks.py",
    "storage/test_sealed.py",
    "service/test_graph_publishing.py",
    "service/test_workers.py",
    "service/test_v1_endpoints.py",
    "wns/test_conformance.py",
    "testing/test_pushes.py",
)
"""Files of over seven seconds, which follow: none of them is begun when all others have ended."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="the long form of the fault run (make faults)")
    parser.addoption(
        "--short-rows", action="store_true", help="every row of the fault run in its short form (make faults-short)"
    )
    parser.addoption("--soak", action="store_true", help="the long form of the soak test (make soak)")


def pytest_configure(config: pytest.Config) -> None:
    hear_interrupts()
    PostgresServer.model = Path(tempfile.mkdtemp(prefix="fanout-pg-model-"))
    settings.load_profile("long" if config.getoption("--soak") else "short")


def pytest_unconfigure() -> None:
    if PostgresServer.model is not None:
        shutil.rmtree(PostgresServer.model)
        PostgresServer.model = None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs over two seconds is for `make soak`; the mark says what stands in for it meanwhile."""
    files = {folder: list(dict.fromkeys(item.path for item in items if folder in item.path.parts)) for folder in _FIRST}
    turns = {path: turn for paths in files.values() for turn, path in enumerate(paths)}
    turns |= {_ROOT / file: len(items) + turn for turn, file in enumerate(_DEAR)}
    last = len(items) + len(_DEAR)  # a list that is being sorted has none
    items.sort(key=lambda item: turns.get(item.path, last))
    if config.getoption("--soak"):
        return
    for item in items:
        mark = item.get_closest_marker("long")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs over 2 s: `make soak`; here {mark.args[0]}"))


def hear_interrupts() -> None:
    """A shell without job control (`make test &` in a script) starts what is in its background with SIGINT ignored.
    Programs that a test starts inherit that, and a Ctrl-C typed to one of them would end nothing."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@settings(max_examples=1, database=None, deadline=None)
@given(none())
def _first_example(_: None) -> None:
    pass


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that is made here stays, so that a look for garbage finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays: the garbage collector need not look at half a million objects again and
    again. At what the tests make it looks as seldom as in a program that only delivers."""
    _first_example()  # hypothesis then asks the collector what refers to its generator, and frozen objects are not told
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


# The steps of the schema take 25 ms of each new SQLite file, a copy of one that they made 2. Tests of files and of
# disks that fail, and processes that a test starts, make each file by the steps.
_ROOT = Path(__file__).parent
_BY_STEPS = {"faults", "lifecycle", "simulation", "soak", "testing"}
_COPIED_IN_STORAGE = (
    "test_sqlite",
    "test_sealed",
    "test_model",
    "test_plans",
    "test_values",
    "test_tokens",
    "test_suite_bites",
)
_OLD = "test_devices.py"
"""Makes files of a former version."""
_made_by_steps = opening._make


@pytest.fixture(scope="session", autouse=True)
def copied() -> Iterator[Callable[[Path], None]]:
    """Makes a new SQLite file as a copy, with what each database draws by lot."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.db")
        opening.connect(str(model)).close()
        content = model.read_bytes()

    def copy(path: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with open(descriptor, "wb") as file:
            file.write(content)
        connection = apsw.Connection(name)
        connection.pragma("synchronous", "OFF")
        connection.execute(in_memory._OWN)
        connection.close()
        with suppress(FileExistsError):
            os.link(
                name, path
            )  # as `opening` makes one where it cannot otherwise: it never opens what SQLite may have open
        os.unlink(name)

    yield copy
    opening._make = _made_by_steps


@pytest.fixture(autouse=True)
def new_files(request: pytest.FixtureRequest, copied: Callable[[Path], None]) -> None:
    folder, name = request.path.relative_to(_ROOT).parts[0], request.path.name
    by_steps = folder in _BY_STEPS or name == _OLD or (folder == "storage" and not name.startswith(_COPIED_IN_STORAGE))
    opening._make = _made_by_steps if by_steps else copied


@cache
def _installed(*seen: object) -> list[SimpleNamespace]:
    found = ((each, each.entry_points) for each in distributions())
    ours = [(each, entries) for each, entries in found if any(entry.group.startswith("fanout.") for entry in entries)]
    return [SimpleNamespace(entry_points=entries, metadata=each.metadata) for each, entries in ours]


def _distributions() -> list[SimpleNamespace]:
    changed = [Path(folder).stat().st_mtime_ns if Path(folder).exists() else 0 for folder in sys.path]
    return _installed(*sys.path, *changed, *map(id, sys.meta_path))


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """The metadata of a hundred distributions are read again where a folder has changed, and not for each engine that
    is opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "distributions", _distributions)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(5)  # some libraries tell a thread to end, and do not wait for it
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads left behind: {[thread.name for thread in left]}"


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Give the package's logger back as it was: a command that runs in this process sets it for its own."""
    log = logging.getLogger("fanout")
    before = log.level, log.propagate, log.handlers[:]
    yield
    level, log.propagate, log.handlers[:] = before
    log.setLevel(level)  # which also forgets what was decided by the other level


@pytest.fixture
def no_blocking_call() -> Iterator[None]:
    """Fail a call of our code that blocks the event loop: sleeping, files, sockets, subprocesses."""
    ours = ["fanout", "fanout_apns", "fanout_fcm", "fanout_kit", "fanout_webpush", "fanout_wns"]
    before_it_runs = ["fanout.registry", "fanout.config"]  # plugins and settings are read when an engine is made
    with blockbuster_ctx(ours, excluded_modules=before_it_runs) as watch:
        # Held for the length of a list's append, and asked once when a binding or a database is opened: neither can
        # wait.
        watch.functions["threading.Lock.acquire"].deactivate()
        watch.functions["os.stat"].deactivate()
        yield
