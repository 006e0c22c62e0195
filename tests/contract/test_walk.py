"""The service in docs/service.md and README.md: its configuration is one, its app mounts, and its walk is walked with
curl, as it stands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

import httpx
import psutil
import pytest

import fanout
from fanout.config import load
from fanout.registry import Registry
from fanout.service.auth import new_user_key
from fanout_webpush.vapid import make_vapid_keys
from tests.contract.pages import EXAMPLES, section

SECTION = section("As a service")
WALK = EXAMPLES["walk"]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("FANOUT_")}
PATIENCE = 60.0
Shell = Callable[..., str]


class Told:
    """What a process says on its one pipe, as it says it."""

    def __init__(self, process: subprocess.Popen[str], lines: Iterator[str]) -> None:
        self.process = process
        self.text = ""
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = Thread(target=self._read, args=(lines,))
        self._reader.start()

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._lines.put(line)
        self._lines.put("")

    def until(self, said: Callable[[str], object]) -> str:
        """Everything that was said up to the line that makes `said` true; it is then forgotten."""
        ends = monotonic() + PATIENCE
        while not said(self.text):
            try:
                line = self._lines.get(timeout=max(0.0, ends - monotonic()))
            except Empty:
                raise AssertionError(f"Not said in {PATIENCE:g} s; so far: {self.text}") from None
            assert line, self.text
            self.text += line
        text, self.text = self.text, ""
        return text

    def close(self) -> None:
        for child in psutil.Process(self.process.pid).children() if self.process.poll() is None else ():
            child.kill()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """What the command that the page starts says, on a free port instead of the usual one."""
    (command,) = re.findall(r"^(fanout serve .*?) +#", SECTION, re.MULTILINE)
    words = [sys.executable, "-m", *command.split(), "--port", "0"]
    process = subprocess.Popen(words, cwd=tmp_path, env=ENVIRON, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = Told(process, iter(process.stderr))
    try:
        yield told.until(lambda said: "Token of bob" in said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        told.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell as one types into it: runs commands, and gives back what has been printed by their end."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        ["sh"], cwd=tmp_path, env=ENVIRON, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    writes, told = process.stdin, Told(process, iter(process.stdout))
    number = 0

    def run(commands: str, also: str = "") -> str:
        nonlocal number
        number += 1
        end = f"-- end of {number}"
        writes.write(f"{commands}\necho '{end}'\n")
        return told.until(lambda said: end in said and re.search(also, said))

    try:
        yield run
    finally:
        told.close()


@pytest.mark.timeout(180)  # a service and four gateways are started, on a machine that may be busy
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: apt-get install curl")
def test_the_walk(served: str, shell: Shell) -> None:
    begin, subscribe, follow, post, look, dismiss, end = WALK.strip().split("\n\n")
    shell(begin)
    unsids = re.findall(r"^X-UNS-ID: (\S{22,})$", shell(subscribe), re.MULTILINE)
    assert len(set(unsids)) == 2

    shell(follow, also=r"event: cursor\n")
    # The answer and what the stream prints come as they please, but each event in one piece.
    said = shell(post, also=r"event: change\ndata: .*\n")
    assert "HTTP/1.1 201 Created" in said
    stored, _ = json.JSONDecoder().raw_decode(said, said.index('{"@odata'))
    assert stored["payload"]["visualContent"]["title"] == "Shipped"
    assert f"/me/notifications/{stored['id']}" in said
    (event,) = changes(said)
    assert (event["external_id"], event["action"]) == ("order-42", "none")

    (metrics,) = [line for line in look.splitlines() if "$METRICS" in line]
    ends = monotonic() + PATIENCE
    while not all(f'binding="{name}"' in shell(f"{metrics}; :") for name in ("apns", "fcm")):
        assert monotonic() < ends, "not pushed"
    said = shell(look)
    on_phone, on_tablet = (json.loads(line)["items"] for line in said.splitlines() if line.startswith('{"items"'))
    assert on_phone == on_tablet
    assert [item["external_id"] for item in on_phone] == ["order-42"]
    assert re.search(r'binding="apns".* 1$', said, re.MULTILINE)
    assert re.search(r'binding="fcm".* 1$', said, re.MULTILINE)
    (page,) = re.findall(r"^http://\S+/client/#\S+$", said, re.MULTILINE)
    assert page.partition("#")[0] in served
    assert served.count("the address of a device there: ") == 4
    assert "page.js" in httpx.get(page).text
    token = page.partition("token=")[2].partition("&")[0]
    shown = httpx.get(httpx.URL(page).join("/v1/me/feed"), headers={"authorization": f"Bearer {token}"}).json()
    assert shown["items"] == on_phone

    said = shell(dismiss, also=r"event: change\ndata: .*\n")
    assert re.search(r'^\{"item":.*"action":"dismissed"', said, re.MULTILINE)
    (event,) = changes(said)
    assert (event["external_id"], event["action"]) == ("order-42", "dismissed")
    shell(end)
    assert "over" in shell("wait; echo over")
    the_service_in_the_readme(shell)
    the_python_client(shell)


def the_service_in_the_readme(shell: Shell) -> None:
    registered, posted, feed = (json.loads(line) for line in shell(EXAMPLES["service"]).splitlines() if line[:1] == "{")
    assert (registered["user"], registered["state"]) == ("alice", "active")
    assert posted["total"] >= 1
    assert feed["items"][0]["content"]["body"] == "Order 42 is on its way"


def the_python_client(shell: Shell) -> None:
    shell("export SERVICE ISSUER")
    code = EXAMPLES["app_client"]
    said = shell(f"{shlex.quote(sys.executable)} -W error - <<'EXAMPLE'\n{code}EXAMPLE")
    assert re.search(r"^\d devices$", said, re.MULTILINE), said


def changes(said: str) -> list[dict[str, object]]:
    """What an event stream told."""
    return [json.loads(data) for data in re.findall(r"event: change\ndata: (.*)\n", said)]


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """The page's `[service]` in a configuration that is otherwise whole."""
    (text,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "vapid.pem").write_text(make_vapid_keys().private_pem.reveal())
    id = re.findall(r'user_keys\]\].*?id = "(\w+)"', text, re.DOTALL)[0]
    (tmp_path / "users.secret").write_text(f"fus_{id}_{new_user_key().secret.reveal()[-43:]}")
    before = (
        'storage = "sqlite:fanout.db"\n[apps.default.transports.webpush]\nvapid_private_key_file = "vapid.pem"\n'
        'vapid_subject = "mailto:ops@example.com"\n'
    )
    (tmp_path / "fanout.toml").write_text(before + text)
    return tmp_path


def test_the_configuration_of_the_service(configured: Path) -> None:
    service = load(configured / "fanout.toml", Registry().settings_type, {}).service
    assert service.authenticated
    assert service.host_names == {"app.example.com": "default"}
    assert service.origins == ("https://app.example.com",)
    assert (len(service.issuers), len(service.keys), len(service.user_keys)) == (1, 1, 1)
    assert service.limits.recipients == 10_000


def test_the_app_that_is_mounted(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(configured)
    names: dict[str, object] = {}
    exec(compile(EXAMPLES["mounted"], "service.md", "exec"), names)
    app, push = names["app"], names["push"]

    async def ask() -> tuple[int, int]:
        async with (
            app.router.lifespan_context(app),  # type: ignore[attr-defined]
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as http,  # type: ignore[arg-type]
        ):
            ready = await http.get("/push/ready")
            receipt = await push.state.service.engine.send(fanout.Notification(title="Hi"), "user:alice")  # type: ignore[attr-defined]
            return ready.status_code, receipt.total

    assert asyncio.run(ask()) == (200, 0)
