"""The page that subscribes a browser: served, guarded, and as far as a test can go without a browser, used."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import fanout
from fanout_webpush import browser
from fanout_webpush.simulator import WebPushSimulator

pytestmark = pytest.mark.anyio
FOLDER = Path(browser.__file__).parent
POLICY = {"backoff_base": 0.02, "request_timeout": 5.0}


async def test_a_browser_subscribes_and_is_pushed_to() -> None:
    async with (
        WebPushSimulator(keep=True) as server,
        fanout.open(storage="memory:", transports={"webpush": server.settings()}, policy=POLICY) as engine,
        browser.serve(engine, application_server_key=server.key.public) as page,
        aiohttp.ClientSession(page.url) as session,
    ):
        text = await (await session.get("/")).text()
        assert server.key.public in text
        assert "APPLICATION_SERVER_KEY" not in text
        worker = await session.get("/sw.js")
        assert worker.content_type == "text/javascript"
        subscription = {**server.subscribe("me"), "applicationServerKey": server.key.public}
        registered = await (await session.post("/subscribe", json={"subscription": subscription})).json()
        pushed = await (await session.post("/push", json={"id": registered["id"]})).json()
        assert pushed["state"] == "accepted"
        assert page.done.is_set()
        (plaintext,) = server.received[subscription["endpoint"]]
        assert json.loads(plaintext)["title"] == "Hello from fanout"
        dead = await (
            await session.post("/subscribe", json={"subscription": server.subscribe("x", behaviour="dead")})
        ).json()
        assert (await (await session.post("/push", json={"id": dead["id"]})).json())["state"] == "gone"


class Nobody:
    """An engine that is never reached."""

    endpoints = None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:80"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 403),
        ({}, 400),
    ],
)
async def test_no_other_site_may_use_the_page(headers: dict[str, str], status: int) -> None:
    async with browser.serve(Nobody(), application_server_key="k") as page, aiohttp.ClientSession(page.url) as session:  # type: ignore[arg-type]
        sent = {"Content-Type": "application/json", **headers}
        for path in ("/subscribe", "/push"):
            assert (await session.post(path, data="[]", headers=sent)).status == status
        assert (await session.get("/../page.py")).status == 404
        assert (await session.get("/page.py")).status == 404


async def test_a_subscription_that_is_none_is_told_in_a_sentence() -> None:
    async with (
        WebPushSimulator() as server,
        fanout.open(storage="memory:", transports={"webpush": server.settings()}, policy=POLICY) as engine,
        browser.serve(engine, application_server_key=server.key.public) as page,
        aiohttp.ClientSession(page.url) as session,
    ):
        raw: dict[str, Any] = {**server.subscribe("me"), "endpoint": "https://evil.example/secret"}
        response = await session.post("/subscribe", json={"subscription": raw})
        problem = (await response.json())["problem"]
        assert response.status == 400
        assert "allowed_hosts" in problem
        assert "secret" not in problem
        response = await session.post("/push", json={"id": 4711})
        assert response.status == 400
        assert "subscribe it again" in (await response.json())["problem"]
        response = await session.post("/push", data="x" * 20_000, headers={"Content-Type": "application/json"})
        assert response.status == 413


async def test_the_port_is_free_again_afterwards() -> None:
    before = asyncio.all_tasks()
    async with browser.serve(Nobody(), application_server_key="k") as page:  # type: ignore[arg-type]
        port = int(page.url.rsplit(":", 1)[1].rstrip("/"))
    async with browser.serve(Nobody(), application_server_key="k", port=port):  # type: ignore[arg-type]
        pass
    assert asyncio.all_tasks() == before


@pytest.mark.external
def test_the_scripts_are_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not there: install Node.js")
    page = (FOLDER / "index.html").read_text()
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    (tmp_path / "page.mjs").write_text(script)
    for file in (tmp_path / "page.mjs", FOLDER / "sw.js"):
        subprocess.run([node, "--check", str(file)], check=True, capture_output=True)


_HARNESS = """
const events = {};
const shown = [];
globalThis.self = globalThis;
Object.defineProperty(globalThis, "navigator", { value: { setAppBadge: async (n) => shown.push({ badge: n }) } });
globalThis.addEventListener = (name, act) => { events[name] = act; };
globalThis.skipWaiting = () => {};
globalThis.location = { origin: "https://app.example" };
globalThis.registration = { showNotification: async (title, options) => shown.push({ title, ...options }) };
globalThis.clients = { claim: async () => {}, matchAll: async () => [], openWindow: async (url) => shown.push({ opened: url }) };
await import(process.argv[2]);
const fire = async (name, event) => { let work; await events[name]({ ...event, waitUntil: (p) => { work = p; } }); await work; };
for (const text of JSON.parse(process.argv[3])) {
  const data = text === null ? null : { json: () => JSON.parse(text), text: () => text };
  await fire("push", { data });
}
const content = shown.find((each) => each.data?.url)?.data;
await fire("notificationclick", { action: "", notification: { close() {}, data: content } });
await fire("notificationclick", { action: "yes", notification: { close() {}, data: content } });
console.log(JSON.stringify(shown));
"""


@pytest.mark.external
def test_the_service_worker_shows_what_we_send(tmp_path: Path) -> None:
    """In Node, with a browser's functions replaced by ones that write down how they were called."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not there: install Node.js")
    from fanout_webpush.payload import encode

    yes = fanout.Action("yes", "Yes", "https://app.example/yes")
    notifications = [
        fanout.Notification(title="Hi", body="there", badge=3, url="/chat", actions=(yes,), collapse_key="chat"),
        fanout.Notification(data={"n": 1}),
        fanout.Notification(),
    ]
    made = [encode(notification, {}).plaintext for notification in notifications]
    texts = [text.decode() if text is not None else None for text in made] + ["no JSON"]
    (tmp_path / "harness.mjs").write_text(_HARNESS)
    shutil.copy(FOLDER / "sw.js", tmp_path / "sw.mjs")
    command = [node, str(tmp_path / "harness.mjs"), str(tmp_path / "sw.mjs"), json.dumps(texts)]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert shown[0] == {"badge": 3}
    assert (shown[1]["title"], shown[1]["body"], shown[1]["tag"]) == ("Hi", "there", "chat")
    assert shown[1]["actions"] == [{"action": "yes", "title": "Yes"}]
    assert [each["body"] for each in shown[2:5]] == ["Something new has arrived."] * 2 + ["no JSON"]
    assert shown[5:] == [{"opened": "https://app.example/chat"}, {"opened": "https://app.example/yes"}]
