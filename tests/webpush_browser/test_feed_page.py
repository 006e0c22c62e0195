"""The page of the feed in a real Chromium: what a user sees, by mouse, keyboard and screen reader, on a phone and on a
desk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from webrig import Web, web

pytestmark = [pytest.mark.anyio, pytest.mark.external]

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 4
HEBREW = "ההזמנה שלך (42) נשלחה!"
SIZES = {"phone": (360, 640), "desk": (1280, 800)}


@pytest.fixture
async def service() -> AsyncIterator[Web]:
    """A port of its own is an origin of its own: nothing is kept from one test to the next."""
    async with web() as running:
        yield running


async def until(page: Any, expression: str) -> Any:
    return await page.run(
        f"""new Promise((done) => {{
          const look = async () => {{ const found = await ({expression}); if (found) {{ clearInterval(again); done(found instanceof Node || found); }} }};
          const again = setInterval(look, 50);
          look();
        }})"""
    )


async def opened(chromium: Any, service: Web, more: str = "", user: str = "alice") -> Any:
    page = await chromium.open(f"{service.url}/client/#token={service.token(user)}&user={user}{more}")
    assert await until(page, "globalThis.client?.unsid && client.status === 'synchronized'")
    return page


def shown(id: str) -> str:
    return f"!!document.getElementById('{id}')?.checkVisibility()"


async def press(page: Any, key: str) -> None:
    codes = {"Tab": 9, "Enter": 13}
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        await page.chromium.call(
            "Input.dispatchKeyEvent",
            session=page.session,
            type=kind,
            key=key,
            code=key,
            windowsVirtualKeyCode=codes[key],
            **(text if kind == "keyDown" else {}),
        )


def axe() -> str:
    npm = shutil.which("npm")
    root = subprocess.run([npm, "root", "--global"], capture_output=True, text=True).stdout.strip() if npm else ""
    script = Path(root) / "axe-core" / "axe.min.js"
    if not root or not script.exists():
        pytest.skip("axe-core is not there: npm install --global axe-core")
    return script.read_text(encoding="utf-8")


async def problems(chromium: Any, tab: Any, scheme: str, size: str, direction: str) -> list[Any]:
    """What axe finds in the tab, and whether it is wider than its window."""
    width, height = SIZES[size]
    await chromium.call(
        "Emulation.setEmulatedMedia",
        session=tab.session,
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    await chromium.call(
        "Emulation.setDeviceMetricsOverride",
        session=tab.session,
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=size == "phone",
    )
    found = await tab.run(
        f"""(async () => {{
          document.documentElement.dir = "{direction}";
          const {{ violations, passes }} = await axe.run({{ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }});
          const found = violations.map(({{ id, nodes }}) => [id, ...nodes.map((node) => node.html)]);
          if (!passes.some(({{ id }}) => id === "color-contrast")) found.push(["nothing was looked at"]);
          const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
          return over > 0 ? [...found, ["it is wider than the window", over]] : found;
        }})()"""
    )
    assert isinstance(found, list)
    return [[scheme, size, direction, *each] for each in found]


async def looked_at(chromium: Any, service: Web, ways: list[tuple[str, str, str]]) -> list[Any]:
    script = axe()
    await service.post(title=LONG, body=LONG)
    await service.post(title=HEBREW, url="/orders/42")
    read, dismissed = await service.post(title="Read"), await service.post(title="Dismissed")
    await service.ask("alice", "PATCH", f"/v1/me/feed/{read}", json={"read": True})
    await service.ask("alice", "PATCH", f"/v1/me/feed/{dismissed}", json={"action": "dismissed"})
    tabs = [await opened(chromium, service), await chromium.open(f"{service.url}/client/")]
    await tabs[0].run("client.dispatchEvent(new CustomEvent('subscription', { detail: 'denied' })); 1")
    for tab in tabs:
        await tab.run(script + "; 1")
    return [each for tab in tabs for way in ways for each in await problems(chromium, tab, *way)]


async def test_axe_finds_nothing(chromium: Any, service: Web) -> None:
    assert await looked_at(chromium, service, [("light", "phone", "ltr"), ("dark", "desk", "rtl")]) == []


@pytest.mark.long("test_axe_finds_nothing, in two of the eight ways")
async def test_axe_finds_nothing_in_light_and_dark_in_both_directions_on_phone_and_desk(
    chromium: Any, service: Web
) -> None:
    ways = [(scheme, size, way) for scheme in ("light", "dark") for size in SIZES for way in ("ltr", "rtl")]
    assert await looked_at(chromium, service, ways) == []


async def test_what_the_page_shows_of_an_item(chromium: Any, service: Web) -> None:
    page = await opened(chromium, service)
    assert await until(page, shown("empty")), "an empty feed says so"
    assert not await page.run(shown("sign-in")), "the form has gone"
    id = await service.post(title=HEBREW, url="/orders/42", body="<b>Order</b> 42")
    evil = await service.post(title="Evil", url="javascript:alert(1)")
    item = f"document.getElementById('item-{id}')"
    assert await until(page, item)
    assert not await page.run(shown("empty"))
    assert await page.run(f"{item}.querySelector('h2').dir") == "auto", "its direction is its own"
    assert await page.run(f"getComputedStyle({item}.querySelector('h2')).direction") == "rtl"
    assert await page.run(f"{item}.querySelector('.text').textContent") == "<b>Order</b> 42"
    assert await page.run(f"Math.abs(Date.parse({item}.querySelector('time').dateTime) - Date.now()) < 600000")
    assert await page.run(f"{item}.querySelector('time').textContent") == "this minute"
    assert await page.run(f"{item}.querySelector('a').href") == f"{service.url}/orders/42"
    assert await until(page, f"document.getElementById('item-{evil}')")
    assert await page.run(f"document.getElementById('item-{evil}').querySelector('a')") is None
    mark = f"{item}.querySelector('.mark').checkVisibility()"
    assert await page.run(mark)
    assert await until(page, "document.title === '(2) Notifications'"), "two are new"

    await page.run(f"{item}.querySelector('.dismiss').click()")
    assert await until(page, f"{item}.classList.contains('done')")
    assert not await page.run(mark), "what was dismissed has no dot"


async def test_by_keyboard_alone_and_the_focus_is_never_lost(chromium: Any, service: Web) -> None:
    ids = [await service.post(title=f"Item {number}") for number in range(3)]
    page = await opened(chromium, service)
    first, second = (f"document.getElementById('item-{id}')" for id in reversed(ids[1:]))
    await page.run(f"{first}.querySelector('.delete').focus(); globalThis.before = {second}; 1")

    await service.ask("alice", "PATCH", f"/v1/me/feed/{ids[1]}", json={"read": True})
    late = await service.post(title="Late")
    assert await until(page, f"document.getElementById('item-{late}')")
    assert await page.run(f"before === {second}"), "an entry that changed is the same entry"
    assert await page.run(f"document.activeElement === {first}.querySelector('.delete')")
    assert await page.run("document.getElementById('news').textContent") == "New: Late"

    await press(page, "Enter")
    assert await until(page, f"!{first}")
    assert await page.run(f"{second}.contains(document.activeElement)"), "the focus goes on to the next"
    await press(page, "Tab")
    await press(page, "Enter")
    assert await until(page, f"{second}?.classList.contains('done')")
    assert await page.run(f"{second}.contains(document.activeElement)"), "though its button has gone"


async def test_signing_out_and_what_is_wrong_have_their_buttons(chromium: Any, service: Web) -> None:
    await service.post()
    page = await opened(chromium, service)
    await page.run("client.dispatchEvent(new CustomEvent('subscription', { detail: 'ended' })); 1")
    assert await page.run(shown("again"))
    await page.run("document.getElementById('again').click()")
    assert await until(page, f"!{shown('again')}")

    await page.run("document.getElementById('sign-out').click()")
    assert await until(page, f"{shown('sign-in')} && document.getElementById('feed').children.length === 0")
    assert await service.devices("alice") == []
    assert await page.run("location.hash") == ""
    kept = "fanoutStore.place().then((at) => fanoutStore.kept(at, '', 'user', 'wanted', 'unsid'))"
    assert await page.run(kept) == [None, None, None]


async def test_two_tabs_of_one_browser_hear_of_each_other(chromium: Any, service: Web) -> None:
    """They are one device, so that the service tells neither what the other did."""
    id = await service.post()
    one, two = await opened(chromium, service), await opened(chromium, service)
    assert await one.run("client.unsid") == await two.run("client.unsid")
    await one.run(f"client.dismiss('{id}').then(() => 1)")
    assert await until(two, f"document.getElementById('item-{id}').classList.contains('done')")
    await one.run("document.getElementById('sign-out').click()")
    assert await until(two, shown("sign-in"))
