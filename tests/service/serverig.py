"""`fanout serve` as processes over one database, and a transport that writes a ledger. Imported by tests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from fanout.service.auth import UserKey, new_api_key

__all__ = ["Place", "Server", "bearer", "devices", "place_in", "subscribed"]

KEY = new_api_key()

PIGEON = """
import asyncio, os
from fanout.plugin import ACCEPTED, TransportPlugin
from fanout.testing.scripted import ScriptedSettings, ScriptedTransport

ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def script(message, delivery):
    if delivery.address.startswith("never"):
        await asyncio.Event().wait()
    item = message.notification.data.get("feed", {}).get("item", "-")
    os.write(ledger, f"{message.notification.id} {item} {delivery.address}\\n".encode())
    return ACCEPTED

plugin = TransportPlugin(
    name="pigeon", settings=ScriptedSettings, factory=lambda settings, context: ScriptedTransport(script, record=False)
)
"""


@dataclass
class Place:
    """A folder with a configuration and a transport that writes a ledger of what it was given."""

    folder: Path
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    user_key: UserKey | None = None

    @property
    def ledger(self) -> Counter[str]:
        """How often each notification, and each item of a feed, was sent."""
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(word for line in lines for word in {*line.split()[:2]} if word != "-")

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "LEDGER": str(self.folder / "ledger"),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fanout", *words), cwd=self.folder, env=environ, stderr=asyncio.subprocess.PIPE
        )
        self.processes.append(process)
        return process

    async def serve(self, *words: str) -> Server:
        process = await self.start("serve", "--port", "0", *words)
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(60):
            while (found := re.search(r"Serving .* at (http://\S+) ", said)) is None:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        return Server(process, found.group(1), said)


@dataclass
class Server:
    """One `fanout serve`."""

    process: asyncio.subprocess.Process
    url: str
    said: str

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        """Tell it to end; its exit code, how many seconds it took, and what it said."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, rest = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode, time.monotonic() - began, rest.decode()


@asynccontextmanager
async def place_in(folder: Path, storage: str = "sqlite:fanout.db") -> AsyncIterator[Place]:
    """The configuration of such services in a folder; every process that was started has ended when it is left."""
    info = folder / "site" / "pigeon_post-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\npigeon = pigeon_post_service:plugin\n")
    (folder / "site" / "pigeon_post_service.py").write_text(PIGEON)
    (folder / "fanout.toml").write_text(
        f'storage = "{storage}"\n[apps.default.transports.pigeon]\nlimit = 500\n[apps.shop.transports.pigeon]\n'
        f'[[service.keys]]\nid = "{KEY.id}"\nhash = "{KEY.hash}"\napp = "shop"\n'
    )
    found = Place(folder)
    try:
        yield found
    finally:
        for process in found.processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()


def bearer() -> dict[str, str]:
    """The header of the app `shop`."""
    return {"authorization": f"Bearer {KEY.key.reveal()}"}


async def devices(server: Server, *addresses: str) -> None:
    """Register these; what stands before a hyphen is the user."""
    async with httpx.AsyncClient(base_url=server.url, headers=bearer()) as http:
        for address in addresses:
            body = {"user": address.partition("-")[0], "binding": "pigeon", "address": address}
            assert (await http.post("/v1/endpoints", json=body)).status_code == 201


async def subscribed(server: Server, user: str, token: str) -> str:
    """A device of that user; its UNSID."""
    body = {"device_id": f"{user}-phone", "binding": "pigeon", "address": f"{user}-phone"}
    async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as http:
        answer = await http.post("/v1/me/subscriptions", json=body)
        assert answer.status_code == 201, answer.text
        unsid: str = answer.json()["unsid"]
        return unsid
