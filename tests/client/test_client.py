"""The typed client against the service on a socket, with API key, user token and both OAuth flows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from fanout.bootstrap import SystemClock
from fanout.client import (
    AppClient,
    ClientCredentials,
    Counts,
    OnBehalfOf,
    ServiceError,
    ServiceUnavailable,
    TokenUnavailable,
    UserClient,
)
from fanout.config import ApiKeySettings, BindingSettings, IssuerSettings, ServiceSettings, Settings, UserKeySettings
from fanout.core.address import Address
from fanout.core.model import Action, Notification, Target
from fanout.engine import Engine, EngineOptions
from fanout.errors import UsageError
from fanout.plugin import Gone, Policy, StorageContext
from fanout.registry import Registry
from fanout.service import create_app
from fanout.service.auth import new_api_key
from fanout.service.auth.user_token import new_user_key, user_token
from fanout.service.server import serving
from fanout.testing.issuer import LoopbackIssuer
from fanout.testing.scripted import ScriptedTransport
from tests.http.proxies import tunnels

pytestmark = pytest.mark.anyio


@dataclass
class Served:
    url: str
    key: str
    alice: str
    issuer: LoopbackIssuer
    push: ScriptedTransport
    bob: str


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    api, user = new_api_key(), new_user_key()
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(LoopbackIssuer())
        found = issuer.settings({"shop": "default", "page": "default"})
        service = ServiceSettings(
            host_names={"shop.example.com": "default"},
            keys=(ApiKeySettings(id=api.id, hash=api.hash),),
            user_keys=(UserKeySettings(id=user.id, secret=user.secret),),
            issuers=(IssuerSettings(**{**found, "algorithms": tuple(found["algorithms"])}),),
        )
        bindings = {"push": BindingSettings("push", None), "other": BindingSettings("other", None)}
        settings = Settings(storage="memory:", apps={"default": bindings}, service=service)
        push = ScriptedTransport()
        engine = Engine(
            Registry().make_storage("memory:", StorageContext(clock=SystemClock())),
            {("default", "push"): push, ("default", "other"): ScriptedTransport()},
            EngineOptions(
                clock=SystemClock(), rng=random.Random(1), policy=Policy(backoff_base=0.02), drain_timeout=0.5
            ),
        )
        app = create_app(engine, settings)
        running = await stack.enter_async_context(app.state.service)
        url = await stack.enter_async_context(serving(app, "127.0.0.1", 0, running.limits))
        alice, bob = (user_token(user.secret, "default", name, ttl=600) for name in ("alice", "bob"))
        yield Served(url, api.key.reveal(), alice, issuer, push, bob)
        await running.drain()


async def lines(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b'{"user": "u%d", "transport": "push", "address": "a%d", "tags": ["news"]}\n' % (number, number)
    yield b"no json\n"


async def done(push: AppClient, id: str) -> None:
    while (await push.status(id)).finished_at is None:
        await asyncio.sleep(0.01)


async def test_an_app_sends_and_follows() -> None:
    async with served() as service, AppClient(service.url, service.key) as push:
        device = await push.register(user="alice", binding="push", address="phone", tags=["vip"])
        notification = Notification(
            title="Shipped",
            data={"order": 42},
            ttl=600,
            lane="urgent",
            actions=(Action("view", "View", "https://a.example"),),
        )
        posted = await push.send(notification, "user:alice", feed={"id": "order-42"})
        assert (posted.total, posted.replayed) == (1, False)
        assert posted.item is not None
        await done(push, posted.id)

        status = await push.status(posted.id)
        assert (status.state, status.counts["accepted"]) == ("done", 1)
        assert [(row.endpoint, row.state) async for row in push.deliveries(posted.id)] == [(device.id, "accepted")]
        assert (await push.explain(posted.id, device.id))[-1].state == "accepted"
        assert (await push.preview(notification, Target.all()))["total"] == 1
        assert [each.id async for each in push.endpoints(tag="vip")] == [device.id]
        assert (await push.endpoint(device.id)).tags == ("vip",)


async def test_a_key_makes_the_same_send_twice_one_notification() -> None:
    async with served() as service, AppClient(service.url, service.key) as push:
        await push.register(user="alice", binding="push", address="phone")
        first = await push.send(Notification(title="Hi"), "user:alice", idempotency_key="k")
        second = await push.send(Notification(title="Hi"), "user:alice", idempotency_key="k")

        assert (second.id, second.replayed) == (first.id, True)
        with pytest.raises(ServiceError) as refused:
            await push.send(Notification(title="Another"), "user:alice", idempotency_key="k")
        assert refused.value.status in (409, 422)
        assert first.id in str(refused.value)
        assert refused.value.request_id


async def test_an_app_manages_what_it_sent_and_its_directory() -> None:
    async with served() as service, AppClient(service.url, service.key) as push:
        report = await push.import_(lines(300))
        assert (report["imported"], report["bad"]) == (300, 1)
        assert len([each async for each in push.endpoints()]) == 300
        later = await push.send(Notification(title="Later"), "topic:news", at=time.time() + 86_400)
        assert (await push.pause(later.id)).state in ("paused", "scheduled")
        assert (await push.resume(later.id)).state == "scheduled"
        assert (await push.cancel(later.id)).state == "cancelled"

        service.push.script = lambda m, d: Gone("Unregistered")
        gone = await push.send(Notification(title="Hi"), "user:u1")
        await done(push, gone.id)
        quarantined = [each async for each in push.endpoints(state="gone")]
        assert [each.reason for each in quarantined] == ["Unregistered"]
        assert await push.restore([quarantined[0].id]) == 1
        await push.remove(quarantined[0].id)
        assert (await push.endpoint(quarantined[0].id)).state == "removed"
        held = [each async for each in push.export("u2")]
        assert [each["kind"] for each in held] == ["user", "endpoint", "seen", "audit", "end"]
        assert (held[1]["address"], held[-1]["records"]) == ("a2", 4)
        assert await push.erase("u2") == 1
        assert [each async for each in push.endpoints(user="u2")] == []


async def test_a_device_moves_to_another_user_with_its_former_unsid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser whose keys have changed: the URL says which device it is, and proves nothing."""

    def parse(transport: ScriptedTransport, raw: Any) -> Address:
        return Address(repr(sorted(raw.items())), identity=raw["endpoint"])

    monkeypatch.setattr(ScriptedTransport, "parse_address", parse)
    async with served() as service:
        hers, his = UserClient(service.url, service.alice), UserClient(service.url, service.bob)
        async with hers, his:
            url = "https://push.example/one"
            held = await hers.subscribe("browser", binding="push", address={"endpoint": url, "auth": "before"})
            after = {"endpoint": url, "auth": "after"}
            for wrong in ("", "0" * len(held.unsid)):
                with pytest.raises(ServiceError) as refused:
                    await his.subscribe("browser", binding="push", address=after, former=wrong)
                assert refused.value.status in (403, 409)
            assert [each.state for each in await hers.subscriptions()] == ["active"], "nothing has changed"
            moved = await his.subscribe("browser", binding="push", address=after, former=held.unsid)
            assert his.unsid == moved.unsid != held.unsid
            assert await hers.subscriptions() == []
            assert len(await his.subscriptions()) == 1


async def test_a_device_reads_and_changes_the_feed_and_the_others_hear_of_it() -> None:
    async with served() as service, AppClient(service.url, service.key) as push:
        phone, laptop = UserClient(service.url, service.alice), UserClient(service.url, service.alice)
        async with phone, laptop:
            held = await phone.subscribe("phone", binding="push", address="phone", receive="none")
            assert (
                await phone.subscribe("phone", binding="push", address="phone-2", receive="none")
            ).unsid == held.unsid
            await laptop.subscribe("laptop")
            assert (await phone.me()) == (await laptop.me())
            assert {each.device_id for each in await laptop.subscriptions()} == {"phone", "laptop"}
            start = (await laptop.feed()).cursor
            heard = laptop.events(start)
            posted = await push.send(Notification(title="Shipped"), "user:alice", feed=True)

            async with asyncio.timeout(60):
                event = await anext(each async for each in heard if each.kind == "change")
            assert event.item is not None
            assert (event.item.id, event.item.content) == (posted.item, {"title": "Shipped"})
            assert await phone.counts() == Counts(unread=1, unseen=1)
            assert await phone.mark_all(action="snoozed") == 1
            assert (await anext(each async for each in heard if each.kind == "change")).item is not None
            assert await phone.mark_all(items=["none"], read=True) == 0
            assert await phone.seen(event.item.id) == await laptop.seen() == Counts(unread=1, unseen=0)
            changed = await phone.dismiss(event.item.id)
            async with asyncio.timeout(60):
                event = await anext(each async for each in heard if each.kind == "change")
            assert event.item is not None
            assert event.item.action == "dismissed"
            await heard.aclose()  # type: ignore[attr-defined]

            page = await laptop.feed(start, status="any")
            assert [(item.id, item.action) for item in page.items] == [(posted.item, "dismissed")]
            with pytest.raises(ServiceError) as stale:
                await laptop.mark(changed.item.id, read=True, if_match='"1"')
            assert stale.value.status == 412
            assert (await laptop.mark(changed.item.id, read=True)).item.read
            assert (await laptop.get(changed.item.id)).etag
            assert (await laptop.delete(changed.item.id)).item.status == "deleted"
            assert (await phone.feed()).items == ()
            await phone.unsubscribe(held.id)
            assert [each.device_id for each in await laptop.subscriptions()] == ["laptop"]


async def test_both_flows_post_in_graphs_shape() -> None:
    async with served() as service, AsyncExitStack() as stack:
        phone = await stack.enter_async_context(UserClient(service.url, service.issuer.sign_in("bob")))
        held = await phone.subscribe("phone", binding="push", address="bobs")
        resource = {
            "targetHostName": "shop.example.com",
            "appNotificationId": "order-42",
            "payload": {"visualContent": {"title": "Shipped"}},
        }
        token_url = f"{service.issuer.url}/token"
        credentials = await stack.enter_async_context(
            ClientCredentials(token_url, "shop", "shop-secret", scope="https://push.example.com/.default")
        )
        app = await stack.enter_async_context(AppClient(service.url, credentials))
        with pytest.raises(ServiceError) as foreign:
            await app.post_graph({**resource, "targetHostName": "other.example.com"}, unsid=held.unsid)
        assert foreign.value.status == 403
        made = await app.post_graph(resource, unsid=held.unsid)
        assert not made.replaced
        assert made.location

        exchange = await stack.enter_async_context(
            OnBehalfOf(token_url, "shop", "shop-secret", scope="Notifications.ReadWrite.CreatedByApp")
        )
        behalf = exchange.for_user(service.issuer.sign_in("bob", client="page", audience="shop"))
        delegated = await stack.enter_async_context(AppClient(service.url, behalf))
        assert (await delegated.post_graph(resource)).replaced, "the same appNotificationId"


async def test_a_refused_token_is_replaced_once() -> None:
    class Source:
        asked = 0

        async def token(self) -> str:
            self.asked += 1
            return "fut_wrong" if self.asked == 1 else self.good

        def invalidate(self, token: str) -> None:
            assert token == "fut_wrong"

        good = ""

    async with served() as service:
        source = Source()
        source.good = service.alice
        async with UserClient(service.url, source) as phone:
            assert (await phone.feed()).items == ()
        assert source.asked == 2
        async with UserClient(service.url, "fut_wrong") as phone:
            with pytest.raises(ServiceError) as refused:
                await phone.feed()
            assert refused.value.status == 401


@asynccontextmanager
async def answering(*answers: web.Response | None) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn (None: none at all), and the idempotency keys that it saw."""
    seen: list[str] = []
    left = list(answers)

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("idempotency-key", ""))
        answer = left.pop(0)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def test_a_send_without_an_answer_is_sent_again_under_the_same_key() -> None:
    accepted = web.json_response({"id": "n", "total": 1, "replayed": True, "item": None, "parts": []}, status=202)
    busy = web.json_response({"error": {"code": "busy", "message": "later"}}, status=503, headers={"retry-after": "0"})
    async with answering(None, busy, accepted) as (url, seen), AppClient(url, "fak_key") as push:
        posted = await push.send(Notification(title="Hi"), "all")

    assert posted.replayed
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0]


async def test_what_is_no_answer_of_the_service_is_said_so() -> None:
    async with (
        answering(*(web.Response(text="<html>") for _ in range(4))) as (url, _),
        AppClient(url, "fak_key") as push,
    ):
        with pytest.raises(ServiceUnavailable, match="no JSON"):
            await push.cancel("n")
    async with answering(web.Response(status=302, headers={"location": "https://elsewhere.example"})) as (url, seen):
        async with AppClient(url, "fak_key") as push:
            with pytest.raises(ServiceError) as moved:
                await push.status("n")
        assert moved.value.status == 302
        assert len(seen) == 1, "a bearer follows no redirect"
    with pytest.raises(UsageError):
        AppClient("push.example.com", "fak_key")
    assert "fak_key" not in repr(AppClient("https://push.example.com", "fak_key"))


async def test_a_client_goes_through_the_proxy_that_it_is_given() -> None:
    async with served() as it, tunnels() as proxy:
        seen: list[bytes] = []

        async def say(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(head)
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        proxy.say = say
        where = f"http://user:hunter2@127.0.0.1:{proxy.port}"
        async with AppClient(it.url, it.key, proxy=where) as app:
            with pytest.raises((ServiceError, ServiceUnavailable)) as caught:
                await app.status("no-such-id")
            assert "hunter2" not in f"{caught.value} {app!r}"
        assert b"Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in seen[0]
        source = ClientCredentials("https://login.example.com/token", "id", "secret", proxy=where)
        with pytest.raises(TokenUnavailable):
            await source.token()
        await source.aclose()
        assert seen[-1].startswith(b"CONNECT login.example.com:443 ")
        with pytest.raises(UsageError, match="proxy"):
            AppClient(it.url, it.key, proxy="socks5://x")
        async with AppClient(it.url, it.key, proxy="direct") as app:
            with pytest.raises(ServiceError):
                await app.status("no-such-id")
