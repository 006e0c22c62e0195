"""A real Chromium without a window, spoken to over its DevTools protocol; it can reach loopback and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `webrig`, under --import-mode=importlib

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, where Chromium refuses to start with it
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
_PATIENCE = 30.0


class Chromium:
    """A running Chromium. `call` is one command of the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._next = 0
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._opened: list[str] = []
        self.heard: Callable[[dict[str, Any]], None] = lambda message: None
        """Told of everything; what DevTools reports unasked is among it."""
        self.reader = asyncio.ensure_future(self._read())

    async def call(self, method: str, *, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._next += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[self._next] = answer
        message = {"id": self._next, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        async with asyncio.timeout(_PATIENCE):
            found = await answer
        assert "error" not in found, f"{method}: {found['error']}"
        result: dict[str, Any] = found["result"]
        return result

    async def allow_notifications(self, url: str, *, allowed: bool = True) -> None:
        setting = "granted" if allowed else "denied"
        for name in ("notifications", "push"):
            permission = {"name": name, "userVisibleOnly": True} if name == "push" else {"name": name}
            await self.call("Browser.setPermission", permission=permission, setting=setting, origin=url.rstrip("/"))

    async def open(self, url: str, *scripts: str) -> Page:
        """A new tab with this address, loaded; `scripts` ran before its own."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = Page(self, session, target)
        self._opened.append(target)
        await self.call("Page.enable", session=session)
        for script in scripts:
            await self.call("Page.addScriptToEvaluateOnNewDocument", session=session, source=script)
        await self.call("Page.navigate", session=session, url=url)
        await page.run(
            "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))"
        )
        return page

    async def forget(self) -> None:
        """Close the tabs that were opened, and take back what was allowed."""
        self.heard = lambda message: None
        there = {each["targetId"] for each in (await self.call("Target.getTargets"))["targetInfos"]}
        for target in there.intersection(self._opened):
            await self.call("Target.closeTarget", targetId=target)
        self._opened.clear()
        await self.call("Browser.resetPermissions")

    async def _read(self) -> None:
        async for message in self._socket:
            found = message.json()
            answer = self._pending.pop(found.get("id", 0), None)
            if answer is not None and not answer.done():
                answer.set_result(found)
            self.heard(found)


class Page:
    """One tab."""

    def __init__(self, chromium: Chromium, session: str, target: str) -> None:
        self.chromium = chromium
        self.session = session
        self.target = target

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited, as if the user had just clicked."""
        found = await self.chromium.call(
            "Runtime.evaluate",
            session=self.session,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def registration(self) -> str:
        """The DevTools id of the registration of the service worker. DevTools reports those of other origins too."""
        origin = await self.run("location.origin")
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def heard(message: dict[str, Any]) -> None:
            if message.get("method") == "ServiceWorker.workerRegistrationUpdated" and not found.done():
                for registration in message["params"]["registrations"]:
                    if registration["scopeURL"].startswith(f"{origin}/"):
                        found.set_result(registration["registrationId"])
                        return

        self.chromium.heard = heard
        await self.chromium.call("ServiceWorker.enable", session=self.session)
        async with asyncio.timeout(_PATIENCE):
            return await found

    async def says(self, *unlike: str) -> str:
        """The sentence that the page shows, once it is none of `unlike` and not empty."""
        return str(
            await self.run(
                f"""new Promise((done) => {{
                  const place = document.getElementById("says");
                  const look = () => place.textContent && !{list(unlike)!r}.includes(place.textContent) && done(place.textContent);
                  new MutationObserver(look).observe(place, {{ childList: true, characterData: true, subtree: true }});
                  look();
                }})"""
            )
        )


@asynccontextmanager
async def running_chromium(profile: Path) -> AsyncIterator[Chromium]:
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is there: install chromium")
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            async for line in process.stderr:
                said += line
                if line.startswith(b"DevTools listening on "):
                    break
            else:
                raise AssertionError(f"Chromium did not start: {said.decode()}")
        address = line.decode().split()[-1]
        drained = asyncio.ensure_future(process.stderr.read())
        async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=0) as socket:
            chromium = Chromium(socket)
            try:
                yield chromium
                await chromium.call("Browser.close")
            finally:
                chromium.reader.cancel()
                await asyncio.gather(chromium.reader, return_exceptions=True)
        async with asyncio.timeout(_PATIENCE):
            await drained
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture(scope="module")
async def _browser(anyio_backend: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with running_chromium(tmp_path_factory.mktemp("chromium") / "profile") as running:
        yield running


@pytest.fixture
async def chromium(_browser: Chromium) -> AsyncIterator[Chromium]:
    """One for all tests of a file: to start it takes seconds. A service at a port of its own is an origin of its own,
    which shares nothing."""
    yield _browser
    await _browser.forget()


@pytest.fixture(scope="module")
async def js(anyio_backend: Any) -> AsyncIterator[Any]:
    """A Node with the web client, for all tests of a file."""
    from webrig import node

    async with node() as running:
        yield running


@pytest.fixture(scope="module")
async def _shared(anyio_backend: Any) -> AsyncIterator[Any]:
    from webrig import web

    async with web() as running:
        yield running


@pytest.fixture
async def service(js: Any, _shared: Any) -> AsyncIterator[Any]:
    """The service, for all tests of a file, with users of its own for each test; the tabs in `h.kept` are killed after
    it."""
    _shared.number += 1
    yield _shared
    await js.run("h.kept.tab?.kill(); h.kept = {};")
