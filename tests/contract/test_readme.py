"""The examples of README.md run as they stand."""

from __future__ import annotations

import asyncio
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

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", README, re.DOTALL))
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONFIG = 'storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n'


def run(folder: Path, code: str, *paths: Path) -> str:
    (folder / "program.py").write_text(code)
    found = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [folder, *paths]))},
        capture_output=True,
        text=True,
        timeout=50,
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
    assert len(PYTHON_BLOCKS) > len(EXAMPLES)
    for block in PYTHON_BLOCKS:
        compile(f"async def block():\n{textwrap.indent(block, '    ')}", "README.md", "exec")


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
        print(sent[0]["status"], (await app.state.push.wait(id, 20)).counts["accepted"])

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
            status = await (await engine.send(fanout.Notification(title="Ding"), "user:alice")).wait(20)
            return dict(status.counts)

    counts = asyncio.run(ring())
    assert (counts["accepted"], counts["gone"]) == (1, 1)
    assert sorted(rung) == ["/alice Ding", "/ruin Ding"]


def test_the_configuration_example_is_a_configuration() -> None:
    import tomllib

    from fanout.config.document import Document

    (text, *_) = re.findall(r"```toml\n(storage.*?)```", README, re.DOTALL)
    document = Document.of(tomllib.loads(text))
    assert document.policy.backoff_cap == 3600
    assert [table.type for table in document.bindings] == ["apns"]


def test_every_command_in_the_examples_exists() -> None:
    import typer

    from fanout.cli.commands import app

    known = typer.main.get_command(app)
    shells = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    lines = [line.partition("#")[0].split() for line in shells.splitlines() if line.startswith("fanout ")]
    assert len(lines) >= 8
    for _, command, *words in lines:
        assert command in known.commands  # type: ignore[attr-defined]
        options = {name for p in known.commands[command].params for name in p.opts}  # type: ignore[attr-defined]
        for flag in (word for word in words if word.startswith("--")):
            if command != "endpoints":
                assert flag in options, f"fanout {command} has no {flag}"
