"""The page of `fanout demo`: where it is served, what is in the feed that it shows, and how it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and pseudo-terminals"),
    pytest.mark.timeout(180),  # four gateways are started, on a machine that may be busy
]

WORDS = ["demo", "--devices", "40", "--users", "10", "--folder", "fanout-demo"]
DEMO = [sys.executable, "-m", "fanout", *WORDS]
WITHOUT_THE_EXTRA = (
    "import sys; sys.modules['fastapi'] = None; sys.argv[0] = 'fanout'; from fanout.cli import main; main()"
)
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("FANOUT_")}
PAGE = re.compile(r"A page that shows it: (http://127\.0\.0\.1:\d+)/client/#token=(fut_\S+)&user=user-9$", re.MULTILINE)


def feed(url: str, token: str) -> list[dict[str, Any]]:
    """What the page shows, once it is known to be there."""
    assert "page.js" in httpx.get(f"{url}/client/").text
    answer = httpx.get(f"{url}/v1/me/feed", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def shown(items: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    return [(item["content"]["title"], item["broadcast"]) for item in items]


@pytest.mark.long("tests/cli/test_demo.py runs the demo")
def test_where_nobody_looks_it_ends_and_says_how_the_page_is_served(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = PAGE.search(done.stdout)
    (command,) = re.findall(r"once it is served: (.*)$", done.stdout, re.MULTILINE)
    assert found
    pipe = subprocess.PIPE
    server = subprocess.Popen(shlex.split(command), cwd="/", env=ENVIRON, stderr=pipe, text=True)
    try:
        assert server.stderr is not None
        assert f"at {found[1]} " in server.stderr.readline()
        items = feed(found[1], found[2])
        assert shown(items) == [("Hello", False), ("Hello, everyone", True)]
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
        assert server.returncode == 0, err
    finally:
        server.kill()
        server.communicate()


@pytest.mark.long("the page is served where nobody looks")
def test_on_a_terminal_it_serves_the_page_until_it_is_told_to_end(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    child = subprocess.Popen(DEMO, cwd=tmp_path, env=ENVIRON, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    try:
        said = ""
        while "Ctrl-C ends it" not in said:
            said += os.read(ours, 4096).decode().replace("\r\n", "\n")
        found = PAGE.search(said)
        assert found
        assert "Try next:" in said
        assert shown(feed(found[1], found[2])) == [("Hello", False), ("Hello, everyone", True)]
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert "Traceback" not in err
    finally:
        child.kill()
        child.communicate()
        os.close(ours)


@pytest.mark.long("the page is served where nobody looks")
def test_without_the_extra_it_says_so_and_goes_on(tmp_path: Path) -> None:
    """In a temporary folder, too: none is named."""
    words = [sys.executable, "-c", WITHOUT_THE_EXTRA, *WORDS[:-2]]
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^The page .* needs the extra 'service'.*$", done.stdout, re.MULTILINE)) == 1
    assert "The broadcast: 40 deliveries" in done.stdout
    assert "/client/" not in done.stdout
