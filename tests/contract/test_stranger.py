"""A stranger's distribution: a module and its metadata in a folder, which nothing of ours knows by name."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import fanout
from fanout.bootstrap import SystemClock
from fanout.plugin import Context
from fanout.registry import Registry
from fanout.testing.transport import Subject, check_transport

pytestmark = pytest.mark.anyio

MODULE = '''
"""Letters by post: each delivery is a file in the addressee's letter box."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fanout.plugin import ACCEPTED, Address, AddressInvalid, Diagnosis, Gone, InvalidMessage, Message, MessageTooLarge
from fanout.plugin import Secret, TransportPlugin, Unavailable


@dataclass(frozen=True)
class PostSettings:
    boxes: Path
    stamp: Secret
    largest: int = 1000


class Letter(Message):
    def __init__(self, text):
        super().__init__(len(text))
        self.text = text


class Post:
    def __init__(self, settings, context):
        self.settings = settings
        self.open = False

    async def __aenter__(self):
        self.open = True
        return self

    async def __aexit__(self, *exc):
        self.open = False

    def parse_address(self, raw):
        if not isinstance(raw, str) or not re.fullmatch(r"[a-z0-9-]{1,40}", raw):
            raise AddressInvalid("A letter box is named by 1 to 40 small letters, digits and dashes.")
        return Address(raw)

    def prepare(self, notification):
        try:
            data = json.dumps(dict(notification.data))
        except TypeError as error:
            raise InvalidMessage(f"data must be plain JSON: {error}.") from None
        text = f"{notification.id}\\n{notification.title or ''}\\n{notification.body or ''}\\n{data}".encode()
        if len(text) > self.settings.largest:
            raise MessageTooLarge("A letter is too heavy: shorten it.", size=len(text), limit=self.settings.largest)
        return Letter(text)

    def capacity(self, group):
        return 10

    async def send(self, message, delivery):
        if not self.open:
            return Unavailable("no", reason="the post office is closed")
        box = self.settings.boxes / delivery.address
        if not box.is_dir():
            return Gone("no such letter box")
        (box / delivery.id).write_bytes(message.text)
        return ACCEPTED

    async def check(self):
        return Diagnosis("" if self.settings.boxes.is_dir() else "boxes is no folder: create it.")


plugin = TransportPlugin(name="post", settings=PostSettings, factory="snail_mail:Post", extra="stamps")
'''


@pytest.fixture
def boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the stranger's distribution; the folder of the letter boxes."""
    site = tmp_path / "site"
    info = site / "snail_mail-3.1.dist-info"
    info.mkdir(parents=True)
    (site / "snail_mail.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: snail-mail\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\npost = snail_mail:plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "snail_mail", raising=False)
    boxes = tmp_path / "boxes"
    for name in ("alice-home", "alice-work"):
        (boxes / name).mkdir(parents=True)
    return boxes


async def test_from_the_configuration_file_to_the_letter_box(boxes: Path, tmp_path: Path) -> None:
    (tmp_path / "stamp.secret").write_text("queen's head")
    (tmp_path / "fanout.toml").write_text(
        'storage = "memory:"\n[apps.default.transports.royal]\ntype = "post"\nboxes = "boxes"\nstamp_file = "stamp.secret"\n'
    )
    async with fanout.open(tmp_path / "fanout.toml") as engine:
        for address in ("alice-home", "alice-work", "alice-gone"):
            await engine.endpoints.register(user="alice", binding="royal", address=address)
        with pytest.raises(fanout.AddressInvalid):
            await engine.endpoints.register(user="alice", binding="royal", address="Alice?")
        with pytest.raises(fanout.MessageTooLarge):
            await engine.send(fanout.Notification(body="x" * 2000), "user:alice")
        status = await (await engine.send(fanout.Notification(title="Hello"), "user:alice")).wait(60)
        assert {state: count for state, count in status.counts.items() if count} == {"accepted": 2, "gone": 1}
        left = [endpoint.address.value async for endpoint in engine.endpoints.list(user="alice")]
        assert left == ["alice-home", "alice-work"]
        assert (await engine.check())["default/royal"].ok
    (letter,) = (boxes / "alice-home").iterdir()
    assert letter.read_text().splitlines()[1] == "Hello"


async def test_it_passes_the_public_suite(boxes: Path) -> None:
    def box(number: int) -> str:
        (boxes / f"box-{number}").mkdir(exist_ok=True)
        return f"box-{number}"

    registry = Registry()
    settings = registry.transport("post").settings(boxes, fanout.Secret("queen's head"))

    @asynccontextmanager
    async def maker() -> AsyncIterator[Subject]:
        import random

        context = Context(app="default", binding="post", clock=SystemClock(), rng=random.Random(1))
        yield Subject(
            transport=registry.make_transport("post", settings, context),
            address=box,
            gone=lambda number: f"nobody-{number}",
            invalid=["", "?", "Alice"],
            secrets=["queen's head"],
        )

    await check_transport(maker)


async def test_a_missing_setting_names_its_place(boxes: Path) -> None:
    with pytest.raises(
        fanout.ConfigurationError, match=r"apps\.default\.transports\.post\.stamp is missing: write it, or"
    ):
        fanout.open(storage="memory:", transports={"post": {"boxes": str(boxes)}})


def test_it_is_listed_with_its_distribution_and_version(boxes: Path) -> None:
    (found,) = [plugin for plugin in Registry().list(load=True) if plugin.name == "post"]
    assert (found.distribution, found.version, found.state) == ("snail-mail", "3.1", "loaded")
