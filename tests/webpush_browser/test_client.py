"""The web client of the service in a real Chromium: the module, the worker and the small page, against the service on a
socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import fanout
from fanout.config import ApiKeySettings, BindingSettings, ServiceSettings, Settings, UserKeySettings
from fanout.service import create_app
from fanout.service.auth import new_api_key
from fanout.service.auth.user_token import new_user_key, user_token
from fanout.service.server import serving
from fanout_webpush.simulator import WebPushSimulator

pytestmark = [pytest.mark.anyio, pytest.mark.external]

SHOWN = (
    "navigator.serviceWorker.ready.then((found) => found.getNotifications())"
    ".then((all) => all.map(({ title, tag }) => ({ title, tag })))"
)


@dataclass
class Served:
    """The service, and two who call it: the app, and another device of alice's."""

    url: str
    key: str
    token: str
    app: httpx.AsyncClient
    alice: httpx.AsyncClient

    @property
    def page(self) -> str:
        return f"{self.url}/client/#token={self.token}&user=alice&key={self.key}"

    async def post(self, **more: Any) -> str:
        """Post to alice; the id of the item in her feed."""
        body = {"target": "user:alice", "title": "Shipped", "body": "Order 42", "feed": True, **more}
        answer = await self.app.post("/v1/notifications", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["item"])


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    api, user = new_api_key(), new_user_key()
    service = ServiceSettings(
        keys=(ApiKeySettings(id=api.id, hash=api.hash),), user_keys=(UserKeySettings(id=user.id, secret=user.secret),)
    )
    settings = Settings(
        storage="memory:", apps={"default": {"webpush": BindingSettings("webpush", None)}}, service=service
    )
    token = user_token(user.secret, "default", "alice", ttl=3600)
    async with WebPushSimulator() as gateway:
        engine = fanout.open(storage="memory:", transports={"webpush": gateway.settings()}, drain_timeout=0.5)
        app = create_app(engine, settings)
        async with app.state.service as running, serving(app, "127.0.0.1", 0, running.limits) as url:

            def caller(bearer: str) -> httpx.AsyncClient:
                return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {bearer}"}, timeout=20)

            async with caller(api.key.reveal()) as shop, caller(token) as alice:
                yield Served(url, gateway.key.public, token, shop, alice)
            await running.drain()


async def until(page: Any, expression: str) -> Any:
    """The value of an expression of the page's, as soon as it is true."""
    return await page.run(
        f"""new Promise((done) => {{
          const look = async () => {{ const found = await ({expression}); if (found) {{ watch.disconnect(); clearInterval(again); done(found instanceof Node || found); }} }};
          const watch = new MutationObserver(look), again = setInterval(look, 50);
          watch.observe(document.body, {{ childList: true, subtree: true, attributes: true, characterData: true }});
          look();
        }})"""
    )


async def opened(chromium: Any, service: Served) -> Any:
    await chromium.allow_notifications(service.url)
    page = await chromium.open(service.page)
    assert await until(page, "globalThis.client?.unsid && client.status === 'synchronized'")
    return page


async def deliver(service: Served, page: Any, registration: str, content: Any) -> None:
    """A push to the worker. The page's promise `said` is of the worker's word that it has done with it.

    What is shown is asked for after that, and once: Chromium forgets a notification of which it is asked between the
    note of it and the showing.
    """
    heard = "globalThis.said = new Promise((done) => navigator.serviceWorker.addEventListener('message', done, { once: true }))"
    await page.run(f"{heard}; navigator.serviceWorker.startMessages(); 1")
    await page.chromium.call(
        "ServiceWorker.deliverPushMessage",
        session=page.session,
        origin=service.url,
        registrationId=registration,
        data=json.dumps(content),
    )


def entry(id: str, more: str = "") -> str:
    return f"document.getElementById('item-{id}'){more}"


async def test_the_page_shows_the_feed_and_what_other_devices_do(chromium: Any) -> None:
    async with served() as service:
        first = await service.post(title="Before")
        page = await opened(chromium, service)
        assert await page.run(entry(first, ".querySelector('h2').textContent")) == "Before"

        second = await service.post(title="While it is open")
        assert await until(page, entry(second, "?.classList.contains('unread')"))

        assert (await service.alice.patch(f"/v1/me/feed/{second}", json={"action": "dismissed"})).status_code == 200
        assert await until(page, entry(second, ".classList.contains('done')"))
        assert (await service.alice.delete(f"/v1/me/feed/{first}")).status_code == 200
        assert await until(page, f"!{entry(first)}")


async def test_what_the_page_does_reaches_the_service_and_not_itself_again(chromium: Any) -> None:
    async with served() as service:
        id = await service.post()
        page = await opened(chromium, service)
        await page.run(
            "globalThis.heard = []; client.addEventListener('change', ({ detail }) => heard.push(detail.length))"
        )

        await page.run(f"[...{entry(id)}.querySelectorAll('button')].find((b) => b.textContent === 'Dismiss').click()")

        assert await until(page, entry(id, ".classList.contains('done')"))
        assert await until(page, "client.waiting === 0"), "it is shown at once, and then sent"
        item = (await service.alice.get(f"/v1/me/feed/{id}")).json()
        assert (item["action"], item["read"]) == ("dismissed", False)
        later = await service.post(title="Later")
        assert await until(page, entry(later))
        assert await page.run("heard") == [1, 1], "its own change was not told to it a second time"


async def test_what_is_read_again_is_no_change(chromium: Any) -> None:
    """A feed that is read anew, by a stream that broke, begins before what this page changed itself."""
    async with served() as service:
        id, other = await service.post(), await service.post()
        page = await opened(chromium, service)
        told = await page.run(
            f"""(async () => {{
              const told = [];
              client.addEventListener("change", ({{ detail }}) => told.push(...detail.map((item) => item.id)));
              await client.dismiss("{id}");
              await client.refresh();
              await client.remove("{other}");
              await client.refresh();
              return told;
            }})()"""
        )
        assert told == [id, other]


async def test_the_stream_goes_on_where_it_was_after_it_broke(chromium: Any) -> None:
    async with served() as service:
        page = await opened(chromium, service)
        await page.run("client.stop()")
        missed = await service.post(title="Missed")
        await page.run("client.start()")

        assert await until(page, entry(missed))
        assert await until(page, "client.status === 'synchronized'")


async def test_an_expired_token_is_asked_for_anew_once(chromium: Any) -> None:
    async with served() as service:
        page = await opened(chromium, service)
        id = await service.post()
        assert await until(page, entry(id))
        found = await page.run(
            f"""(async () => {{
              const {{ Fanout }} = await import("/client/fanout.js");
              const asked = [];
              const token = ({{ renew }}) => {{ asked.push(renew); return renew ? {json.dumps(service.token)} : "fut_old"; }};
              const other = new Fanout({{ service: location.origin, token }});
              await other.start();
              other.stop();
              const refused = new Fanout({{ service: location.origin, token: () => "fut_old" }});
              const unauthorized = new Promise((done) => refused.addEventListener("unauthorized", () => done(true)));
              const status = await refused.start().catch((error) => error.status);
              return {{ asked, items: other.items.size, status, unauthorized: await unauthorized }};
            }})()"""
        )
        assert found == {"asked": [False, True], "items": 1, "status": 401, "unauthorized": True}


async def test_row_52_and_53_a_push_is_shown_once_a_foreign_one_not_and_it_leaves_when_dismissed_elsewhere(
    chromium: Any,
) -> None:
    async with served() as service:
        page = await opened(chromium, service)
        await page.run(
            "navigator.serviceWorker.register('/client/worker.js').then(() => navigator.serviceWorker.ready).then(() => 1)"
        )
        registration = await page.registration()
        id = await service.post()
        assert await until(page, entry(id))
        cursor = (await service.alice.get("/v1/me/feed")).json()["cursor"]

        push = {
            "title": "Shipped",
            "body": "Order 42",
            "fanout": {"id": "n"},
            "data": {"feed": {"cursor": cursor, "item": id, "change": "posted"}},
        }
        await deliver(service, page, registration, {"title": "Somebody else's"})
        for _ in range(2):
            await deliver(service, page, registration, push)
            await page.run("said.then(() => 1)")
        assert await page.run(SHOWN) == [{"title": "Shipped", "tag": id}]

        await service.alice.patch(f"/v1/me/feed/{id}", json={"action": "dismissed"})

        assert await until(page, f"{SHOWN}.then((all) => all.length === 0)")


async def test_row_53_a_bare_signal_is_followed_by_a_fetch_and_what_is_new_is_shown(chromium: Any) -> None:
    async with served() as service:
        page = await opened(chromium, service)
        await page.run(
            "navigator.serviceWorker.register('/client/worker.js').then(() => navigator.serviceWorker.ready).then(() => 1)"
        )
        await page.run(
            "client.stop(), 1"
        )  # no page reads it before the worker does: one that is closed lives on a while
        await chromium.call("Target.closeTarget", targetId=page.target)
        page = await chromium.open(f"{service.url}/client/")
        registration = await page.registration()
        id = await service.post(title="Fetched")
        cursor = (await service.alice.get("/v1/me/feed")).json()["cursor"]
        await deliver(service, page, registration, {"fanout": {"id": "n"}, "data": {"feed": {"cursor": cursor}}})
        await page.run("said.then(() => 1)")

        assert await page.run(SHOWN) == [{"title": "Fetched", "tag": id}]


async def test_a_renderer_is_loaded_while_the_worker_installs_and_never_from_elsewhere(chromium: Any) -> None:
    """`store.js` is a classic script as good as any: what it is named by counts."""
    async with served() as service:
        page = await opened(chromium, service)
        code = """(async () => {
          const registered = (renderer) =>
            navigator.serviceWorker
              .register(`/client/worker.js?renderer=${encodeURIComponent(renderer)}`, { scope: `/client/${Math.random()}/` })
              .then(() => true, () => false);
          const other = location.origin.replace("127.0.0.1", "localhost");
          const names = ["/client/store.js", "store.js", `${other}/client/store.js`, `//${other.split("//")[1]}/client/store.js`, "data:text/javascript,1", "/client/none.js"];
          return Promise.all(names.map(registered));
        })()"""
        assert await page.run(code) == [True, True, False, False, False, False]
        policy = (await service.app.get("/client/worker.js")).headers["content-security-policy"]
        assert "script-src 'self'" in policy, "nor by a redirect"


async def test_row_62_the_status_goes_from_offline_to_synchronized(chromium: Any) -> None:
    async with served() as service:
        page = await opened(chromium, service)
        states = await page.run(
            f"""(async () => {{
              const {{ Fanout }} = await import("/client/fanout.js");
              const one = new Fanout({{ service: location.origin, token: {json.dumps(service.token)} }});
              const seen = [one.status];
              one.addEventListener("status", ({{ detail }}) => seen.push(detail));
              await one.start();
              one.stop();
              return seen;
            }})()"""
        )
        assert states == ["offline", "synchronizing", "synchronized", "offline"]


async def test_the_files_are_there_for_pages_of_other_sites() -> None:
    async with served() as service, httpx.AsyncClient(base_url=service.url) as anyone:
        for name, kind in [("", "text/html"), ("fanout.js", "text/javascript"), ("worker.js", "text/javascript")]:
            answer = await anyone.get(f"/client/{name}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            again = await anyone.get(f"/client/{name}", headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304
        assert (await anyone.get("/client/fanout.js")).headers["access-control-allow-origin"] == "*"
        assert (await anyone.get("/client/worker.js")).headers["service-worker-allowed"] == "/"
        for name in ("../app.py", "routes.py", "__init__.py", "%2e%2e/app.py"):
            assert (await anyone.get(f"/client/{name}")).status_code in (401, 404)
