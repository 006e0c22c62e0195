"""`fanout serve` without a configured caller: keys of its own, loopback alone, and everybody is asked for one."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from edgerig import POST, request, say
from proxies import PROXIES

from fanout.service.auth import new_api_key

pytestmark = pytest.mark.anyio

CONFIG = 'storage = "sqlite:fanout.db"\n[apps.default.transports.scripted]\n'


@dataclass
class Served:
    folder: Path
    process: asyncio.subprocess.Process
    address: tuple[str, int]
    said: str

    @property
    def values(self) -> dict[str, str]:
        lines = (self.folder / "fanout-serve.sh").read_text().splitlines()
        return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    info = folder / "site" / "scripted_post-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\nscripted = scripted_post:plugin\n")
    (folder / "site" / "scripted_post.py").write_text(
        "from fanout.testing.scripted import plugin as made\nplugin = made()\n"
    )
    (folder / "fanout.toml").write_text(CONFIG + "[service.limits]\nfailures_per_minute = 1000000\n")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fanout", "serve", "--port", "0"),
        cwd=folder,
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while "The page of a user" not in said:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        found = re.search(r"at http://([0-9.]+):(\d+) ", said)
        assert found is not None, said
        yield Served(folder, process, (found.group(1), int(found.group(2))), said)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


def erase(*lines: str, host: str = "localhost") -> bytes:
    return request("DELETE", "/v1/users/alice", *lines, host=host)


async def test_it_makes_keys_and_asks_everybody_for_one(tmp_path: Path) -> None:
    old = tmp_path / "elsewhere"
    old.write_text("mine")
    (tmp_path / "fanout-serve.sh").symlink_to(old)
    async with served(tmp_path) as rig:
        assert rig.address[0] == "127.0.0.1"
        file = tmp_path / "fanout-serve.sh"
        assert stat.S_IMODE(file.lstat().st_mode) == 0o600
        assert not file.is_symlink()
        assert old.read_text() == "mine"
        values = rig.values
        assert values["SERVICE"] == f"http://127.0.0.1:{rig.address[1]}"
        for secret in (values["API_KEY"], values["USER_KEY"]):
            assert secret not in rig.said
        page = re.search(r"http://\S+/client/#token=(\S+)&user=alice", rig.said)
        assert page is not None
        assert page.group(1) == values["USER_TOKEN"]
        for host in ("localhost", "127.0.0.1:8080", "push.example.com"):
            for lines in ((), ("X-Fanout-App: default",), ("X-Fanout-User: alice",)):
                assert [each.status for each in await say(rig.address, erase(*lines, host=host))] == [401]
        key = f"Authorization: Bearer {values['API_KEY']}"
        assert [each.status for each in await say(rig.address, erase(key))] == [200]
        said = request("POST", "/v1/notifications", key, "Content-Type: application/json", body=POST)
        assert [each.status for each in await say(rig.address, said)] == [202]
        token = f"Authorization: Bearer {values['USER_TOKEN']}"
        assert [each.status for each in await say(rig.address, request("GET", "/v1/me/feed", token))] == [200]
        assert [each.status for each in await say(rig.address, erase(token))] == [403]
        rig.process.send_signal(signal.SIGTERM)
        await rig.process.wait()
        assert not file.exists(), "the keys are good for nothing any more"


@pytest.mark.long("test_following tells the watcher to look")
async def test_a_key_that_is_configured_takes_the_place_of_its_own_within_seconds(tmp_path: Path) -> None:
    """The running program looks at the file by itself; each request is answered by what is in use at that moment."""
    made = new_api_key()
    async with served(tmp_path) as rig:
        own = request("GET", "/v1/endpoints", f"Authorization: Bearer {rig.values['API_KEY']}")
        configured = request("GET", "/v1/endpoints", f"Authorization: Bearer {made.key.reveal()}")

        async def statuses() -> list[int]:
            return [(await say(rig.address, said))[0].status for said in (own, configured)]

        async def until(wanted: list[int]) -> None:
            async with asyncio.timeout(60):
                while await statuses() != wanted:
                    pass

        assert await statuses() == [200, 401]
        key = f'[[service.keys]]\nid = "{made.id}"\nhash = "{made.hash}"\n[service.limits]\nfailures_per_minute = 1000000\n'
        (tmp_path / "fanout.toml").write_text(CONFIG + key)
        await until([401, 200])
        (tmp_path / "fanout.toml").write_text(CONFIG + key.replace("hash", "hsah"))
        assert await statuses() == [401, 200]
        (tmp_path / "fanout.toml").write_text(CONFIG + "[service.limits]\nfailures_per_minute = 1000000\n")
        await until([200, 401])


@pytest.mark.external
@pytest.mark.parametrize(
    "name", ["nginx", pytest.param("haproxy", marks=pytest.mark.long("nginx is the one that leaves no mark"))]
)
async def test_a_proxy_that_rewrites_host_lets_nobody_in(name: str, tmp_path: Path) -> None:
    """nginx's bare `proxy_pass` names the upstream in Host, speaks HTTP/1.0, and adds no mark."""
    async with served(tmp_path) as rig, PROXIES[name](tmp_path, rig.address) as address:
        for host in ("push.example.com", "localhost"):
            assert [each.status for each in await say(address, erase(host=host))] == [401]
