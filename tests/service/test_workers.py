"""The service in several processes of one server: `uvicorn --factory fanout.service:from_config --workers 2`, and what
a fork copies."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from fanout.errors import ConfigurationError
from fanout.service import from_config
from fanout.service.auth import new_api_key

KEY = new_api_key()

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

_Until = Callable[[str, int], Awaitable[str]]


def configure(folder: Path, subject: str) -> None:
    """A configuration with one transport, which nobody asks to send."""
    key = urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    (folder / "fanout.toml").write_text(
        f'storage = "sqlite:fanout.db"\n[apps.default.transports.webpush]\nvapid_private_key = "{key}"\n{subject}\n'
        f'[[service.keys]]\nid = "{KEY.id}"\nhash = "{KEY.hash}"\n'
    )


@asynccontextmanager
async def workers(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, _Until]]:
    """uvicorn with two of them, and a way to wait until it has said something so many times; what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--factory", "fanout.service:from_config", "--workers", "2", "--port", "0"),
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    said = ""

    async def until(words: str, times: int) -> str:
        nonlocal said
        assert process.stderr is not None
        async with asyncio.timeout(120):
            while said.count(words) < times and (line := await process.stderr.readline()):
                said += line.decode()
        return said

    try:
        yield process, until
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_every_worker_of_a_server_answers(tmp_path: Path) -> None:
    configure(tmp_path, 'vapid_subject = "mailto:ops@example.com"')
    async with workers(tmp_path) as (_, until):
        said = await until("Application startup complete", 2)
        found = re.search(r"running on (http://\S+)", said)
        assert found is not None, said
        ids = set()
        for _ in range(20):  # a connection each, so that either may take it
            async with httpx.AsyncClient(
                base_url=found.group(1), headers={"authorization": f"Bearer {KEY.key.reveal()}"}, timeout=20
            ) as http:
                answer = await http.post("/v1/notifications", json={"target": {"user": "alice"}, "title": "Hi"})
                assert answer.status_code == 202, answer.text
                ids.add(answer.json()["id"])
        assert len(ids) == 20


async def test_a_server_with_a_wrong_configuration_ends_and_says_why(tmp_path: Path) -> None:
    """It would start workers for ever otherwise, and whoever connects would wait."""
    configure(tmp_path, "")
    async with workers(tmp_path) as (process, until):
        said = await until("Stopping parent process", 1)
        await asyncio.wait_for(process.wait(), 60)
    assert "vapid_subject is missing" in said
    assert "Traceback" not in said
    # The server may have replaced one that ended before it heard of it; that it ends at all is what keeps it from doing
    # so for ever.
    assert said.count("Started server process") >= 2


async def test_a_host_is_told_of_a_wrong_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, "")
    with pytest.raises(ConfigurationError, match="vapid_subject"):
        from_config(tmp_path / "fanout.toml")
    monkeypatch.chdir(tmp_path)
    app = from_config()
    with pytest.raises(ConfigurationError, match="vapid_subject"):
        async with app.state.service:
            pass
    with pytest.raises(ConfigurationError, match="vapid_subject"):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            await http.get("/health")


FORKS = """
import os
from fanout.bootstrap import prepare
from fanout.config import Settings
from fanout.core.feed import FeedChange
from fanout.registry import Registry
from fanout.service.call import _next_id
from fanout.service.feed.plan import Platforms
from fanout.service.feed.posting import change_requests

parts = prepare(Settings(storage="memory:", apps={}), Registry())
child = os.fork()
requests = change_requests(Platforms({}), "shop", "alice", FeedChange(item="x", read=True), 1.0)
drawn = [*(request.submission.id for request in requests), parts.rng.randbytes(8).hex(), _next_id()]
os.write(1, f"{' '.join(drawn)}\\n".encode())  # in one piece: the other process writes at the same time
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_draw_ids_of_their_own() -> None:
    ran = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=True)
    one, other = (line.split() for line in ran.stdout.splitlines())
    assert len(one) == len(other) >= 3
    assert not set(one) & set(other)
