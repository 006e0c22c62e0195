"""The page of `fanout demo --browser` in a real Chromium that has no network: everything but the vendor's own push
service."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.testing.simulator import Answer, Reply, Request, Stall
from fanout_webpush import browser
from fanout_webpush.simulator import WebPushSimulator

pytestmark = [pytest.mark.anyio, pytest.mark.external]

SCRIPT = (Path(__file__).parent / "decrypt.mjs").read_text(encoding="utf-8").replace("export ", "")
ENDPOINT = "https://fcm.googleapis.com/fcm/send/a-real-browser"

# The one thing that is not there without a network: the subscription. Its keys are made here, in the browser.
SUBSCRIBED = (
    f"const ENDPOINT = {json.dumps(ENDPOINT)};\n{SCRIPT}"
    + """
PushManager.prototype.subscribe = async function ({ applicationServerKey }) {
  globalThis.me = await subscriber();
  const subscription = { endpoint: ENDPOINT, keys: me.keys };
  return { ...subscription, options: { applicationServerKey }, toJSON: () => subscription };
};
"""
)
SOON = "const later = setTimeout; window.setTimeout = (act, delay, ...more) => later(act, delay / 10, ...more);"


@dataclass
class Served:
    """The page, and the bodies that its push service received."""

    url: str
    key: str
    bodies: list[bytes] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: Reply(201, {"location": f"{ENDPOINT}/1"}))


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    async with (
        WebPushSimulator() as server,
        fanout.open(storage="memory:", transports={"webpush": server.settings()}, drain_timeout=0.5) as engine,
        browser.serve(engine, application_server_key=server.key.public) as page,
    ):
        served = Served(page.url, server.key.public)

        def take(request: Request) -> Answer:
            assert request.headers["authorization"].endswith(f"k={server.key.public}")
            served.bodies.append(request.body)
            return served.answer

        server.script = take
        yield served


async def opened(chromium: Any, served: Served, *scripts: str, allowed: bool = True) -> Any:
    await chromium.allow_notifications(served.url, allowed=allowed)
    return await chromium.open(served.url, *scripts)


async def test_it_loads_and_is_ready_to_subscribe(chromium: Any) -> None:
    async with serving() as served:
        page = await opened(chromium, served)
        assert await page.run("document.title") == "fanout: a real push"
        assert await page.run("isSecureContext")
        assert await page.run("[...document.querySelectorAll('button')].map((button) => button.disabled)") == [
            False,
            True,
            True,
        ]
        assert await page.run("document.getElementById('says').textContent") == ""


async def test_without_a_network_it_says_so_and_the_service_worker_is_there(chromium: Any) -> None:
    async with serving() as served:
        page = await opened(chromium, served, SOON)
        await page.run("document.getElementById('subscribe').click()")
        said = await page.says("Asking…")
        assert "could not subscribe with its vendor's push service" in said
        assert "offline" in said
        assert said.endswith(".")
        worker = "navigator.serviceWorker.ready.then((found) => found.active.scriptURL)"
        assert await page.run(worker) == f"{served.url}sw.js"
        assert await page.run("document.getElementById('push').disabled")
        assert served.bodies == []


@pytest.mark.parametrize(
    ("script", "allowed", "told"),
    [
        ("", False, "Notifications are blocked for this page"),
        ("delete window.PushManager;", True, "This browser has no Web Push"),
        ("delete Navigator.prototype.serviceWorker;", True, "no service workers"),
        ("Object.defineProperty(window, 'isSecureContext', { value: false });", True, "secure context"),
    ],
)
async def test_where_push_is_unavailable_it_says_why(chromium: Any, script: str, allowed: bool, told: str) -> None:
    async with serving() as served:
        page = await opened(chromium, served, script, allowed=allowed)
        said = await page.says()
        assert told in said
        assert said.endswith(".")
        assert await page.run("document.getElementById('subscribe').disabled")


async def test_a_push_goes_out_and_comes_back_through_the_service_worker(chromium: Any) -> None:
    """The button's push is encrypted by us, decrypted by Chromium's own cryptography, and shown by its service
    worker."""
    async with serving() as served:
        page = await opened(chromium, served, SUBSCRIBED)
        await page.run("document.getElementById('subscribe').click()")
        assert await page.says("Asking…") == "Subscribed. Now send yourself a push."
        await page.run("document.getElementById('push').click()")
        said = await page.says("Subscribed. Now send yourself a push.", "Sending…")
        assert "has accepted it" in said
        (body,) = served.bodies
        plaintext = base64.b64decode(await page.run(f"decrypt(me, {json.dumps(base64.b64encode(body).decode())})"))
        content = json.loads(plaintext)
        assert content["title"] == "Hello from fanout"

        registration = await page.registration()
        await chromium.call(
            "ServiceWorker.deliverPushMessage",
            session=page.session,
            origin=served.url.rstrip("/"),
            registrationId=registration,
            data=plaintext.decode(),
        )
        assert await page.says(said) == "It has arrived: “Hello from fanout”."
        shown = await page.run(
            "navigator.serviceWorker.ready.then((found) => found.getNotifications())"
            ".then((all) => all.map(({ title, body, data }) => ({ title, body, id: data.fanout.id })))"
        )
        assert shown == [{"title": content["title"], "body": content["body"], "id": content["fanout"]["id"]}]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Stall(), "The push service has not answered yet: is there a network?"),
        (Reply(410, reason="gone"), "The push service did not accept it: the delivery is gone."),
    ],
)
async def test_a_push_that_is_not_accepted(
    chromium: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer, told: str
) -> None:
    if isinstance(answer, Stall):
        monkeypatch.setattr("fanout_webpush.browser.page._WAIT", 0.5)
    async with serving() as served:
        served.answer = answer
        page = await opened(chromium, served, SUBSCRIBED)
        await page.run("document.getElementById('subscribe').click()")
        assert await page.says("Asking…") == "Subscribed. Now send yourself a push."
        await page.run("document.getElementById('push').click()")
        assert await page.says("Subscribed. Now send yourself a push.", "Sending…") == told
