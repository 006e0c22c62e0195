"""The blocking facade: the same engine, from any thread, and nothing left when it is closed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import fanout
import fanout.sync

pytestmark = pytest.mark.usefixtures("pigeons")


@pytest.fixture
def engine(pigeons: object) -> Iterator[fanout.sync.Engine]:
    with fanout.sync.open(storage="memory:", transports={"pigeon": {}}) as engine:
        yield engine


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fanout")]


def test_every_call(engine: fanout.sync.Engine) -> None:
    phone = engine.endpoints.register(user="alice", binding="pigeon", address="phone", tags=["news"], platform="ios")
    engine.endpoints.register(user="alice", binding="pigeon", address="tablet")
    assert [endpoint.id for endpoint in engine.endpoints.list(user="alice", tag="news")] == [phone.id]
    assert engine.endpoints.get(phone.id).tags == ("news",)
    receipt = engine.send(fanout.Notification(title="Hello"), "user:alice", idempotency_key="k")
    assert receipt.wait(60).counts["accepted"] == 2
    again = engine.send(fanout.Notification(title="Hello"), "user:alice", idempotency_key="k")
    assert (again.id, again.replayed, again.total) == (receipt.id, True, 2)
    assert receipt.status().finished_at == engine.status(receipt.id).finished_at
    both = engine.send_many([(fanout.Notification(title=t), "user:alice") for t in "ab"])
    assert [engine.wait(one.id, 60).counts["accepted"] for one in both] == [2, 2]
    later = engine.send(fanout.Notification(title="Later"), "user:alice", at=both[0].status().accepted_at + 3600)
    assert later.cancel().state == "cancelled"
    assert engine.cancel(later.id).state == "cancelled"
    held = engine.send(fanout.Notification(title="Held"), "user:alice", at=both[0].status().accepted_at + 3600)
    assert engine.pause(held.id).state == "paused"
    assert engine.resume(held.id).state == "scheduled"
    assert [step.what for step in engine.explain(receipt.id, phone.id)][-1] == "ended"
    engine.pause_binding("pigeon")
    quiet = engine.send(fanout.Notification(title="Quiet"), "user:alice")
    assert quiet.status().pending_by_reason == {"paused": 2}
    engine.resume_binding("pigeon")
    assert quiet.wait(60).counts["accepted"] == 2
    held = list(engine.export_user("alice"))
    assert [each["address"] for each in held if each["kind"] == "endpoint"] == ["phone", "tablet"]
    assert held[-1] == {"kind": "end", "records": len(held) - 1}
    assert {later.id, quiet.id} <= {each["id"] for each in held if each["kind"] == "notification"}
    assert engine.endpoints.remove([phone.id]) == 1
    assert engine.endpoints.restore([phone.id]) == 1
    assert later.id in repr(later)


def test_a_list_longer_than_a_page(engine: fanout.sync.Engine) -> None:
    for number in range(1201):
        engine.endpoints.register(user="alice", binding="pigeon", address=f"device-{number}")
    ids = [endpoint.id for endpoint in engine.endpoints.list()]
    assert len(ids) == 1201
    assert ids == sorted(set(ids))


def test_errors_are_those_of_the_engine(engine: fanout.sync.Engine) -> None:
    with pytest.raises(fanout.NotFound):
        engine.status("nothing")
    with pytest.raises(fanout.UsageError):
        engine.send(fanout.Notification(), "user:")
    with pytest.raises(fanout.AddressInvalid):
        engine.endpoints.register(user="alice", binding="pigeon", address="###")


def test_many_threads_at_once(engine: fanout.sync.Engine) -> None:
    engine.endpoints.register(user="alice", binding="pigeon", address="phone")

    def one(number: int) -> int:
        return engine.send(fanout.Notification(title=str(number)), "user:alice").wait(60).counts["accepted"]

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(one, range(200))) == 200


def test_it_leaves_no_thread_and_says_that_it_is_closed() -> None:
    engine = fanout.sync.open(storage="memory:", transports={"pigeon": {}})
    assert threads()
    engine.close()
    engine.close()
    assert not threads()
    with pytest.raises(fanout.EngineClosed, match=r"fanout\.sync\.open"):
        engine.status("x")


def test_a_call_under_way_ends_when_the_engine_is_closed() -> None:
    engine = fanout.sync.open(storage="memory:", transports={"pigeon": {}})
    receipt = engine.send(fanout.Notification(), "all", at=time.time() + 3600)
    started = threading.Event()
    ends: list[BaseException] = []

    def wait() -> None:
        started.set()
        try:
            receipt.wait()
        except BaseException as error:
            ends.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    started.wait()
    engine.close()
    waiter.join(20)
    assert not waiter.is_alive()
    assert isinstance(ends[0], fanout.EngineClosed)


@pytest.mark.anyio
async def test_it_refuses_to_block_a_running_loop(engine: fanout.sync.Engine) -> None:
    with pytest.raises(fanout.UsageError, match="would block the running event loop"):
        engine.status("x")
    with pytest.raises(fanout.UsageError, match="would block the running event loop"):
        fanout.sync.open(storage="memory:", transports={"pigeon": {}})


def test_a_failed_opening_leaves_nothing() -> None:
    with pytest.raises(fanout.ConfigurationError):
        fanout.sync.open(storage="memory:")
    assert not threads()


def test_an_opening_that_is_interrupted_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("fanout.sync.background.Future", Interrupted)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            fanout.sync.open(storage="memory:", transports={"pigeon": {}})
        assert not threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_it_says_what_to_do(pigeons: object) -> None:
    code = (
        "import os, warnings, fanout, fanout.sync\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # Python's own of a fork beside threads
        "engine = fanout.sync.open(storage='memory:', transports={'pigeon': {}})\n"
        "if os.fork() == 0:\n"
        "    try: engine.status('x')\n"
        "    except fanout.EngineClosed as error: os.write(1, str(error).encode())\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    said = _python(code, pigeons)
    assert "after the fork" in said


def test_a_program_that_forgets_to_close_still_ends(pigeons: object) -> None:
    code = (
        "import fanout, fanout.sync\n"
        "engine = fanout.sync.open(storage='memory:', transports={'pigeon': {}})\n"
        "engine.endpoints.register(user='a', binding='pigeon', address='a')\n"
        "print(engine.send(fanout.Notification(), 'user:a').wait(60).counts['accepted'])\n"
    )
    assert _python(code, pigeons) == "1"


def _python(code: str, site: object) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout.strip()
