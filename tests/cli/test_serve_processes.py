"""Two `fanout serve` on one database, each with an open event stream: what one is told the other tells, and both end in
time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from fanout.service.auth import new_api_key, new_user_key, user_token

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.timeout(180),  # two services are started, on a machine that may be busy
]

BOUND = 10.0
"""Seconds in which a service ends that is told to, whatever holds on to it."""


@contextmanager
def serving(shell: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service on a free port, and its URL."""
    words = [sys.executable, "-m", "fanout", "serve", "--port", "0"]
    child = subprocess.Popen(words, cwd=shell.folder, env=shell.environ, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        first = child.stderr.readline()
        found = re.search(r" at (http://\S+) ", first)
        assert found, first
        yield child, found[1]
    finally:
        child.kill()
        child.communicate()


def until(lines: Iterator[str], wanted: str) -> str:
    """The first line of a stream that begins so, and no end before it."""
    return next(line for line in lines if line.startswith(wanted))


def test_two_services_tell_of_each_others_changes_and_end_with_streams_open(shell: Any) -> None:
    api, user = new_api_key(), new_user_key()
    shell.config.write_text(
        shell.config.read_text()
        + f'[[service.keys]]\nid = "{api.id}"\nhash = "{api.hash}"\n'
        + f'[[service.user_keys]]\nid = "{user.id}"\nsecret = "{user.secret.reveal()}"\n'
    )
    app = {"authorization": f"Bearer {api.key.reveal()}"}
    alice = {"authorization": f"Bearer {user_token(user.secret, 'default', 'alice')}"}
    with ExitStack() as stack:
        services = [stack.enter_context(serving(shell)) for _ in range(2)]
        http = stack.enter_context(httpx.Client(timeout=60))
        streams = []
        for _, url in services:
            answer = stack.enter_context(http.stream("GET", f"{url}/v1/me/feed/events", headers=alice))
            assert answer.status_code == 200
            streams.append(answer.iter_lines())
            until(streams[-1], "event: cursor")
        body = {"target": "user:alice", "title": "Shipped", "feed": True}
        posted = http.post(f"{services[0][1]}/v1/notifications", json=body, headers=app)
        assert posted.status_code == 202, posted.text
        for lines in streams:
            assert posted.json()["item"] in until(lines, 'data: {"id"')
        began = time.monotonic()
        for process, _ in services:
            process.terminate()
        for lines in streams:
            for _ in lines:
                pass  # an orderly end: a stream that is cut off raises
        for process, _ in services:
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said
            assert "Traceback" not in said
        assert time.monotonic() - began < BOUND
