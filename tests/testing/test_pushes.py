"""`Pushes` and its fixture: what an application sends is found, whoever opens the engine, and nothing of it leaves."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import fanout
import fanout.enqueue
import fanout.sync
from fanout.errors import MessageTooLarge, UsageError
from fanout.plugin import Context, Delivery, Gone, Message, Outcome, Rejected, Submission, Target, TransportPlugin
from fanout.testing import Pushes, ScriptedTransport
from fanout.testing.scripted import ScriptedMessage, ScriptedSettings

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "testing-your-application.md"
HELLO = fanout.Notification(title="Hello", data={"order": 7})
TOML = """
storage = "sqlite:{folder}/fanout.db"

[apps.default.transports.apns]
team_id = "ABCDE12345"
key_id = "ABC123DEFG"
key_file = "absent.p8"
topic = "com.example.shop"

[apps.default.transports.webpush]
vapid_private_key_file = "absent.pem"
vapid_subject = "mailto:ops@example.com"
"""
TOKEN = "ab" * 32
LATER = time.time() + 86_400.0


class Real(ScriptedTransport):
    """One that must not be used: opening it or sending with it is a failure of the test."""

    async def __aenter__(self) -> Any:
        raise AssertionError("a real transport was opened")

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        raise AssertionError("something real was sent")


@pytest.fixture
def pushes() -> Iterator[Pushes]:
    with Pushes() as collected:
        yield collected


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (made := tmp_path / "fanout.toml").write_text(TOML.format(folder=tmp_path))
    return made


@pytest.mark.anyio
async def test_what_is_sent_is_found_at_once_and_its_deliveries_when_they_have_ended(pushes: Pushes) -> None:
    async with fanout.open(storage="memory:", transports={"door": Real()}) as engine:
        await engine.endpoints.register(user="alice", binding="door", address="alice-phone")
        first = await engine.send(HELLO, "user:alice")
        others = await engine.send_many([(HELLO, "user:nobody"), (HELLO, Target.topic("news"))])
        await engine.send(fanout.Notification(title="Later"), "user:alice", at=LATER)
        assert [push.target for push in pushes] == [
            Target.user("alice"), Target.user("nobody"), Target.topic("news"), Target.user("alice"),
        ]  # fmt: skip
        assert [push.notification.title for push in pushes.to("user:alice")] == ["Hello", "Later"]
        assert pushes[0].id == first.id
        assert pushes[0].notification.data == {"order": 7}
        assert pushes[3].due_at == LATER
        for receipt in (first, *others):
            await receipt.wait(60)
        with pytest.raises(TimeoutError, match=r"'Later'\) has not ended within 0.05 s: it is scheduled"):
            await pushes.wait(0.05)
    (delivered,) = pushes[0].deliveries
    assert (delivered.binding, delivered.address, delivered.attempt) == ("door", "alice-phone", 1)
    assert isinstance(delivered.message, ScriptedMessage)
    assert delivered.message.notification.title == "Hello"
    assert not pushes[1].deliveries
    pushes.clear()
    assert not pushes
    assert pushes == []


@pytest.mark.anyio
async def test_a_file_is_enough_though_none_of_its_credentials_exists(pushes: Pushes, config: Path) -> None:
    async with fanout.open(config) as engine:
        await engine.endpoints.register(user="alice", binding="apns", address=TOKEN)
        await engine.send(HELLO, "user:alice")
        (status,) = await pushes.wait()
        with pytest.raises(MessageTooLarge):
            await engine.send(fanout.Notification(title="x" * 5000), "user:alice")
        assert all(diagnosis.ok for diagnosis in (await engine.check()).values())
    assert status.counts["accepted"] == 1
    assert [push.notification.title for push in pushes] == ["Hello"]


def test_without_an_event_loop_and_from_a_process_that_only_submits(pushes: Pushes, config: Path) -> None:
    with fanout.sync.open(config, role="submit") as web:
        web.endpoints.register(user="alice", binding="apns", address=TOKEN)
        web.send(HELLO, "user:alice")
        assert [push.notification.title for push in pushes] == ["Hello"]
        with pytest.raises(TimeoutError, match="no engine is open that delivers"):
            pushes.wait_blocking(0.05)
        with fanout.sync.open(config, role="work") as worker:
            worker.wait(pushes[0].id, 10)
            assert [each.address for each in pushes[0].deliveries] == [TOKEN]
            (status,) = pushes.wait_blocking()
            assert status.counts["accepted"] == 1
    with pytest.raises(UsageError, match="cannot be waited for: no engine is open any more"):
        pushes.wait_blocking()


@pytest.mark.anyio
async def test_two_engines_of_two_apps_add_to_one_list(pushes: Pushes) -> None:
    async with (
        fanout.open(storage="memory:", apps={"news": {"door": Real()}}) as news,
        fanout.open(storage="memory:", apps={"shop": {"door": Real()}}) as shop,
    ):
        await shop.send(HELLO, "user:alice", app="shop")
        await news.send(HELLO, "user:alice", app="news")
        await shop.send(HELLO, "all", app="shop")
        assert [push.app for push in pushes] == ["shop", "news", "shop"]
        assert len(await pushes.wait()) == 3
        with pytest.raises(UsageError, match="would stop this event loop"):
            pushes.wait_blocking()


@pytest.mark.anyio
async def test_answers_are_the_tests_own(pushes: Pushes) -> None:
    said: dict[str, Outcome] = {"alice-phone": Gone("uninstalled"), "alice-tablet": Rejected("too loud")}
    async with fanout.open(storage="memory:", transports={"door": Real()}) as engine:
        for address in said:
            await engine.endpoints.register(user="alice", binding="door", address=address)
        pushes.answer = lambda push, delivery: said[delivery.address]
        await engine.send(HELLO, "user:alice")
        (status,) = await pushes.wait()
    assert (status.counts["gone"], status.counts["rejected"]) == (1, 1)
    assert {each.address: each.outcome for each in pushes[0].deliveries} == said


@pytest.mark.anyio
async def test_a_repeat_of_a_key_is_no_second_push_and_a_refused_call_is_none(pushes: Pushes) -> None:
    async with fanout.open(storage="memory:", transports={"door": Real()}) as engine:
        for _ in range(2):
            await engine.send(HELLO, "user:alice", idempotency_key="once")
        with pytest.raises(fanout.Conflict):
            await engine.send(HELLO, "all", idempotency_key="once")
        with pytest.raises(UsageError):
            await engine.send(HELLO, "nowhere")
    assert len(pushes) == 1


@pytest.mark.anyio
async def test_an_engine_made_from_its_parts_sends_nothing_either(pushes: Pushes) -> None:
    plugin = TransportPlugin(name="door", settings=ScriptedSettings, factory=_real)
    async with fanout.open(storage="memory:", transports={"door": (plugin, {})}) as engine:
        await engine.endpoints.register(user="alice", binding="door", address="alice-phone")
        await engine.send(HELLO, "user:alice")
        await pushes.wait()
    assert len(pushes[0].deliveries) == 1


def _real(settings: ScriptedSettings, context: Context) -> Real:
    return Real()


@pytest.mark.anyio
async def test_what_somebody_else_left_in_the_database_is_neither_sent_nor_lost(config: Path) -> None:
    with Pushes() as earlier:
        async with fanout.open(config, role="submit") as engine:
            await engine.endpoints.register(user="alice", binding="apns", address=TOKEN)
            left = (await engine.send(HELLO, "user:alice")).id
    assert len(earlier) == 1
    tried = asyncio.Event()

    class Watched(Pushes):
        def _deliver(self, binding: str, message: Any, delivery: Delivery) -> Outcome:
            if message.notification == left:
                tried.set()
            return super()._deliver(binding, message, delivery)

    later = Watched().__enter__()
    async with fanout.open(config) as engine:
        await engine.send(fanout.Notification(title="Mine"), "user:alice")
        await later.wait()
        await tried.wait()
        status = await engine.status(left)
    with pytest.warns(UserWarning, match="1 notifications in the database were not sent by this test"):
        later.__exit__()
    assert (status.counts["accepted"], status.finished_at) == (0, None)
    assert [push.notification.title for push in later] == ["Mine"]


@pytest.mark.anyio
async def test_an_engine_that_was_open_before_is_refused_and_so_is_a_second_collection(pushes: Pushes) -> None:
    with pytest.raises(UsageError, match="collected already"), Pushes():
        pass
    pushes.__exit__()
    async with fanout.open(storage="memory:", transports={"door": ScriptedTransport()}) as engine:
        with pytest.raises(UsageError, match="opened before its pushes were collected"), Pushes():
            pass
        await engine.endpoints.register(user="alice", binding="door", address="alice-phone")
        await (await engine.send(HELLO, "user:alice")).wait(60)
    assert not pushes
    with Pushes():  # one that is closed is no obstacle
        pass


def test_an_engine_that_was_dropped_without_being_closed_is_no_obstacle(pushes: Pushes) -> None:
    pushes.__exit__()
    gc.disable()
    try:
        engine: Any = fanout.open(storage="memory:", transports={"door": ScriptedTransport()})
        engine._open = True
        dropped = [engine]
        dropped.append(dropped)
        del engine, dropped
        with Pushes():
            pass
    finally:
        gc.enable()


def test_a_second_exit_leaves_what_was_put_in_place_since(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fanout.enqueue.enqueue
    with monkeypatch.context() as patched:
        patched.setattr(fanout.enqueue, "enqueue", lambda connection, statement: ("", False))
        with Pushes() as pushes:
            pass
    pushes.__exit__()
    assert fanout.enqueue.enqueue is real


def test_what_a_transaction_of_the_hosts_takes_is_found(pushes: Pushes, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Submission] = []

    def run(connection: object, statement: Any) -> tuple[str, bool]:
        ran.append(statement.submission)
        return statement.submission.id, len(ran) > 1

    pushes.__exit__()
    monkeypatch.setattr(fanout.enqueue, "enqueue", run)
    with pushes:
        for _ in range(2):
            fanout.sync.enqueue(object(), HELLO, "user:alice", idempotency_key="once")
    (push,) = pushes
    assert (push.id, push.notification.title, push.target) == (ran[0].id, "Hello", Target.user("alice"))
    with pytest.raises(UsageError, match="no engine is open"):
        pushes.wait_blocking()


def test_the_guides_own_tests_pass_and_the_fixture_is_found_by_pytest(tmp_path: Path) -> None:
    """Each file of the guide, run by a pytest of its own in an empty folder."""
    (declared,) = [each for each in entry_points(group="pytest11") if each.name == "fanout"] or [None]
    assert declared is not None, "pyproject has changed: install the checkout again"
    assert declared.value == "fanout.testing.pytest_plugin"
    blocks = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    (tmp_path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
        "@pytest.fixture(autouse=True)\ndef fresh(monkeypatch, tmp_path):\n"
        "    monkeypatch.setenv('FANOUT_STORAGE', f'sqlite:{tmp_path}/fanout.db')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "--rootdir",
        str(tmp_path),
    ]
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 passed" in ended.stdout
    assert len(blocks) == 6
