"""What never sends needs no private key: it registers, submits and looks, and whoever sends says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import fanout
from fanout.errors import AddressInvalid, ConfigurationError
from fanout_webpush.browsers import Browser
from fanout_webpush.vapid import VapidKey, make_vapid_keys

pytestmark = pytest.mark.anyio

HI = fanout.Notification(title="Hi")
FILES = {
    "apns": {"key_file": "AuthKey.p8", "key_id": "ABCDE12345", "team_id": "TEAM123456", "topic": "com.example.app"},
    "apns_certificate": {"type": "apns", "cert_file": "push.pem", "topic": "com.example.app"},
    "fcm": {"service_account_file": "service-account.json", "project_id": "shop-1234"},
    "fcm_named": {"type": "fcm", "service_account_file": "service-account.json"},
    "wns": {
        "client_id": "01234567-89ab-cdef-0123-456789abcdef",
        "tenant_id": "example.com",
        "client_secret_file": "wns.secret",
    },
    "webpush": {"vapid_private_key_file": "vapid.pem", "vapid_subject": "mailto:ops@example.com"},
}
"""Each names files that are not there."""
ADDRESSES: dict[str, Any] = {
    "apns": "ab" * 32,
    "apns_certificate": "cd" * 32,
    "fcm": "d1Z-token:" + "A" * 140,
    "fcm_named": "d2Z-token:" + "B" * 140,
    "wns": "https://db5.notify.windows.com/?token=AwYAAAB",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def subscription(public: str, *, named: bool) -> dict[str, Any]:
    browser = Browser.seeded("https://fcm.googleapis.com/fcm/send/abc", public, "good", "1")
    made: dict[str, Any] = browser.subscription()
    return made | ({"applicationServerKey": public} if named else {})


async def test_all_transports_without_any_of_their_files() -> None:
    async with fanout.open(storage="sqlite:x.db", transports=FILES, role="submit") as engine:
        for binding, address in ADDRESSES.items():
            await engine.endpoints.register(user="alice", binding=binding, address=address)
        receipt = await engine.send(HI, "user:alice")
        assert receipt.total == len(ADDRESSES)
        found = await engine.check()
        assert not any(diagnosis.ok for diagnosis in found.values())


@pytest.mark.parametrize("binding", FILES)
async def test_whoever_sends_says_which_file_is_missing(binding: str) -> None:
    engine = fanout.open(storage="memory:", transports={binding: FILES[binding]})
    with pytest.raises(
        ConfigurationError, match=rf"^apps\.default\.transports\.{binding}\b.*(does not exist|cannot be read)"
    ):
        async with engine:
            pass


async def test_web_push_registers_by_its_public_key() -> None:
    pair, other = make_vapid_keys(), make_vapid_keys()
    public = pair.application_server_key
    settings: dict[str, Any] = {"vapid_public_key": public, "vapid_subject": "mailto:ops@example.com"}
    async with fanout.open(storage="sqlite:x.db", transports={"webpush": settings}, role="submit") as engine:
        await engine.endpoints.register(user="alice", binding="webpush", address=subscription(public, named=False))
        with pytest.raises(AddressInvalid, match="not configured"):
            await engine.endpoints.register(
                user="alice", binding="webpush", address=subscription(other.application_server_key, named=True)
            )
    Path("vapid.pem").write_text(pair.private_pem.reveal())  # noqa: ASYNC240
    sender = settings | {"vapid_private_key_file": "vapid.pem"}
    async with fanout.open(storage="sqlite:x.db", transports={"webpush": sender}) as engine:
        (device,) = [found async for found in engine.endpoints.list()]
        assert device.address.kind == VapidKey.load(pair.private_pem).id


async def test_web_push_that_knows_no_key_asks_for_it_in_the_subscription() -> None:
    public = make_vapid_keys().application_server_key
    async with fanout.open(storage="sqlite:x.db", transports={"webpush": FILES["webpush"]}, role="submit") as engine:
        with pytest.raises(AddressInvalid, match="set vapid_public_key"):
            await engine.endpoints.register(user="alice", binding="webpush", address=subscription(public, named=False))
        await engine.endpoints.register(user="alice", binding="webpush", address=subscription(public, named=True))
        for wrong in ("A" * 87, "x", public[:-1] + "*"):
            raw = subscription(public, named=False) | {"applicationServerKey": wrong}
            with pytest.raises(AddressInvalid):
                await engine.endpoints.register(user="alice", binding="webpush", address=raw)


async def test_keys_that_are_no_pair_are_refused_where_they_meet() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    settings = {
        "vapid_private_key": make_vapid_keys().private_pem.reveal(),
        "vapid_public_key": VapidKey(key).public,
        "vapid_subject": "mailto:ops@example.com",
    }
    with pytest.raises(ConfigurationError, match="no pair"):
        async with fanout.open(storage="memory:", transports={"webpush": settings}):
            pass


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vapid_subject": "mailto:ops@example.com"}, "vapid_private_key is missing.*vapid_public_key"),
        ({"vapid_subject": "mailto:ops@example.com", "vapid_public_key": "short"}, "vapid_public_key is no P-256"),
        ({"type": "fcm"}, "service_account is missing.*project_id"),
        ({"type": "fcm", "project_id": "NO GOOD"}, "project_id is 'NO GOOD'"),
    ],
)
def test_something_must_be_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        fanout.open(storage="memory:", transports={"webpush": settings}, role="submit")


async def test_fcm_by_its_project_alone() -> None:
    async with fanout.open(storage="memory:", transports={"fcm": {"project_id": "shop-1234"}}, role="submit") as engine:
        await engine.endpoints.register(user="alice", binding="fcm", address=ADDRESSES["fcm"])
        assert (await engine.send(HI, "user:alice")).total == 1
    with pytest.raises(ConfigurationError, match="service_account is missing"):
        async with fanout.open(storage="memory:", transports={"fcm": {"project_id": "shop-1234"}}):
            pass
