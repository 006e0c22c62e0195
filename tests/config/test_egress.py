"""The egress proxy as it is configured: for all, for one binding, from a file, from the environment, and told aloud."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout import Notification, Target
from fanout.config import Settings, load
from fanout.errors import ConfigurationError
from fanout.plugin import way_to
from fanout.registry import Registry
from fanout.testing.simulator import Simulator
from fanout_apns.simulator import ApnsSimulator
from fanout_fcm.simulator import FcmSimulator
from fanout_webpush.simulator import WebPushSimulator
from fanout_wns.simulator import WnsSimulator
from tests.http.proxies import tunnels

pytestmark = pytest.mark.anyio

WNS = {
    "client_id": "01234567-89ab-cdef-0123-456789abcdef",
    "tenant_id": "example.com",
    "client_secret": "s",
}
VAPID = {"vapid_private_key": "A" * 42 + "E", "vapid_subject": "mailto:ops@example.com"}


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    path = folder / "fanout.toml"
    path.write_text(text)
    return load(path, Registry().settings_type, environ or {})


def table(name: str, **values: object) -> str:
    lines = [f"[apps.default.transports.{name}]", *(f'{key} = "{value}"' for key, value in values.items())]
    return "\n".join([*lines, ""])


def chosen(settings: Settings, binding: str, host: str = "push.example.com") -> str:
    return way_to(settings.apps["default"][binding].settings.egress(host, 443))


def test_one_for_all_and_another_for_one(tmp_path: Path) -> None:
    text = (
        'storage = "memory:"\nproxy = "http://user:hunter2@all:3128"\n'
        + table("wns", **WNS)
        + table("webpush", **VAPID, proxy="http://own:8080")
        + table("second", type="wns", **WNS, proxy="direct")
    )
    settings = loaded(tmp_path, text)
    assert chosen(settings, "wns") == "through the proxy all:3128"
    assert chosen(settings, "webpush") == "through the proxy own:8080"
    assert chosen(settings, "second") == "directly"
    assert settings.service.proxy is not None
    assert "hunter2" not in repr(settings)


def test_a_proxy_is_a_secret_in_a_file_or_a_variable(tmp_path: Path) -> None:
    (tmp_path / "proxy.secret").write_text("http://user:hunter2@file:3128\n")
    filed = loaded(tmp_path, 'storage = "memory:"\nproxy_file = "proxy.secret"\n' + table("wns", **WNS))
    assert chosen(filed, "wns") == "through the proxy file:3128"
    own = loaded(tmp_path, 'storage = "memory:"\n' + table("wns", **WNS, proxy_file="proxy.secret"))
    assert chosen(own, "wns") == "through the proxy file:3128"
    plain = 'storage = "memory:"\n' + table("wns", **WNS)
    assert chosen(loaded(tmp_path, plain, {"FANOUT_PROXY": "http://var:1"}), "wns") == "through the proxy var:1"
    named = {"FANOUT_DEFAULT_WNS_PROXY": "http://binding:1"}
    assert chosen(loaded(tmp_path, plain, named), "wns") == "through the proxy binding:1"


def test_the_environments_proxy_is_read_where_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://env:3128")
    monkeypatch.setenv("NO_PROXY", "notify.windows.com")
    for name in ("https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    unsaid = loaded(tmp_path, 'storage = "memory:"\n' + table("wns", **WNS))
    assert chosen(unsaid, "wns") == "directly"
    said = loaded(tmp_path, 'storage = "memory:"\nproxy = "environment"\n' + table("wns", **WNS))
    assert chosen(said, "wns") == "through the proxy env:3128"
    assert chosen(said, "wns", "db5.notify.windows.com") == "directly"


def test_who_judges_is_said(tmp_path: Path) -> None:
    judged = table("webpush", **VAPID, proxy="http://p:1") + "proxy_judges = true\n"
    settings = loaded(tmp_path, 'storage = "memory:"\n' + judged)
    proxy = settings.apps["default"]["webpush"].settings.egress("push.example.com", 443)
    assert proxy.named


@pytest.mark.parametrize("place", ["all", "one"])
@pytest.mark.parametrize("wrong", ["https://user:hunter2@p:1", "socks5://p:1", "http://p/path"])
def test_what_is_no_proxy_is_refused_at_the_start(tmp_path: Path, place: str, wrong: str) -> None:
    whole = f'proxy = "{wrong}"\n' if place == "all" else ""
    own = {"proxy": wrong} if place == "one" else {}
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        loaded(tmp_path, f'storage = "memory:"\n{whole}' + table("wns", **WNS, **own))
    assert "hunter2" not in str(caught.value)


def test_aioapns_knows_no_proxy_and_says_so(tmp_path: Path) -> None:
    key = tmp_path / "cert.pem"
    key.write_text("x")
    text = 'storage = "memory:"\nproxy = "http://p:1"\n' + table("apns", cert_file=key, client="aioapns")
    with pytest.raises(ConfigurationError, match=r"aioapns.*knows no proxy"):
        loaded(tmp_path, text)


KINDS: dict[str, type[Simulator]] = {
    "apns": ApnsSimulator,
    "fcm": FcmSimulator,
    "wns": WnsSimulator,
    "webpush": WebPushSimulator,
}


async def test_every_transport_and_token_endpoint_goes_through_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fanout")
    async with AsyncExitStack() as stack:
        simulators = {name: await stack.enter_async_context(kind()) for name, kind in KINDS.items()}
        proxy = await stack.enter_async_context(tunnels())
        transports: dict[str, Any] = {name: each.settings() for name, each in simulators.items()}
        engine = await stack.enter_async_context(
            fanout.open(storage="memory:", transports=transports, proxy=f"http://user:hunter2@127.0.0.1:{proxy.port}")
        )
        for name, each in simulators.items():
            await engine.endpoints.register(user="alice", binding=name, address=each.address(0, "good"))
        receipt = await engine.send(Notification(title="t"), Target.user("alice"))
        status = await receipt.wait()
        assert status.counts["accepted"] == 4
        ports = {int(head.split(b" ")[1].rpartition(b":")[2]) for head in proxy.heads}
        assert ports >= {int(each.url.rpartition(":")[2]) for each in simulators.values()}
        assert all(b"Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in head for head in proxy.heads)
        assert len(proxy.heads) >= 6  # two token endpoints besides the four gateways
    assert f"through the proxy 127.0.0.1:{proxy.port}" in caplog.text
    assert "hunter2" not in caplog.text
