"""The examples of README.md and of docs/ run as they stand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

import fanout
from fanout import bootstrap
from tests.contract.pages import EXAMPLES, PAGES, PYTHON_BLOCKS, ROOT, SHELL_BLOCKS, blocks, section

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
"""Without a plugin that only this repository's environment has, and that takes a second."""
CONFIG = 'storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n'


def run(folder: Path, code: str, *paths: Path) -> str:
    (folder / "program.py").write_text(code)
    found = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([*map(str, [folder, *paths]), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    return found.stdout


def install(folder: Path, name: str, module: str, code: str) -> None:
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fanout.transports]\n{name} = {module}:plugin\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration and the transport that it names."""
    install(
        tmp_path, "pigeon", "readme_pigeon", "from fanout.testing.scripted import plugin as make\nplugin = make()\n"
    )
    (tmp_path / "fanout.toml").write_text(CONFIG)
    return tmp_path


def test_the_first_example_prints_what_it_should(tmp_path: Path) -> None:
    assert run(tmp_path, EXAMPLES["hello"]).strip() == "done 2"
    assert len([line for line in EXAMPLES["hello"].splitlines() if line.strip()]) <= 15


def test_every_python_block_is_python() -> None:
    assert len(PYTHON_BLOCKS) >= 12
    for block in PYTHON_BLOCKS:
        compile(f"async def block():\n{textwrap.indent(block, '    ')}", "a page", "exec")


def test_the_fastapi_example(folder: Path) -> None:
    drive = """
import asyncio

async def ask():
    sent = []
    scope = {"type": "http", "method": "POST", "path": "/orders/17/shipped", "raw_path": b"/orders/17/shipped", "root_path": "",
             "query_string": b"user=alice", "headers": [], "http_version": "1.1", "scheme": "http",
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    async with app.router.lifespan_context(app):
        await app.state.push.endpoints.register(user="alice", binding="pigeon", address="phone")
        await app(scope, receive, send)
        import json
        id = json.loads(sent[1]["body"])["notification"]
        print(sent[0]["status"], (await app.state.push.wait(id, 60)).counts["accepted"])

asyncio.run(ask())
"""
    assert run(folder, EXAMPLES["fastapi"] + drive).strip() == "200 1"


def test_the_django_example(folder: Path) -> None:
    """Against a stand-in for the one name that it takes from Django, so that Django need not be installed."""
    package = folder / "django"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "http.py").write_text("class JsonResponse(dict):\n    pass\n")
    drive = """
class Request:
    POST = {"user": "alice"}

push().endpoints.register(user="alice", binding="pigeon", address="phone")
first, again = shipped(Request, 17), shipped(Request, 17)
assert first == again
print(push().status(first["notification"]).total)
"""
    assert run(folder, EXAMPLES["django"] + drive).strip() == "1"


def test_the_django_example_opens_one_engine_for_sixteen_first_requests(folder: Path) -> None:
    package = folder / "django"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "http.py").write_text("class JsonResponse(dict):\n    pass\n")
    drive = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

class Request:
    POST = {"user": "alice"}

def counted(*given, real=fanout.sync.open, **named):
    opened.append(given)
    return real(*given, **named)

opened, gate = [], Barrier(16)
fanout.sync.open = counted

def first(order):
    gate.wait()
    return shipped(Request, order)["notification"]

with ThreadPoolExecutor(16) as threads:
    assert len(set(threads.map(first, range(16)))) == 16
print(len(opened))
push().close()
"""
    assert run(folder, EXAMPLES["django"] + drive).strip() == "1"


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A street of doors on loopback: its URL and what was rung."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    rung: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            rung.append(f"{self.path} {text}")
            self.send_response(410 if self.path == "/ruin" else 200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    install(tmp_path / "site", "doorbell", "my_doorbell", EXAMPLES["doorbell"])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with HTTPServer(("127.0.0.1", 0), Door) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", rung
        finally:
            server.shutdown()
            thread.join()


def test_the_transport_of_your_own(doors: tuple[str, list[str]]) -> None:
    url, rung = doors
    assert len(EXAMPLES["doorbell"].splitlines()) < 30

    async def ring() -> dict[str, int]:
        async with fanout.open(storage="memory:", transports={"doorbell": {"url": url}}) as engine:
            for address in ("alice", "ruin"):
                await engine.endpoints.register(user="alice", binding="doorbell", address=address)
            with pytest.raises(fanout.AddressInvalid):
                await engine.endpoints.register(user="alice", binding="doorbell", address="a/b")
            status = await (await engine.send(fanout.Notification(title="Ding"), "user:alice")).wait(60)
            return dict(status.counts)

    counts = asyncio.run(ring())
    assert (counts["accepted"], counts["gone"]) == (1, 1)
    assert sorted(rung) == ['/alice {"title": "Ding", "body": null}', '/ruin {"title": "Ding", "body": null}']


def test_the_contract_of_the_transport_of_your_own(tmp_path: Path) -> None:
    """As a stranger runs it: pytest in the folder where the two files are."""
    code = EXAMPLES["contract"]
    body = [line for line in code.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(body) == 5
    (tmp_path / "my_doorbell.py").write_text(EXAMPLES["doorbell"])
    (tmp_path / "test_doorbell.py").write_text(code)
    words = [*PYTEST, "test_doorbell.py"]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stdout
    assert "1 passed" in found.stdout
    broken = EXAMPLES["doorbell"].replace("len(text) > 999", "False")
    (tmp_path / "my_doorbell.py").write_text(broken)
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 1
    assert "Broken law: prepare raises MessageTooLarge" in found.stdout


@pytest.mark.long("the contract without a gateway runs in every run")
def test_the_gateway_of_the_transport_of_your_own(tmp_path: Path) -> None:
    """The stand-in server plays all laws of sending, and one that is broken is named."""
    (tmp_path / "test_sending.py").write_text(EXAMPLES["gateway"])
    words = [*PYTEST, "test_sending.py"]
    for code, said in (
        (EXAMPLES["doorbell"], "1 passed"),
        (EXAMPLES["doorbell"].replace("status == 410", "status == 411"), "Broken law: 410 leads to Gone"),
        (EXAMPLES["doorbell"].replace("ClientTimeout(self.settings.timeout)", "ClientTimeout(60)"), "Broken law"),
    ):
        (tmp_path / "my_doorbell.py").write_text(code)
        found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert said in found.stdout, found.stdout


def test_the_configuration_example_is_a_configuration(tmp_path: Path) -> None:
    """With files that hold keys of the right form, it is one that an engine takes."""
    import tomllib

    from fanout.config import load
    from fanout.registry import Registry
    from fanout_fcm.simulator import FcmSimulator
    from fanout_webpush.vapid import make_vapid_keys

    (text,) = [block for block in blocks("toml", section("The file")) if block.startswith("storage")]
    bindings = tomllib.loads(text)["apps"]["default"]["transports"]
    key = make_vapid_keys().private_pem.reveal()  # Apple's keys are of the same curve and form
    account = FcmSimulator(folder=tmp_path / "google").service_account
    files = {
        bindings["apns"]["key_file"]: key,
        bindings["fcm"]["service_account_file"]: account,
        bindings["webpush"]["vapid_private_key_file"]: key,
        bindings["wns"]["client_secret_file"]: "the secret's value",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "fanout.toml").write_text(text)
    settings = load(tmp_path / "fanout.toml", Registry().settings_type, {})
    assert settings.policy.backoff_cap == 3600
    assert [binding for _, binding, _ in settings.bindings()] == ["apns", "fcm", "webpush", "wns"]
    made = bootstrap.prepare(settings, Registry())
    assert {name for _, name in made.transports} == set(bindings)


def test_each_transport_has_the_readme_that_is_pointed_to() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGES["README.md"])
    assert {str(file.relative_to(ROOT)) for file in (ROOT / "transports").glob("*/README.md")} <= set(linked)


def test_every_command_in_the_examples_exists() -> None:
    import typer

    from fanout.cli.commands import app

    known = typer.main.get_command(app)
    shells = "\n".join(SHELL_BLOCKS)
    lines = [line.partition("#")[0].split() for line in shells.splitlines() if line.startswith("fanout ")]
    lines += [
        line.partition("#")[0].split()[0:] for line in shells.splitlines() if line.startswith(".venv/bin/fanout ")
    ]
    assert len(lines) >= 12
    for _, command, *words in lines:
        assert command in known.commands  # type: ignore[attr-defined]
        found = known.commands[command]  # type: ignore[attr-defined]
        found = getattr(found, "commands", {}).get(words[0], found) if words else found
        options = {name for p in found.params for name in p.opts}
        for flag in (word for word in words if word.startswith("--")):
            assert flag in options, f"fanout {command} has no {flag}"


def test_the_commands_of_the_shell_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block as it stands, in order, against a simulated gateway; ID is the id that a command before it printed."""
    from fanout.cli.gateways import Gateway, toml
    from tests.faults.nursery import Nursery, nursery

    (block,) = blocks("sh", section("From the shell"))
    lines = [line.partition(" #")[0].split() for line in block.splitlines()]
    assert all(words[0] == "fanout" for words in lines)
    (tmp_path / "devices.ndjson").write_text(
        "".join(
            json.dumps({"user": "bob", "transport": "apns", "address": f"600d{n:060x}", "tags": ["news"]}) + "\n"
            for n in range(10)
        )
    )
    for name in [name for name in os.environ if name.startswith("FANOUT_")]:
        monkeypatch.delenv(name)
    said: dict[str, str] = {}

    async def one(processes: Nursery, number: int, words: list[str], id: str) -> str:
        # `work` would go on until it is told to end.
        words = [id if word == "ID" else word for word in words[1:]] + (["--drain"] if words[1] == "work" else [])
        out, err = tmp_path / f"{number}.out", tmp_path / f"{number}.err"
        process = processes.spawn("fanout.cli:main", ["fanout", *words], out=out, log=err, folder=tmp_path)
        code = await process.wait(120)
        assert code == 0, (words, out.read_text(), err.read_text())
        return out.read_text()

    async def all_of_them() -> None:
        async with Gateway("apns", tmp_path / "apple") as apple, nursery() as processes:
            (tmp_path / "fanout.toml").write_text(toml("sqlite:fanout.db", {"apns": apple.settings}, {}))
            id = ""
            for number, words in enumerate(lines):
                out = await one(processes, number, words, id)
                said[" ".join(words[1:])] = out
                if words[1] == "send" and not {"--wait", "--dry-run"} & set(words):
                    id = out.strip()

    asyncio.run(all_of_them())
    assert re.search(r"10 endpoints", said["send --to topic:news --title Hello --dry-run"])
    assert "accepted" in said["send --to user:alice --title Hello --wait"]
    report = json.loads(said["status ID --json"])
    assert (report["state"], report["counts"]["accepted"]) == ("done", 1)
    assert (tmp_path / "vapid.pem").exists()
    assert "wrong" not in said["doctor"]


@pytest.mark.timeout(180)  # four Python processes are started, on a machine that may be busy
def test_the_runbook_has_each_reason_for_waiting_and_its_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a database where one delivery waits behind a breaker and one endpoint is gone."""
    from fanout import cli
    from fanout.core.states import Waiting

    runbook = section("Runbook")
    symptoms = [line.split("|")[1] for line in runbook.splitlines() if line.startswith("| ")]
    for reason in set(Waiting) - {Waiting.READY, Waiting.SCHEDULED}:
        assert any(f"`{reason}`" in symptom for symptom in symptoms), reason
    (block,) = blocks("sh", section("In operation"))
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    commands = list(dict.fromkeys([*lines, *re.findall(r"`(fanout [^`]+)`", runbook)]))
    assert len(commands) >= 12

    install(tmp_path, "pigeon", "readme_loft", LOFT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fanout.toml").write_text(CONFIG + "[policy]\nprobe = 600\n[telemetry]\ntraces = 0.01\n")
    for name in [name for name in os.environ if name.startswith("FANOUT_")]:
        monkeypatch.delenv(name)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fanout", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert ended.value.code == 0, (words, out, err)
        return out.strip()

    gone = run("endpoints", "add", "--user", "bob", "--transport", "pigeon", "dead")
    run("send", "--to", "user:bob", "--title", "T", "--wait")
    phone = run("endpoints", "add", "--user", "alice", "--transport", "pigeon", "phone")
    id = run("send", "--to", "user:alice", "--title", "T")
    # `cancel` leaves nothing to look at, and `work` goes on until it is told to end: they come last.
    calls = [command.split()[1:] for command in commands]
    for words in sorted(calls, key=lambda words: (words[0] == "work", words[0] == "cancel")):
        if words[0] == "work":
            work_until_told_to_end(tmp_path, words)
        else:
            endpoint = gone if words[:2] == ["endpoints", "restore"] else phone
            run(*({"ID": id, "E": endpoint, "B": "pigeon"}.get(word, word) for word in words))


LOFT = """
from fanout.plugin import *
from fanout.testing.scripted import *

def script(message, delivery):
    return Gone("Unregistered", since=4e9) if delivery.address == "dead" else Misconfigured("locked")

def make(settings, context):
    return ScriptedTransport(script)

plugin = TransportPlugin(name="pigeon", settings=ScriptedSettings, factory=make)
"""


def work_until_told_to_end(folder: Path, words: list[str]) -> None:
    """Start the worker as it stands, on a free port and with logs as text; let it begin, and tell it to end."""
    words = ["0" if before == "--metrics" else word for before, word in zip(["", *words], words, strict=False)]
    words = [word for word in words if word not in ("--log-format", "json")]
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    worker = subprocess.Popen(
        [sys.executable, "-m", "fanout", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stderr is not None
        assert re.search("Working on|2 workers", worker.stderr.readline())
        worker.terminate()
        worker.communicate(timeout=120)
        assert worker.returncode == 0, words
    finally:
        worker.kill()
        worker.communicate()


def test_the_metrics_on_the_pages_are_metrics(tmp_path: Path) -> None:
    from fanout.metrics import render
    from fanout_apns.simulator import ApnsSimulator

    async def names() -> set[str]:
        async with (
            ApnsSimulator() as apple,
            fanout.open(storage="memory:", transports={"apns": apple.settings()}) as engine,
        ):
            await engine.endpoints.register(user="alice", binding="apns", address=apple.address(1))
            await (await engine.send(fanout.Notification(title="Hi"), "user:alice")).wait(60)
            return set(re.findall(r"^# TYPE (\w+)", (await render(engine)).decode(), re.MULTILINE))

    known = asyncio.run(names())
    text = "".join(PAGES[f"docs/{name}.md"] for name in ("operations", "runbook", "alerts"))
    used = {name.removesuffix("_bucket") for name in re.findall(r"\bfanout_[a-z_]+", text)}
    assert len(used) >= 8
    assert used <= known, used - known
